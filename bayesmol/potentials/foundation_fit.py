"""Bayesian linear regression on the features of a foundation, its scales learned from left-out structures."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.inference.conjugate import LinearPosterior, posterior_from_gram
from bayesmol.potentials.foundation import LayeredFoundation
from bayesmol.potentials.foundation_posterior import FoundationPotential
from bayesmol.potentials.foundation_rows import (
    ENERGY,
    FORCE,
    LayerModel,
    LayerRows,
    layer_rows,
    leading,
    with_scale,
)
from bayesmol.potentials.foundation_state import probe
from bayesmol.potentials.guards import REACH, guards
from bayesmol.representation.radial import element_counts

__all__ = ["fitted_layer", "left_out_rows", "two_scales"]

_EXACT = 1e-10  # of the mean square of the labels: noise below is rounding
_RATIOS = (0.01, 0.03, 0.1, 0.2, 0.5, 1.0, 3.0)  # of the noise of energies to that of forces


def fitted_layer(foundation: LayeredFoundation, train: Labelled, rank: int) -> FoundationPotential:
    r"""Posterior of a correction of a foundation that is linear in its features.

    .. math:: E = E_0 + s E_0 + \sum_i \varphi_i \cdot w + \sum_z N_z e_z

    The columns have unit mean square on the training forces, and their weights a common prior about zero, that is
    about the foundation, as wide as the labels are far from it. The energies of the elements have a broad prior about
    the least-squares ones, because every set of labels has references of its own. Left-out structures decide the weight
    of energies against forces, and for each kind of label the two numbers of :func:`two_scales`.

    Parameters
    ----------
    rank
        Number of directions of the features.

    Raises
    ------
    DataError
        If there are fewer than five structures, or neither energies nor forces.

    References
    ----------
    Bigi, Chong, Ceriotti, Grasselli, Mach. Learn.: Sci. Technol. 5, 045018 (2024), for the variance of a last layer.
    """
    data = train.to(foundation.device, torch.float64)
    if len(data) < 5 or (data.energies is None and not bool(data.has_forces.any())):
        got = f"{len(data)} structures, energies: {data.energies is not None}, forces: {bool(data.has_forces.any())}"
        raise DataError(expected("train", "five or more structures with energies or forces", got))
    species = tuple(sorted(set(data.structures.species.tolist())))
    heads = leading(foundation, data.structures, rank)
    virial = data.stresses is not None and bool(data.has_stresses.any())
    surface, design = foundation.layer(data.structures, heads, virial=virial)
    references = _references(data, surface.energies, species)
    rows = layer_rows(data, surface, with_scale(surface, design), species, references)
    model, posterior, found = _learned(rows, _start(rows, species, heads, references))
    source = None if train.source is None else asdict(train.source)
    provenance = {"structures": len(train), "training_hash": train.fingerprint, "source": source}
    moments = _moments(model, rows, found, data)
    known = probe(data.structures, surface)
    return FoundationPotential(
        foundation, model, posterior, guards(data.structures, species, REACH), data, moments, known, provenance
    )


def _references(data: Labelled, energies: Tensor, species: tuple[int, ...]) -> Tensor:
    composition = element_counts(data.structures, species)
    if data.energies is None:
        return composition.new_zeros(len(species))
    return torch.linalg.pinv(composition) @ (data.energies - energies)


def _start(rows: LayerRows, species: tuple[int, ...], heads: Tensor, references: Tensor) -> LayerModel:
    """Columns of unit mean square on the forces; on the energies if there are no forces."""
    force = rows.kind == FORCE
    part = rows.design[force] if bool(force.any()) else rows.design - rows.design.mean(0)
    power = part.square().mean(0).sqrt()
    scales = torch.where(power > 0, 1 / power.clamp_min(1e-300), 0.0)
    one = torch.ones(3).to(power)
    return LayerModel(species, heads, scales, references, one, one, one)


@dataclass(frozen=True, eq=False)
class LeftOutRows:
    """Residual (label minus prediction) and epistemic variance of each row under all other structures."""

    residual: Float[Tensor, " rows"]
    variance: Float[Tensor, " rows"]


def left_out_rows(
    white: Float[Tensor, "rows weights"], targets: Tensor, noise: Tensor, group: Tensor
) -> tuple[LeftOutRows, LinearPosterior]:
    r"""Predictions of each group from all others, and the posterior given all.

    The sums over each group are taken off the normal equations: :math:`(1 + \sum_{h \ne g} \Phi_h^T \Sigma^{-1}
    \Phi_h)\, m_{-g} = \sum_{h \ne g} \Phi_h^T \Sigma^{-1} y`.
    """
    scaled, counts = white / noise[:, None], torch.bincount(group)
    order = torch.argsort(group, stable=True)
    parts = list(zip(scaled[order].split(counts.tolist()), white[order].split(counts.tolist()), strict=True))
    grams = torch.stack([left.T @ right for left, right in parts])
    moments = white.new_zeros(len(counts), white.shape[1]).index_add(0, group, scaled * targets[:, None])
    posterior = posterior_from_gram(grams.sum(0), moments.sum(0))
    precision = torch.eye(white.shape[1]).to(white) + grams.sum(0) - grams
    inverse = torch.linalg.inv((precision + precision.mT) / 2)
    means = torch.einsum("gvw,gw->gv", inverse, moments.sum(0) - moments)
    residual = targets - torch.einsum("rw,rw->r", white, means[group])
    variance = torch.zeros_like(targets)
    for g, own in enumerate(order.split(counts.tolist())):
        variance[own] = torch.einsum("rw,wv,rv->r", white[own], inverse[g], white[own])
    return LeftOutRows(residual, variance.clamp_min(0)), posterior


def two_scales(
    residual: Float[Tensor, " rows"], variance: Float[Tensor, " rows"], extent: Float[Tensor, " rows"]
) -> tuple[float, float]:
    r"""Factor a of the epistemic variances v and noise s of the largest likelihood of left-out residuals.

    .. math:: r_i \sim \mathcal N(0,\; a\,v_i + s\,n_i), \qquad a \ge 1

    A model that is not true has residuals where it is sure of itself; where it errs most is yet where it knows least.
    So the widths of the law of the weights is taken from what they get wrong, not from the number of labels.
    """
    typical = float(variance.mean() / extent.mean())
    ratios = torch.cat([torch.zeros(1), torch.logspace(-4, 4, 81)]).to(residual) / max(typical, 1e-300)
    best, least = (1.0, 1e-300), float("inf")
    for ratio in ratios.tolist():
        shape = ratio * variance + extent
        noise = float((residual.square() / shape).mean())
        score = float(shape.log().mean()) + torch.tensor(noise).log().item()
        if score < least:
            best, least = (max(1.0, ratio * noise), noise), score
    return best


def _learned(rows: LayerRows, start: LayerModel) -> tuple[LayerModel, LinearPosterior, LeftOutRows]:
    """Model with that weight of energies against forces that predicts left-out structures best.

    Were the model true, each kind would be weighted by its own noise. It is not, and such weights stay where they
    start: energies that are badly predicted lose their weight, and are predicted badly. So the weight with the least
    sum of log mean squares is taken, in which a structure counts as one energy and three forces.
    """
    present = [bool((rows.kind == kind).any()) for kind in (ENERGY, FORCE)]
    tried = [_scaled(rows, start, ratio) for ratio in (_RATIOS if all(present) else (1.0,))]
    least = torch.full((3,), 1e-300).to(rows.targets)

    def score(found: LeftOutRows) -> float:
        squares = _mean_squares(rows, found.residual, least).log()
        return float(squares[ENERGY] + 3 * squares[FORCE])

    return min(tried, key=lambda item: score(item[2]))


def _scaled(rows: LayerRows, start: LayerModel, ratio: float) -> tuple[LayerModel, LinearPosterior, LeftOutRows]:
    """Noise and widths for one ratio of the noise of energies to that of forces.

    The noise of forces and virials in the regression is their left-out misfit.
    """
    main = FORCE if bool((rows.kind == FORCE).any()) else ENERGY
    own = rows.kind == main
    model = start.scaled(float(rows.targets[own].square().mean().sqrt()))
    white = model.whitened(rows.design, rows.composition)
    total = _mean_squares(rows, rows.targets, torch.zeros(3).to(white))
    levels = total
    for _ in range(4):
        used = levels.clone()
        used[ENERGY] = ratio**2 * levels[main]
        noise = used[rows.kind] * rows.extent + rows.errors.square()
        found, posterior = left_out_rows(white, rows.targets, noise, rows.group)
        levels = _mean_squares(rows, found.residual, _EXACT * total)
    widths, floors = torch.ones(3).to(white), used.clone()
    for kind in range(3):
        own = rows.kind == kind
        if bool(own.any()):
            pair = two_scales(found.residual[own], found.variance[own], rows.extent[own])
            widths[kind], floors[kind] = pair
    return model.learned(used, floors.maximum(_EXACT * total), widths), posterior, found


def _mean_squares(rows: LayerRows, values: Tensor, least: Tensor) -> Float[Tensor, 3]:
    """Mean square of the rows of each kind by their extent; one for a kind without rows."""
    own = [rows.kind == kind for kind in range(3)]
    found = [(values[k].square() / rows.extent[k]).mean() if bool(k.any()) else values.new_ones(()) for k in own]
    return torch.stack(found).maximum(least)


def _moments(model: LayerModel, rows: LayerRows, found: LeftOutRows, data: Labelled) -> dict[str, Any]:
    """Left-out predictions and strangeness of the training structures."""
    variance = model.widths[rows.kind] * found.variance
    total = variance + model.floors[rows.kind] * rows.extent
    moments: dict[str, Tensor] = {}
    energy, force = rows.kind == ENERGY, rows.kind == FORCE
    if bool(energy.any()):
        moments["energy_mean"] = data.given("energies") - found.residual[energy]
        moments["energy_variance"] = total[energy]
        moments["strangeness"] = (variance[energy] / rows.extent[energy]).sqrt()
    if bool(force.any()):
        moments["force_residual"] = found.residual[force].reshape(-1, 3)
        moments["force_variance"] = total[force].reshape(-1, 3)
    return moments
