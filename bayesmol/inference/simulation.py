"""Simulation-based calibration: does an inference engine return the posterior that it claims to return?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior.estimate import effective_sample_size
from bayesmol.progress import progress

__all__ = ["RankHistogram", "Ranks", "independent_draws", "simulated_ranks"]

_NULLS = 4000


@dataclass(frozen=True)
class RankHistogram:
    """Numbers of ranks in bins of equal size, ready to be drawn.

    Attributes
    ----------
    edges
        Of the bins, as shares of the largest rank, 0 to 1.
    counts
        Ranks in each bin, one row a quantity.
    lower, upper
        Band that a right engine stays in, in all bins of one quantity together, with probability at least
        ``confidence`` (binomial in each bin, Bonferroni over the bins).
    """

    edges: Float[Tensor, " edges"]
    counts: Int[Tensor, "quantities bins"]
    lower: int
    upper: int
    confidence: float


@dataclass(frozen=True, eq=False)
class Ranks:
    r"""Rank of each true value among L posterior draws; uniform on 0 … L if the posterior is right.

    Attributes
    ----------
    ranks
        Number of draws below the truth.
    draws
        L.
    """

    ranks: Int[Tensor, "simulations quantities"]
    draws: int

    def histogram(self, bins: int | None = None, confidence: float = 0.99) -> RankHistogram:
        """Histogram with an exact band.

        Parameters
        ----------
        bins
            A divisor of L + 1; by default the largest that leaves at least 20 ranks in a bin.
        """
        simulations = len(self.ranks)
        divisors = [b for b in range(1, self.draws + 2) if (self.draws + 1) % b == 0]
        bins = max([b for b in divisors if simulations >= 20 * b]) if bins is None and simulations >= 20 else bins or 1
        if bins not in divisors:
            raise DataError(expected("bins", f"a divisor of {self.draws + 1}", bins))
        owner = self.ranks * bins // (self.draws + 1)
        counts = torch.stack([torch.bincount(column, minlength=bins) for column in owner.T])
        law = stats.binom(simulations, 1 / bins)
        outside = (1 - confidence) / (2 * bins)
        edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)
        return RankHistogram(edges, counts, int(law.ppf(outside)), int(law.ppf(1 - outside)), confidence)

    @property
    def p_values(self) -> Float[Tensor, " quantities"]:
        r"""Probability that a right engine has ranks at least as uneven, for each quantity.

        The statistic is the smallest two-sided binomial tail of the distribution function of the ranks over all its
        places; its null distribution is simulated, and :math:`p = (1 + \#)/(1 + 4000)` is valid in finite samples.

        References
        ----------
        Säilynoja, Bürkner, Vehtari, Stat. Comput. 32, 32 (2022), section 2.2.
        """
        simulations, places = len(self.ranks), self.draws + 1
        flat = np.full(places, 1 / places)
        null = self._statistic(np.random.default_rng(0).multinomial(simulations, flat, size=_NULLS))
        counts = [torch.bincount(column, minlength=places).numpy() for column in self.ranks.T.cpu()]
        found = self._statistic(np.stack(counts))
        return torch.from_numpy((1 + (null[None] <= found[:, None] * (1 + 1e-9)).sum(1)) / (1 + _NULLS))

    @property
    def p_value(self) -> float:
        """Of all quantities together: the smallest times their number, at most 1 (Bonferroni)."""
        return min(1.0, float(self.p_values.min()) * self.ranks.shape[1])

    def _statistic(self, counts: np.ndarray) -> np.ndarray:
        reached = counts.cumsum(1)[:, :-1]
        law = stats.binom(len(self.ranks), np.arange(1, self.draws + 1) / (self.draws + 1))
        return 2 * np.minimum(law.cdf(reached), law.sf(reached - 1)).min(1)

    def __str__(self) -> str:
        texts = ", ".join(f"{p:.3g}" for p in self.p_values.tolist())
        return f"ranks of {len(self.ranks)} simulations among {self.draws} draws: p = {texts}"


def simulated_ranks(
    prior: Callable[[torch.Generator], Float[Tensor, " parameters"]],
    simulator: Callable[[Tensor, torch.Generator], Any],
    posterior: Callable[[Any, torch.Generator], Tensor],
    *,
    simulations: int = 200,
    draws: int = 63,
    quantities: Callable[[Tensor], Tensor] | None = None,
    seed: int | torch.Generator,
) -> Ranks:
    r"""Ranks of parameters from the prior among the draws of their posterior.

    Of :math:`w \sim p(w)`, :math:`y \sim p(y \mid w)` and :math:`w_1, …, w_L \sim p(w \mid y)` the rank
    :math:`\#\{w_l < w\}` is uniform on 0 … L for each function of w. A posterior that is too narrow gives a U, one that
    is too wide a hump, a biased one a slope.

    Parameters
    ----------
    prior
        One vector of parameters from a source of random numbers.
    simulator
        Data from the parameters.
    posterior
        Draws from the data: independent ones ``(draws, parameters)``, or chains ``(chain, draw, parameters)``, which
        are thinned until they are independent.
    draws
        L.
    quantities
        Functions of a vector that are ranked, ``(parameters,) → (quantities,)``; by default the parameters.

    Raises
    ------
    ShapeError
        If the posterior gives another number of parameters or of independent draws than L.
    ConvergenceError
        If chains are worth fewer than L independent draws.

    References
    ----------
    Talts, Betancourt, Simpson, Vehtari, Gelman, arXiv:1804.06788, algorithms 1 and 2.
    """
    source, found = generator(seed), []
    quantities = (lambda vector: vector) if quantities is None else quantities
    with progress("simulating", simulations) as advance:
        for _ in range(simulations):
            truth = prior(source)
            values = posterior(simulator(truth, source), source)
            if values.shape[-1:] != truth.shape:
                raise ShapeError(expected("posterior", f"{len(truth)} parameters", tuple(values.shape)))
            drawn = _ranked(values, quantities, draws)
            found.append((drawn < quantities(truth)).sum(0))
            advance()
    return Ranks(torch.stack(found), draws)


def _ranked(values: Tensor, quantities: Callable[[Tensor], Tensor], draws: int) -> Float[Tensor, "draws quantities"]:
    if values.ndim == 2:
        if len(values) != draws:
            raise ShapeError(expected("posterior", f"{draws} independent draws, or chains", tuple(values.shape)))
        return torch.stack([quantities(vector) for vector in values])
    flat = torch.stack([quantities(vector) for vector in values.flatten(0, 1)])
    return independent_draws(flat.unflatten(0, values.shape[:2]), draws)


def independent_draws(values: Float[Tensor, "chain draw *event"], size: int) -> Float[Tensor, " size *event"]:
    """``size`` draws at equal distances along the chains, so far apart that they are about independent.

    Raises
    ------
    ConvergenceError
        If the chains are worth fewer independent draws.
    """
    worth = float(effective_sample_size(values).min())
    if not worth >= size or values.shape[0] * values.shape[1] < size:
        remedy = f"chains about {math.ceil(size / max(worth, 1e-9))} times as long" if worth > 0 else "longer chains"
        raise ConvergenceError(expected("chains", f"{size} independent draws", f"{worth:.1f}", remedy))
    flat = values.flatten(0, 1)
    return flat[((torch.arange(size, device=flat.device) + 0.5) * (len(flat) / size)).long()]
