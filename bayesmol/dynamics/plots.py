"""Pictures of kinetic models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from bayesmol.data.trajectory import Trajectories
from bayesmol.errors import DataError, expected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bayesmol.dynamics.markov_state_model import FittedMarkovStateModel

__all__ = ["free_energy_surface"]

_SHOWN = 4000


def free_energy_surface(model: FittedMarkovStateModel, data: Any, axes: tuple[int, int] = (0, 1)) -> Figure:
    """Frames at two of their features, in the colour of the free energy of their state, and of its error.

    Parameters
    ----------
    axes
        The two features; with one feature, the free energy itself is the other axis.

    Raises
    ------
    DataError
        If the states of the model were not made from features.
    """
    from matplotlib.figure import Figure

    if model.partition is None:
        raise DataError(expected("model", "states made from features", "states without places"))
    frames = torch.cat(Trajectories.of(data).parts)
    frames = frames[torch.linspace(0, len(frames) - 1, min(_SHOWN, len(frames))).long()]
    states = model.partition.assign(frames)
    place = torch.searchsorted(model.states, states).clamp(max=len(model.states) - 1)
    connected = model.states[place] == states
    frames, place = frames[connected], place[connected]
    energies = model.free_energies()
    mean, spread = (energies.mean - energies.mean.min())[place], energies.stddev[place]
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    for panel, values, label in zip(
        figure.subplots(1, 2), (mean, spread), ("free energy (kT)", "standard deviation (kT)"), strict=True
    ):
        other = frames[:, axes[1]] if frames.shape[1] > 1 else values
        drawn = panel.scatter(frames[:, axes[0]], other, c=values, s=4, cmap="viridis", linewidths=0)
        figure.colorbar(drawn, ax=panel, label=label)
        panel.set(xlabel=f"feature {axes[0] + 1}", ylabel=f"feature {axes[1] + 1}" if frames.shape[1] > 1 else label)
        panel.spines[["top", "right"]].set_visible(False)
    return figure
