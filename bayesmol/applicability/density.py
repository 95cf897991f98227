"""Score by a kernel density of the training rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.applicability.linear import new_rows, spreads, training_rows
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.typing import Features

__all__ = ["KernelDensity", "KernelDensityScore"]

_ROWS = 2000  # that choose the bandwidth: its error falls slowly with them, the cost rises with their square
_CHUNK = 2**18  # distances at a time: what fits into the cache


@dataclass(frozen=True)
class KernelDensity:
    r"""Minus the logarithm of a Gaussian kernel density of the training rows,

    .. math:: s(x) = -\ln \frac1n \sum_i \prod_k \frac{1}{h \sigma_k}\,
              \varphi\Bigl(\frac{x_k - x_{ik}}{h \sigma_k}\Bigr),

    each feature in units of its training standard deviation :math:`\sigma_k`. Far from all rows it grows as the
    squared distance to the nearest, where a kernel of finite support gives one value to all.

    Attributes
    ----------
    bandwidth
        h, or the rule for it: ``"likelihood"`` maximises the leave-one-out likelihood of at most 2000 rows, evenly
        spaced; ``"scott"`` is :math:`n^{-1/(d + 4)}`. Frames of a trajectory that follow each other closely make the
        likelihood choose too small an h: thin them before.

    References
    ----------
    Scott, Multivariate Density Estimation (Wiley, 1992); Habbema, Hermans, van den Broek, COMPSTAT 1974 (likelihood).
    """

    bandwidth: float | str = "likelihood"

    def __post_init__(self) -> None:
        known = self.bandwidth in ("likelihood", "scott")
        if not known and not (isinstance(self.bandwidth, (int, float)) and self.bandwidth > 0):
            raise DataError(expected("bandwidth", "a positive number, 'likelihood' or 'scott'", self.bandwidth))

    def fit(self, features: Features) -> KernelDensityScore:
        """Score from training features.

        Raises
        ------
        DataError
            If a feature is not finite, or a rule has no two different rows.
        """
        features = training_rows(features)
        center, spread = features.mean(0), spreads(features)
        standard = (features - center) / spread
        width: Any = self.bandwidth
        if width == "likelihood":
            width = _likely_bandwidth(standard)
        elif width == "scott":
            width = len(features) ** (-1 / (features.shape[1] + 4))
        return KernelDensityScore(standard / width, center, spread * width)


@dataclass(frozen=True, eq=False)
class KernelDensityScore:
    """Fitted :class:`KernelDensity`: training rows in bandwidths about their mean, the mean, and the bandwidths."""

    reference: Float[Tensor, "training features"]
    center: Float[Tensor, " features"]
    bandwidths: Float[Tensor, " features"]

    def __post_init__(self) -> None:
        got = (tuple(self.reference.shape[1:]), tuple(self.center.shape), tuple(self.bandwidths.shape))
        if len(set(got)) > 1:
            raise ShapeError(expected("reference, center, bandwidths", "as many features in each", got))

    def __call__(self, features: Features) -> Float[Tensor, " rows"]:
        """Minus the log-density of each row, in nats with the units of the features as the measure."""
        rows = (new_rows(features, len(self.center)) - self.center) / self.bandwidths
        halves = -self.reference.square().sum(1) / 2
        sums = [
            torch.addmm(halves, part, self.reference.T).logsumexp(1) - part.square().sum(1) / 2
            for part in rows.split(max(1, _CHUNK // len(self.reference)))
        ]
        constant = math.log(len(self.reference)) + len(self.center) / 2 * math.log(2 * math.pi)
        return (constant + self.bandwidths.log().sum() - torch.cat(sums)).to(features.dtype)


def _likely_bandwidth(standard: Tensor) -> float:
    """Bandwidth of the greatest leave-one-out likelihood; of equal rows one counts, or h would fall to zero."""
    from scipy.optimize import minimize_scalar

    count = min(len(standard), _ROWS)
    places = torch.linspace(0, len(standard) - 1, count, dtype=torch.float64).round().long()
    rows = standard[places.to(standard.device)].unique(dim=0)
    if len(rows) < 2:
        raise DataError(expected("features", "at least two different rows", "one", "give the bandwidth"))
    squares = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square().fill_diagonal_(math.inf)

    def loss(log_width: float) -> float:
        sums = (-squares / (2 * math.exp(2 * log_width))).logsumexp(1)
        return rows.shape[1] * log_width - float(sums.mean())

    nearest = squares.amin(1).sqrt()
    # The best h lies between the shortest distance to a neighbour and the longest, apart from a factor of order 1/√d.
    bounds = (math.log(float(nearest.min()) / rows.shape[1] ** 0.5) - 1, math.log(float(nearest.max())) + 1)
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-3}).x)
