"""Timescales at many lags: from which lag on do they stop rising?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from bayesmol.data.trajectory import Trajectories
from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.inference.random import generator, integer_seed
from bayesmol.posterior import Draws
from bayesmol.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ImpliedTimescales", "implied_timescales"]

_COLOURS = ("#2f6fb3", "#d1495b", "#3a8f6b", "#8a6fb0", "#c98a1b")


@dataclass(frozen=True, eq=False)
class ImpliedTimescales:
    """Timescales of one estimator at several lags.

    Attributes
    ----------
    lags
        In ``unit``, those at which an error bar could be had.
    timescales
        At each lag, (count,).
    refused
        Reasons by lag.
    unit
        Of time.
    """

    lags: tuple[float, ...]
    timescales: tuple[Draws, ...]
    refused: dict[float, str]
    unit: str

    def plot(self) -> Figure:
        """Means with 95 % bands on logarithmic axes; below the grey line a process is over within the lag."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4.2, 3.2), layout="constrained")
        panel = figure.subplots()
        intervals = [draws.interval(0.95) for draws in self.timescales]
        for k in range(len(self.timescales[0].mean)):
            lower, upper = ([float(getattr(one, end)[k]) for one in intervals] for end in ("lower", "upper"))
            colour = _COLOURS[k % len(_COLOURS)]
            panel.fill_between(self.lags, lower, upper, color=colour, alpha=0.25, linewidth=0)
            panel.plot(self.lags, [float(draws.mean[k]) for draws in self.timescales], "o-", color=colour, markersize=3)
        panel.fill_between(self.lags, self.lags, color="#bbbbbb", alpha=0.4, linewidth=0)
        panel.set(xscale="log", yscale="log", xlabel=f"lag ({self.unit})", ylabel=f"timescale ({self.unit})")
        panel.set_xticks(self.lags, [f"{lag:g}" for lag in self.lags])
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
        return figure


def implied_timescales(
    spec: Any, data: Any, lags: Sequence[int], count: int = 3, *, seed: int | torch.Generator
) -> ImpliedTimescales:
    """Timescales of ``spec`` (:class:`~bayesmol.dynamics.TICA`, a Markov state model, …) at each of the lags.

    The seed is the same at all lags, so states and functions that are made from the data are too.

    Raises
    ------
    DataError
        If there is no lag.
    ConvergenceError
        If the trajectories are too short for each of the lags.
    """
    if not lags:
        raise DataError(expected("lags", "at least one", 0))
    trajectories, number = Trajectories.of(data), integer_seed(generator(seed))
    given: dict[float, Draws] = {}
    refused: dict[float, str] = {}
    with progress("lags", len(lags)) as advance:
        for lag in lags:
            place = trajectories.time(lag)
            try:
                given[place] = replace(spec, lag=lag).fit(trajectories, seed=number).timescales(count)
            except ConvergenceError as reason:
                refused[place] = str(reason)
            advance()
    if not given:
        raise ConvergenceError("; ".join(refused.values()))
    return ImpliedTimescales(tuple(given), tuple(given.values()), refused, trajectories.unit)
