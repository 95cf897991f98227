"""One table of figures: a prediction against labels, each figure with its standard error over structures."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.calibration.metrics import interval_area, pointwise_crps, standardised
from bayesmol.calibration.observed import predictive_of_labels
from bayesmol.calibration.reference import resampled_counts
from bayesmol.data import Labelled
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Estimate, Posterior, Prediction

__all__ = ["figures", "summary"]

LEVEL = 0.9
Columns = tuple[Tensor, ...]


def summary(
    prediction: Prediction, labelled: Labelled, *, resamples: int = 200, seed: int | torch.Generator = 0
) -> dict[str, Estimate]:
    """Figures of the energies and forces of a prediction: accuracy, and whether the uncertainty is true.

    Names are ``energy_`` and ``force_`` with ``mae``, ``rmse``, ``coverage_90`` (predictive distribution without
    rule), ``conformal_90`` (with the rule, where one is attached), ``z_std``, ``nll``, ``miscalibration_area`` and
    ``crps``; eV, eV/Å a component, and nats with these as measure. Labels that are absent give no figures. Labels
    with standard errors are compared with the predictive distribution widened by them; a ``conformal_90`` is not
    widened. Each standard error is a bootstrap over structures, because components of one structure are correlated.

    Raises
    ------
    ShapeError
        If prediction and labels are not of the same structures.
    DataError
        If there is neither an energy nor a force.
    """
    pointer = labelled.structures.pointer.to(prediction.pointer.device)
    if not torch.equal(prediction.pointer, pointer):
        raise ShapeError(expected("labelled", f"the {len(prediction)} structures predicted", f"{len(labelled)} others"))
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    found: dict[str, Estimate] = {}
    index = torch.arange(len(prediction), device=pointer.device)
    if labelled.energies is not None:
        parts = prediction.energy, labelled.energies, labelled.energy_errors
        found |= _named("energy", figures(*parts, groups=index, **options))
    rows = _force_rows(labelled, pointer)
    if rows is not None:
        errors = None if labelled.force_errors is None else labelled.force_errors[rows]
        parts = prediction.forces[rows], labelled.given("forces")[rows], errors
        structure = torch.repeat_interleave(index, pointer.diff())[rows]
        found |= _named("force", figures(*parts, groups=structure, **options))
    if not found:
        raise DataError(expected("labelled", "energies or forces", "neither"))
    return found


def figures(
    posterior: Posterior,
    truth: Float[Tensor, " rows *shape"],
    errors: Float[Tensor, " rows *shape"] | None = None,
    *,
    groups: Int[Tensor, " rows"],
    resamples: int = 200,
    seed: int | torch.Generator = 0,
) -> dict[str, Estimate]:
    """Figures of one quantity; ``groups`` is the structure of each row, the unit of the bootstrap.

    Parameters
    ----------
    errors
        Standard errors of the labels, in the unit of the posterior.
    """
    predictive = predictive_of_labels(posterior.with_rule(None), errors)
    _, inverse = groups.unique(return_inverse=True)
    owner = inverse.reshape(-1, *[1] * (truth.ndim - 1)).expand(truth.shape).flatten()
    counts = resampled_counts(int(inverse.max()) + 1, resamples, seed=seed, device=owner.device)
    found = {}
    for name, (columns, reduce, unit) in _columns(posterior, predictive, truth).items():
        found[name] = _averaged(columns, reduce, owner, counts, unit)
    found["miscalibration_area"] = _area(predictive, truth, owner, counts)
    return found


def _columns(posterior: Posterior, predictive: Posterior, truth: Tensor) -> dict[str, tuple[Columns, Callable, str]]:
    """Entries of each figure, the function of their averages, and its unit."""
    unit, z = posterior.unit, standardised(predictive, truth)
    error = (truth - posterior.mean).double()
    inside = predictive.interval(LEVEL).contains(truth)
    table = {
        "mae": ((error.abs(),), _first, unit),
        "rmse": ((error.square(),), lambda mean: _first(mean).sqrt(), unit),
        "coverage_90": ((inside,), _first, ""),
        "z_std": ((z, z.square()), lambda m: (m[..., 1] - m[..., 0].square()).clamp_min(0.0).sqrt(), ""),
        "nll": ((-predictive.log_prob(truth),), _first, "nat"),
        "crps": ((pointwise_crps(predictive, truth),), _first, unit),
    }
    if posterior.rule is not None:
        table["conformal_90"] = ((posterior.interval(LEVEL).contains(truth),), _first, "")
    return table


def _averaged(columns: Columns, reduce: Callable, owner: Tensor, counts: Tensor, unit: str) -> Estimate:
    values = torch.stack([column.double().flatten() for column in columns], dim=1)
    sums = values.new_zeros(counts.shape[1], len(columns)).index_add_(0, owner, values)
    sizes = owner.bincount(minlength=counts.shape[1]).double()
    replicates = reduce(counts @ sums / (counts @ sizes).unsqueeze(1))
    return _estimate(reduce(values.mean(0)), replicates, counts.shape[1], unit)


def _area(predictive: Posterior, truth: Tensor, owner: Tensor, counts: Tensor) -> Estimate:
    # Sorted once; a bootstrap sample is a set of weights on the same order.
    central, order = (2 * predictive.cdf(truth) - 1).abs().flatten().sort()
    owner = owner[order]
    replicates = torch.stack([interval_area(central, row[owner]) for row in counts])
    return _estimate(interval_area(central), replicates, counts.shape[1], "")


def _estimate(value: Tensor, replicates: Tensor, groups: int, unit: str) -> Estimate:
    error = replicates.std() if groups > 1 else value.new_tensor(math.inf)
    return Estimate(value, error, value.new_tensor(float(groups)), unit)


def _first(mean: Tensor) -> Tensor:
    return mean[..., 0]


def _named(prefix: str, found: dict[str, Estimate]) -> dict[str, Estimate]:
    return {f"{prefix}_{name}": estimate for name, estimate in found.items()}


def _force_rows(labelled: Labelled, pointer: Tensor) -> Tensor | None:
    """Atoms with a force label; ``None`` if there are none."""
    if labelled.forces is None or not bool(labelled.has_forces.any()):
        return None
    rows = torch.repeat_interleave(labelled.has_forces.to(pointer.device), pointer.diff())
    return rows.nonzero().squeeze(1)
