"""Bridge to ArviZ, for its diagnostics, plots and leave-one-out densities; the only file that imports it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.optional import optional
from bayesmol.posterior.draws import Draws
from bayesmol.posterior.estimate import Estimate, effective_sample_size

__all__ = ["Comparison", "LeaveOneOut", "comparison", "leave_one_out", "pareto_smoothed", "to_arviz"]

_SMALL = 4.0  # nats


def to_arviz(draws: Draws, name: str) -> Any:
    """Draws as the variable ``name`` of ArviZ data; weights, if any, become ``sample_stats.log_weight``.

    Returns
    -------
    ``arviz.InferenceData`` with ArviZ 0.x, ``xarray.DataTree`` with 1.x; the unit is an attribute of the variable.

    Raises
    ------
    DependencyError
        If ArviZ is not installed.
    """
    groups = {"posterior": {name: draws.values}}
    if draws.log_weights is not None:
        groups["sample_stats"] = {"log_weight": draws.log_weights}
    data = _data(groups)
    data["posterior"][name].attrs["units"] = draws.unit
    return data


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    r"""Log-density of each unit of data under the posterior from all other units, :math:`\ln p(y_i \mid y_{-i})`.

    Attributes
    ----------
    pointwise
        One density a unit, in nats.
    pareto_k
        Tail index of the importance ratios of each unit: above ``limit`` its density is not to be trusted.
    limit
        Largest reliable tail index, :math:`\min(1 - 1/\log_{10} S,\; 0.7)` for S draws.
    """

    pointwise: Float[Tensor, " units"]
    pareto_k: Float[Tensor, " units"]
    limit: float

    @property
    def total(self) -> Estimate:
        r"""Expected log predictive density of the data set, :math:`\sum_i \ln p(y_i \mid y_{-i})`, in nats."""
        return _summed(self.pointwise)

    @property
    def reliable(self) -> bool:
        """Whether all tail indices are at most the limit."""
        return bool((self.pareto_k <= self.limit).all())

    def __str__(self) -> str:
        strange = int((self.pareto_k > self.limit).sum())
        doubt = "" if self.reliable else f", not reliable: Pareto k > {self.limit:.2f} for {strange} units"
        return f"leave-one-out log-density {self.total} of {len(self.pointwise)} units{doubt}"


def leave_one_out(
    log_likelihood: Float[Tensor, "chain draw rows"], groups: Int[Tensor, " rows"] | None = None
) -> LeaveOneOut:
    r"""Leave-one-out log-densities from posterior draws by Pareto-smoothed importance sampling (ArviZ).

    .. math:: p(y_i \mid y_{-i}) \approx \frac{\sum_s w_{si}\, p(y_i \mid \theta_s)}{\sum_s w_{si}}, \qquad
              w_{si} \propto 1 / p(y_i \mid \theta_s), \text{ its tail smoothed.}

    A unit whose density does not depend on the draw needs no weights; its tail index is :math:`-\infty`.

    Parameters
    ----------
    log_likelihood
        :math:`\ln p(y_i \mid \theta_s)` in nats of each draw and row.
    groups
        Structure of each row: rows of one structure are left out together, their densities multiplied.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, there are fewer than 100 draws, or a density is not finite.
    DependencyError
        If ArviZ is not installed.

    References
    ----------
    Vehtari, Gelman, Gabry, Stat. Comput. 27, 1413 (2017); Vehtari, Simpson, Gelman, Yao, Gabry, J. Mach. Learn. Res.
    25, 72 (2024).
    """
    values = _grouped(log_likelihood.detach().double(), groups)
    draws = values.shape[0] * values.shape[1]
    pointwise = values.flatten(0, 1).logsumexp(0) - math.log(draws)
    pareto_k = torch.full_like(pointwise, -math.inf)
    varies = ((values - values[:1, :1]).abs().amax((0, 1)) > 1e-12).nonzero()[:, 0]
    if len(varies):
        pointwise[varies], pareto_k[varies] = _smoothed(values[:, :, varies])
    return LeaveOneOut(pointwise, pareto_k, min(1 - 1 / math.log10(draws), 0.7))


def pareto_smoothed(log_weights: Float[Tensor, " draws"]) -> tuple[Float[Tensor, " draws"], float]:
    r"""Importance weights of independent draws with a smoothed tail, and the tail index k-hat (ArviZ).

    The largest :math:`\min(n/5, 3\sqrt n)` weights become quantiles of the generalised Pareto law fitted to them.
    Fewer than 25 draws come back as they are with :math:`+\infty`, equal weights with :math:`-\infty`.

    Raises
    ------
    DataError
        If a log-weight is NaN or +∞, or all are −∞.
    DependencyError
        If ArviZ is not installed.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao, Gabry, J. Mach. Learn. Res. 25, 72 (2024).
    """
    values = log_weights.detach().double()
    largest = float(values.max()) if len(values) else math.nan
    if bool(torch.isnan(values).any()) or not math.isfinite(largest):
        raise DataError(expected("log_weights", "numbers or −∞, not all −∞", "NaN, +∞ or no weight at all"))
    if len(values) < 25 or float(largest - values.min()) < 1e-12:
        return log_weights, math.inf if len(values) < 25 else -math.inf
    # Weights below the smallest float are zero for ArviZ too, which cannot subtract infinities.
    array = (values - largest).clamp_min(-800.0).cpu().numpy()
    arviz = _library()
    if int(arviz.__version__.split(".")[0]) >= 1:
        from arviz_stats.base import array_stats  # comes with ArviZ 1.x; it takes log-likelihoods, minus log-weights

        smooth, k = array_stats.psislw(-array)
    else:
        smooth, k = arviz.psislw(array)
    # ArviZ normalises; the smallest weight, which is not smoothed, gives back the scale of the raw ones.
    lowest = int(array.argmin())
    found = torch.from_numpy(smooth - smooth[lowest] + array[lowest]).to(values) + largest
    return torch.where(torch.isfinite(values), found, -math.inf).to(log_weights), float(k)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Models by their leave-one-out log-density, the highest first.

    Attributes
    ----------
    names
        Of the models.
    totals
        Log-density of each, in nats.
    leads
        By how much the first exceeds each, in nats, with the standard error of the paired differences.
    weights
        Stacking weights: the mixture of the models with the highest leave-one-out log-density.
    reliable
        Whether the importance sampling of all models is.
    """

    names: tuple[str, ...]
    totals: Estimate
    leads: Estimate
    weights: Float[Tensor, " models"]
    reliable: bool

    @property
    def behind(self) -> tuple[str, ...]:
        """Models that the first leads by more than two standard errors and by four nats.

        For smaller leads, which nested models have, the standard error is too small to be trusted (Sivula et al.).
        """
        clear = self.leads.value > (2 * self.leads.standard_error).clamp_min(_SMALL)
        return tuple(name for name, far in zip(self.names, clear.tolist(), strict=True) if far)

    @property
    def best(self) -> str | None:
        """The first model if all others are :attr:`behind`; else ``None``."""
        return self.names[0] if len(self.behind) == len(self.names) - 1 else None

    def __str__(self) -> str:
        width = max(map(len, self.names))
        rows = zip(self.names, _texts(self.totals), _texts(self.leads), self.weights.tolist(), strict=True)
        lines = [f"{name:{width}}  {total} nat  behind by {lead}  weight {w:.2f}" for name, total, lead, w in rows]
        behind = f"no model is better than all others; clearly behind: {', '.join(self.behind) or 'none'}"
        verdict = f"better than all others: {self.best}" if self.best else behind
        doubt = "" if self.reliable else "; some Pareto k are too large"
        return "\n".join([*lines, verdict + doubt])


def comparison(models: Mapping[str, LeaveOneOut]) -> Comparison:
    r"""Compare models of the same data by their leave-one-out densities.

    Differences are paired: the standard error of a lead is :math:`\sqrt{n\, \mathrm{var}_i(\ell_{1i} - \ell_{2i})}`.
    The stacking weights maximise :math:`\sum_i \ln \sum_k w_k\, p_k(y_i \mid y_{-i})`.

    Raises
    ------
    DataError
        If there are fewer than two models or they are not of the same number of units.

    References
    ----------
    Yao, Vehtari, Simpson, Gelman, Bayesian Analysis 13, 917 (2018); Sivula, Magnusson, Matamoros, Vehtari,
    arXiv:2008.10296.
    """
    if len({len(model.pointwise) for model in models.values()}) != 1 or len(models) < 2:
        sizes = {name: len(model.pointwise) for name, model in models.items()}
        raise DataError(expected("models", "at least two, of the same units of data", sizes))
    names = sorted(models, key=lambda name: -float(models[name].pointwise.sum()))
    table = torch.stack([models[name].pointwise for name in names])
    reliable = all(model.reliable for model in models.values())
    return Comparison(tuple(names), _summed(table), _summed(table[:1] - table), _stacking(table.T), reliable)


def _stacking(pointwise: Float[Tensor, "units models"], tolerance: float = 1e-6) -> Float[Tensor, " models"]:
    """Weights of the best mixture by expectation maximisation, to within ``tolerance`` nats a unit of the optimum."""
    # A factor common to all models of a unit changes nothing and keeps the exponentials in range.
    density = (pointwise - pointwise.amax(1, keepdim=True)).exp()
    weights = density.new_full(density.shape[1:], 1 / density.shape[1])
    for _ in range(10_000):
        gradient = (density / (density @ weights).unsqueeze(1)).mean(0)
        weights = weights * gradient
        if float(gradient.max()) - 1 < tolerance:  # a bound of the gap, because the objective is concave
            break
    return weights / weights.sum()


def _summed(pointwise: Float[Tensor, "*models units"]) -> Estimate:
    units = pointwise.shape[-1]
    error = (units * pointwise.var(-1)).sqrt() if units > 1 else torch.full_like(pointwise[..., 0], math.inf)
    return Estimate(pointwise.sum(-1), error, torch.full_like(error, float(units)), "nat")


def _texts(estimates: Estimate) -> list[str]:
    parts = zip(estimates.value, estimates.standard_error, estimates.effective_sample_size, strict=True)
    return [str(Estimate(*part, "")) for part in parts]


def _grouped(values: Tensor, groups: Tensor | None) -> Tensor:
    if values.ndim != 3 or 0 in values.shape or values.shape[0] * values.shape[1] < 100:
        remedy = "(chain, draw, rows) with at least 100 draws"
        raise ShapeError(expected("log_likelihood", remedy, tuple(values.shape)))
    if not bool(torch.isfinite(values).all()):
        raise DataError(expected("log_likelihood", "finite densities", "NaN or infinity"))
    if groups is None:
        return values
    if groups.shape != values.shape[2:]:
        raise ShapeError(expected("groups", f"shape ({values.shape[2]},)", tuple(groups.shape)))
    labels, inverse = groups.unique(return_inverse=True)
    return values.new_zeros(*values.shape[:2], len(labels)).index_add_(2, inverse, values)


def _smoothed(values: Tensor) -> tuple[Tensor, Tensor]:
    """Densities and tail indices by ArviZ; it also warns of large indices, which the result already says."""
    arviz, draws = _library(), values.shape[0] * values.shape[1]
    efficiency = (effective_sample_size((values - values.amax((0, 1))).exp()) / draws).clamp_max(1.0).mean()
    data = _data({"posterior": {"unused": values[..., :1]}, "log_likelihood": {"y": values}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = arviz.loo(data, pointwise=True, reff=float(efficiency))
    pointwise = found.elpd_i if hasattr(found, "elpd_i") else found.loo_i
    # ArviZ 0.x follows a global setting of the scale.
    factor = {"log": 1.0, "negative_log": -1.0, "deviance": -2.0}[found.scale]
    return torch.tensor(pointwise.values).to(values) / factor, torch.tensor(found.pareto_k.values).to(values)


def _data(groups: dict[str, dict[str, Tensor]]) -> Any:
    arviz = _library()
    arrays = {g: {k: v.detach().cpu().numpy() for k, v in named.items()} for g, named in groups.items()}
    return arviz.from_dict(arrays) if int(arviz.__version__.split(".")[0]) >= 1 else arviz.from_dict(**arrays)


def _library() -> Any:
    return optional("arviz")
