"""From features to states: cells around centres."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import numpy_generator

__all__ = ["Grid", "KMeans", "Partition"]

_DISTANCES = 2**22  # at a time


@dataclass(frozen=True, eq=False)
class Partition:
    r"""Cells of the points nearest to one of the ``centres``.

    .. math:: s(x) = \arg\min_k \sum_f \big((x_f - c_{kf}) / w_f\big)^2

    Attributes
    ----------
    centres
        In the units of the features.
    widths
        Of each feature, what counts as one in the distance.

    Raises
    ------
    ShapeError, DataError
        If the shapes do not fit, a number is not finite, a width is not positive, or two centres are equal.
    """

    centres: Float[Tensor, "states features"]
    widths: Float[Tensor, " features"]

    def __post_init__(self) -> None:
        if self.centres.ndim != 2 or 0 in self.centres.shape or self.widths.shape != self.centres.shape[1:]:
            got = f"{tuple(self.centres.shape)} and {tuple(self.widths.shape)}"
            raise ShapeError(expected("centres, widths", "(states, features) and (features,)", got))
        if not bool(torch.isfinite(self.centres).all()) or not bool(
            (self.widths > 0).all() & self.widths.isfinite().all()
        ):
            raise DataError(expected("centres, widths", "finite centres, positive widths", "others"))
        distinct = len(self.centres.unique(dim=0))
        if distinct < len(self.centres):
            got = f"{distinct} of {len(self.centres)}"
            raise DataError(expected("centres", "different ones", got, "ask for fewer states"))

    @property
    def states(self) -> int:
        """Number of cells."""
        return len(self.centres)

    def assign(self, x: Float[Tensor, "frames features"]) -> Int[Tensor, " frames"]:
        """State of each frame.

        Raises
        ------
        ShapeError, DataError
            If the features are not those of the centres, or one is not finite.
        """
        points = _finite(x, self.centres.shape[1]).to(self.centres)
        scaled = self.centres / self.widths
        size = max(1, _DISTANCES // len(scaled))
        near = [torch.cdist(part / self.widths, scaled, compute_mode=_DIRECT).argmin(1) for part in points.split(size)]
        return torch.cat(near)

    def discretise(self, trajectories: Any) -> Trajectories:
        """The trajectories of the states of their frames, with the same time step."""
        return Trajectories.of(trajectories).mapped(self.assign)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header and arrays for a file."""
        return {}, {"centres": self.centres, "widths": self.widths}

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> Partition:
        """The partition of :meth:`state`."""
        return cls(arrays["centres"], arrays["widths"])


# The expansion of the square that cdist takes for many points loses digits far from the origin.
_DIRECT = "donot_use_mm_for_euclid_dist"


@dataclass(frozen=True)
class KMeans:
    """Cells around ``states`` centres that make the mean squared distance to the nearest small (k-means++, Lloyd).

    Attributes
    ----------
    states
        Number of cells.
    frames
        The centres are placed by at most so many frames, chosen at random from all.

    Raises
    ------
    DataError
        If there is no state, or there are fewer frames than states.
    """

    states: int = 100
    frames: int = 100_000

    def __post_init__(self) -> None:
        if self.states < 1:
            raise DataError(expected("states", "a number ≥ 1", self.states))
        if self.frames < self.states:
            raise DataError(expected("frames", f"at least the {self.states} states", self.frames))

    def fit(self, trajectories: Any, *, seed: int | torch.Generator) -> Partition:
        """Cells of which each holds a frame of the trajectories.

        Raises
        ------
        ShapeError, DataError
            If the frames are states already, there are fewer different ones than cells, or a cell holds no frame.

        References
        ----------
        Arthur, Vassilvitskii, SODA 2007, page 1027 (the start); computed by scikit-learn.
        """
        from sklearn import cluster
        from sklearn.exceptions import ConvergenceWarning

        x, source = _features(trajectories), numpy_generator(seed)
        chosen = x
        if len(x) > self.frames:
            chosen = x[torch.as_tensor(source.choice(len(x), self.frames, replace=False), device=x.device)]
        if len(chosen) < self.states:
            raise DataError(expected("states", f"at most the {len(chosen)} frames", self.states))
        estimator = cluster.KMeans(self.states, n_init=1, random_state=int(source.integers(2**32)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # equal centres are an error of the partition
            found = estimator.fit(chosen.cpu().numpy())
        centres = torch.as_tensor(found.cluster_centers_).to(x)
        return _without_empty(Partition(centres, torch.ones_like(centres[0])), x)


@dataclass(frozen=True)
class Grid:
    """Regular cells between ``lower`` and ``upper``; only those with a frame in them become states.

    A frame in a cell that held none when the grid was fitted belongs to the nearest state. An angle should come as its
    cosine and sine, as a grid does not know that its ends meet.

    Attributes
    ----------
    bins
        Number of cells along each feature.
    lower, upper
        Ends along each feature.

    Raises
    ------
    DataError
        If the three differ in length, a number of cells is below one, or an end is not above the other.
    """

    bins: Sequence[int]
    lower: Sequence[float]
    upper: Sequence[float]

    def __post_init__(self) -> None:
        sizes = {len(self.bins), len(self.lower), len(self.upper)}
        if len(sizes) > 1 or 0 in sizes or min(self.bins) < 1:
            raise DataError(expected("bins, lower, upper", "one number ≥ 1 and two ends a feature", sorted(sizes)))
        ends = list(zip(self.lower, self.upper, strict=True))
        if not all(-math.inf < low < high < math.inf for low, high in ends):
            raise DataError(expected("lower, upper", "finite ends, the lower below the upper", ends))

    def fit(self, trajectories: Any, *, seed: int | torch.Generator = 0) -> Partition:
        """Cells of the grid that hold a frame, in the order of the grid; nothing is random.

        Raises
        ------
        ShapeError, DataError
            If the features are not those of the grid, or a frame lies outside.
        """
        x = _features(trajectories)
        bins, lower, upper = (torch.as_tensor(v).to(x) for v in (self.bins, self.lower, self.upper))
        if x.shape[1] != len(bins):
            raise ShapeError(expected("trajectories", f"{len(bins)} features", x.shape[1]))
        outside = int(((x < lower) | (x > upper)).any(1).sum())
        if outside:
            raise DataError(expected("trajectories", "frames inside the grid", f"{outside} outside", "widen the ends"))
        widths = (upper - lower) / bins
        cells = ((x - lower) / widths).floor().minimum(bins - 1).unique(dim=0)
        return Partition(lower + (cells + 0.5) * widths, widths)


def _features(trajectories: Any) -> Tensor:
    data = Trajectories.of(trajectories)
    if data.discrete:
        raise ShapeError(expected("trajectories", "features (frames, features)", "indices of states"))
    return _finite(torch.cat(data.parts), data.parts[0].shape[1])


def _finite(x: Tensor, features: int) -> Tensor:
    if x.ndim != 2 or x.shape[1] != features:
        raise ShapeError(expected("x", f"(frames, {features})", tuple(x.shape)))
    if not bool(torch.isfinite(x).all()):
        raise DataError(expected("x", "finite features", "NaN or infinity"))
    return x


def _without_empty(partition: Partition, x: Tensor) -> Partition:
    """The partition, or an error if a cell is empty."""
    empty = int((torch.bincount(partition.assign(x), minlength=partition.states) == 0).sum())
    if empty:
        raise DataError(expected("states", "a frame in every cell", f"{empty} empty ones", "ask for fewer states"))
    return partition
