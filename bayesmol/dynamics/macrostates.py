"""Transition and rate matrices between macrostates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.dynamics.elimination import checked_matrix, checked_sets, stationary_distribution
from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["coarse_transition_matrix", "indicators", "rate_matrix"]


def indicators(sets: Sequence[Sequence[int] | Tensor], states: int) -> Float[Tensor, "states sets"]:
    """Memberships of one or zero of each state, for sets that together hold every state once.

    Raises
    ------
    DataError
        If a set is empty, two overlap, or a state is in none.
    """
    members = checked_sets(states, **{f"sets[{k}]": one for k, one in enumerate(sets)})
    memberships = torch.zeros(states, len(members), dtype=torch.float64)
    for k, one in enumerate(members):
        memberships[one, k] = 1.0
    missing = (memberships.sum(1) == 0).nonzero().flatten().tolist()
    if missing:
        raise DataError(expected("sets", "every state in one of them", f"{len(missing)} in none", f"{missing[:5]} …"))
    return memberships


def coarse_transition_matrix(
    P: Float[Tensor, "*draws states states"], memberships: Float[Tensor, "*draws states macrostates"]
) -> Float[Tensor, "*draws macrostates macrostates"]:
    r"""Propagator between macrostates, the projection of P onto the memberships.

    .. math:: P_c = (\chi^\top D \chi)^{-1} \chi^\top D P \chi, \quad D = \operatorname{diag} \pi

    Its rows sum to one. With the memberships of PCCA+ it has the slow eigenvalues of P themselves, and may have entries
    slightly below zero where macrostates overlap; with :func:`indicators` it is the matrix of probabilities

    .. math:: P_{IJ} = \sum_{i \in I, j \in J} \pi_i P_{ij} \Big/ \sum_{i \in I} \pi_i

    whose eigenvalues are smaller.

    Raises
    ------
    ShapeError, DataError
        If the memberships do not fit P or their rows are no distributions, or P is reducible.

    References
    ----------
    Kube, Weber, J. Chem. Phys. 126, 024103 (2007).
    """
    matrix, chi = checked_matrix(P), memberships.to(P.device).double()
    if chi.shape[-2] != matrix.shape[-1]:
        raise ShapeError(expected("memberships", f"{matrix.shape[-1]} states", tuple(chi.shape)))
    if bool((chi < -1e-9).any()) or float((chi.sum(-1) - 1).abs().max()) > 1e-6:
        raise DataError(expected("memberships", "rows that are distributions", "others"))
    weighted = (stationary_distribution(matrix)[..., None] * chi).mT
    return torch.linalg.solve(weighted @ chi, weighted @ (matrix @ chi))


def rate_matrix(
    P: Float[Tensor, "*draws macrostates macrostates"], *, lag: int = 1
) -> Float[Tensor, "*draws macrostates macrostates"]:
    r"""Rates :math:`K = \ln(P) / \tau` in one over frames, rows summing to zero, so that :math:`P = e^{K \tau}`.

    An entry off the diagonal may be slightly negative where P is no propagator of a process in continuous time (fuzzy
    memberships, noise); it is not set to zero, as this would change the timescales.

    Raises
    ------
    DataError
        If an eigenvalue is zero or negative, so that no real logarithm exists.
    """
    if isinstance(lag, bool) or not isinstance(lag, int) or lag < 1:
        raise DataError(expected("lag", "a whole number of frames ≥ 1", lag))
    values, vectors = torch.linalg.eig(P.double())
    if bool(((values.imag.abs() <= 1e-12) & (values.real <= 1e-14)).any()):
        remedy = "take a shorter lag or fewer macrostates"
        raise DataError(expected("P", "eigenvalues with a real logarithm", "one ≤ 0", remedy))
    return torch.linalg.solve(vectors, vectors * (values.log() / lag)[..., None, :], left=False).real
