"""Spectra of Koopman operators from second moments, for batches of moments; and which functions belong together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Spectrum", "centred_whitening", "general", "matched", "reversible", "singular"]


class Spectrum(NamedTuple):
    """Eigenvalues, or singular values, from the largest on, and coefficients of their functions.

    Attributes
    ----------
    values
        Real, or complex for operators without detailed balance.
    right
        Coefficients of the functions of :math:`x_t`, in the columns.
    left
        Of the functions of :math:`x_{t+\\tau}` that go with them; the same as ``right`` with detailed balance.
    """

    values: Tensor
    right: Tensor
    left: Tensor

    def leading(self, count: int) -> Spectrum:
        """The first of them."""
        return Spectrum(self.values[..., :count], self.right[..., :count], self.left[..., :count])


def centred_whitening(
    covariance: Float[Tensor, "functions functions"], cut: float = 1e-10
) -> Float[Tensor, "functions rank"]:
    """Combinations of the functions whose second moments are the identity; the first is the constant function.

    Functions are scaled to a second moment of one before combinations of less than ``cut`` are left out, since they
    are linearly dependent up to rounding errors.
    """
    mean = covariance[0]
    centred = covariance - torch.outer(mean, mean)
    spread = centred.diagonal().clamp_min(0).sqrt()
    scale = torch.where(spread > 1e-7 * covariance.diagonal().sqrt(), 1 / spread, 0.0)
    values, vectors = torch.linalg.eigh(centred * torch.outer(scale, scale))
    kept = values > cut * max(float(values[-1]), 1.0)
    columns = scale[:, None] * vectors[:, kept] / values[kept].sqrt()
    constant = torch.zeros_like(mean)
    constant[0] = 1
    columns[0] -= mean @ columns
    return torch.cat([constant[:, None], columns.flip(1)], 1)


def reversible(early: Tensor, cross: Tensor, late: Tensor) -> Spectrum:
    r"""Spectrum under detailed balance, :math:`\tfrac12 (C_{01} + C_{10}) v = \lambda\, \tfrac12 (C_{00} + C_{11}) v`.

    Every eigenvalue is real and at most one in size. Moments have axes ``(*draws, functions, functions)``.
    """
    factor = torch.linalg.cholesky((early + late) / 2)
    values, vectors = torch.linalg.eigh(_whitened((cross + cross.mT) / 2, factor, factor))
    vectors = torch.linalg.solve_triangular(factor.mT, vectors.flip(-1), upper=True)
    return Spectrum(values.flip(-1), vectors, vectors)


def singular(early: Tensor, cross: Tensor, late: Tensor) -> Spectrum:
    r"""Singular values and functions of the operator between the two ends, of VAMP.

    .. math:: C_{00}^{-1/2} C_{01} C_{11}^{-1/2} = U \Sigma V^\top

    References
    ----------
    Wu, Noé, J. Nonlinear Sci. 30, 23 (2020), section 3.
    """
    first, last = torch.linalg.cholesky(early), torch.linalg.cholesky(late)
    u, values, v = torch.linalg.svd(_whitened(cross, first, last))
    right = torch.linalg.solve_triangular(first.mT, u, upper=True)
    return Spectrum(values, right, torch.linalg.solve_triangular(last.mT, v.mT, upper=True))


def general(early: Tensor, cross: Tensor, late: Tensor) -> Spectrum:
    r"""Eigenvalues and right eigenvectors of :math:`K = C_{00}^{-1} C_{01}`, by their size, and the left ones.

    Functions evolve as :math:`E[\chi(x_{t+\tau}) | x_t] = K^\top \chi(x_t)`. ``late`` is not needed.
    """
    operator = torch.cholesky_solve(cross, torch.linalg.cholesky(early))
    values, vectors = torch.linalg.eig(operator)
    order = torch.argsort(values.abs(), dim=-1, descending=True, stable=True)
    values, vectors = values.gather(-1, order), vectors.gather(-1, order[..., None, :].expand_as(vectors))
    return Spectrum(values, vectors, torch.linalg.inv(vectors).mT)


def matched(
    vectors: Float[Tensor, "draws functions count"],
    reference: Float[Tensor, "functions count"],
    metric: Float[Tensor, "functions functions"],
) -> tuple[Int[Tensor, "draws count"], Float[Tensor, "draws count"]]:
    """Which function of each draw is which of the reference, and with which sign, by their overlaps in ``metric``.

    The pairing maximises the sum of the sizes of the overlaps.
    """
    from scipy.optimize import linear_sum_assignment

    overlap = torch.einsum("fr,fg,dgc->drc", reference, metric, vectors)
    best = [linear_sum_assignment(-one)[1] for one in overlap.abs().cpu().numpy()]
    order = torch.from_numpy(np.stack(best)).to(vectors.device)
    return order, overlap.gather(2, order[..., None]).squeeze(2).sign()


def _whitened(matrix: Tensor, first: Tensor, last: Tensor) -> Tensor:
    half = torch.linalg.solve_triangular(first, matrix, upper=False)
    return torch.linalg.solve_triangular(last, half.mT, upper=False).mT
