"""Report of a run: figures with targets as a table, as JSON and as one self-contained page with plots."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table
from scipy import stats

from bayesmol import __version__
from bayesmol.calibration import summary
from bayesmol.data import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.files import made, replacing
from bayesmol.posterior import Estimate, Prediction
from bayesmol.units import convert

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Plot

__all__ = [
    "Figure",
    "Study",
    "cpu_seconds",
    "page",
    "peak_memory_mb",
    "proportion",
    "versions",
    "write_text",
]

_FINER = {"eV": "meV", "eV/Å": "meV/Å"}
_MEANINGS = {
    "mae": "mean absolute error",
    "rmse": "root mean square error",
    "coverage_90": "labels inside the 90 % interval of the predictive distribution",
    "conformal_90": "labels inside the conformal 90 % interval",
    "z_std": "standard deviation of error / predicted standard deviation; 1 is true",
    "nll": "mean negative logarithm of the predictive density; lower is better",
    "miscalibration_area": "area between observed and nominal coverage; 0 is perfect",
    "crps": "continuous ranked probability score; lower is better",
    "auroc": "probability that a wrong probe frame is stranger than a test frame",
    "false_alarm_rate": "test frames called outside of the domain",
    "flagged": "of these called outside of the domain",
    "cpu_seconds": "processor time",
    "cpu_milliseconds": "processor time",
    "information": "information of the forces of a batch about the model",
}


@dataclass(frozen=True)
class Figure:
    """A number with its unit; its standard error, target and reference where there are any."""

    value: float
    unit: str = ""
    standard_error: float | None = None
    lower: float | None = None
    upper: float | None = None
    reference: str = ""

    @property
    def met(self) -> bool:
        """Whether the value is within its target; without one it is."""
        above = self.lower is None or self.value >= self.lower
        return above and (self.upper is None or self.value <= self.upper)

    @property
    def target(self) -> str:
        """The target in words, in the unit in which the figure prints; empty without one."""
        ends = [None if end is None else f"{self._converted(end):.4g}" for end in (self.lower, self.upper)]
        if ends == [None, None]:
            return ""
        return f"≤ {ends[1]}" if ends[0] is None else f"≥ {ends[0]}" if ends[1] is None else f"{ends[0]} to {ends[1]}"

    def __str__(self) -> str:
        value, unit, error = self._converted(self.value), self._printed_unit(), self.standard_error
        if error is None or not math.isfinite(error) or error == 0 or not math.isfinite(value):
            return f"{value:.4g} {unit}".rstrip()
        return str(_estimate(value, self._converted(error), 1.0, unit))

    def _printed_unit(self) -> str:
        return _FINER[self.unit] if self.unit in _FINER and abs(self.value) < 0.1 else self.unit

    def _converted(self, number: float) -> float:
        unit = self._printed_unit()
        return number if unit == self.unit else convert(number, self.unit, unit)


@dataclass
class Study:
    """One run of one command: its settings, and what it fills in: figures, times and notes.

    Attributes
    ----------
    title
        Of the table; else study and command.
    console
        Where stages and table are printed; the terminal, if none.
    expectations
        ``lower``, ``upper`` and ``reference`` of the figures that have them, by name.
    """

    study: str
    command: str
    settings: dict[str, Any] = field(default_factory=dict)
    expectations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    title: str = ""
    console: Console | None = None
    packages: tuple[str, ...] = ("torch", "numpy", "ase", "sphericart-torch", "gpytorch", "mapie")

    @contextmanager
    def stage(self, name: str, text: str = "") -> Iterator[None]:
        """Count the CPU seconds of the block, of all threads; print ``text`` if any, and how long it took."""
        start, clock = cpu_seconds(), time.perf_counter()
        try:
            yield
        finally:
            self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + cpu_seconds() - start
            if text and self.console is not None:
                self.console.print(f"{text} [dim]{time.perf_counter() - clock:.1f} s[/]", highlight=False)

    def add(self, name: str, value: float | int | Estimate, unit: str = "", *, error: float | None = None) -> None:
        """Keep a figure; an :class:`~bayesmol.posterior.Estimate` brings its unit and its standard error."""
        if isinstance(value, Estimate):
            unit, error, value = value.unit, float(value.standard_error), float(value.value)
        self.figures[name] = Figure(float(value), unit, error, **self.expectations.get(name, {}))

    def judge(self, prediction: Prediction, labelled: Labelled, *, seed: int, prefix: str = "") -> None:
        """Keep the figures of a prediction against labels, and the rate of alarms where there is a domain."""
        for name, estimate in summary(prediction, labelled, seed=seed).items():
            self.add(prefix + name, estimate)
        if prediction.inside is not None:
            self.add(f"{prefix}false_alarm_rate", proportion(int((~prediction.inside).sum()), len(prediction)))

    def content(self) -> dict[str, Any]:
        """What the JSON file says; numbers that are not finite are ``null``."""
        figures = self.figures.items()
        return {
            "study": self.study,
            "command": self.command,
            "settings": {name: _plain(value) for name, value in self.settings.items()},
            "figures": {name: _plain(figure.value) for name, figure in figures},
            "units": {name: figure.unit for name, figure in figures},
            "standard_errors": {name: _plain(figure.standard_error) for name, figure in figures},
            "targets": {name: [figure.lower, figure.upper] for name, figure in figures if figure.target},
            "cpu_seconds": self.cpu_seconds,
            "peak_memory_mb": _plain(peak_memory_mb()),
            "versions": versions(self.packages),
            "notes": self.notes,
        }

    def table(self) -> Table:
        """Figures with their uncertainty, and target and references beside."""
        told = any(figure.standard_error is not None for figure in self.figures.values())
        table = Table(title=self.title or f"{self.study} {self.command}", title_justify="left")
        table.caption = "in brackets: standard error in the last digits" if told else None
        table.add_column("figure", no_wrap=True)
        table.add_column("value", justify="right", no_wrap=True)
        beside = any(figure.target or figure.reference for figure in self.figures.values())
        if beside:
            table.add_column("target; reference")
        kind = ""
        for name, figure in self.figures.items():
            before, kind = kind, name.split("_")[0] if name.startswith(("energy_", "force_")) else ""
            if kind != before:
                table.add_section()
            mark = f"{figure.target} [green]met[/]" if figure.met else f"{figure.target} [yellow]missed[/]"
            cells = [mark if figure.target else "", figure.reference]
            table.add_row(name, str(figure), *(["; ".join(filter(None, cells))] if beside else []))
        return table

    def finish(self, path: Path | None = None) -> None:
        """Print the table, times and notes, and write the JSON file where asked for; ``-`` is the standard output."""
        console = self.console or Console(stderr=path == Path("-"))
        if self.figures:
            console.print(self.table())
        times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.cpu_seconds.items())
        console.print(f"CPU: {times}; peak memory {peak_memory_mb():.0f} MB", highlight=False)
        for note in self.notes:
            console.print(note, highlight=False, markup=False)
        if path is not None:
            text = json.dumps(self.content(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
            sys.stdout.write(text) if path == Path("-") else write_text(path, text)


def page(study: Study, title: str, lead: str, plots: Sequence[tuple[str, Plot]], **sections: Any) -> str:
    """One HTML page that needs no other file: figures of a study and plots inline.

    Parameters
    ----------
    title, lead
        Heading, and the sentence below it.
    plots
        Caption and Matplotlib figure of each.
    sections
        Other variables of the template ``report.html``: ``guarantees`` and ``facts`` (text by name), ``chosen`` (rows
        of a table).
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(loader=PackageLoader("bayesmol", "."), autoescape=True, undefined=StrictUndefined)
    images = [(caption, _encoded(plot)) for caption, plot in plots]
    rows = [(name, _meaning(name), figure) for name, figure in study.figures.items()]
    times = {f"CPU time, {name}": f"{seconds:.1f} s" for name, seconds in study.cpu_seconds.items()}
    times["largest memory"] = f"{peak_memory_mb():.0f} MB"
    known = {"guarantees": {}, "facts": {}, "chosen": [], "notes": study.notes, "times": times} | sections
    known["versions"] = versions(study.packages)
    return templates.get_template("report.html").render(title=title, lead=lead, images=images, rows=rows, **known)


def proportion(hits: int, trials: int) -> Estimate:
    """A fraction with the standard deviation of its Jeffreys posterior, which is not zero at 0 or 1.

    Raises
    ------
    DataError
        If there are no trials, or more hits than trials.
    """
    if not 0 <= hits <= trials or trials < 1:
        raise DataError(expected("hits", "0 to trials, of at least one", f"{hits} of {trials}"))
    error = float(stats.beta(hits + 0.5, trials - hits + 0.5).std())
    return _estimate(hits / trials, error, float(trials))


def _estimate(value: float, error: float, size: float, unit: str = "") -> Estimate:
    mean, deviation, worth = torch.tensor([value, error, size], dtype=torch.float64)
    return Estimate(mean, deviation, worth, unit)


def cpu_seconds() -> float:
    """CPU time of all threads of this process and of its finished children, in s."""
    used = os.times()
    return time.process_time() + used.children_user + used.children_system


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def versions(packages: Sequence[str] = ()) -> dict[str, str]:
    """Versions of bayesmol, Python, and those of ``packages`` that are installed."""
    found = {"bayesmol": __version__, "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_text(path: Path, text: str) -> None:
    """Write a file that appears complete or not at all; its folder is made."""
    made(path.parent)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _meaning(name: str) -> str:
    """What a figure is, in words."""
    subject = {"energy": " of energies", "force": " of force components"}.get(name.split("_")[0], "")
    ending = next((key for key in _MEANINGS if name.endswith(key)), None)
    return "" if ending is None else _MEANINGS[ending] + (subject if ending in ("mae", "rmse") else "")


def _encoded(plot: Plot) -> str:
    buffer = io.BytesIO()
    plot.savefig(buffer, format="png", dpi=150)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
