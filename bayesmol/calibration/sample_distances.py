"""Distances of two samples in all replicates of a comparison at once: rows are sorted once, only weights change."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.calibration.compared import Compared, Replicates
from bayesmol.calibration.divergences import Bins, circle_steps, jensen_shannon, kullback_leibler, total_variation
from bayesmol.calibration.two_sample import quadratic_forms
from bayesmol.inference.random import generator
from bayesmol.progress import progress
from bayesmol.typing import Features

__all__ = ["distances_of", "embedded"]

CELLS, PAIR_CELLS, DIRECTIONS = 100, 64, 50


def distances_of(
    first: Float[Tensor, "first features"],
    second: Float[Tensor, "second features"],
    replicates: Replicates,
    *,
    periodic: Bool[Tensor, " features"],
    pairs: Sequence[tuple[int, int]] = (),
    seed: int | torch.Generator,
) -> dict[str, Compared]:
    """Distances by name: of single features (mean and largest), of pairs of them, and of all together.

    Histograms have 100 cells a feature and 64 × 64 a pair, laid over the range of the second sample, with open cells
    beyond; the Kullback-Leibler divergence is that of the second from the first sample, whose histogram has one pseudo
    row. The sliced distance is of order one, over 50 directions.
    """
    rows = torch.cat([first, second]).double()
    weights = Replicates(*(part.to(rows.device) for part in (replicates.first, replicates.second)))
    columns: dict[str, list[Tensor]] = {name: [] for name in ("Wasserstein", "Jensen-Shannon", "Kullback-Leibler")}
    scale = second.double().std(0)
    with progress("distances", rows.shape[1]) as advance:
        for column in range(rows.shape[1]):
            angle, values = bool(periodic[column]), rows[:, column]
            bins = Bins.of(second[:, column].double(), CELLS, periodic=angle)
            p, q = _histograms(bins, values, weights)
            columns["Jensen-Shannon"].append(jensen_shannon(p, q))
            columns["Kullback-Leibler"].append(kullback_leibler(q, _smoothed(p, weights.first)))
            steps = circle_steps if angle else _line_steps
            unit = 1.0 if angle or scale[column] == 0 else scale[column]
            columns["Wasserstein"].append(steps(values / unit, weights.first - weights.second))
            advance()
    found: dict[str, Tensor] = {}
    for name, parts in columns.items():
        table = torch.stack(parts)
        found[f"{name}, mean of features"] = table.mean(0)
        if len(table) > 1:
            found[f"{name}, largest of features"] = table.amax(0)
    found |= _of_pairs(rows, len(first), weights, periodic, pairs)
    found |= _of_all(embedded(rows, periodic, scale), weights, seed)
    return {name: replicates.compared(values.cpu()) for name, values in found.items()}


def embedded(
    rows: Features, periodic: Bool[Tensor, " features"], scale: Float[Tensor, " features"]
) -> Float[Tensor, "rows embedded"]:
    """Straight features in units of ``scale``, then the cosines and the sines of the angles."""
    periodic = periodic.to(rows.device)
    scale = torch.where(scale > 0, scale, 1.0).to(rows.device)
    angles = rows[:, periodic].double()
    return torch.cat([rows[:, ~periodic].double() / scale[~periodic], angles.cos(), angles.sin()], 1)


def _of_pairs(
    rows: Tensor, count: int, weights: Replicates, periodic: Tensor, pairs: Sequence[tuple[int, int]]
) -> dict[str, Tensor]:
    found = {}
    for one, other in pairs:
        both = rows[:, [one, other]]
        bins = Bins.of(both[count:], PAIR_CELLS, periodic=periodic[[one, other]])
        p, q = _histograms(bins, both, weights)
        found[f"Jensen-Shannon of features {one} and {other}"] = jensen_shannon(p, q)
        found[f"total variation of features {one} and {other}"] = total_variation(p, q)
    return found


def _of_all(rows: Features, weights: Replicates, seed: int | torch.Generator) -> dict[str, Tensor]:
    source, signed = generator(seed), weights.first - weights.second
    drawn = torch.randn(rows.shape[1], DIRECTIONS, generator=source, dtype=torch.float64).to(rows.device)
    projected = rows @ (drawn / drawn.norm(dim=0))
    sliced = torch.stack([_line_steps(column, signed) for column in projected.T]).mean(0)
    return {"sliced Wasserstein": sliced, "energy distance": -quadratic_forms(rows, signed)}


def _line_steps(values: Float[Tensor, " rows"], signed: Float[Tensor, "draws rows"]) -> Float[Tensor, " draws"]:
    """Integral of the difference of the distribution functions: the Wasserstein distance of order one."""
    ordered, order = values.sort()
    return signed[:, order].cumsum(1)[:, :-1].abs() @ ordered.diff()


def _histograms(bins: Bins, rows: Tensor, weights: Replicates) -> tuple[Tensor, Tensor]:
    place, cells = bins.places(rows), math.prod(bins.sizes)
    first, second = (part.new_zeros(len(part), cells) for part in (weights.first, weights.second))
    return first.index_add_(1, place, weights.first), second.index_add_(1, place, weights.second)


def _smoothed(shares: Float[Tensor, "draws cells"], weights: Float[Tensor, "draws rows"]) -> Tensor:
    """With one row more, spread evenly over all cells."""
    worth = 1 / weights.square().sum(1, keepdim=True)
    return (worth * shares + 1 / shares.shape[1]) / (worth + 1)
