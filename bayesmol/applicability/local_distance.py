"""Score by the distance to the nearest training row, relative to how far apart training rows lie there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.applicability.linear import new_rows, spreads, training_rows
from bayesmol.errors import DataError, expected
from bayesmol.typing import Features

__all__ = ["LocalDistance", "LocalDistanceScore"]

FLOOR = 0.3  # of the mean spacing, added to that of each row, so that twins in training do not make their surroundings
ENTRIES = 2**22  # of a matrix of distances that is held at once


@dataclass(frozen=True)
class LocalDistance:
    r"""Distance to the nearest training row in units of the spacing of training rows around it.

    .. math:: s(x) = \min_i \frac{\lVert x - x_i \rVert_1}{\sqrt{\bar\sigma (\sigma_i + 0.3\, \bar\sigma)}}

    with the mean distance :math:`\sigma_i` of training row i from its nearest training rows and the mean
    :math:`\bar\sigma` of these. Each feature is in units of its training standard deviation; one that is constant in
    training keeps its own. A gap between dense rows is so stranger than one as wide between sparse rows. The sum of
    absolute differences, unlike the Euclidean distance, is not ruled by the one feature that differs most.

    Attributes
    ----------
    neighbours
        Number of nearest rows in the mean that is the spacing.

    References
    ----------
    Zelnik-Manor, Perona, Adv. Neural Inf. Process. Syst. 17 (2004), section 3 (scaling by the distance to neighbours).
    """

    neighbours: int = 10

    def fit(self, features: Features) -> LocalDistanceScore:
        """Score from training features, in time that grows with the square of their number.

        Raises
        ------
        ShapeError, DataError
            If the features are no finite matrix, or there are no more rows than neighbours.
        """
        features = training_rows(features)
        if not 1 <= self.neighbours < len(features):
            aim = f"1 to {len(features) - 1} (one less than the training rows)"
            raise DataError(expected("neighbours", aim, self.neighbours))
        scale = spreads(features)
        reference = features / scale
        near = [part.topk(self.neighbours + 1, largest=False).values for part in _distances(reference, reference)]
        spacing = torch.cat(near)[:, 1:].mean(1)  # without itself
        mean = spacing.mean()
        unit = (mean * (spacing + FLOOR * mean)).sqrt()
        return LocalDistanceScore(reference, scale, torch.where(mean > 0, unit, 1.0))


@dataclass(frozen=True, eq=False)
class LocalDistanceScore:
    """Fitted :class:`LocalDistance`: the scaled training rows, the scales of features, and the unit of each row."""

    reference: Features
    scale: Float[Tensor, " features"]
    unit: Float[Tensor, " rows"]

    def __call__(self, features: Features) -> Float[Tensor, " rows"]:
        """Least distance of each row in local units; memory is bounded by chunks of rows."""
        rows = new_rows(features, len(self.scale)) / self.scale
        least = [(part / self.unit).amin(1) for part in _distances(rows, self.reference)]
        return torch.cat([rows.new_zeros(0), *least]).to(features.dtype)


def _distances(rows: Features, reference: Features) -> Iterator[Float[Tensor, "chunk reference"]]:
    for part in rows.split(max(1, ENTRIES // len(reference))):
        yield torch.cdist(part, reference, p=1.0)
