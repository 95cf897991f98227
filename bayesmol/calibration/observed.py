"""Observed: the labels that a posterior is judged by, and what is known about each of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from bayesmol.data import Labelled
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Draws, Gaussian, Mixture, Posterior

__all__ = ["Observed", "paired", "predictive_of_labels"]

# Which labels belong to a posterior with this unit and this many axes.
_KINDS = {("eV", 1): "energies", ("eV/Å", 2): "forces", ("eV/Å³", 3): "stresses"}


@dataclass(frozen=True, eq=False)
class Observed:
    """Labels of one quantity.

    Attributes
    ----------
    values
        Labels, in the unit of the posterior.
    groups
        Structure of each row, 0 to the number of structures − 1: rows of one structure are not independent.
    errors
        Standard errors of the labels; ``None`` for exact ones.
    conditions
        Name → one number or category a row, such as ``"species"`` and ``"atoms"``.
    """

    values: Float[Tensor, " rows *shape"]
    groups: Int[Tensor, " rows"]
    errors: Float[Tensor, " rows *shape"] | None = None
    conditions: dict[str, Shaped[Tensor, " rows"]] = field(default_factory=dict)

    @property
    def structures(self) -> int:
        """Number of independent units."""
        return int(self.groups.max()) + 1

    @property
    def owner(self) -> Int[Tensor, " entries"]:
        """Structure of each entry."""
        return self.spread(self.groups)

    def spread(self, rows: Shaped[Tensor, " rows"]) -> Shaped[Tensor, " entries"]:
        """One value a row, repeated for each entry of the row."""
        return rows.reshape(-1, *[1] * (self.values.ndim - 1)).expand(self.values.shape).flatten()


def paired(
    posterior: Posterior,
    truth: Any,
    *,
    groups: Int[Tensor, " rows"] | None = None,
    errors: Float[Tensor, " rows *shape"] | None = None,
) -> tuple[Posterior, Observed]:
    """Posterior and labels row by row; rows without a label are dropped from both.

    Parameters
    ----------
    truth
        Labels in the unit of the posterior, a tensor or what becomes one; or a :class:`~bayesmol.data.Labelled`, whose
        energies, forces or stresses are taken by the unit and the axes of the posterior; or a posterior, for labels
        that are distributions: its mean is the label and its standard deviation the standard error.
    groups
        Structure of each row; by default each row is one of its own (of a ``Labelled``: it knows).
    errors
        Standard errors of the labels.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, a label is not finite, there is none, or an error is negative.
    """
    if isinstance(truth, Labelled):
        if groups is not None or errors is not None:
            raise DataError(expected("groups, errors", "none beside a Labelled", "some", "the Labelled has its own"))
        return _labelled(posterior, truth)
    if isinstance(truth, Posterior):
        if truth.unit != posterior.unit:
            raise DataError(expected("truth", f"labels in {posterior.unit!r}", repr(truth.unit), "convert them"))
        errors = truth.stddev if errors is None else errors
        truth = truth.mean
    values = truth if isinstance(truth, Tensor) else torch.as_tensor(np.asarray(truth), dtype=torch.float64)
    return posterior, _checked(posterior, values, groups, errors, {})


def predictive_of_labels(posterior: Posterior, errors: Float[Tensor, " rows *shape"] | None) -> Posterior:
    """Distribution of labels with independent normal errors of these sizes; the posterior itself without errors.

    Correlations of a Gaussian are kept.

    Raises
    ------
    DataError
        If the posterior is not Gaussian, a mixture of normals, or draws.
    """
    if errors is None or not bool((errors > 0).any()):
        return posterior
    noise = errors.square()
    if isinstance(posterior, Gaussian):
        return posterior.widened(noise)
    if isinstance(posterior, Mixture):
        return Mixture(posterior.means, posterior.variances + noise, posterior.weights, unit=posterior.unit)
    if isinstance(posterior, Draws):
        members = posterior.values.flatten(0, 1)
        return Mixture(members, noise.expand_as(members), posterior.weights.flatten(), unit=posterior.unit)
    remedy = "draw from it: Draws(posterior.sample(1000, seed=0)[None], unit=…)"
    raise DataError(expected("posterior", "Gaussian, Mixture or Draws with errors", type(posterior).__name__, remedy))


def _labelled(posterior: Posterior, truth: Labelled) -> tuple[Posterior, Observed]:
    """Rows of the posterior that have a label in ``truth``."""
    name = _KINDS.get((posterior.unit, len(posterior.shape)))
    if name is None:
        units = ", ".join(unit for unit, _ in _KINDS)
        remedy = "hand in the labels as a tensor"
        raise DataError(expected("posterior", f"one in {units}", f"{posterior!r}", remedy))
    labels, structures = getattr(truth, name), truth.structures
    if labels is None:
        raise DataError(expected("truth", f"a set with {name}", f"only {truth!r}"))
    if labels.shape != posterior.shape:
        raise ShapeError(expected("truth", f"{name} of shape {tuple(posterior.shape)}", tuple(labels.shape)))
    per_atom = name == "forces"
    groups = structures.structure_index if per_atom else torch.arange(len(truth), device=labels.device)
    conditions = {"atoms": structures.counts[groups]} | ({"species": structures.species} if per_atom else {})
    has = {"forces": truth.has_forces, "stresses": truth.has_stresses}.get(name)
    errors = getattr(truth, {"energies": "energy_errors", "forces": "force_errors", "stresses": "stress_errors"}[name])
    if has is not None and not bool(has.all()):
        rows = has.to(groups.device)[groups].nonzero()[:, 0]
        posterior, labels, groups = posterior[rows], labels[rows], groups[rows]
        errors = None if errors is None else errors[rows]
        conditions = {key: value[rows] for key, value in conditions.items()}
    return posterior, _checked(posterior, labels, groups, errors, conditions)


def _checked(
    posterior: Posterior, values: Tensor, groups: Tensor | None, errors: Tensor | None, conditions: dict[str, Tensor]
) -> Observed:
    if values.shape != posterior.shape:
        raise ShapeError(expected("truth", f"shape {tuple(posterior.shape)}", tuple(values.shape)))
    if values.ndim == 0 or values.numel() == 0 or not bool(torch.isfinite(values).all()):
        remedy = "remove entries without a label"
        raise DataError(expected("truth", "rows of finite labels", "NaN, infinity or none", remedy))
    if groups is not None and groups.shape != values.shape[:1]:
        raise ShapeError(expected("groups", f"shape ({len(values)},)", tuple(groups.shape)))
    everyone = torch.arange(len(values), device=values.device)
    groups = everyone if groups is None else groups.unique(return_inverse=True)[1]
    if errors is not None:
        if errors.shape != values.shape:
            raise ShapeError(expected("errors", f"shape {tuple(values.shape)}", tuple(errors.shape)))
        if not bool((torch.isfinite(errors) & (errors >= 0)).all()):
            raise DataError(expected("errors", "finite numbers ≥ 0", "others"))
    return Observed(values, groups, errors, conditions)
