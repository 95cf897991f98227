r"""Which model for how many labels? Learning curves as power laws, and the size at which two of them cross.

The error of a potential falls about as :math:`e(N) = a N^{-b}`. A kernel has the smaller a, a network often the larger
b, and beyond some size the network wins. Both curves are measured on the same random subsets, one row a seed; each row
gives a line in logarithms, and the rows are independent. Everything here follows from the scatter of these lines, by
Student's distribution, which is right for three seeds where a bootstrap of three would be far too sure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Interval
from bayesmol.posterior.interval import checked_level

__all__ = ["Choice", "Crossover", "LearningCurve", "choose", "crossover"]

_DRAWS = 20_000


@dataclass(frozen=True, eq=False)
class LearningCurve:
    r"""Errors of one model after training on more and more labels, and their power law.

    .. math:: \ln e_s(N) = \ln a_s - b_s \ln N + \varepsilon

    Attributes
    ----------
    sizes
        Numbers of labels, rising.
    errors
        One row for each seed: the subset of the data, the same in the curves that are compared, and all else random.
    unit
        Of the errors.

    Raises
    ------
    ShapeError, DataError
        If there are fewer than two sizes, these do not rise, or an error is not positive.
    """

    sizes: Float[Tensor, " sizes"]
    errors: Float[Tensor, "seeds sizes"]
    unit: str = "eV/Å"

    def __post_init__(self) -> None:
        if self.errors.ndim != 2 or self.errors.shape[1:] != self.sizes.shape:
            raise ShapeError(expected("errors", f"shape (seeds, {len(self.sizes)})", tuple(self.errors.shape)))
        if len(self.sizes) < 2 or not bool((self.sizes.double().diff() > 0).all() and (self.sizes > 0).all()):
            raise DataError(expected("sizes", "two or more rising numbers of labels", self.sizes.tolist()))
        if not bool((torch.isfinite(self.errors) & (self.errors > 0)).all()):
            raise DataError(expected("errors", "positive finite numbers", "others", "an exact model needs no curve"))

    @property
    def lines(self) -> Float[Tensor, "seeds 2"]:
        r"""Least-squares line of each seed: :math:`\ln a_s` and :math:`-b_s`."""
        return self._fitted(2)

    @property
    def curvature_p_value(self) -> float:
        """Probability of as much bending as there is if the law were a power; NaN below three sizes or two seeds."""
        if len(self.sizes) < 3 or len(self.errors) < 2:
            return math.nan
        return _two_sided(self._fitted(3)[:, 2])

    def _fitted(self, terms: int) -> Tensor:
        logs = self.sizes.double().log()
        design = logs[:, None] ** torch.arange(terms, device=logs.device)
        return torch.linalg.lstsq(design, self.errors.double().log().mT).solution.mT

    def predicted(self, size: float, *, level: float = 0.9) -> Interval:
        """Interval of the expected logarithm of the error after ``size`` labels, turned into an error.

        It is infinite for one seed, whose scatter is not known.
        """
        values = self.lines @ torch.tensor([1.0, math.log(size)], dtype=torch.float64).to(self.lines)
        half = _half_width(values, level)
        sentence = f"Student over {len(values)} seeds, if the law is a power up to {size:g} labels"
        return Interval((values.mean() - half).exp(), (values.mean() + half).exp(), level, self.unit, sentence)


@dataclass(frozen=True)
class Crossover:
    """Where the second of two learning curves gets below the first, or the other way round.

    Attributes
    ----------
    size
        Number of labels at which the mean power laws are equal; infinite where they do not meet at more than one label.
    interval
        Where the size may be; an open side is 1 or infinite. Sizes inside ``excluded`` are not in the set although the
        interval spans them.
    excluded
        Sizes between which the two do not cross, where the set has a hole; else ``None``.
    later
        Which model has the smaller error at large sizes: 0 or 1.
    probability
        That this is so.
    inside
        Whether the size lies among the measured sizes of both models.
    """

    size: float
    interval: Interval
    excluded: tuple[float, float] | None
    later: int
    probability: float
    inside: bool

    def __str__(self) -> str:
        ends = f"{float(self.interval.lower):.3g} to {float(self.interval.upper):.3g}"
        if math.isinf(self.size):
            return f"no crossover ({100 * self.interval.level:g} %: {ends} labels)"
        where = "" if self.inside else ", beyond the data"
        return f"crossover at {self.size:.3g} labels ({100 * self.interval.level:g} %: {ends}{where})"


def crossover(first: LearningCurve, second: LearningCurve, *, level: float = 0.9) -> Crossover:
    r"""Number of labels at which two models are equally good.

    With the differences :math:`d_s(x) = \alpha_s + \beta_s x` of the lines of each seed at :math:`x = \ln N`, the set
    of sizes that Student's test does not reject,

    .. math:: \Big\{ x : \frac{n\, \bar d(x)^2}{\mathrm{Var}_s[d_s(x)]} \le t_{n-1}^2 \Big\},

    holds the crossing of the expected lines with probability ``level`` exactly, for normal lines and any number of
    seeds. It is an interval where the slopes differ clearly. Else it is all sizes, or all but those of a hole between
    which the curves do not cross; a half-open interval is a hole that begins below one label.

    Raises
    ------
    DataError
        If the curves have different numbers of seeds.

    References
    ----------
    Fieller, J. R. Stat. Soc. B 16, 175 (1954).
    """
    lines = _differences(first, second)
    intercept, slope = lines.mean(0).tolist()
    place = math.inf if slope == 0 else -intercept / slope
    size = _exponential(place) if place >= 0 else math.inf
    bounds, hole = _fieller(lines, checked_level(level))
    ends = torch.tensor([max(1.0, _exponential(end)) for end in bounds], dtype=torch.float64)
    sentence = (
        f"exact for normal learning curves that are power laws, {len(lines)} seeds; the law is extrapolated beyond the "
        "measured sizes"
    )
    interval = Interval(ends[0], ends[1], level, "labels", sentence)
    excluded = None if hole is None else (_exponential(hole[0]), _exponential(hole[1]))
    low = max(float(curve.sizes[0]) for curve in (first, second))
    high = min(float(curve.sizes[-1]) for curve in (first, second))
    probability = _below_zero(-lines[:, 1]) if slope > 0 else _below_zero(lines[:, 1])
    return Crossover(size, interval, excluded, int(slope > 0), probability, low <= size <= high)


def _differences(first: LearningCurve, second: LearningCurve) -> Tensor:
    if len(first.errors) != len(second.errors):
        got = f"{len(first.errors)} and {len(second.errors)}"
        raise DataError(expected("curves", "the same seeds in both", got, "measure both on the same subsets"))
    return first.lines - second.lines


def _fieller(lines: Tensor, level: float) -> tuple[tuple[float, float], tuple[float, float] | None]:
    """Ends of the set in :math:`x`, and its hole if it is the outside of one."""
    everything = (0.0, math.inf)
    if len(lines) < 2:
        return everything, None
    count = len(lines)
    scale = stats.t.ppf((1 + level) / 2, count - 1) ** 2 / count
    intercept, slope = lines.mean(0).tolist()
    place = 0.0 if slope == 0 else -intercept / slope  # counted from there, rounding cannot lose the set
    moved = torch.stack([lines[:, 0] + place * lines[:, 1], lines[:, 1]], 1)
    (variance, b), (_, spread) = (-scale * torch.cov(moved.mT)).tolist()
    c, a = variance + (intercept**2 if slope == 0 else 0.0), slope**2 + spread
    inside = b * b - a * c
    if a == 0 or inside < 0:
        return everything, None
    low, high = sorted((place + (-b - math.sqrt(inside)) / a, place + (-b + math.sqrt(inside)) / a))
    if a > 0:
        return (low, high), None
    if high <= 0:
        return everything, None
    return ((high, math.inf), None) if low <= 0 else (everything, (low, high))


@dataclass(frozen=True)
class Choice:
    """Which model to train with a given number of labels.

    Attributes
    ----------
    name
        The one that is most probably the best.
    probabilities
        That each is the best.
    errors
        90 % interval of the expected error of each.
    guarantee
        Under which assumption this is so.
    """

    name: str
    probabilities: dict[str, float]
    errors: dict[str, Interval]
    guarantee: str


def choose(curves: Mapping[str, LearningCurve], budget: float, *, seed: int | torch.Generator = 0) -> Choice:
    """Model with the smallest expected error after ``budget`` labels, with the probability that it is.

    The lines of the seeds are draws of a normal distribution of unknown mean and covariance; with the prior for which
    every comparison of two models is Student's, the expected logarithms of the errors at the budget have a multivariate
    Student distribution with n − 1 degrees of freedom, from which the probabilities are counted.

    Raises
    ------
    DataError
        If there are fewer than two models or seeds, the numbers of seeds differ, or the budget is below one.
    """
    if len(curves) < 2 or not 1 <= budget < math.inf:
        got = f"{len(curves)} and {budget}"
        raise DataError(expected("curves, budget", "two or more models, one or more labels", got))
    names, counts = list(curves), {len(curve.errors) for curve in curves.values()}
    if len(counts) > 1 or min(counts) < 2:
        raise DataError(expected("curves", "the same two or more seeds in each", sorted(counts), "train more seeds"))
    place = torch.tensor([1.0, math.log(budget)], dtype=torch.float64)
    values = torch.stack([curves[name].lines.cpu() @ place for name in names], 1)
    best = _student_draws(values, seed).argmin(1)
    probabilities = (torch.bincount(best, minlength=len(names)).double() / len(best)).tolist()
    measured = [float(curve.sizes[-1]) for curve in curves.values()]
    said = "" if budget <= min(measured) else f", extrapolated from {min(measured):g} labels"
    return Choice(
        names[max(range(len(names)), key=probabilities.__getitem__)],
        dict(zip(names, probabilities, strict=True)),
        {name: curve.predicted(budget) for name, curve in curves.items()},
        f"if errors are power laws of the number of labels, over {len(values)} seeds{said}",
    )


def _student_draws(values: Float[Tensor, "seeds models"], seed: int | torch.Generator) -> Float[Tensor, "draws models"]:
    """Draws of the mean of normal rows."""
    count, models = values.shape
    source = generator(seed)
    sizes, vectors = torch.linalg.eigh(torch.cov(values.mT) / count)
    normal = torch.randn(_DRAWS, models, generator=source, dtype=torch.float64)
    chi = torch.randn(_DRAWS, count - 1, generator=source, dtype=torch.float64).square().mean(1, keepdim=True)
    return values.mean(0) + (normal / chi.sqrt()) @ (vectors * sizes.clamp_min(0.0).sqrt()).mT


def _half_width(values: Tensor, level: float) -> float:
    if len(values) < 2:
        return math.inf
    return float(stats.t.ppf((1 + checked_level(level)) / 2, len(values) - 1) * values.std() / math.sqrt(len(values)))


def _below_zero(values: Tensor) -> float:
    """Probability that the expectation of normal numbers is negative; NaN for one number."""
    if len(values) < 2:
        return math.nan
    score = float(-values.mean() / values.std()) * math.sqrt(len(values))  # infinite for equal numbers
    return float(stats.t.cdf(score, len(values) - 1))


def _two_sided(values: Tensor) -> float:
    tail = _below_zero(values)
    return 2 * min(tail, 1 - tail)


def _exponential(place: float) -> float:
    return math.exp(place) if place < 700 else math.inf
