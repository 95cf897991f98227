"""Leading eigenvalues and eigenvectors of batches of reversible transition matrices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.dynamics.reversible import TransitionEstimate
from bayesmol.errors import DataError, expected

__all__ = ["Frame", "LeadingSpectrum", "leading_eigenvalues", "leading_spectrum"]

_MEMORY = 2**20  # entries of the matrices that iterate together: they stay in the cache
_ROUNDS = 30  # of corrections
_SMALL = 32  # states up to which the full decomposition is faster
_TOLERANCE = 1e-11  # of the estimated error of an eigenvalue: ten times below the promise


class LeadingSpectrum(NamedTuple):
    r"""Eigenvalues by their size and the eigenvectors that go with them, in the columns.

    Attributes
    ----------
    values
        The first is one.
    right
        With :math:`\sum_i \pi_i r_i^2 = 1`; signs are arbitrary. The first is constant.
    left
        :math:`l_i = \pi_i r_i`.
    """

    values: Float[Tensor, "*draws count"]
    right: Float[Tensor, "*draws states count"]
    left: Float[Tensor, "*draws states count"]


class Frame(NamedTuple):
    r"""All eigenpairs of a symmetric matrix :math:`D^{1/2} P D^{-1/2}` near which others are."""

    levels: Float[Tensor, " states"]
    vectors: Float[Tensor, "states states"]

    @classmethod
    def of(cls, estimate: TransitionEstimate) -> Frame:
        """Of the mean of reversible transition matrices."""
        transition, stationary = estimate.transition, estimate.stationary
        rows, root = transition.reshape(-1, *transition.shape[-2:]), stationary.reshape(-1, stationary.shape[-1]).sqrt()
        return cls(*torch.linalg.eigh(_symmetric(rows, root).mean(0)))


def leading_eigenvalues(estimate: TransitionEstimate, count: int, *, near: Frame | None = None) -> Tensor:
    """Largest eigenvalues in size (*draws, count); complex unless the matrices were estimated as reversible ones.

    Parameters
    ----------
    near
        As :func:`leading_spectrum` takes it.

    Raises
    ------
    DataError
        If there are fewer states than ``count``.
    """
    if estimate.potentials is not None:
        return leading_spectrum(estimate.transition, estimate.stationary, count, near=near).values
    _check_count(count, estimate.transition)
    values = torch.linalg.eigvals(estimate.transition)
    order = values.abs().argsort(dim=-1, descending=True, stable=True)[..., :count]
    return values.gather(-1, order)


def leading_spectrum(
    transition: Float[Tensor, "*draws states states"],
    stationary: Float[Tensor, "*draws states"],
    count: int,
    *,
    near: Frame | None = None,
) -> LeadingSpectrum:
    r"""Eigenpairs of :math:`S = D^{1/2} P D^{-1/2}`, :math:`D = \mathrm{diag}(\pi)`, of largest size.

    Rayleigh-Ritz in a subspace that starts with :math:`\sqrt\pi` and the leading eigenvectors of a matrix near by and
    grows by corrections :math:`V (M - \theta)^{-1} V^\top r` of the residuals r, with the eigenvalues M and
    eigenvectors V of that matrix. It stops once :math:`\lVert r \rVert^2 / \mathrm{gap} < 10^{-11}`; eigenvalues are
    then right to 1e-10 and vectors to about 1e-5. Matrices that do not get there are decomposed in full.

    Parameters
    ----------
    near
        Of a matrix near those of the batch; by default of their mean.

    Raises
    ------
    DataError
        If a matrix has no detailed balance, a population is not positive, or there are fewer states than ``count``.

    References
    ----------
    Davidson, J. Comput. Phys. 17, 87 (1975); Parlett, The symmetric eigenvalue problem, SIAM (1998), section 11.7.
    """
    _check_count(count, transition)
    if not bool((stationary > 0).all()):
        raise DataError(expected("stationary", "positive populations", "zero, a negative number or NaN"))
    states = transition.shape[-1]
    rows, root = transition.reshape(-1, states, states), stationary.reshape(-1, states).sqrt()
    if states > _SMALL and 4 * count <= states and near is None and len(rows) > 1:
        near = Frame.of(TransitionEstimate(transition, stationary))
    size = max(1, _MEMORY // states**2) if rows.device.type == "cpu" else len(rows)
    parts = zip(rows.split(size), root.split(size), strict=True)
    found = list(zip(*(_eigenpairs(_symmetric(*part), part[1], count, near) for part in parts), strict=True))
    values, vectors = torch.cat(found[0]), torch.cat(found[1])
    shape = transition.shape[:-2]
    right, left = vectors / root[..., None], vectors * root[..., None]
    return LeadingSpectrum(*(x.reshape(*shape, *x.shape[1:]) for x in (values, right, left)))


def _check_count(count: int, transition: Tensor) -> None:
    if not 1 <= count <= transition.shape[-1]:
        raise DataError(expected("count", f"from 1 to {transition.shape[-1]}", count))


def _symmetric(transition: Float[Tensor, "rows states states"], root: Tensor) -> Float[Tensor, "rows states states"]:
    matrices = (root[:, :, None] * transition).div_(root[:, None, :])
    uneven = matrices - matrices.mT
    if not bool(uneven.amax() <= 1e-8):
        raise DataError(expected("transition", "matrices with detailed balance", "one without"))
    return matrices.sub_(uneven, alpha=0.5)


def _eigenpairs(matrices: Tensor, root: Tensor, count: int, near: Frame | None) -> tuple[Tensor, Tensor]:
    if near is None or matrices.shape[-1] <= _SMALL or 4 * count > matrices.shape[-1]:
        return _decomposed(matrices, root, count)
    values, vectors, reliable = _davidson(matrices, root, count, near)
    if not bool(reliable.all()):
        values[~reliable], vectors[~reliable] = _decomposed(matrices[~reliable], root[~reliable], count)
    return values, vectors


def _decomposed(matrices: Tensor, root: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """All eigenpairs; the known first one is moved aside, as that of size one may be degenerate with −1."""
    known = root / root.norm(dim=-1, keepdim=True)
    values, vectors = torch.linalg.eigh(matrices + 2 * known[:, :, None] * known[:, None, :])
    order = values.abs().argsort(dim=-1, descending=True)[:, :count]
    values = values.gather(1, order)
    values[:, 0] = 1.0
    vectors = vectors.gather(2, order[:, None].expand(-1, len(root[0]), -1))
    vectors[..., 0] = known
    return values, vectors


def _davidson(matrices: Tensor, root: Tensor, count: int, near: Frame) -> tuple[Tensor, Tensor, Tensor]:
    """Ritz pairs and whether they can be relied upon."""
    levels, frame = near
    chosen = levels.abs().argsort(descending=True)[1 : count + 3]
    known = (root / root.norm(dim=-1, keepdim=True))[..., None]
    basis = torch.cat([known, _orthonormal(frame[:, chosen].expand(len(root), -1, -1), known)], -1)
    images = torch.cat([known, matrices @ basis[..., 1:]], -1)
    for _ in range(_ROUNDS):
        values, vectors, residual, gap = _ritz(basis, images, count)
        done = residual.square().sum((-1, -2)) < _TOLERANCE * gap
        if bool(done.all()):
            break
        new = _orthonormal(_corrections(frame, levels, values, residual), basis)
        basis, images = torch.cat([basis, new], -1), torch.cat([images, matrices @ new], -1)
    identity = torch.eye(basis.shape[-1]).to(basis)
    sound = (basis.mT @ basis - identity).abs().amax((-1, -2)) < 1e-10
    first = torch.ones_like(values[:, :1])
    return torch.cat([first, values], -1), torch.cat([known, vectors], -1), done & sound


def _ritz(basis: Tensor, images: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ritz pairs without the known one, their residuals, and the distance to the nearest value that is not wanted."""
    rest, moved = basis[..., 1:], images[..., 1:]
    small = rest.mT @ moved
    values, vectors = torch.linalg.eigh((small + small.mT) / 2)
    order = values.abs().argsort(dim=-1, descending=True)
    values = values.gather(-1, order)
    wanted, other = values[:, : count - 1], values[:, count - 1 :]
    chosen = vectors.gather(-1, order[:, None, : count - 1].expand(-1, vectors.shape[1], -1))
    ritz = rest @ chosen
    residual = moved @ chosen - wanted[:, None] * ritz
    if count == 1:
        return wanted, ritz, residual, torch.ones_like(values[:, 0])
    return wanted, ritz, residual, (wanted[:, :, None] - other[:, None, :]).abs().amin((-1, -2))


def _corrections(frame: Tensor, levels: Tensor, values: Tensor, residual: Tensor) -> Tensor:
    distance = levels[:, None] - values[:, None, :]
    # Levels near a Ritz value are mostly in the subspace already: without a bound they would drown the others.
    bounded = torch.where(distance < 0, -1.0, 1.0) * distance.abs().clamp_min(0.02)
    return _times(frame, _times(frame.mT, residual) / bounded)


def _times(matrix: Tensor, vectors: Float[Tensor, "rows states count"]) -> Tensor:
    """One product for all rows."""
    columns = vectors.permute(1, 0, 2)
    return (matrix @ columns.flatten(1)).unflatten(1, columns.shape[1:]).permute(1, 0, 2)


def _orthonormal(vectors: Tensor, basis: Tensor) -> Tensor:
    """Orthonormal columns, orthogonal to ``basis``; three projections make up for cancellation."""
    for _ in range(2):
        vectors = vectors - basis @ (basis.mT @ vectors)
        vectors = vectors / vectors.norm(dim=-2, keepdim=True).clamp_min(1e-300)
    vectors = torch.linalg.qr(vectors).Q
    vectors = vectors - basis @ (basis.mT @ vectors)
    return torch.linalg.qr(vectors).Q
