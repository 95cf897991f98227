"""Paired comparison of methods over tasks and seeds, and how often it errs.

Seeds of one task share its data, so tasks are the independent units: the values of a task are averaged over its seeds
first, and intervals are Student's over tasks. They speak of tasks like these, not of these tasks alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from bayesmol.inference.random import generator
from bayesmol.posterior import Estimate

Values = dict[tuple[str, int], float]  # by task and seed
Cell = tuple[str, str]  # model and method
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Comparison:
    """Difference of a figure between two cells, less being better.

    Attributes
    ----------
    gaps
        First minus second, by task and seed.
    """

    metric: str
    first: Cell
    second: Cell
    gaps: Values

    @property
    def name(self) -> str:
        """Flat name of the figure."""
        return f"{'_'.join(self.first)}_minus_{'_'.join(self.second)}_{self.metric}"

    @cached_property
    def differences(self) -> Float[Tensor, " tasks"]:
        """Mean over the seeds of each task."""
        return task_means(self.gaps)

    @property
    def tasks(self) -> int:
        """Number of tasks that have both."""
        return len(self.differences)

    @property
    def value(self) -> float:
        """Mean over tasks."""
        return float(self.differences.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean over tasks; infinite with one task."""
        return float(self.differences.std()) / math.sqrt(self.tasks) if self.tasks > 1 else math.inf

    @property
    def lower(self) -> float:
        """Lower end of the 95 % interval."""
        return self.value - _half_widths(self.differences).item()

    @property
    def upper(self) -> float:
        """Upper end of the 95 % interval."""
        return self.value + _half_widths(self.differences).item()

    @property
    def better(self) -> Cell | None:
        """The cell that may be called better: the interval excludes zero."""
        return self.first if self.upper < 0 else self.second if self.lower > 0 else None

    def __str__(self) -> str:
        first, second = " ".join(self.first), " ".join(self.second)
        numbers = f"{self.value:.3g} [{self.lower:.3g}, {self.upper:.3g}] over {self.tasks} tasks"
        if self.better is None:
            return f"{self.metric}: no difference shown between {first} and {second}: {numbers}"
        other = second if self.better == self.first else first
        return f"{self.metric}: {' '.join(self.better)} is better than {other}: {first} − {second} = {numbers}"


def compared(table: Mapping[Cell, Mapping[str, Values]], metric: str, first: Cell, second: Cell) -> Comparison | None:
    """Comparison of two cells over the tasks and seeds that both have; ``None`` if there are none."""
    one, two = table[first][metric], table[second][metric]
    gaps = {place: value - two[place] for place, value in one.items() if place in two}
    return Comparison(metric, first, second, gaps) if gaps else None


def pooled(comparisons: Sequence[Comparison], first: Cell, second: Cell) -> Comparison:
    """Mean of several comparisons of one metric, by task and seed."""
    gaps: dict[tuple[str, int], list[float]] = {}
    for comparison in comparisons:
        for place, gap in comparison.gaps.items():
            gaps.setdefault(place, []).append(gap)
    means = {place: sum(part) / len(part) for place, part in gaps.items()}
    return Comparison(comparisons[0].metric, first, second, means)


def task_means(values: Values) -> Float[Tensor, " tasks"]:
    """Mean over the seeds of each task."""
    parts: dict[str, list[float]] = {}
    for (task, _), value in values.items():
        parts.setdefault(task, []).append(value)
    return torch.tensor([sum(part) / len(part) for part in parts.values()], dtype=torch.float64)


def over_tasks(values: Values) -> Estimate:
    """Mean over tasks with its standard error; infinite with one task."""
    means = task_means(values)
    count = torch.tensor(float(len(means)), dtype=torch.float64)
    error = means.std() / count.sqrt() if len(means) > 1 else torch.tensor(math.inf, dtype=torch.float64)
    return Estimate(means.mean(), error, count, "")


def ranks(scores: Mapping[Cell, Values]) -> dict[Cell, Values]:
    """Rank of each cell (1 is the least score; ties share theirs) among those that have a score there."""
    found: dict[Cell, Values] = {cell: {} for cell in scores}
    for place in {place for values in scores.values() for place in values}:
        present = [cell for cell in scores if place in scores[cell]]
        order = stats.rankdata([scores[cell][place] for cell in present])
        for cell, rank in zip(present, order, strict=True):
            found[cell][place] = float(rank)
    return found


def null_rate(differences: Sequence[Values], *, repeats: int = 2000, seed: int) -> Estimate:
    """How often one of two methods would be called better if they were exchanged at random in each task and seed.

    Exchanging makes them identical by construction and keeps the sizes of the differences as they are, so this is the
    rate of false claims on such tasks; 0.05 is nominal. The standard error counts the differences, not the repeats.
    """
    source, rates = generator(seed), []
    for gaps in differences:
        names = sorted({task for task, _ in gaps})
        place = torch.tensor([names.index(task) for task, _ in gaps])
        signs = 2.0 * torch.randint(2, (repeats, len(gaps)), generator=source) - 1
        flipped = signs.double() * torch.tensor(list(gaps.values()), dtype=torch.float64)
        means = torch.zeros(repeats, len(names), dtype=torch.float64).index_add_(1, place, flipped) / place.bincount()
        rates.append((means.mean(1).abs() > _half_widths(means)).double().mean())
    found = torch.stack(rates)
    count = torch.tensor(float(len(found)), dtype=torch.float64)
    return Estimate(found.mean(), found.std(correction=0) / count.sqrt(), count, "")


def _half_widths(differences: Float[Tensor, "*sets tasks"]) -> Float[Tensor, "*sets"]:
    """Half the 95 % interval of the mean over the last axis; infinite with one task."""
    tasks = differences.shape[-1]
    if tasks < 2:
        return torch.full(differences.shape[:-1], math.inf, dtype=torch.float64)
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, tasks - 1)) * differences.std(-1) / math.sqrt(tasks)
