"""Metastable states: fuzzy memberships from the slow subspace of a transition matrix (PCCA+)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.dynamics.elimination import checked_matrix, stationary_distribution
from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected

__all__ = ["Assignment", "MetastableStates", "pcca"]

_EXACT = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


@dataclass(frozen=True, eq=False)
class Assignment:
    """One macrostate for each state.

    Attributes
    ----------
    labels
        Index of the macrostate with the largest mean membership.
    probability
        That membership: the mean over the draws of how far the state belongs to it.
    agreement
        Share of the draws whose own largest membership is the same.
    """

    labels: Int[Tensor, " states"]
    probability: Float[Tensor, " states"]
    agreement: Float[Tensor, " states"]


@dataclass(frozen=True, eq=False)
class MetastableStates:
    r"""Memberships of the states in macrostates, of one matrix or of every draw.

    Attributes
    ----------
    memberships
        :math:`\chi \ge 0`, each row a distribution over the macrostates. They come by falling population of the
        reference, and the same index means the same macrostate in every draw.
    stationary
        Stationary distribution of the states.
    """

    memberships: Float[Tensor, "*draws states macrostates"]
    stationary: Float[Tensor, "*draws states"]

    @property
    def populations(self) -> Float[Tensor, "*draws macrostates"]:
        r"""Probability of each macrostate, :math:`\chi^\top \pi`."""
        return torch.einsum("...i,...ij->...j", self.stationary, self.memberships)

    @property
    def crispness(self) -> Float[Tensor, "*draws"]:
        r"""Mean over the macrostates of :math:`\sum_i \pi_i \chi_{ij}^2 / \sum_i \pi_i \chi_{ij}`; one if crisp."""
        squares = torch.einsum("...i,...ij->...j", self.stationary, self.memberships.square())
        return (squares / self.populations).mean(-1)

    @property
    def assignment(self) -> Assignment:
        """The crisp macrostate of each state, how probable it is, and how many draws agree."""
        flat = self.memberships.flatten(0, -3) if self.memberships.ndim > 2 else self.memberships[None]
        probability, labels = flat.mean(0).max(-1)
        return Assignment(labels, probability, (flat.argmax(-1) == labels).double().mean(0))

    def sets(self) -> list[list[int]]:
        """States of each macrostate by the crisp assignment.

        Raises
        ------
        DataError
            If a macrostate is the first choice of no state.
        """
        labels = self.assignment.labels
        found = [(labels == k).nonzero().flatten().tolist() for k in range(self.memberships.shape[-1])]
        if not all(found):
            got = f"none in macrostate {found.index([])}"
            raise DataError(expected("sets", "a state in every macrostate", got, "ask for fewer macrostates"))
        return found


def pcca(
    P: Float[Tensor, "*draws states states"],
    macrostates: int,
    *,
    reference: Float[Tensor, "states macrostates"] | None = None,
) -> MetastableStates:
    r"""Memberships :math:`\chi = X A` in the slow subspace X that are as crisp as can be.

    .. math:: \max_A \sum_j \frac{\sum_i A_{ij}^2}{A_{1j}} \quad \text{for} \quad X A \ge 0, \; A \mathbf 1 = e_1, \quad
        X^\top D X = 1, \; X_1 = 1

    The sum is m times the crispness. It is convex in A, so that its maxima are corners of the polytope: each step goes
    to the best corner for the slope at the last one (a linear programme), and the sum cannot fall. The start is the
    inner simplex, or the least-squares fit to the ``reference``, which also names the macrostates.

    Of a matrix that is not reversible, X spans the real and imaginary parts of the eigenvectors.

    Parameters
    ----------
    reference
        Memberships of the estimate, for draws; those of the mean flow of the draws if not given.

    Raises
    ------
    DataError
        If P is reducible, the number of macrostates is not in 2 … states, or would part a pair of complex eigenvalues.
    ConvergenceError
        If a macrostate vanishes on the way.

    References
    ----------
    Röblitz, Weber, Adv. Data Anal. Classif. 7, 147 (2013); the inner simplex: Weber, Galliat, ZIB-Report 02-12 (2002).
    """
    matrix, weights = checked_matrix(P), stationary_distribution(P)
    if isinstance(macrostates, bool) or not 2 <= macrostates <= matrix.shape[-1]:
        raise DataError(expected("macrostates", f"a number from 2 to {matrix.shape[-1]} states", macrostates))
    if reference is None:
        # The mean of the flows, not of the matrices, is reversible if all are.
        flow = (weights[..., None] * matrix).reshape(-1, *matrix.shape[-2:]).mean(0)
        reference = _reference(flow / flow.sum(-1, keepdim=True), macrostates)
    elif reference.shape != (matrix.shape[-1], macrostates):
        wanted = f"({matrix.shape[-1]}, {macrostates})"
        raise ShapeError(expected("reference", wanted, tuple(reference.shape)))
    basis = _slow_subspace(matrix, weights, macrostates)
    start = torch.einsum("...ik,...i,ij->...kj", basis, weights, reference.to(basis))
    flat = zip(basis.flatten(0, -3), start.flatten(0, -3), strict=True) if matrix.ndim > 2 else [(basis, start)]
    corners = torch.stack([_crispest(x, a) for x, a in flat]).reshape(start.shape)
    return MetastableStates(_cleaned(basis @ corners), weights)


def _reference(P: Tensor, macrostates: int) -> Tensor:
    """Memberships of one matrix from the inner simplex, by falling population."""
    weights = stationary_distribution(P)
    basis = _slow_subspace(P, weights, macrostates)
    memberships = basis @ _crispest(basis, _inner_simplex(basis))
    return memberships[:, (weights @ memberships).argsort(descending=True)]


def _slow_subspace(P: Tensor, weights: Tensor, size: int) -> Tensor:
    """Functions of the states, orthonormal under the stationary distribution, the first constant."""
    root = weights.sqrt()
    similar = root[..., :, None] * P / root[..., None, :]
    if bool(((similar - similar.mT).abs() <= 1e-10).all()):
        vectors = torch.linalg.eigh((similar + similar.mT) / 2).eigenvectors.flip(-1)
    else:
        vectors = _real_vectors(similar, size)
    span = torch.cat([root[..., None], vectors[..., 1:size]], -1)
    orthonormal, triangle = torch.linalg.qr(span)
    signs = triangle.diagonal(dim1=-2, dim2=-1).sign()
    return orthonormal * signs[..., None, :] / root[..., None]


def _real_vectors(similar: Tensor, size: int) -> Tensor:
    values, vectors = torch.linalg.eig(similar)
    order = values.real.argsort(dim=-1, descending=True, stable=True)
    values, vectors = values.gather(-1, order), vectors.gather(-1, order[..., None, :].expand_as(vectors))
    if bool((values[..., :size].imag.sum(-1).abs() > 1e-10).any()):
        got = "one that parts a pair of complex eigenvalues"
        raise DataError(expected("macrostates", "a number of whole pairs", got, "take one more or one less"))
    return torch.where(values.imag[..., None, :] < 0, vectors.imag, vectors.real)


def _inner_simplex(basis: Tensor) -> Tensor:
    """The A that makes the m states farthest from each other the corners."""
    left = basis[:, 1:] - basis[basis[:, 1:].norm(dim=1).argmax(), 1:]
    corners = [int(basis[:, 1:].norm(dim=1).argmax())]
    for _ in range(basis.shape[1] - 1):
        farthest = int(left.norm(dim=1).argmax())
        corners.append(farthest)
        along = left[farthest] / left[farthest].norm()
        left = left - (left @ along)[:, None] * along
    return torch.linalg.inv(basis[corners])


def _crispest(basis: Tensor, start: Tensor) -> Tensor:
    """Corner of the polytope from which no linear programme leads to a crisper one."""
    import numpy as np
    from scipy import optimize, sparse

    x, corner = basis.cpu().numpy(), _feasible(basis, start).cpu().numpy()
    size = x.shape[1]
    # The unknowns are the entries A[k, j], row by row; x A ≥ 0 is one block of x for each column j.
    positive = sparse.csr_array(-np.einsum("ik,jl->jikl", x, np.eye(size)).reshape(-1, size * size))
    zeros, ones = np.zeros(len(x) * size), np.eye(size)[0]
    sums = np.kron(np.eye(size), np.ones((1, size)))
    objective = (corner**2).sum(0) @ (1 / corner[0])
    for _ in range(100):
        slope = 2 * corner / corner[0]
        slope[0] -= (corner**2).sum(0) / corner[0] ** 2
        found = optimize.linprog(-slope.ravel(), positive, zeros, sums, ones, (None, None), options=_EXACT)
        if found.status != 0 or (found.x[:size] <= 1e-12).any():
            remedy = "ask for fewer macrostates"
            raise ConvergenceError(expected("pcca", f"{size} macrostates", "one that vanishes", remedy))
        better = found.x.reshape(size, size)
        value = ((better**2).sum(0) / better[0]).sum()
        if value <= objective + 1e-12:
            break
        corner, objective = better, value
    return torch.as_tensor(corner).to(basis)


def _feasible(basis: Tensor, start: Tensor) -> Tensor:
    """The A nearest in its lower rows that gives memberships: columns lifted to ≥ 0, then scaled to a sum of one."""
    lower = start[1:] - start[1:].mean(1, keepdim=True)
    first = -(basis[:, 1:] @ lower).amin(0)
    return torch.cat([first[None], lower]) / first.sum()


def _cleaned(memberships: Tensor) -> Tensor:
    """Without what the linear programme leaves below zero, at most its tolerance of 1e-10."""
    lifted = memberships.clamp(min=0)
    return lifted / lifted.sum(-1, keepdim=True)
