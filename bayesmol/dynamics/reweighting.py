"""Moments at equilibrium from trajectories that are not: every pair has the weight of its start at equilibrium."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.moments import Basis, moments, windows
from bayesmol.dynamics.spectra import centred_whitening
from bayesmol.errors import ConvergenceError, expected
from bayesmol.representation.basis import with_constant

__all__ = ["EquilibriumMoments", "density_ratio", "equilibrium_moments"]

_BLOCKS, _MEMORY = 1000, 4e8  # blocks, and bytes of their moments
_ENOUGH = 100  # trajectories that need not be divided
_NEGATIVE = 0.01  # of the sum of the sizes of all weights
_SINGULAR = 1e-10


@dataclass(frozen=True, eq=False)
class EquilibriumMoments:
    r"""Third moments of the pairs of each block, from which those at equilibrium follow for any weights of blocks.

    The weights of pairs are :math:`w(x_t) = \sum_k u_k \chi_k(x_t)` with the coefficients of :func:`density_ratio`.

    Attributes
    ----------
    early, cross, late
        :math:`\sum \chi_k(x_t) \chi_i \chi_j` with :math:`\chi_i \chi_j` at both ends as in
        :class:`~bayesmol.dynamics.moments.Moments`, and k as the first axis.
    trajectory
        Which trajectory each block is of, or which group of trajectories.
    lag, length
        τ, and frames of a block.
    independent
        Combinations of the functions that are linearly independent, the constant one first.
    """

    early: Float[Tensor, "blocks functions functions functions"]
    cross: Float[Tensor, "blocks functions functions functions"]
    late: Float[Tensor, "blocks functions functions functions"]
    trajectory: Int[Tensor, " blocks"]
    lag: int
    length: int
    independent: Float[Tensor, "functions rank"]

    @property
    def sizes(self) -> Float[Tensor, " blocks"]:
        """Number of pairs in each block."""
        return self.early[:, 0, 0, 0]

    @property
    def pairs(self) -> float:
        """Number of pairs in all blocks."""
        return float(self.sizes.sum())

    @property
    def coefficients(self) -> Float[Tensor, " functions"]:
        """Those of the weights of pairs, from all blocks."""
        return self._coefficients(self.early.sum(0) / self.pairs, self.cross.sum(0) / self.pairs)

    @property
    def shares(self) -> Float[Tensor, " blocks"]:
        """Sum of the weights of the pairs of each block: its part in every mean."""
        return self.early[:, :, 0, 0] @ self.coefficients

    @property
    def effective_sample_size(self) -> float:
        r""":math:`(\sum w)^2 / \sum w^2`: as many pairs of equal weight are worth as much, were they independent."""
        u = self.coefficients
        return self.pairs**2 / float(u @ self.early[:, 0].sum(0) @ u)

    def projected(self, columns: Float[Tensor, "functions fewer"]) -> EquilibriumMoments:
        """Moments of linear combinations of the functions, which are independent."""
        early, cross, late = (
            torch.einsum("bkij,kl,im,jn->blmn", part, columns, columns, columns)
            for part in (self.early, self.cross, self.late)
        )
        identity = torch.eye(columns.shape[1]).to(columns)
        return EquilibriumMoments(early, cross, late, self.trajectory, self.lag, self.length, identity)

    def mean(self, weights: Float[Tensor, "draws blocks"] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Early, cross and late moments of a pair at equilibrium, for each row of weights with its own reweighting.

        Raises
        ------
        ConvergenceError
            If weights are so negative that second moments are not positive.
        """
        rows = torch.ones_like(self.sizes)[None] if weights is None else weights
        pairs = (rows @ self.sizes)[:, None, None, None]
        third = [torch.einsum("db,bkij->dkij", rows, part) / pairs for part in (self.early, self.cross, self.late)]
        u = self._coefficients(*third[:2])
        early, cross, late = (torch.einsum("dk,dkij->dij", u, part) for part in third)
        inner = self.independent.mT @ (early + late) @ self.independent
        if bool((failed := torch.linalg.cholesky_ex(inner).info > 0).any()):
            got = f"others in {int(failed.sum())} of {len(failed)} draws"
            raise ConvergenceError(expected("weights at equilibrium", "positive second moments", got, _REMEDY))
        return (early, cross, late) if weights is not None else (early[0], cross[0], late[0])

    def _coefficients(self, early: Tensor, cross: Tensor) -> Float[Tensor, "*draws functions"]:
        c00, c01 = (self.independent.mT @ part[..., 0, :, :] @ self.independent for part in (early, cross))
        return density_ratio(c00, c01) @ self.independent.mT


_REMEDY = "use functions that can represent the ratio of densities, such as Indicators, or start in more places"


def density_ratio(
    early: Float[Tensor, "*draws functions functions"], cross: Float[Tensor, "*draws functions functions"]
) -> Float[Tensor, "*draws functions"]:
    r"""Coefficients u of the weights :math:`w = u^\top \chi` that make the starts of the pairs stationary.

    No function of the basis has another mean after one lag, :math:`E[w(x_t) \chi(x_{t+\tau})] = E[w(x_t) \chi(x_t)]`,
    which is

    .. math:: C_{01}^\top u = C_{00}\, u, \qquad E[w] = 1,

    so :math:`C_{00} u` is the left eigenvector of :math:`K = C_{00}^{-1} C_{01}` to the eigenvalue one, which it has
    since the constant function is among χ. If the ratio of the densities at equilibrium and of the starts is in the
    span of the basis, w is that ratio.

    Parameters
    ----------
    early, cross
        Of linearly independent functions, the constant one first.

    Raises
    ------
    ConvergenceError
        If the eigenvalue one is not simple.

    References
    ----------
    Wu, Nüske, Paul, Klus, Koltai, Noé, J. Chem. Phys. 146, 154104 (2017).
    """
    system = cross.mT - early
    system[..., 0, :] = early[..., 0, :]  # the equation of the constant function is empty: that of the mean instead
    sizes = torch.linalg.svdvals(system)
    if not bool((sizes[..., -1] > _SINGULAR * sizes[..., 0]).all()):
        aim, got = "one eigenvalue of one", "parts that are not connected, or states that are entered and never left"
        raise ConvergenceError(expected("trajectories", aim, got, "sample the way between them, or leave states out"))
    right = torch.zeros_like(system[..., 0])
    right[..., 0] = 1
    return torch.linalg.solve(system, right[..., None])[..., 0]


def equilibrium_moments(
    trajectories: Trajectories, basis: Basis, lag: int, *, block: int | None = None
) -> EquilibriumMoments:
    """Block moments of trajectories that start anywhere, reweighted to equilibrium.

    From a hundred trajectories on each is a block, and several together where not all fit in memory.

    Raises
    ------
    DataError, ConvergenceError
        If the lag is not positive; no trajectory is longer; there is no unique equilibrium; or more than 1 % of the
        weights, by size, are negative.
    """
    plain = moments(trajectories, basis, lag, block=max(trajectories.lengths))
    early, cross, late = plain.mean()
    independent = centred_whitening((early + late) / 2)
    u = density_ratio(*(independent.mT @ part @ independent for part in (early, cross)))
    starts = (part[:-lag] for part in trajectories if len(part) > lag)
    _refuse_negative(torch.cat([with_constant(basis(part)) @ (independent @ u) for part in starts]))
    return _third_moments(trajectories, basis, lag, block, independent)


def _refuse_negative(weights: Float[Tensor, " pairs"]) -> None:
    share = float(-weights.clamp(max=0).sum() / weights.abs().sum())
    if share > _NEGATIVE:
        raise ConvergenceError(
            expected("weights at equilibrium", "none below zero", f"{100 * share:.2g} % of their size", _REMEDY)
        )


def _third_moments(
    trajectories: Trajectories, basis: Basis, lag: int, block: int | None, independent: Tensor
) -> EquilibriumMoments:
    most = max(2, min(_BLOCKS, int(_MEMORY / (24 * len(independent) ** 3))))
    together = math.ceil(len(trajectories) / most)
    whole = max(trajectories.lengths) if len(trajectories) >= _ENOUGH else 0
    block = block or max(lag, whole, math.ceil(trajectories.frames / most))
    sums: dict[tuple[int, int], tuple[Tensor, ...]] = {}
    for k, part in enumerate(trajectories):
        for place, frames in enumerate(windows(part.split(max(block, 4096)), basis, lag, block)):
            key = k // together, 0 if together > 1 else place
            new = _cubes(frames[:-lag], frames[lag:])
            sums[key] = tuple(a + b for a, b in zip(sums[key], new, strict=True)) if key in sums else new
    early, cross, late = (torch.stack(part) for part in zip(*sums.values(), strict=True))
    owner = torch.tensor([group for group, _ in sums], device=independent.device)
    return EquilibriumMoments(early, cross, late, owner, lag, block, independent)


def _cubes(early: Tensor, late: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    functions = early.shape[1]
    first, last = ((x[:, :, None] * x[:, None, :]).flatten(1) for x in (early, late))
    shape = functions, functions, functions
    return (early.mT @ first).reshape(shape), (first.mT @ late).reshape(shape), (early.mT @ last).reshape(shape)
