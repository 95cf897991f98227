"""Extrapolation grade: how far a row reaches beyond the rows that span the largest volume (MaxVol)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.applicability.linear import new_rows, training_rows
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.typing import Features

__all__ = ["MaxVol", "MaxVolScore"]


@dataclass(frozen=True)
class MaxVol:
    r"""Extrapolation grade of a linear model,

    .. math:: \gamma(x) = \max_j |c_j|, \qquad x = \sum_j c_j\, a_j,

    with the active set :math:`a_1, \dots, a_p`: training rows whose determinant no exchange of one of them raises by
    more than the tolerance, so that :math:`\gamma \le 1 + \mathrm{tolerance}` on every training row. A row with
    :math:`\gamma \le 1` is interpolated. The grade does not change under invertible linear maps of the features.

    If the training rows do not span all features, the active set has as many rows as the span has dimensions, and what
    a row x has outside is graded by its length, features in units of their root mean square,

    .. math:: \gamma_\perp(x) = \|x_\perp\| \big/ \bigl(\epsilon\, s_1 \sqrt{p - r}\bigr),

    as if each of the :math:`p - r` directions that the rows lack had the least singular value that counts as one,
    :math:`\epsilon` times the largest, :math:`s_1`. It is at most 1 on training rows and huge (but finite) elsewhere;
    the score is the greater of the two.

    Attributes
    ----------
    tolerance
        Least relative gain in volume for which two rows are exchanged.
    rank_tolerance
        :math:`\epsilon`, the singular value, relative to the largest, below which a direction counts as absent.

    References
    ----------
    Goreinov et al., in Matrix Methods (World Scientific, 2010), 247; Podryabinkin, Shapeev, Comput. Mater. Sci. 140,
    171 (2017).
    """

    tolerance: float = 0.01
    rank_tolerance: float = 1e-8

    def __post_init__(self) -> None:
        if not self.tolerance >= 1e-6:
            aim = "at least 1e-6, below which rounding decides"
            raise DataError(expected("tolerance", aim, self.tolerance))
        if not 0 < self.rank_tolerance < 1:
            raise DataError(expected("rank_tolerance", "a number between 0 and 1", self.rank_tolerance))

    def fit(self, features: Features) -> MaxVolScore:
        """Score from training features; raises :class:`DataError` if one is not finite or all are zero."""
        features = training_rows(features)
        root = features.square().mean(0).sqrt()
        if not bool(root.any()):
            raise DataError(expected("features", "features other than zero", "only zeros"))
        scale = torch.where(root > 0, root, 1.0)
        # The singular values of R are those of the rows; by the Gram matrix the small ones would drown in rounding.
        _, sizes, basis = torch.linalg.svd(torch.linalg.qr(features / scale, mode="r").R, full_matrices=False)
        rank = int((sizes > self.rank_tolerance * sizes[0]).sum())
        directions = basis[:rank].T
        # Orthonormal columns: the best conditioned basis of the span in which to search.
        whitening = directions / sizes[:rank]
        active, inverse = _dominant((features / scale) @ whitening, self.tolerance)
        missing = features.shape[1] - rank
        floor = self.rank_tolerance * sizes[0] * math.sqrt(max(missing, 1))
        return MaxVolScore(active, (whitening @ inverse) / scale[:, None], scale, directions, floor)


@dataclass(frozen=True, eq=False)
class MaxVolScore:
    """Fitted :class:`MaxVol`.

    Attributes
    ----------
    active
        Training rows of the active set: the rows to label if the labels of few must do for all.
    inverse
        Maps a row of features to its coefficients on the active set.
    scale
        Root mean square of each feature over the training rows.
    directions
        Orthonormal basis of the span of the training rows, in scaled features.
    floor
        Length outside the span, in scaled features, that has grade 1.
    """

    active: Int[Tensor, " rank"]
    inverse: Float[Tensor, "features rank"]
    scale: Float[Tensor, " features"]
    directions: Float[Tensor, "features rank"]
    floor: Float[Tensor, ""]

    def __post_init__(self) -> None:
        shape = (len(self.scale), len(self.active))
        if tuple(self.inverse.shape) != shape or tuple(self.directions.shape) != shape:
            got = (tuple(self.inverse.shape), tuple(self.directions.shape))
            raise ShapeError(expected("inverse, directions", f"shape {shape} both", got))

    def __call__(self, features: Features) -> Float[Tensor, " rows"]:
        """Extrapolation grade of each row."""
        rows = new_rows(features, len(self.scale))
        grade = (rows @ self.inverse).abs().amax(1)
        if len(self.active) < len(self.scale):
            scaled = rows / self.scale
            outside = (scaled - (scaled @ self.directions) @ self.directions.T).norm(dim=1)
            grade = torch.maximum(grade, outside / self.floor)
        return grade.to(features.dtype)


def _dominant(rows: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Indices of a dominant square submatrix of rows of full column rank, and its inverse."""
    active = _pivots(rows)
    while True:
        # The inverse is made afresh, since errors add up over the rank-one updates.
        inverse = torch.linalg.inv(rows[active])
        coefficients = rows @ inverse
        before = active.clone()
        while True:
            row, column = divmod(int(coefficients.abs().argmax()), rows.shape[1])
            pivot = coefficients[row, column].clone()
            if float(pivot.abs()) <= 1 + tolerance:
                break
            change = coefficients[row].clone()
            change[column] -= 1
            coefficients.addr_(coefficients[:, column].clone(), change / pivot, alpha=-1)
            active[column] = row
        if torch.equal(before, active):
            return active, inverse


def _pivots(rows: Tensor) -> Tensor:
    """Rows that Gaussian elimination with partial pivoting chooses: a good first guess."""
    _, swaps = torch.linalg.lu_factor(rows)
    order = list(range(len(rows)))
    for place, other in enumerate((swaps - 1).tolist()):
        order[place], order[other] = order[other], order[place]
    return torch.tensor(order[: rows.shape[1]], device=rows.device)
