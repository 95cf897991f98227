"""Score by the distance to the nearest training rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.applicability.linear import new_rows, spreads, training_rows
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.typing import Features

__all__ = ["Nearest", "NearestScore"]

_CHUNK = 2**22
_TREE_FEATURES = 6  # the most for which a tree is faster than all distances (measured, 1e3 to 1e5 training rows)
_FEW = 256  # rows for which it does not pay to build a tree


@dataclass(frozen=True)
class Nearest:
    """Mean distance to the nearest training rows, each feature in units of its training standard deviation.

    Features that are constant in training keep their own unit.

    Attributes
    ----------
    neighbours
        Number of nearest rows in the mean.
    """

    neighbours: int = 5

    def fit(self, features: Features) -> NearestScore:
        """Score from training features; raises :class:`DataError` with fewer rows than neighbours."""
        features = training_rows(features)
        if not 1 <= self.neighbours <= len(features):
            raise DataError(expected("neighbours", f"1 to {len(features)} (training rows)", self.neighbours))
        scale = spreads(features)
        return NearestScore(features / scale, scale, torch.tensor(self.neighbours))


@dataclass(frozen=True, eq=False)
class NearestScore:
    """Fitted :class:`Nearest`: the scaled training rows, the scales, and the number of neighbours."""

    reference: Features
    scale: Float[Tensor, " features"]
    neighbours: Tensor

    def __post_init__(self) -> None:
        if self.reference.ndim != 2 or tuple(self.scale.shape) != tuple(self.reference.shape[1:]):
            got = (tuple(self.reference.shape), tuple(self.scale.shape))
            raise ShapeError(expected("reference, scale", "as many features in both", got))
        if not 1 <= int(self.neighbours) <= len(self.reference):
            raise DataError(expected("neighbours", f"1 to {len(self.reference)} (training rows)", self.neighbours))

    def __call__(self, features: Features) -> Float[Tensor, " rows"]:
        """Mean distance of each row to its nearest training rows; exact, with memory bounded by chunks of rows."""
        rows = new_rows(features, len(self.scale)) / self.scale
        count = int(self.neighbours)
        means = [
            # The search expands the square and so loses digits where rows are close; the differences do not.
            (part[:, None] - self.reference[nearest]).norm(dim=2).mean(1)
            for part, nearest in _parts(rows, _nearest(rows, self.reference, count), _CHUNK // count)
        ]
        return torch.cat(means).to(features.dtype)


def _parts(rows: Tensor, nearest: Tensor, entries: int) -> zip:
    size = max(1, entries // rows.shape[1])
    return zip(rows.split(size), nearest.split(size), strict=True)


def _nearest(rows: Features, reference: Features, count: int) -> Int[Tensor, "rows neighbours"]:
    """Indices of the nearest reference rows: by scikit-learn for many rows on a CPU, else by all differences."""
    if len(rows) <= _FEW or rows.device.type != "cpu":
        parts, mode = rows.split(max(1, _CHUNK // len(reference))), "donot_use_mm_for_euclid_dist"
        chosen = [torch.cdist(part, reference, compute_mode=mode).topk(count, largest=False).indices for part in parts]
        return torch.cat(chosen)
    from sklearn.neighbors import NearestNeighbors

    center = reference.mean(0)
    kind = "kd_tree" if rows.shape[1] <= _TREE_FEATURES else "brute"
    search = NearestNeighbors(n_neighbors=count, algorithm=kind).fit((reference - center).numpy())
    return torch.from_numpy(search.kneighbors((rows - center).numpy(), return_distance=False))
