"""Is a potential accurate, cheap, scalable, transferable and honest? One card, each line with a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Table
from torch import Tensor

from bayesmol.certified import CertifiedModel
from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.errors import BayesmolError, DataError, expected
from bayesmol.posterior import Prediction
from bayesmol.potentials.surface import surface_function
from bayesmol.report import Figure, Study
from bayesmol.scorecard_errors import accurate, force_error, honest, transferable
from bayesmol.scorecard_lines import Line, Score, Thresholds, verdict
from bayesmol.scorecard_timing import Budget, Growth, growth, timed

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Plot

__all__ = ["Budget", "Line", "Score", "Scorecard", "Thresholds", "scorecard"]

BATCH = 1000  # atoms of the batch whose time is the price of an atom
CRITERIA = ("accurate", "cheap", "scalable", "transferable", "honest")
_COLOURS = {"met": "green", "not met": "red", "cannot tell": "yellow", "not possible": "bright_black"}


@dataclass(frozen=True)
class Scorecard:
    """What a potential is worth on the five criteria of a useful force field; prints as one sentence for each.

    Attributes
    ----------
    model
        Its name.
    lines
        By criterion.
    growth
        Times of larger and larger systems; ``None`` where the potential cannot have them.
    """

    model: str
    lines: dict[str, Line]
    growth: Growth | None = field(default=None, repr=False)

    @property
    def scores(self) -> dict[str, Score]:
        """All numbers by name."""
        return {name: score for line in self.lines.values() for name, score in line.scores.items()}

    @property
    def figures(self) -> dict[str, Figure]:
        """All numbers by name in the form of a :class:`~bayesmol.report.Study`."""
        return {name: Figure(s.value, s.unit, s.standard_error) for name, s in self.scores.items()}

    def content(self) -> dict[str, Any]:
        """The card as JSON data."""
        times = [] if self.growth is None else self.growth.timings
        measured = [{"atoms": timing.atoms, "seconds": list(timing.seconds)} for timing in times]
        return {"model": self.model, "growth": measured} | {name: line.content() for name, line in self.lines.items()}

    def report(self, study: Study, prefix: str = "") -> None:
        """Add the numbers, and the card itself under ``scorecards`` of the settings, to a study."""
        for name, figure in self.figures.items():
            study.add(prefix + name, figure.value, figure.unit, error=figure.standard_error)
        study.settings.setdefault("scorecards", {})[self.model] = self.content()

    def table(self) -> Table:
        """Criteria, verdicts and sentences for a terminal."""
        table = Table(title=f"scorecard of {self.model}", title_justify="left", caption="in brackets: 95 % intervals")
        table.add_column("criterion", no_wrap=True)
        table.add_column("verdict", no_wrap=True)
        table.add_column("because")
        for name, line in self.lines.items():
            table.add_row(name, f"[{_COLOURS[line.verdict]}]{line.verdict}[/]", line.sentence.replace("[", r"\["))
        return table

    def plot(self) -> Plot:
        """Time against the number of atoms, and the line through it."""
        from bayesmol.scorecard_plots import growth_plot

        if self.growth is None:
            raise DataError(expected("scorecard", "times of several sizes", self.lines["scalable"].sentence))
        return growth_plot({self.model: self.growth})

    def __str__(self) -> str:
        return "\n".join([self.model, *(f"{name}: {li.verdict}. {li.sentence}" for name, li in self.lines.items())])


def scorecard(
    model: Any,
    test: Labelled,
    *,
    transfer: Labelled | None = None,
    level: float = 0.9,
    wanted: Thresholds | None = None,
    budget: Budget | None = None,
    name: str = "",
    seed: int | torch.Generator = 0,
) -> Scorecard:
    """Score a fitted or certified potential on labelled structures that it has not seen.

    What the potential cannot do is "not possible" with the reason, never a number; what the data or the budget cannot
    tell is "cannot tell". Intervals hold with 95 % and take structures, or blocks of consecutive ones, for the
    independent units.

    Parameters
    ----------
    transfer
        Labelled structures of another molecule or material, for the line ``transferable``.
    level
        Of the intervals whose coverage is counted.
    wanted
        Thresholds of the verdicts.
    budget
        Time and memory for the measurements of time.
    name
        Of the model in the card; by default that of its class.

    Raises
    ------
    DataError
        If the test structures have neither energies nor forces.
    """
    if test.energies is None and (test.forces is None or not bool(test.has_forces.any())):
        raise DataError(expected("test", "energies or forces", "neither"))
    wanted, budget = wanted or Thresholds(), budget or Budget()
    prediction: list[Prediction] = []

    def predicted() -> Prediction:
        if not prediction:
            prediction.append(model.predict(test.structures))
        return prediction[0]

    grown: list[Growth] = []
    makers: dict[str, Callable[[], Line]] = {
        "accurate": lambda: accurate(predicted(), test, wanted),
        "cheap": lambda: _cheap(model, test.structures, wanted, budget),
        "scalable": lambda: _scalable(model, test.structures, wanted, budget, grown),
        "transferable": lambda: _elsewhere(model, predicted(), test, transfer, wanted, level),
        "honest": lambda: honest(predicted(), test, wanted, level=level, seed=seed),
    }
    lines = {criterion: _line(criterion, makers[criterion]) for criterion in CRITERIA}
    known = model.model if isinstance(model, CertifiedModel) else model
    return Scorecard(name or type(known).__name__, lines, grown[0] if grown else None)


def _line(criterion: str, make: Callable[[], Line]) -> Line:
    try:
        return make()
    except BayesmolError as error:
        return Line.impossible(criterion, error)


def _cheap(model: Any, structures: Structures, wanted: Thresholds, budget: Budget) -> Line:
    """Time of an atom in a batch of about a thousand, and in a single structure, of the mean and of the prediction."""
    reached = structures.pointer[1:] <= BATCH
    batch, device = structures[: max(1, int(reached.sum()))], structures.positions.device
    mean, single = surface_function(model), structures[:1]
    calls = {
        "microseconds": (lambda: mean(batch), batch),
        "microseconds_with_uncertainty": (lambda: model.predict(batch), batch),
        "microseconds_single": (lambda: mean(single), single),
        "microseconds_single_with_uncertainty": (lambda: model.predict(single), single),
    }
    scores = {}
    for name, (call, part) in calls.items():
        timing = timed(call, len(part.positions), device, budget.repeats, budget.seconds / len(calls))
        scores[name] = timing.score
    price, both = scores["microseconds"], scores["microseconds_with_uncertainty"]
    scores["uncertainty_ratio"] = Score(
        both.value / price.value,
        both.lower / price.upper,
        both.upper / price.lower if price.lower > 0 else math.inf,
    )
    clock = "processor time" if device.type == "cpu" else "time of the clock"
    text = (
        f"An atom and step cost {price}, with uncertainty {both}: {scores['uncertainty_ratio']} times as much "
        f"({clock}, {len(batch)} structures of {len(batch.positions)} atoms together; one structure alone: "
        f"{scores['microseconds_single']}); {wanted.microseconds:g} µs is wanted."
    )
    return Line("cheap", verdict(price, upper=wanted.microseconds), text, scores)


def _scalable(model: Any, structures: Structures, wanted: Thresholds, budget: Budget, grown: list[Growth]) -> Line:
    surface = surface_function(model)

    def mean(system: Structures) -> Tensor:
        return surface(system).energies

    found = growth(mean, structures[:1], wanted.atoms, budget)
    grown.append(found)
    scores = {
        "exponent": found.exponent,
        "exponent_last": Score(found.last),
        "extensivity_error": Score(found.extensivity, found.extensivity, found.extensivity, "eV"),
    }
    sizes = [timing.atoms for timing in found.timings]
    decided = verdict(found.exponent, upper=wanted.exponent)
    text = (
        f"Time grows as N^{found.exponent} from {sizes[0]} to {sizes[-1]} atoms, at last as N^{found.last:.3g}; "
        f"at most {wanted.exponent:g} is wanted"
    )
    if found.stopped:
        decided = "cannot tell" if decided == "met" else decided
        text += f" up to {wanted.atoms[1]} atoms, but {found.stopped}"
    return Line("scalable", decided, text + ".", scores)


def _elsewhere(
    model: Any, here: Prediction, test: Labelled, transfer: Labelled | None, wanted: Thresholds, level: float
) -> Line:
    if transfer is None:
        reason = "no structures of another molecule were given"
        return Line("transferable", "cannot tell", f"{reason.capitalize()}.", absent={"transferable": reason})
    name = "other structures" if transfer.source is None else transfer.source.name
    there = model.predict(transfer.structures)
    return transferable(there, transfer, force_error(here, test), wanted, name=name, level=level)
