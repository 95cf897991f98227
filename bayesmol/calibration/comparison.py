"""A sampler against a reference: distances, tests, support and modes, each beside what a perfect sampler scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.calibration.compared import Compared, equal_weights, mode_shares, replicated
from bayesmol.calibration.density_ratio import check_samples
from bayesmol.calibration.energy_test import EnergyTest
from bayesmol.calibration.local_test import LocalTest, Located
from bayesmol.calibration.neighbourhoods import memorisation, precision_recall
from bayesmol.calibration.sample_distances import distances_of, embedded
from bayesmol.calibration.two_sample import ClassifierTest, Groups, KernelTest, TwoSample, pooled_groups
from bayesmol.inference.random import generator
from bayesmol.progress import progress

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Comparison", "compare"]

FEWEST = 20
SUPPORT = ("precision", "recall")
TESTS: dict[str, Callable[..., TwoSample]] = {
    "local": LocalTest(),
    "energy": EnergyTest(),
    "kernel": KernelTest(),
    "classifier": ClassifierTest("boosting"),
}


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found; prints as a table.

    Attributes
    ----------
    distances
        By name: the score of samples of this size with its 90 % bootstrap interval, and that of a perfect sampler of
        the same size, which is not zero: the difference of the two is what is wrong with the sampler.
    tests
        Tests of equality by name.
    support
        ``precision``, ``recall``, and ``memorisation`` where training rows were given.
    modes
        Share of each mode, where modes were given; a perfect sampler has the share of the reference.
    notes
        What was left out, and why.
    """

    distances: Mapping[str, Compared]
    tests: Mapping[str, TwoSample]
    support: Mapping[str, Compared]
    modes: Mapping[int, Compared] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def p_value(self) -> float:
        """Of all tests together, by Bonferroni; 1 without tests."""
        return min([1.0, *(len(self.tests) * test.p_value for test in self.tests.values())])

    def table(self) -> Table:
        """All numbers for a terminal."""
        from rich.table import Table

        table = Table(title="sample against reference", title_justify="left", caption="; ".join(self.notes))
        for name in ("", "sample", "perfect sampler", "p"):
            table.add_column(name)
        modes = {f"share of mode {mode}": one for mode, one in self.modes.items()}
        for name, one in ({**self.distances, **self.support, **modes}).items():
            table.add_row(name, one.own, one.perfect, f"{one.p_value:.2g}")
        for name, test in self.tests.items():
            table.add_row(f"{name} test", f"{test.statistic:.3g}", _place(test), f"{test.p_value:.2g}")
        return table

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=120, no_color=True)
        with console.capture() as captured:
            console.print(self.table())
        return captured.get()

    def content(self) -> dict[str, Any]:
        """All numbers for JSON."""
        parts: dict[str, Mapping[Any, Any]] = {
            "distances": self.distances,
            "support": self.support,
            "modes": self.modes,
        }
        found: dict[str, Any] = {
            part: {str(name): one.content() for name, one in numbers.items()} for part, numbers in parts.items()
        }
        found["tests"] = {name: dict(vars(test)) for name, test in self.tests.items()}
        return found | {"p_value": self.p_value, "notes": list(self.notes)}


def compare(
    first: Float[Tensor, "first features"],
    second: Float[Tensor, "second features"],
    *,
    weights: Float[Tensor, " first"] | None = None,
    groups: Groups | None = None,
    periodic: bool | Sequence[bool] | Bool[Tensor, " features"] = False,
    pairs: Sequence[tuple[int, int]] = (),
    modes: tuple[Int[Tensor, " first"], Int[Tensor, " second"]] | None = None,
    training: Float[Tensor, "training features"] | None = None,
    tests: Mapping[str, Callable[..., TwoSample]] = TESTS,
    resamples: int = 100,
    largest: int = 4000,
    seed: int | torch.Generator,
) -> Comparison:
    """Compare the draws of a sampler with a reference sample.

    Distances of single features are given as the mean and as the largest over the features; those of straight features
    in units of the standard deviation of the reference, those of angles in radians along the circle. In the tests, in
    the energy distance and for the support an angle is its cosine and its sine.

    Parameters
    ----------
    weights
        Of the rows of the first sample. Distances and modes use them as they are; tests and support use rows that are
        kept with probability w / max w, which are draws of the weighted distribution with equal weights.
    groups
        Group of each row of both samples where rows depend on each other, such as blocks of a trajectory: they are
        drawn, split and permuted whole.
    periodic
        Features that are angles in radians.
    pairs
        Pairs of features that are compared by a histogram of 64 × 64 cells, too.
    modes
        Number of the mode of each row of both samples.
    training
        Rows that the sampler was trained on, for a check of memorisation; ``second`` must then be held out.
    resamples
        Bootstrap samples, and perfect samplers.
    largest
        Of a sample with more rows, so many are drawn at random and compared: time grows as their square.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, a feature is not finite, or there are too few rows or groups.
    """
    check_samples(first, second, 2)
    pooled_groups(groups, (len(first), len(second)), 2)
    source, notes = generator(seed), list[str]()
    angles = torch.as_tensor(periodic).expand(first.shape[1]).cpu()
    shares = {} if modes is None else mode_shares(*modes, weights=weights, groups=groups)
    rows, weights, groups = _limited((first, second), weights, groups, largest, source, notes)
    replicates = replicated((len(rows[0]), len(rows[1])), weights, groups, resamples=resamples, seed=source)
    distances = distances_of(rows[0], rows[1], replicates, periodic=angles, pairs=pairs, seed=source)
    scale = rows[1].double().std(0)
    sample, reference = (embedded(part, angles, scale) for part in rows)
    if weights is not None:
        sample, groups = _thinned(sample, weights, groups, source, notes)
    if min(len(sample), len(reference)) < FEWEST:
        notes.append(f"no tests and no support: fewer than {FEWEST} rows are left")
        return Comparison(distances, {}, {}, shares, tuple(notes))
    found = {}
    with progress("two-sample tests", len(tests)) as advance:
        for name, test in tests.items():
            found[name] = test(sample, reference, groups=groups, seed=source)
            advance()
    support = dict(zip(SUPPORT, precision_recall(sample, reference, groups=groups, seed=source), strict=True))
    if training is not None:
        known = embedded(training, angles, scale)
        support["memorisation"] = memorisation(sample, known, reference, groups=groups, seed=source)
    return Comparison(distances, found, support, shares, tuple(notes))


def _limited(
    rows: tuple[Tensor, Tensor],
    weights: Tensor | None,
    groups: Groups | None,
    largest: int,
    source: torch.Generator,
    notes: list[str],
) -> tuple[list[Tensor], Tensor | None, Groups | None]:
    """At most so many rows of each sample, at random."""
    chosen = [torch.randperm(len(part), generator=source)[:largest].sort().values.to(part.device) for part in rows]
    for name, part in zip(("the sample", "the reference"), rows, strict=True):
        if len(part) > largest:
            notes.append(f"{largest} of {len(part)} rows of {name}, drawn at random, were compared")
    kept = [part[index] for part, index in zip(rows, chosen, strict=True)]
    owners = None
    if groups is not None:
        owners = groups[0][chosen[0].to(groups[0].device)], groups[1][chosen[1].to(groups[1].device)]
    return kept, None if weights is None else weights[chosen[0]], owners


def _thinned(
    sample: Tensor, weights: Tensor, groups: Groups | None, source: torch.Generator, notes: list[str]
) -> tuple[Tensor, Groups | None]:
    kept = equal_weights(weights.cpu(), seed=source).to(sample.device)
    notes.append(f"tests and support use {int(kept.sum())} of {len(kept)} weighted rows, thinned to equal weights")
    owners = None if groups is None else (groups[0][kept.to(groups[0].device)], groups[1])
    return sample[kept], owners


def _place(test: TwoSample) -> str:
    """Where the samples differ most, if the test knows."""
    if not isinstance(test, Located):
        return ""
    return f"row {test.centre}: {test.of_first} of {test.neighbours} neighbours, not {test.expected_of_first:.3g}"
