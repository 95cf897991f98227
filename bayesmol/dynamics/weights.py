"""The Bayesian bootstrap of correlated data: random weights of blocks of time, from which estimates are made anew."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.inference.random import generator

__all__ = [
    "FEWEST",
    "FEWEST_EVENTS",
    "BlockWeights",
    "bandwidth",
    "block_weights",
    "covariance_root",
    "distances",
    "independent_events",
]

FEWEST = 10  # degrees of freedom, below which an error bar is not worth printing
FEWEST_EVENTS = 3  # that a number rests on, below which its interval is not to be trusted
_JITTER = 1e-9  # of a variance of one
_TELLING = 300  # draws, from which the influence of a block can be told
_LAGS, _TIMES, _FEWER = 3.0, 5.6, 1.7  # bandwidth in lags; in slowest timescales; and the least of these


@dataclass(frozen=True, eq=False)
class BlockWeights:
    """Weights of blocks, and what their spread is worth.

    Attributes
    ----------
    values
        One row a draw, each with mean about one.
    freedom
        Degrees of freedom of a variance that is estimated from these blocks.
    bandwidth
        Of the kernel, in frames.
    """

    values: Float[Tensor, "draws blocks"]
    freedom: float
    bandwidth: float


def bandwidth(lag: int, slowest: float, frames: int, trajectories: float = 1.0) -> float:
    r"""Bandwidth in frames that suits pairs at this lag and a slowest timescale, in frames.

    Over a kernel of bandwidth h a variance is too small by about :math:`(t/h)^2` for contributions whose correlation
    time is t, and has :math:`\nu = N / (\sqrt\pi h)` degrees of freedom. The error of an eigenvalue is a sum of
    martingale differences, correlated over one lag only; that of populations is correlated over the slowest timescale.
    Three lags and 5.6 timescales make both biases of the standard error smaller than 1.5 %; fewer timescales are taken
    where the trajectories are short.

    Parameters
    ----------
    trajectories
        Number of independent ones of about equal length: as many degrees of freedom there are, however short they are.

    Raises
    ------
    ConvergenceError
        If the trajectories are too short, and too few, for ten degrees of freedom.
    """
    room = frames / (2 * FEWEST * math.sqrt(math.pi))
    wide = max(_LAGS * lag, min(_TIMES * slowest, max(room, _FEWER * slowest)))
    freedom = max(frames / (math.sqrt(math.pi) * wide), trajectories)
    if not freedom >= FEWEST:
        needed = math.ceil(FEWEST * math.sqrt(math.pi) * max(_LAGS * lag, _FEWER * slowest))
        remedy = "sample longer; no error bar can be had from so few transitions"
        got = f"{frames}: a lag of {lag} and a timescale of {slowest:.4g} frames"
        raise ConvergenceError(expected("trajectories", f"at least {needed} frames", got, remedy))
    return wide


def block_weights(
    trajectory: Int[Tensor, " blocks"],
    length: float,
    wide: float,
    draws: int,
    *,
    shares: Float[Tensor, " blocks"] | None = None,
    seed: int | torch.Generator,
) -> BlockWeights:
    r"""Exponential weights of blocks whose covariance over time is a Gaussian kernel.

    .. math:: w_b \propto \left( \tfrac12 (\xi_b^2 + \eta_b^2) \right)^a, \qquad
              \mathrm{Cov}(\xi_b, \xi_c) = e^{-d_{bc}^2 / 4 h^2},

    with two independent Gaussian fields ξ, η, which are independent between trajectories. For a = 1 the weights are
    exponential with covariance :math:`e^{-d_{bc}^2 / 2 h^2}`: with blocks much longer than h the Bayesian bootstrap of
    Rubin, and with shorter ones the spread of an estimate is that of a kernel estimate of its long-run variance. The
    power a of each draw gives the weights the variance :math:`c\, \nu / \chi^2_\nu`, so the spread has the tails of
    Student's t for a variance that ν degrees of freedom estimate. The factor c replaces what the division by the sum
    of the weights takes away: weighted means of independent numbers spread as they should.

    Parameters
    ----------
    trajectory
        Which trajectory each block is of; blocks of one are neighbours, in the order of time.
    length, wide
        Of a block, and h, in frames.
    shares
        Part of each block in the means, up to a factor; by default the same. Unequal ones have less freedom.

    References
    ----------
    Rubin, Ann. Statist. 9, 130 (1981); Shao, J. Am. Stat. Assoc. 105, 218 (2010), for weights that depend on time.
    """
    if len(trajectory) < 2 or draws < 1:
        raise DataError(expected("blocks, draws", "at least two, and one", (len(trajectory), draws)))
    source = generator(seed, trajectory.device)
    distance = distances(trajectory) * (length / wide)
    blocks = len(trajectory)
    share = torch.ones_like(distance[0]) if shares is None else shares
    freedom = float(share.sum().square() / (share @ torch.exp(-distance.square()) @ share))
    if freedom < 2:
        raise ConvergenceError(expected("blocks", "at least two that are independent", blocks, "sample longer"))
    root = covariance_root(torch.exp(-distance.square() / 4))
    fields = torch.randn(2, draws, blocks, generator=source, dtype=torch.float64, device=trajectory.device) @ root
    chi = torch.empty(draws, 1, dtype=torch.float64, device=trajectory.device)
    chi = 2 * torch._standard_gamma(chi.fill_(freedom / 2), generator=source)
    exponential, variance, factor = fields.square().sum(0) / 2, freedom / chi, 1.0
    for _ in range(3):
        weights = exponential ** _power(factor * variance)
        found = weights / weights.mean(1, keepdim=True)
        factor = factor * float((variance[:, 0] / (found - 1).square().mean(1)).median())
    return BlockWeights(found, freedom, wide)


def independent_events(
    values: Float[Tensor, "draws ..."], weights: BlockWeights, length: float
) -> Float[Tensor, "*shape"]:
    r"""On how many independent pieces of the data each quantity rests.

    The covariance :math:`g_b` of a quantity with the weight of a block is the influence of that block. With equal
    influences of n blocks :math:`(\sum g_b^2)^2 / \sum g_b^4 = n`; a rare event that carries a quantity alone makes it
    one, however long the trajectory is. The noise of a finite number of draws is taken out of both sums, and blocks
    within the kernel count as one. Of very many events the kernel leaves influences that are normal, whose fourth
    moment is three times the square of the second: 1/n is therefore the excess kurtosis of the influences over the m
    kernels in the data, by the usual estimator (Joanes & Gill, The Statistician 47, 183 (1998), :math:`G_2`), so that
    few degrees of freedom are not taken for few events; beyond m/3 the number is an upper guess. A quantity that no
    draw moves rests on nothing. On simulated visits to a rare state it gave 1.7 to 2.3 for 2, 3.5 to 4.7 for 4, 9 to 12
    for 8 and 17 to 30 for 16 with the population, and up to 4.4 for 2 with the passage time.

    Parameters
    ----------
    values
        Of the draws of ``weights``, in their order.
    length
        Of a block in frames.

    Raises
    ------
    DataError
        If the draws are others, or fewer than 300: their noise would hide the influences.
    """
    draws = len(weights.values)
    if len(values) != draws or draws < _TELLING:
        raise DataError(expected("values", f"those of {draws} draws, and {_TELLING} draws or more", len(values)))
    rows, shifts = values.reshape(draws, -1), weights.values - weights.values.mean(0)
    off, spread = rows - rows.mean(0), rows.std(0)
    moved = spread > 1e-9 * rows.abs().amax(0)  # less are rounding errors
    influence = shifts.mT @ (off / torch.where(moved, spread, torch.inf)) / draws
    noise = shifts.square().mean(0)[:, None] / draws
    second = (influence.square() - noise).sum(0)
    fourth = (influence**4 - 6 * influence.square() * noise + 3 * noise.square()).sum(0)
    together = max(1.0, math.sqrt(2 * math.pi) * weights.bandwidth / length)
    m = max(influence.shape[0] / together, 4.0)
    kurtosis = m * together * fourth.clamp_min(1e-12) / second.square()
    excess = (m - 1) / ((m - 2) * (m - 3)) * ((m + 1) * kurtosis - 3 * (m - 1))
    return torch.where(moved, 1 / (excess / m).clamp_min(1 / len(influence)), 0.0).reshape(values.shape[1:])


def _power(variance: Float[Tensor, "draws 1"]) -> Float[Tensor, "draws 1"]:
    r"""Power a of a standard exponential with :math:`\Gamma(1 + 2a) / \Gamma(1 + a)^2 = 1 + v`: variance v, mean 1."""
    lower, upper = torch.zeros_like(variance), torch.full_like(variance, 20.0)
    for _ in range(50):
        middle = (lower + upper) / 2
        low = torch.lgamma(1 + 2 * middle) - 2 * torch.lgamma(1 + middle) < torch.log1p(variance)
        lower, upper = torch.where(low, middle, lower), torch.where(low, upper, middle)
    return (lower + upper) / 2


def distances(trajectory: Tensor) -> Float[Tensor, "blocks blocks"]:
    """Blocks between two of the same trajectory; infinite between trajectories."""
    place = torch.arange(len(trajectory), dtype=torch.float64, device=trajectory.device)
    apart = (place[:, None] - place).abs()
    return apart.masked_fill(trajectory[:, None] != trajectory, math.inf)


def covariance_root(covariance: Tensor) -> Tensor:
    """Factor R with :math:`R^\top R` the covariance, which may be singular up to rounding errors."""
    return torch.linalg.cholesky(covariance + _JITTER * torch.eye(len(covariance)).to(covariance)).mT
