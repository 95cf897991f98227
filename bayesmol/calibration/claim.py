"""Claim and Scores: what a posterior says of each entry, and how labels, measured or simulated, compare with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.calibration.metrics import pointwise_crps
from bayesmol.calibration.ranks import ascending_order, midranks
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Draws, Gaussian, Mixture, Posterior, Quantiles
from bayesmol.posterior.estimate import kish

__all__ = [
    "LEVELS",
    "Claim",
    "Scores",
    "probability_transform",
]

# Levels of the central intervals that are scored.
LEVELS = (0.2, 0.5, 0.8, 0.9, 0.95)
MEMBERS = 20  # draws of vectors
CHUNK = 8192
BINS = 20


@dataclass(frozen=True, eq=False)
class Claim:
    """What a posterior says of its entries, computed once for many sets of labels.

    Attributes
    ----------
    posterior
        Distribution of new labels; its rule is not used.

    Raises
    ------
    DataError
        If a variance is not positive and finite.
    """

    posterior: Posterior
    _derived: dict[Callable[[Tensor], Tensor], Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.has_moments:
            return
        variance = self.posterior.variance
        if not bool(((variance > 0) & torch.isfinite(variance)).all()):
            remedy = "include the noise of the labels"
            raise DataError(expected("posterior", "positive finite variances", "zeros, infinity or NaN", remedy))

    @property
    def has_moments(self) -> bool:
        """Whether mean and variance are known; of a few quantiles they are not."""
        return not isinstance(self.posterior, Quantiles)

    @cached_property
    def mean(self) -> Float[Tensor, " entries"]:
        """Expectation of each entry."""
        return self.posterior.mean.double().flatten()

    @cached_property
    def stddev(self) -> Float[Tensor, " entries"]:
        """Standard deviation of each entry."""
        return self.posterior.stddev.double().flatten()

    @cached_property
    def order(self) -> Int[Tensor, " entries"]:
        """Entries by ascending standard deviation."""
        return ascending_order(self.stddev)

    @cached_property
    def ranks(self) -> Float[Tensor, " entries"]:
        """Mid-ranks of the standard deviations."""
        return midranks(self.stddev, self.order)

    @cached_property
    def median(self) -> Float[Tensor, " entries"]:
        """Median of each entry."""
        return self.posterior.quantile(0.5).double().flatten()

    @cached_property
    def ends(self) -> tuple[Float[Tensor, "levels entries"], Float[Tensor, "levels entries"]]:
        """Ends of the central intervals at :data:`LEVELS`."""
        levels = torch.tensor(LEVELS, dtype=torch.float64)
        lower, upper = (self.posterior.quantile((1 + sign * levels) / 2).double().flatten(1) for sign in (-1, 1))
        return lower, upper

    @cached_property
    def width(self) -> Float[Tensor, " entries"]:
        r"""Sum of the widths of the intervals, each times :math:`\alpha / 2`."""
        alpha = 1 - torch.tensor(LEVELS, dtype=torch.float64, device=self.mean.device)
        return (self.ends[1] - self.ends[0]).T @ alpha / 2

    @cached_property
    def bins(self) -> tuple[Int[Tensor, " entries"], Float[Tensor, " bins"], Float[Tensor, " bins"]]:
        """Bin of the standard deviation of each entry, sizes, and root mean variances; at most 20 of 10 or more."""
        count = max(1, min(BINS, len(self.mean) // 10))
        place = (self.ranks * count).long()
        sizes = place.bincount(minlength=count).double()
        return place, sizes, (place.bincount(self.stddev.square(), count) / sizes.clamp_min(1)).sqrt()

    @cached_property
    def gains(self) -> Float[Tensor, " entries"]:
        """Weight of the error of rank r in the mean of all minus the average of the means of the first k, over k.

        That average gives it the weight of the sum of 1/k from r on.
        """
        ranks = torch.arange(1, len(self.mean) + 1, dtype=torch.float64, device=self.mean.device)
        return 1 - (1 / ranks).flip(0).cumsum(0).flip(0)

    @cached_property
    def members(self) -> Float[Tensor, " members *shape"]:
        """A few draws, the same for all sets of labels."""
        return self.posterior.sample(MEMBERS, seed=0).double()

    def derived(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """``function(members)``, computed once."""
        if function not in self._derived:
            self._derived[function] = function(self.members)
        return self._derived[function]

    def scores(self, values: Float[Tensor, "*shape"], *, seed: int | torch.Generator = 0) -> Scores:
        """Scores of one set of labels; the seed is used where ranks among draws are broken at random."""
        source = generator(seed, values.device)
        return Scores(self, values, probability_transform(self.posterior, values, seed=source).flatten())

    def simulated(self, groups: Int[Tensor, " rows"], source: torch.Generator) -> Scores:
        """Scores of labels that are drawn from the claim: structures apart, rows of one structure together."""
        if not self.has_moments:
            median = self.posterior.quantile(0.5)
            return Scores(self, median, torch.rand(median.numel(), generator=source, dtype=torch.float64))
        return self.scores(_drawn(self.posterior, groups, source), seed=source)


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one set of labels, entry by entry; each is computed when it is asked for.

    Attributes
    ----------
    claim
        What is judged.
    values
        Labels.
    pit
        Probability integral transform of each entry, uniform if the claim is true.
    """

    claim: Claim
    values: Float[Tensor, "*shape"]
    pit: Float[Tensor, " entries"]

    @cached_property
    def error(self) -> Float[Tensor, " entries"]:
        """Label minus mean."""
        return self.values.double().flatten() - self.claim.mean

    @cached_property
    def z(self) -> Float[Tensor, " entries"]:
        """Error in standard deviations."""
        return self.error / self.claim.stddev

    @cached_property
    def order(self) -> Int[Tensor, " entries"]:
        """Entries by ascending absolute error."""
        return ascending_order(self.error.abs())

    @cached_property
    def normal(self) -> Float[Tensor, " entries"]:
        r"""Normal score :math:`\Phi^{-1}(F(y))`: standard normal if the claim is true, of whatever shape it is."""
        if isinstance(self.claim.posterior, Gaussian):
            return self.z  # the same, without loss of digits in the tails
        return torch.special.ndtri(self.pit.clamp(1e-16, 1 - 1e-16))

    @cached_property
    def ordered(self) -> Float[Tensor, " entries"]:
        """Absolute errors, ascending."""
        return self.error.abs()[self.order]

    @cached_property
    def nll(self) -> Float[Tensor, " entries"]:
        """Negative log-density of the label, in nats."""
        return -self.claim.posterior.log_prob(self.values).double().flatten()

    @cached_property
    def crps(self) -> Float[Tensor, " entries"]:
        """Continuous ranked probability score."""
        return pointwise_crps(self.claim.posterior, self.values).double().flatten()

    @cached_property
    def weighted(self) -> Float[Tensor, " entries"]:
        """Weighted interval score: quadrature of the CRPS over the levels and the median.

        References
        ----------
        Bracher, Ray, Gneiting, Reich, PLoS Comput. Biol. 17, e1008618 (2021), equation 1.
        """
        values, (lower, upper) = self.values.double().flatten(), self.claim.ends
        total = 0.5 * (values - self.claim.median).abs() + self.claim.width
        for start in range(0, len(values), CHUNK):  # so many entries stay in the cache over all levels
            part = slice(start, start + CHUNK)
            y = values[part]
            total[part] += torch.maximum(lower[:, part] - y, y - upper[:, part]).clamp_min_(0.0).sum(0)
        return total / (len(LEVELS) + 0.5)

    def penalty(self, level: float) -> Float[Tensor, " entries"]:
        r"""Interval score :math:`u - l + \frac2\alpha ((l - y)_+ + (y - u)_+)` at level :math:`1 - \alpha`."""
        index, values = LEVELS.index(level), self.values.double().flatten()
        lower, upper = (end[index] for end in self.claim.ends)
        missed = torch.maximum(lower - values, values - upper).clamp_min_(0.0)
        return upper - lower + 2 / (1 - level) * missed

    def inside(self, level: float) -> Bool[Tensor, " entries"]:
        """Whether the label lies in the central interval of this level, by its probability transform."""
        return self.central <= level

    @cached_property
    def central(self) -> Float[Tensor, " entries"]:
        """Level of the narrowest central interval that holds the label."""
        return (2 * self.pit - 1).abs()


def probability_transform(
    posterior: Posterior, values: Float[Tensor, "*shape"], *, seed: int | torch.Generator = 0
) -> Float[Tensor, "*shape"]:
    r"""Probability integral transform :math:`F(y)` of each entry; uniform on (0, 1) if the posterior is true.

    Among M draws the rank of the label is uniform on 0 … M, and the transform is :math:`(\mathrm{rank} + V)/(M + 1)`
    with a uniform V from ``seed``: exactly uniform when the label is one more draw. For weighted draws M is Kish's
    effective number. Of known quantiles nothing is known between them, and the transform is uniform in the cell.

    References
    ----------
    Gneiting, Balabdaoui, Raftery, J. R. Stat. Soc. B 69, 243 (2007), section 3.1; Czado, Gneiting, Held,
    Biometrics 65, 1254 (2009), equation 1 (randomised).
    """
    if isinstance(posterior, Quantiles):
        return _within_cells(posterior, values, seed)
    if not isinstance(posterior, Draws):
        return posterior.cdf(values).double()
    chains, draws = posterior.values.shape[:2]
    count = chains * draws if posterior.log_weights is None else float(kish(posterior.log_weights))
    ties = torch.rand(values.shape, generator=generator(seed, values.device), dtype=torch.float64, device=values.device)
    return (count * posterior.cdf(values).double() + ties) / (count + 1)


def _drawn(posterior: Posterior, groups: Int[Tensor, " rows"], source: torch.Generator) -> Float[Tensor, "*shape"]:
    """A draw of each row; a joint draw of a mixture or of draws is of one member, which each structure has its own."""
    if not isinstance(posterior, Draws | Mixture):
        return posterior.sample(1, seed=source)[0]
    weights = posterior.weights.flatten().double()
    member = torch.multinomial(weights, int(groups.max()) + 1, replacement=True, generator=source)[groups]
    rows = torch.arange(len(groups), device=groups.device)
    if isinstance(posterior, Draws):
        return posterior.values.flatten(0, 1)[member, rows]
    mean, variance = posterior.means[member, rows], posterior.variances[member, rows]
    normal = torch.randn(mean.shape, generator=source, dtype=mean.dtype, device=mean.device)
    return mean + variance.sqrt() * normal


def _within_cells(posterior: Quantiles, values: Tensor, seed: int | torch.Generator) -> Tensor:
    """A random probability between those of the known quantiles next to each label."""
    levels = torch.cat([posterior.levels.new_zeros(1), posterior.levels, posterior.levels.new_ones(1)]).double()
    cell = (values > posterior.values).sum(0)
    inside = torch.rand(
        values.shape, generator=generator(seed, values.device), dtype=torch.float64, device=values.device
    )
    return levels[cell] + inside * (levels[cell + 1] - levels[cell])
