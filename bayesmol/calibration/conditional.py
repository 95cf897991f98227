"""Do the features tell where errors are large, or where the uncertainty is wrong? Skill on left-out structures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.calibration.locality import ErrorField, checked_field
from bayesmol.calibration.observed import paired
from bayesmol.calibration.reference import resampled_counts
from bayesmol.data import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Estimate, Posterior
from bayesmol.typing import Features

__all__ = ["Skill", "conditional_calibration", "locality"]

_FOLDS = 5


@dataclass(frozen=True)
class Skill:
    """How much better a field predicts left-out structures than a constant does.

    Attributes
    ----------
    r2
        Fraction of the variance that the field explains.
    gain
        Mean gain in log-density of an entry, in nats.
    p_value
        Probability of a gain at least as large if nothing depended on the features: one half of the structures teaches
        a field, the errors of the other half are permuted within and between structures.
    """

    r2: Estimate
    gain: Estimate
    p_value: float

    def __str__(self) -> str:
        return f"explains {self.r2} of the variance, gains {self.gain} an entry, p = {self.p_value:.2g}"


def locality(
    features: Features,
    absolute_residuals: Float[Tensor, " rows"],
    *,
    groups: Int[Tensor, " rows"] | None = None,
    field: ErrorField | None = None,
    permutations: int = 499,
    seed: int | torch.Generator,
) -> Skill:
    r"""Is there any locality of the errors at all? The field of left-out structures against a constant error.

    The gain is that of the log-density :math:`-\ln 2m - |e|/m` of a Laplace law whose scale m is the field.

    Parameters
    ----------
    absolute_residuals
        Of a model that has not seen the labels.
    groups
        Structure of each row: cross-validation, permutations and standard errors take structures as units.
    field
        How the field is learned.

    Raises
    ------
    ShapeError, DataError
        As for :meth:`~bayesmol.calibration.locality.ErrorField.fit`; or there are fewer than 20 structures.
    """
    return _skill(field or ErrorField(), features, absolute_residuals, groups, permutations, seed, power=1.0)


def conditional_calibration(
    posterior: Posterior,
    truth: Tensor | Labelled | Posterior,
    features: Features,
    *,
    groups: Int[Tensor, " rows"] | None = None,
    field: ErrorField | None = None,
    permutations: int = 499,
    seed: int | torch.Generator,
) -> Skill:
    r"""Is the uncertainty true everywhere? Regression of :math:`z^2 = (y - \mu)^2/\sigma^2` on features.

    If it is, no feature predicts :math:`z^2` of left-out structures. The gain is that of the normal log-density when
    each variance is multiplied by the field of :math:`z^2` instead of by its mean. Entries of a row are averaged.

    Parameters
    ----------
    field
        How the regression is done; by default a forest with leaves of 20 rows.
    groups
        Structure of each row.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, a standard deviation is zero, or there are fewer than 20 structures.
    """
    posterior, observed = paired(posterior, truth, groups=groups)
    if not bool((posterior.variance > 0).all()):
        raise DataError(expected("posterior", "positive variances", "zeros", "include the noise of the labels"))
    z = (observed.values - posterior.mean).double() / posterior.stddev.double()
    squares = z.square().reshape(len(z), -1).mean(1)
    return _skill(field or ErrorField(leaf=20), features, squares, observed.groups, permutations, seed, power=0.5)


def _skill(
    spec: ErrorField,
    features: Tensor,
    values: Tensor,
    groups: Tensor | None,
    permutations: int,
    seed: int | torch.Generator,
    *,
    power: float,
) -> Skill:
    """Skill for the log-density :math:`-p(\\ln m + y/m)` of values y with the field m, p the power."""
    groups = checked_field(features, values, groups, spec.leaf)
    source, values, features = generator(seed), values.double().cpu(), features.cpu()
    _, owner, sizes = groups.cpu().unique(return_inverse=True, return_counts=True)
    if len(sizes) < 4 * _FOLDS:
        raise DataError(expected("groups", f"at least {4 * _FOLDS} structures", len(sizes)))
    fold = (torch.randperm(len(sizes), generator=source) % _FOLDS)[owner]
    local, constant = torch.empty_like(values), torch.empty_like(values)
    for k in range(_FOLDS):
        own = fold == k
        local[own], constant[own] = _left_out(spec, features, values, owner, own, source)
    gains = power * ((constant / local).log() + values * (1 / constant - 1 / local))
    columns = [(values - constant).square(), (values - local).square(), gains, torch.ones_like(values)]
    sums = values.new_zeros(len(sizes), 4).index_add_(0, owner, torch.stack(columns, 1))
    return Skill(*_estimates(sums, source), _p_value(spec, features, values, owner, permutations, source))


def _left_out(
    spec: ErrorField, features: Tensor, values: Tensor, owner: Tensor, own: Tensor, source: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Field and constant of the rest at the rows ``own``."""
    rest = ~own
    fitted = spec.fit(features[rest], values[rest], groups=owner[rest], seed=source)
    mean = values[rest].mean()
    return fitted.mean(features[own]).value.clamp_min(0.01 * float(mean)), mean.expand(int(own.sum()))


def _p_value(
    spec: ErrorField, features: Tensor, values: Tensor, owner: Tensor, permutations: int, source: torch.Generator
) -> float:
    """One half of the structures teaches the field and the other is permuted, which makes the p-value exact.

    With the fields of a cross-validation, that have seen each other's labels, it would be too small.
    """
    structures = int(owner.max()) + 1
    own = (torch.randperm(structures, generator=source) % 2)[owner].bool()
    local, constant = _left_out(spec, features, values, owner, own, source)
    slope, judged = 1 / constant - 1 / local, values[own]
    _, inverse, sizes = owner[own].unique(return_inverse=True, return_counts=True)
    null = [(judged[shuffle] * slope).sum() for shuffle in _shuffles(inverse, sizes, permutations, source)]
    beaten = int((torch.stack(null) >= (judged * slope).sum() - 1e-12).sum())
    return (1 + beaten) / (1 + permutations)


def _estimates(sums: Float[Tensor, "structures 4"], source: torch.Generator) -> tuple[Estimate, Estimate]:
    """Explained variance and mean gain with standard errors by a bootstrap over structures."""
    counts = torch.cat([torch.ones(1, len(sums)).double(), resampled_counts(len(sums), 500, seed=source)])
    base, rest, gain, rows = (counts @ sums).unbind(1)
    size = sums.new_tensor(float(len(sums)))
    explained, mean = 1 - rest / base, gain / rows
    return Estimate(explained[0], explained[1:].std(), size, ""), Estimate(mean[0], mean[1:].std(), size, "nat")


def _shuffles(
    owner: Tensor, sizes: Tensor, permutations: int, source: torch.Generator
) -> Iterator[Int[Tensor, " rows"]]:
    """Permutations of rows within structures, and of whole structures of one size.

    Both leave the law unchanged of values that depend on their structure but on no feature.
    """
    base = torch.argsort(owner, stable=True)
    base = base[torch.argsort(sizes[owner[base]], stable=True)]
    for _ in range(permutations):
        order = torch.randperm(len(owner), generator=source)
        order = order[torch.argsort(torch.rand(len(sizes), generator=source)[owner[order]], stable=True)]
        order = order[torch.argsort(sizes[owner[order]], stable=True)]
        shuffle = torch.empty_like(base)
        shuffle[base] = order
        yield shuffle
