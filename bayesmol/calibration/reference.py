"""What a true posterior would show: exact bands of the coverage, and standard errors over structures."""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior.interval import checked_level

__all__ = [
    "binomial_band",
    "bootstrap_standard_error",
    "conformal_rank",
    "coverage_band",
    "resampled_counts",
    "uniform_band",
]


def conformal_rank(count: int, level: float) -> int:
    r"""Rank :math:`\lceil (n + 1)\, \mathrm{level} \rceil` of the score that bounds a new one with that probability.

    A rank above ``count`` means that the sample is too small, so that only an infinite bound has the level.
    """
    return math.ceil((count + 1) * checked_level(level) - 1e-9 * (count + 1))


def coverage_band(n_calibration: int, n_test: int, level: float, confidence: float = 0.99) -> tuple[float, float]:
    r"""Exact band of the coverage of split conformal intervals on ``n_test`` new labels.

    Given the calibration sample the true coverage is :math:`\mathrm{Beta}(k, n + 1 - k)` with
    :math:`k = \lceil (n+1)\,\mathrm{level} \rceil` (continuous scores), so hits are Beta-binomial.

    Raises
    ------
    DataError
        If the calibration sample cannot give the level.

    References
    ----------
    Vovk, Mach. Learn. 92, 349 (2013), proposition 2a.
    """
    rank = conformal_rank(n_calibration, level)
    if rank > n_calibration:
        needed = math.ceil(level / (1 - level) - 1e-9)
        raise DataError(expected("n_calibration", f"at least {needed} at level {level:g}", n_calibration))
    hits = stats.betabinom(_size(n_test), rank, n_calibration + 1 - rank)
    return _central(hits, n_test, confidence)


def binomial_band(n_test: int, level: float, confidence: float = 0.99) -> tuple[float, float]:
    """Exact band of the coverage of intervals that have ``level`` by construction, on ``n_test`` independent labels."""
    return _central(stats.binom(_size(n_test), checked_level(level)), n_test, confidence)


def uniform_band(
    count: int, points: int = 50, confidence: float = 0.95, *, resamples: int = 4000
) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"], Float[Tensor, " points"]]:
    r"""Band that holds the whole distribution function of ``count`` independent uniform numbers.

    At each of the points between 0 and 1 the band is a binomial interval; its level is chosen, from simulated
    distribution functions, so that all of them hold together with probability ``confidence``.

    Returns
    -------
    Points, lower and upper end at each.

    References
    ----------
    Säilynoja, Bürkner, Vehtari, Stat. Comput. 32, 32 (2022), section 2.2 (simulation).
    """
    places = np.arange(1, points) / points
    draws = np.random.default_rng(0).multinomial(_size(count), np.full(points, 1 / points), size=resamples)
    reached = draws.cumsum(1)[:, :-1]
    law = stats.binom(count, places)
    tail = 2 * np.minimum(law.cdf(reached), law.sf(reached - 1)).min(1)
    outside = np.quantile(tail, 1 - confidence)
    ends = (law.ppf(outside / 2) / count, law.ppf(1 - outside / 2) / count)
    return torch.from_numpy(places), torch.from_numpy(ends[0]), torch.from_numpy(ends[1])


def resampled_counts(
    groups: int, resamples: int, *, seed: int | torch.Generator, device: torch.device | str = "cpu"
) -> Float[Tensor, " resamples groups"]:
    """How often each group is drawn in each bootstrap sample of ``groups`` groups with replacement."""
    source = generator(seed, device)
    drawn = torch.randint(groups, (resamples, groups), generator=source, device=device)
    counts = torch.zeros(resamples, groups, dtype=torch.float64, device=device)
    return counts.scatter_add_(1, drawn, torch.ones_like(counts))


def bootstrap_standard_error(
    statistic: Callable[[Tensor], Tensor],
    groups: Int[Tensor, "*shape"],
    *,
    resamples: int = 200,
    seed: int | torch.Generator = 0,
) -> float:
    """Standard error of ``statistic(weights)`` when whole groups, not entries, are the independent units.

    Components of one structure are correlated, so ``groups`` is the structure of each entry. Infinite with one group.

    Parameters
    ----------
    statistic
        Function of weights with the shape of ``groups``, for example ``lambda w: crps(posterior, truth, w)``.
    """
    labels, inverse = groups.unique(return_inverse=True)
    if len(labels) < 2:
        return math.inf
    counts = resampled_counts(len(labels), resamples, seed=seed, device=groups.device)
    return float(torch.stack([statistic(row[inverse]) for row in counts]).double().std())


def _size(n_test: int) -> int:
    if n_test < 1:
        raise DataError(expected("n_test", "at least 1", n_test))
    return n_test


def _central(hits: "stats.rv_frozen", n_test: int, confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise DataError(expected("confidence", "a probability strictly between 0 and 1", confidence))
    return float(hits.ppf((1 - confidence) / 2)) / n_test, float(hits.ppf((1 + confidence) / 2)) / n_test
