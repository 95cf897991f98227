"""VAMP scores: how much of the slow motion a set of functions holds, from moments of pairs of frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["Score", "SingularModel", "score", "singular_values", "symmetrised", "whitening"]

Score = Literal["VAMP-1", "VAMP-2", "VAMP-E"]
Three = tuple[Tensor, Tensor, Tensor]
RANK_CUT = 1e-10  # of the largest eigenvalue of a moment matrix whose functions are scaled to one


def whitening(
    moments: Float[Tensor, "*draws functions functions"], *, cut: float = RANK_CUT
) -> Float[Tensor, "*draws functions functions"]:
    r"""Matrices W with :math:`W^\top C W = 1` on the range of C, and columns of zeros for the rest.

    The functions are first scaled to :math:`C_{ii} = 1`, so that the cut does not depend on their units. The columns
    that stay are exact: no number is added to the diagonal.

    Parameters
    ----------
    cut
        Eigenvalues of the scaled matrix below this share of the largest are rounding errors.

    Raises
    ------
    DataError
        If a matrix is zero or has an eigenvalue far below zero: it is no matrix of moments.
    """
    diagonal = moments.diagonal(dim1=-2, dim2=-1)
    scale = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()
    values, vectors = torch.linalg.eigh(moments * scale[..., None] * scale[..., None, :])
    largest = values[..., -1:]
    if not bool((largest > 0).all() and (values[..., 0] > -1e-6 * largest[..., 0]).all()):
        raise DataError(expected("moments", "a positive semidefinite matrix that is not zero", "another"))
    kept = values > cut * largest
    roots = torch.where(kept, values.clamp_min(torch.finfo(values.dtype).tiny).rsqrt(), 0.0)
    return scale[..., None] * vectors * roots[..., None, :]


def symmetrised(c00: Tensor, c01: Tensor, c11: Tensor) -> Three:
    """Moments of the pairs and of the same pairs with time reversed: those of a reversible process."""
    mean = (c00 + c11) / 2
    return mean, (c01 + c01.mT) / 2, mean


def singular_values(
    c00: Float[Tensor, "*draws functions functions"],
    c01: Float[Tensor, "*draws functions others"],
    c11: Float[Tensor, "*draws others others"],
) -> Float[Tensor, "*draws count"]:
    r"""Singular values of :math:`C_{00}^{-1/2} C_{01} C_{11}^{-1/2}`, from the largest down, at most one."""
    _check(c00, c01, c11)
    return torch.linalg.svdvals(whitening(c00).mT @ c01 @ whitening(c11))


def score(
    c00: Float[Tensor, "*draws functions functions"],
    c01: Float[Tensor, "*draws functions others"],
    c11: Float[Tensor, "*draws others others"],
    *,
    kind: Score = "VAMP-2",
    processes: int | None = None,
) -> Float[Tensor, "*draws"]:
    r"""Score of functions on the moments themselves.

    .. math:: R_1 = \sum_i \sigma_i, \quad R_2 = R_E = \sum_i \sigma_i^2

    with the singular values :math:`\sigma_i`; the constant function, if it is among the functions, counts with
    :math:`\sigma_0 = 1`. The score does not feel invertible linear maps of the functions. On the data of which the
    functions were chosen it is too large; see :meth:`SingularModel.score`.

    Parameters
    ----------
    processes
        How many singular values count, the constant function included; all by default.

    Raises
    ------
    DataError, ShapeError
        If the matrices do not fit or are no moments.

    References
    ----------
    Wu, Noé, J. Nonlinear Sci. 30, 23 (2020), section 3.
    """
    sigma = singular_values(c00, c01, c11)[..., _checked(processes, c01)]
    return (sigma if _known(kind) == "VAMP-1" else sigma.square()).sum(-1)


@dataclass(frozen=True, eq=False)
class SingularModel:
    r"""Best model of rank k, :math:`E[g(x_{t+\tau})|x_t] \approx \sum_i \sigma_i u_i(x_t) \langle v_i, g \rangle`.

    Attributes
    ----------
    left, right
        Coefficients of :math:`u_i = U^\top \chi_0` and :math:`v_i = V^\top \chi_1`.
    values
        :math:`\sigma_i`.
    """

    left: Float[Tensor, "*draws functions processes"]
    values: Float[Tensor, "*draws processes"]
    right: Float[Tensor, "*draws others processes"]

    @classmethod
    def of(cls, c00: Tensor, c01: Tensor, c11: Tensor, *, processes: int | None = None) -> SingularModel:
        """Model from moments of training data, of the first ``processes`` singular functions."""
        _check(c00, c01, c11)
        first, second = whitening(c00), whitening(c11)
        u, sigma, vh = torch.linalg.svd(first.mT @ c01 @ second, full_matrices=False)
        chosen = _checked(processes, c01)
        return cls((first @ u)[..., chosen], sigma[..., chosen], (second @ vh.mT)[..., chosen])

    def score(
        self,
        c00: Float[Tensor, "*draws functions functions"],
        c01: Float[Tensor, "*draws functions others"],
        c11: Float[Tensor, "*draws others others"],
        *,
        kind: Score = "VAMP-2",
    ) -> Float[Tensor, "*draws"]:
        r"""Score of the model on moments of other data: the number by which models are compared.

        VAMP-1 and VAMP-2 are those of the functions :math:`U^\top\chi_0, V^\top\chi_1` on the other moments. VAMP-E

        .. math:: R_E = 2\,\mathrm{tr}\,\Sigma U^\top C_{01} V
                  - \mathrm{tr}\,\Sigma U^\top C_{00} U\,\Sigma V^\top C_{11} V

        judges the singular values also, and is less than :math:`\|K\|^2` by the squared error of the model.

        References
        ----------
        Wu, Noé, J. Nonlinear Sci. 30, 23 (2020), sections 3 and 4.
        """
        early = self.left.mT @ c00 @ self.left
        cross = self.left.mT @ c01 @ self.right
        late = self.right.mT @ c11 @ self.right
        if _known(kind) != "VAMP-E":
            return score(early, cross, late, kind=kind)
        sigma = self.values
        gain = (sigma * cross.diagonal(dim1=-2, dim2=-1)).sum(-1)
        # Zero columns of a rank-deficient model carry σ = 0 and drop out of the sum.
        return 2 * gain - torch.einsum("...i,...ij,...j,...ji->...", sigma, early, sigma, late)


def _known(kind: str) -> str:
    if kind not in ("VAMP-1", "VAMP-2", "VAMP-E"):
        raise DataError(expected("kind", "VAMP-1, VAMP-2 or VAMP-E", kind))
    return kind


def _checked(processes: int | None, c01: Tensor) -> slice:
    most = min(c01.shape[-2:])
    if processes is not None and not 1 <= processes <= most:
        raise DataError(expected("processes", f"from 1 to the {most} functions", processes))
    return slice(processes)


def _check(c00: Tensor, c01: Tensor, c11: Tensor) -> None:
    rows, columns = c01.shape[-2:]
    got = tuple(c00.shape[-2:]), tuple(c11.shape[-2:])
    if got != ((rows, rows), (columns, columns)):
        wanted = f"({rows}, {rows}) and ({columns}, {columns}) as the cross moments say"
        raise ShapeError(expected("c00, c11", wanted, got))
