"""Dynamic mode decomposition of equally spaced snapshots: exact, by total least squares, forward and backward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Complex, Float, Num
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["ExactDMD", "ForwardBackwardDMD", "Modes", "TotalLeastSquaresDMD", "delayed", "threshold_rank"]


@dataclass(frozen=True, eq=False)
class Modes:
    r"""Snapshots as a sum of modes, :math:`x_n = \sum_k b_k \lambda_k^n \varphi_k`.

    Attributes
    ----------
    eigenvalues
        :math:`\lambda_k` of one time step, the largest modulus first.
    modes
        :math:`\varphi_k`, one a row, of norm one; with delays the part of the oldest snapshot.
    amplitudes
        :math:`b_k` at the first snapshot, by least squares over all snapshots.
    time_step
        In ``unit``.
    """

    eigenvalues: Complex[Tensor, "*batch rank"]
    modes: Complex[Tensor, "*batch rank space"]
    amplitudes: Complex[Tensor, "*batch rank"]
    time_step: float
    unit: str

    @property
    def exponents(self) -> Complex[Tensor, "*batch rank"]:
        r"""Growth rate and angular frequency, :math:`\ln \lambda_k / \Delta t`, in 1/``unit`` and radians/``unit``."""
        return self.eigenvalues.log() / self.time_step

    @property
    def frequencies(self) -> Float[Tensor, "*batch rank"]:
        """Cycles per ``unit``, at most half a cycle a step; negative for half of each conjugate pair."""
        return self.exponents.imag / (2 * torch.pi)

    @property
    def growth_rates(self) -> Float[Tensor, "*batch rank"]:
        """In 1/``unit``; negative for a mode that decays."""
        return self.exponents.real

    def forecast(self, steps: Float[Tensor, " steps"]) -> Complex[Tensor, "*batch steps space"]:
        """The sum of the modes so many steps after the first snapshot; before it if negative."""
        growth = (self.exponents[..., None, :] * (steps[:, None] * self.time_step)).exp()
        return (growth * self.amplitudes[..., None, :]) @ self.modes


@dataclass(frozen=True)
class _Decomposition(ABC):
    """What the three share: the delays, the rank, the subspace, and the modes of a reduced propagator.

    Attributes
    ----------
    rank
        Number of modes; by default :func:`threshold_rank` of the (delayed) snapshots, the largest of a batch.
    delays
        Snapshots that are stacked into one state; enough of them tell apart modes of one or few sensors.
    """

    rank: int | None = None
    delays: int = 1

    def __post_init__(self) -> None:
        if self.rank is not None and self.rank < 1:
            raise DataError(expected("rank", "a positive number of modes, or None", self.rank))
        if self.delays < 1:
            raise DataError(expected("delays", "a positive number of snapshots", self.delays))

    def fit(
        self,
        snapshots: Num[Tensor, "*batch time space"] | Trajectories,
        *,
        time_step: float = 1.0,
        unit: str = "frames",
        weights: Float[Tensor, "*draws pairs"] | None = None,
    ) -> Modes:
        """Modes of equally spaced snapshots; nothing is random.

        Parameters
        ----------
        snapshots
            Real or complex; of several trajectories fit each. Trajectories bring their time step and unit.
        weights
            Of the pairs of successive states (``time − delays`` of them), such as those of a bootstrap; with leading
            axes there is one result for each row.

        Raises
        ------
        ShapeError, DataError
            If the shape does not fit, a number is not finite, or there are fewer pairs than modes.
        """
        data, time_step, unit = _snapshots(snapshots, time_step, unit)
        states = delayed(data, self.delays)
        before, after = states[..., :-1, :], states[..., 1:, :]
        if weights is not None:
            _check_weights(weights, before)
            root = weights.sqrt()[..., None].to(states.dtype)
            before, after = root * before, root * after
        rank = threshold_rank(states) if self.rank is None else self.rank
        if rank > min(before.shape[-2:]):
            raise DataError(
                expected("rank", f"at most {min(before.shape[-2:])}", rank, "use more delays or fewer modes")
            )
        values, vectors = self._eigen(before.mT, after.mT, rank)
        order = values.abs().argsort(-1, descending=True)
        values = values.gather(-1, order)
        vectors = vectors.gather(-1, order[..., None, :].expand_as(vectors))
        modes = vectors[..., : data.shape[-1], :].mT
        modes = modes / modes.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(modes.real.dtype).tiny)
        return Modes(values, modes, _amplitudes(values, modes, data), time_step, unit)

    @abstractmethod
    def _eigen(self, before: Tensor, after: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """Eigenvalues and eigenvectors (in columns) of the propagator of states that are columns."""


@dataclass(frozen=True)
class ExactDMD(_Decomposition):
    r"""Least squares, :math:`A = Y X^+` of rank r: eigenvalues shrink to zero when the snapshots are noisy.

    References
    ----------
    Tu, Rowley, Luchtenburg, Brunton, Kutz, J. Comput. Dyn. 1, 391 (2014), algorithm 2.
    """

    def _eigen(self, before: Tensor, after: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        left, image = _reduced(before, after, rank)
        values, vectors = torch.linalg.eig(left.mH @ image)
        return values, image.to(vectors.dtype) @ vectors


@dataclass(frozen=True)
class TotalLeastSquaresDMD(_Decomposition):
    """Noise in both snapshots of a pair: both are projected onto the leading directions of the pairs in time first.

    Consistent where the noise is white and of one variance in all entries.

    References
    ----------
    Hemati, Rowley, Deem, Cattafesta, Theor. Comput. Fluid Dyn. 31, 349 (2017).
    """

    def _eigen(self, before: Tensor, after: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        # In the leading subspace of the states first: the regression of a noisy remainder would be underdetermined.
        left = _leading(torch.cat([before, after], -1), rank)
        pairs = torch.cat([left.mH @ before, left.mH @ after], -2)
        directions = _leading(pairs, rank)
        upper, lower = directions[..., :rank, :], directions[..., rank:, :]
        values, vectors = torch.linalg.eig(lower @ torch.linalg.inv(upper))
        return values, left.to(vectors.dtype) @ vectors


@dataclass(frozen=True)
class ForwardBackwardDMD(_Decomposition):
    r"""Geometric mean of the propagators of both directions, :math:`(A_f A_b^{-1})^{1/2}`: their biases cancel.

    Of the two roots of each eigenvalue the one nearer to the forward propagator is taken.

    References
    ----------
    Dawson, Hemati, Williams, Rowley, Exp. Fluids 57, 42 (2016), algorithm 3.
    """

    def _eigen(self, before: Tensor, after: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        left = _leading(torch.cat([before, after], -1), rank)
        x, y = left.mH @ before, left.mH @ after
        forward = _regression(x, y)
        squares, vectors = torch.linalg.eig(forward @ torch.linalg.inv(_regression(y, x)))
        seen = torch.linalg.solve(vectors, forward.to(vectors.dtype) @ vectors).diagonal(dim1=-2, dim2=-1)
        roots = squares.sqrt()
        flip = (roots - seen).abs() > (roots + seen).abs()
        return torch.where(flip, -roots, roots), left.to(vectors.dtype) @ vectors


def delayed(snapshots: Num[Tensor, "*batch time space"], delays: int) -> Num[Tensor, "*batch states delayed"]:
    """States of ``delays`` successive snapshots side by side, the oldest first.

    Raises
    ------
    DataError
        If that leaves fewer than two states.
    """
    states = snapshots.shape[-2] - delays + 1
    if states < 2:
        raise DataError(expected("snapshots", f"at least {delays + 1} for {delays} delays", snapshots.shape[-2]))
    return torch.cat([snapshots[..., k : k + states, :] for k in range(delays)], -1)


def threshold_rank(snapshots: Num[Tensor, "*batch time space"]) -> int:
    r"""Number of singular values above :math:`\omega(\beta)\,\mathrm{median}(s)`, at least one; the largest of a batch.

    With :math:`\omega(\beta) \approx 0.56 \beta^3 - 0.95 \beta^2 + 1.82 \beta + 1.43` for the ratio :math:`\beta \le 1`
    of the sides: optimal for white noise of unknown variance when the rank is small beside both sides. The noise of
    delayed snapshots is not white, and with few sensors the median is no noise: give the rank there.

    References
    ----------
    Gavish, Donoho, IEEE Trans. Inf. Theory 60, 5040 (2014), equations 4 and 5.
    """
    sizes = torch.linalg.svdvals(snapshots)
    beta = min(snapshots.shape[-2:]) / max(snapshots.shape[-2:])
    omega = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
    rounding = max(snapshots.shape[-2:]) * torch.finfo(sizes.dtype).eps * sizes[..., :1]
    limit = torch.maximum(omega * sizes.quantile(0.5, dim=-1, keepdim=True), 4 * rounding)
    return max(1, int((sizes > limit).sum(-1).max()))


def _snapshots(data: Any, time_step: float, unit: str) -> tuple[Tensor, float, str]:
    if isinstance(data, Trajectories):
        if len(data) != 1 or data.discrete:
            raise DataError(expected("snapshots", "one trajectory of features", f"{len(data)} parts", "fit each"))
        return data.parts[0], data.time_step, data.unit
    values = torch.as_tensor(data)
    values = values if values.is_complex() else values.double()
    if values.ndim < 2:
        raise ShapeError(expected("snapshots", "(time, space)", tuple(values.shape), "add an axis"))
    if not bool(torch.isfinite(torch.view_as_real(values) if values.is_complex() else values).all()):
        raise DataError(expected("snapshots", "finite numbers", "NaN or infinity", "use DMD, which takes gaps"))
    return values, time_step, unit


def _check_weights(weights: Tensor, before: Tensor) -> None:
    if weights.shape[-1] != before.shape[-2] or not bool((weights >= 0).all()):
        raise DataError(expected("weights", f"{before.shape[-2]} numbers ≥ 0 for the pairs", tuple(weights.shape)))


def _leading(matrix: Tensor, rank: int) -> Tensor:
    return torch.linalg.svd(matrix, full_matrices=False)[0][..., :rank]


def _reduced(before: Tensor, after: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Left singular vectors of the first states, and the images of these vectors."""
    left, sizes, right = torch.linalg.svd(before, full_matrices=False)
    image = after @ (right[..., :rank, :].mH / sizes[..., None, :rank])
    return left[..., :rank], image


def _regression(x: Tensor, y: Tensor) -> Tensor:
    return torch.linalg.solve(x @ x.mH, x @ y.mH).mH


def _amplitudes(values: Tensor, modes: Tensor, data: Tensor) -> Tensor:
    r"""Least squares of all snapshots by the normal equations :math:`(V^* V \circ \Phi^* \Phi)\, b = q`."""
    steps = torch.arange(data.shape[-2], device=data.device)
    growth = values[..., None, :] ** steps[:, None]
    gram = (growth.mH @ growth) * (modes.conj() @ modes.mT)
    moment = torch.einsum("...tk,...ts,...ks->...k", growth.conj(), data.to(values.dtype), modes.conj())
    return torch.linalg.lstsq(gram, moment[..., None]).solution[..., 0]
