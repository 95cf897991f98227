"""Do walkers mix, stay in equilibrium, move at all, and have tails that allow a standard error?"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from bayesmol.inference.chains import r_hat
from bayesmol.posterior.arviz import pareto_smoothed
from bayesmol.posterior.estimate import effective_sample_size

__all__ = [
    "Drift",
    "Mixing",
    "drift",
    "longest_standstill",
    "mixing",
    "tail_index",
]

_MANY = 16  # walkers from which they are judged by their number, not by their length


class Mixing(NamedTuple):
    r"""Disagreement of walkers that time does not remove.

    Attributes
    ----------
    r_hat
        1 if the walkers forget where they came from.
    chance
        What :math:`\hat R` reaches by chance in one of a thousand runs of this size whose walkers agree.
    """

    r_hat: float
    chance: float


def mixing(values: Float[Tensor, "walkers draws"]) -> Mixing:
    r"""R-hat of many short chains.

    The usual :math:`\hat R` of m chains of n draws tends to :math:`\sqrt{1 + 2\tau/n}` for chains that agree
    perfectly: it takes short for stuck. What only stuck walkers have is a memory, the covariance over walkers of the
    means :math:`a_j, b_j` of their first and second halves,

    .. math:: \hat R^2 = 1 + \max(0, \mathrm{cov}_j(a_j, b_j)) / W,

    with the variance W within walkers. It is nested :math:`\hat R` in the limit of large superchains, of walkers with
    one history. Values are the normal scores of the ranks, and of the ranks of the distances from the median; the
    larger of the two counts. Fewer than 16 walkers are judged by the usual one.

    No diagnostic sees a region that no walker has found.

    References
    ----------
    Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari, Gelman, arXiv:2110.13017; Vehtari, Gelman, Simpson, Carpenter,
    Bürkner, Bayesian Analysis 16, 667 (2021).
    """
    values = values.double()
    if len(values) < _MANY:
        return Mixing(float(r_hat(values.unsqueeze(2))), 1.0)
    folded = (values - values.median()).abs()
    both = [_memory(_scores(part)) for part in (values, folded)]
    return max(both, key=lambda one: one.r_hat)


def _scores(values: Tensor) -> Tensor:
    ranks = torch.from_numpy(stats.rankdata(values.cpu().numpy())).reshape(values.shape)
    return torch.special.ndtri((ranks - 0.375) / (ranks.numel() + 0.25))


def _memory(scores: Tensor) -> Mixing:
    walkers, half = len(scores), scores.shape[1] // 2
    first, second = scores[:, :half].mean(1), scores[:, -half:].mean(1)
    first, second = first - first.mean(), second - second.mean()
    within = float(scores.var(1).mean())
    if within == 0:
        return Mixing(math.inf, 1.0)
    covariance = float(first @ second) / (walkers - 1)
    # Without memory the correlation of the halves has the error 1/√m; 3.1 of them are passed once in a thousand.
    noise = 3.1 * float(first.std() * second.std()) / math.sqrt(walkers)
    return Mixing(math.sqrt(1 + max(covariance, 0.0) / within), math.sqrt(1 + noise / within))


class Drift(NamedTuple):
    """Mean of the first half minus that of the second, in its standard error, and the largest that chance explains."""

    statistic: float
    limit: float


def drift(values: Float[Tensor, "walkers draws"]) -> Drift:
    r"""Whether the run was in equilibrium from its start: the two halves have the same mean.

    From 16 walkers on, Student's t of the differences of the walkers, which are independent; of fewer, the difference
    of the means in units of its error by the effective sample size. The limit is four standard deviations of a normal.

    References
    ----------
    Geweke, in Bayesian Statistics 4, Oxford University Press (1992), p. 169.
    """
    values, half = values.double(), values.shape[1] // 2
    parts = values[:, :half], values[:, -half:]
    if len(values) < _MANY:
        square = sum(float(part.var() / effective_sample_size(part)) for part in parts)
        difference, limit = float(parts[0].mean() - parts[1].mean()), 4.0
    else:
        each = parts[0].mean(1) - parts[1].mean(1)
        square, difference = float(each.var()) / len(each), float(each.mean())
        limit = float(stats.t.isf(stats.norm.sf(4.0), len(each) - 1))
    return Drift(difference / math.sqrt(square) if square > 0 else 0.0, limit)


def longest_standstill(values: Float[Tensor, "walkers draws"]) -> tuple[int, float]:
    r"""The longest time, in draws, for which a walker stood still, and the longest that chance allows.

    A share p of all draws repeats the one before; if it is the same everywhere, none of N draws begins a run of more
    than :math:`\ln(10^{-6}/N)/\ln p` repetitions, but in one of a million runs.
    """
    same = (values[:, 1:] == values[:, :-1]).int()
    run, longest = torch.zeros_like(same[:, 0]), 0
    for column in same.T:
        run = (run + 1) * column
        longest = max(longest, int(run.max()))
    share = float(same.double().mean())
    if share == 0 or longest == 0:
        return 0, math.inf
    limit = math.log(1e-6 / values.numel()) / math.log(share) if share < 1 else 0.0
    return longest, max(limit, values.shape[1] / 10)


def tail_index(values: Float[Tensor, "walkers draws"]) -> tuple[float, float]:
    r"""Pareto k of the distances from the median, with its standard error :math:`(1 + k)/\sqrt{M}` for M in the tail.

    Moments above :math:`1/k` are infinite. Near a node, :math:`E_L \sim 1/d` at a distance d of density
    :math:`d^2`, and near a wrong cusp :math:`E_L \sim 1/r`: :math:`P(|E_L| > x) \sim x^{-3}`, so that k = 1/3 is what
    a sound wavefunction has. The energy then has a standard error, its variance has none.

    Returns
    -------
    k and its error; +∞ for fewer than 25 draws, −∞ if all draws are the same.

    References
    ----------
    Trail, Phys. Rev. E 77, 016703 (2008) (the tail); Smith, Biometrika 72, 67 (1985) (the error of k).
    """
    distance = (values - values.median()).abs().flatten().double()
    count = len(distance)
    positive = distance.clamp_min(torch.finfo(torch.float64).tiny)
    with np.errstate(over="ignore"):  # ArviZ divides by numbers that may overflow, rightly, to infinity
        k = pareto_smoothed(positive.log())[1]
    tail = min(count / 5, 3 * math.sqrt(count))
    return k, (1 + k) / math.sqrt(tail) if math.isfinite(k) else 0.0
