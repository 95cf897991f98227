r"""Verdict: is a claim true, and if not, in what respect? A family of tests with one rate of false alarms.

All tests use the normal scores :math:`\Phi^{-1}(F(y))`, which are independent standard normal numbers if the claim is
true, of whatever shape it is. Bias (Student's t), scale (chi squared) and shape (Anderson–Darling with estimated mean
and variance) are then independent of each other, exactly so by Basu's theorem; the local tests compare the parts of a
condition among themselves. Šidák's rule, with half of the weight on the scale, gives the family its level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from bayesmol.calibration.local import Local
from bayesmol.calibration.ranks import ascending
from bayesmol.calibration.statistics import clustered_error
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator

__all__ = ["Finding", "Verdict", "normality", "verdict"]

POWER = 0.9


@dataclass(frozen=True)
class Finding:
    """Outcome of one test.

    Attributes
    ----------
    aspect
        ``"scale"``, ``"bias"``, ``"shape"``, or ``"scale along …"`` and ``"bias along …"`` a condition.
    p_value
        Of this test alone.
    adjusted
        For all tests together: below the level of the verdict the aspect is wrong.
    text
        What was found.
    """

    aspect: str
    p_value: float
    adjusted: float
    text: str


@dataclass(frozen=True)
class Verdict:
    """What can be said of a claim; prints as a sentence.

    Attributes
    ----------
    findings
        All tests, the strongest evidence first.
    level
        Probability of a false alarm if the claim is true.
    factor, factor_interval
        By what the standard deviations must be multiplied, with a 95 % interval.
    detectable
        Relative error of the scale that would have been found with probability 0.9.
    """

    findings: tuple[Finding, ...]
    level: float
    factor: float
    factor_interval: tuple[float, float]
    detectable: float

    @property
    def consistent(self) -> bool:
        """Whether nothing speaks against the claim at this level."""
        return self.p_value >= self.level

    @property
    def p_value(self) -> float:
        """Of all tests together."""
        return min(finding.adjusted for finding in self.findings)

    def __str__(self) -> str:
        low, high = self.factor_interval
        if self.consistent:
            return (
                f"nothing speaks against the stated uncertainty (p = {self.p_value:.2g}); its scale is right to a "
                f"factor {self.factor:.3g} [{low:.3g}, {high:.3g}], and an error of {100 * self.detectable:.2g} % of "
                f"the scale would have been found with probability {POWER:g}"
            )
        wrong = [finding.text for finding in self.findings if finding.adjusted < self.level]
        return f"{'; '.join(wrong)} (p = {self.p_value:.2g}, false alarms {100 * self.level:g} %)"


def verdict(
    normal: Float[Tensor, " entries"],
    owner: Int[Tensor, " entries"],
    along: tuple[Local, ...] = (),
    *,
    level: float = 0.05,
    seed: int | torch.Generator = 0,
) -> Verdict:
    """Verdict on normal scores.

    Parameters
    ----------
    owner
        Structure of each entry. If a structure has several, its entries may depend on each other: the tests then use
        sums over structures, hold asymptotically, and judge the shape by one random entry of each structure.
    along
        Local calibration along each condition.

    Raises
    ------
    DataError
        If there are fewer than eight structures.
    """
    groups = int(owner.max()) + 1
    if groups < 8:
        raise DataError(expected("truth", "at least 8 independent structures", groups))
    alone = groups == len(owner)
    centred = normal - normal.mean()
    square = float(centred.square().mean())
    # relative standard error of the mean square
    error = math.sqrt(2 / (groups - 1)) if alone else clustered_error(centred.square() - square, owner) / square
    # The interval must hold whatever the shape, so it has the error of the data where this is larger.
    spread = max(error, clustered_error(centred.square() - square, owner) / square)
    factor, interval = _factor(square, spread, groups)
    tests = [
        _Test("scale", 0.5, _scale_p(square, error, groups, alone), _scale_text(factor, interval)),
        _Test("bias", 0.1, _bias_p(normal, owner), _bias_text(float(normal.mean()))),
        _Test("shape", 0.1, *_shape(normal, owner, seed)),
    ]
    for part in along:
        if len(part.scale) > 1:
            weight, name = 0.3 / len(along) / 2, part.parts.name
            tests.append(_Test(f"scale along {name}", weight, *_local_scale(part, normal, owner, alone)))
            tests.append(_Test(f"bias along {name}", weight, *_local_bias(part, normal, owner, alone)))
    return Verdict(_findings(tests), level, factor, interval, _detectable(tests, level, error))


@dataclass(frozen=True)
class _Test:
    """A test, and its weight among all."""

    aspect: str
    weight: float
    p_value: float
    text: str


def _findings(tests: list[_Test]) -> tuple[Finding, ...]:
    """Findings with p-values for all tests together by Šidák's rule with weights, the strongest evidence first."""
    total = sum(test.weight for test in tests)
    found = []
    for test in tests:
        adjusted = -math.expm1(math.log1p(-min(test.p_value, 1 - 1e-16)) * total / test.weight)
        found.append(Finding(test.aspect, test.p_value, adjusted, test.text))
    return tuple(sorted(found, key=lambda finding: finding.adjusted))


def _detectable(tests: list[_Test], level: float, error: float) -> float:
    """Relative error of the scale that the first test finds with probability 0.9."""
    alone = -math.expm1(math.log1p(-level) * tests[0].weight / sum(test.weight for test in tests))
    return math.expm1((stats.norm.isf(alone / 2) + stats.norm.ppf(POWER)) * error / 2)


def normality(values: Float[Tensor, " entries"]) -> float:
    """Probability of an Anderson–Darling statistic as large as that of the values if these are normal.

    Mean and variance are estimated, so the outcome is independent of both.

    References
    ----------
    D'Agostino and Stephens, Goodness-of-Fit Techniques (1986), table 4.9 (case 3).
    """
    count = len(values)
    z = ascending((values - values.mean()) / values.std())
    weights = 2 * torch.arange(1, count + 1, dtype=z.dtype, device=z.device) - 1
    tails = torch.special.log_ndtr(z) + torch.special.log_ndtr(-z).flip(0)
    a = (-count - float((weights * tails).sum()) / count) * (1 + 0.75 / count + 2.25 / count**2)
    if a >= 0.6:
        return math.exp(min(0.0, 1.2937 - 5.709 * a + 0.0186 * a * a)) if a < 150 else 0.0
    if a > 0.34:
        return math.exp(0.9177 - 4.279 * a - 1.38 * a * a)
    if a > 0.2:
        return 1 - math.exp(-8.318 + 42.796 * a - 59.938 * a * a)
    return 1 - math.exp(-13.436 + 101.14 * a - 223.73 * a * a)


def _bias_p(normal: Tensor, owner: Tensor) -> float:
    mean = float(normal.mean())
    return 2 * float(stats.t.sf(abs(mean) / clustered_error(normal - mean, owner), int(owner.max())))


def _scale_p(square: float, error: float, groups: int, alone: bool) -> float:
    if alone:
        law, total = stats.chi2(groups - 1), square * groups
        return min(1.0, 2 * min(float(law.cdf(total)), float(law.sf(total))))
    return 2 * float(stats.t.sf(abs(math.log(square)) / error, groups - 1))


def _factor(square: float, error: float, groups: int) -> tuple[float, tuple[float, float]]:
    """Factor of the standard deviations and its 95 % interval."""
    half = float(stats.t.ppf(0.975, groups - 1)) * error / 2
    return math.sqrt(square), (math.sqrt(square) * math.exp(-half), math.sqrt(square) * math.exp(half))


def _shape(normal: Tensor, owner: Tensor, seed: int | torch.Generator) -> tuple[float, str]:
    """Test of one entry of each structure, and what the tails look like."""
    groups = int(owner.max()) + 1
    if groups < len(owner):
        shuffled = torch.randperm(len(owner), generator=generator(seed, owner.device), device=owner.device)
        chosen = torch.empty(groups, dtype=torch.long, device=owner.device)
        chosen[owner[shuffled]] = shuffled
        normal = normal[chosen]
    z = (normal - normal.mean()) / normal.std()
    skewness, excess = float((z**3).mean()), float((z**4).mean()) - 3
    tails = "heavier" if excess > 0 else "lighter"
    if 1.5 * skewness**2 > abs(excess) / 2:  # gamma distributions have an excess of 1.5 times the squared skewness
        return normality(normal), f"the shape is wrong: errors are skewed to the {'right' if skewness > 0 else 'left'}"
    return normality(normal), f"the shape is wrong: tails are {tails} than claimed (excess kurtosis {excess:.2g})"


def _local_scale(part: Local, normal: Tensor, owner: Tensor, alone: bool) -> tuple[float, str]:
    """Bartlett's test of equal mean squares; of dependent entries Hotelling's test of their logarithms."""
    mean = part.scale.square()
    sizes, count, place = part.sizes, len(part.sizes), part.parts.place
    worst, ends = part.worst
    text = "{} for {} {} by a factor {:.3g} [{:.3g}, {:.3g}]".format(
        _direction(float(part.scale[worst])), part.parts.name, part.parts.labels[worst], float(part.scale[worst]), *ends
    )
    if not alone:
        return _hotelling(mean.log(), (normal.square() - mean[place]) / mean[place], place, owner, sizes), text
    total = sizes.sum()
    statistic = total * ((sizes * mean).sum() / total).log() - (sizes * mean.log()).sum()
    correction = 1 + float((1 / sizes).sum() - 1 / total) / (3 * (count - 1))
    return float(stats.chi2.sf(float(statistic) / correction, count - 1)), text


def _local_bias(part: Local, normal: Tensor, owner: Tensor, alone: bool) -> tuple[float, str]:
    """Analysis of variance of the parts; of dependent entries Hotelling's test."""
    bias, sizes, place = part.bias, part.sizes, part.parts.place
    count, total = len(sizes), len(normal)
    worst = int(((bias - normal.mean()).abs() * sizes.sqrt()).argmax())
    text = f"bias of {float(bias[worst]):.2g} standard deviations for {part.parts.name} {part.parts.labels[worst]}"
    residual = normal - bias[place]
    if not alone:
        return _hotelling(bias, residual, place, owner, sizes), text
    between = float((sizes * (bias - normal.mean()).square()).sum()) / (count - 1)
    within = float(residual.square().sum()) / (total - count)
    return float(stats.f.sf(between / within, count - 1, total - count)), text


def _hotelling(values: Tensor, influence: Tensor, place: Tensor, owner: Tensor, sizes: Tensor) -> float:
    """Whether values of parts are equal, from the influences of the entries, summed within structures."""
    groups, count = int(owner.max()) + 1, len(values)
    if groups <= count:
        return 1.0
    sums = influence.new_zeros(groups * count).index_add_(0, owner * count + place, influence).view(groups, count)
    contrasts = (sums / sizes)[:, 1:] - (sums / sizes)[:, :1]
    covariance = contrasts.mT @ contrasts * groups / (groups - 1)
    gap = values[1:] - values[0]
    square = float(gap @ torch.linalg.pinv(covariance, hermitian=True) @ gap)
    freedom = count - 1
    return float(stats.f.sf(square * (groups - freedom) / (freedom * (groups - 1)), freedom, groups - freedom))


def _direction(factor: float) -> str:
    return "over-confident" if factor > 1 else "under-confident"


def _scale_text(factor: float, interval: tuple[float, float]) -> str:
    return f"{_direction(factor)} by a factor {factor:.3g} [{interval[0]:.3g}, {interval[1]:.3g}]"


def _bias_text(mean: float) -> str:
    return f"biased: labels are {'above' if mean > 0 else 'below'} the mean by {abs(mean):.2g} standard deviations"
