"""n-Butane: its geometries, its torsion, labels by GFN2-xTB, and dynamics that goes on after a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.build import molecule
from jaxtyping import Float
from torch import Tensor

from bayesmol.data import Structures
from bayesmol.data.reference import TBLite
from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics import MarkovStateModel
from bayesmol.dynamics.clustering import Grid
from bayesmol.dynamics.lags import ImpliedTimescales, implied_timescales
from bayesmol.dynamics.weights import FEWEST_EVENTS
from bayesmol.errors import ConvergenceError, expected
from bayesmol.files import replacing
from bayesmol.inference.random import numpy_generator
from bayesmol.posterior import Draws
from bayesmol.potentials.integrators import Langevin, thermal_velocities
from bayesmol.potentials.molecular_dynamics import simulate
from bayesmol.potentials.surface import Surface
from bayesmol.representation.internal import dihedral

__all__ = ["Direct", "Motion", "equivalent", "keep", "kept", "lags", "like", "motion", "scan", "timescale", "torsion"]

FRICTION, TIMESTEP, INTERVAL = 0.002, 1.0, 20  # 1/fs, fs, and steps between two frames
CHUNK = 1000  # steps between two files
SETTLING = 0.1  # share of each trajectory that is left out, in which the start is forgotten
LAG, LAGS = 1.0, (0.1, 0.2, 0.5, 1.0, 2.0)  # ps
STATES = Grid((18,), (0.0,), (180.0,))  # of the torsion without its sign, in degrees: the two gauche states are one
MOVED = [3, 12, 13, 5, 8, 9]  # atoms that turn with the last carbon
EXCHANGES = [
    [0, 1, 2, 3, 4, 5, 7, 6, 9, 8, 11, 10, 13, 12],  # with a mirror: each pair of hydrogens changes places
    [3, 2, 1, 0, 5, 4, 8, 9, 6, 7, 12, 13, 10, 11],  # the two ends
]


@dataclass(frozen=True)
class Direct:
    """Energies and forces of the reference itself, as a surface for dynamics."""

    reference: TBLite = field(default_factory=lambda: TBLite(accuracy=1.0))

    def surface(self, structures: Structures, *, virial: bool = False) -> Surface:
        """Energies and forces; a structure that the reference cannot label is an error."""
        found = self.reference.label(structures)
        if found.failures:
            raise ConvergenceError(str(found.failures))
        return Surface(found.labelled.energies, found.labelled.forces)


@dataclass(frozen=True, eq=False)
class Motion:
    """Frames of replicas, at equal times; the calls of the surface; replicas that the domain stopped."""

    positions: Float[Tensor, "frames replicas atoms 3"]
    structures: Structures
    velocities: Tensor
    calls: int
    stopped: int

    @property
    def settled(self) -> Float[Tensor, "frames replicas atoms 3"]:
        """Frames without the first ones."""
        return self.positions[int(SETTLING * len(self.positions)) :]


def scan(size: int, seed: int) -> Structures:
    """Butane at so many torsions around the circle, the ends turned too, and all atoms displaced at random."""
    source, frames = numpy_generator(seed), []
    for k in range(size):
        atoms = molecule("trans-butane")
        atoms.set_dihedral(0, 1, 2, 3, 360 * (k + source.random()) / size, indices=MOVED)
        for chain, hydrogens in (((2, 1, 0, 4), [4, 6, 7]), ((1, 2, 3, 5), [5, 8, 9])):
            atoms.rotate_dihedral(*chain, 120 * source.random(), indices=hydrogens)
        atoms.positions += 0.05 * source.standard_normal((14, 3))
        frames.append(atoms)
    return Structures.from_ase(frames)


def torsion(x: Float[Tensor, "*shape atoms 3"], atoms: tuple[int, ...] = (0, 1, 2, 3)) -> Float[Tensor, "*shape"]:
    """Torsion of four atoms in degrees, by default of the carbons; ±180 is trans."""
    rows = x.reshape(-1, x.shape[-2] * 3)
    return torch.rad2deg(dihedral(rows, torch.tensor([atoms]))[:, 0]).reshape(x.shape[:-2])


def equivalent(x: Float[Tensor, "frames atoms 3"]) -> Float[Tensor, "more atoms 3"]:
    """Frames with their mirror images and with their ends exchanged: four of one, all of the same energy."""
    mirrored = x[:, EXCHANGES[0]] * x.new_tensor([1.0, 1.0, -1.0])
    both = torch.stack([x, mirrored], 1).flatten(0, 1)
    return torch.stack([both, both[:, EXCHANGES[1]]], 1).flatten(0, 1)


def like(template: Structures, x: Float[Tensor, "frames atoms 3"]) -> Structures:
    """The same molecule at other positions."""
    found = template[torch.zeros(len(x), dtype=torch.long)]
    parts = found.species, found.pointer, found.cell, found.pbc
    return Structures(x.double().reshape(-1, 3), *parts)


def motion(
    folder: Path,
    surface: Any,
    start: Structures,
    *,
    temperature: float,
    steps: int,
    seed: int,
    gate: Callable[[Structures], Tensor] | None = None,
    heated: float = 1.0,
) -> Motion:
    """Langevin dynamics of all structures side by side, in pieces of 1000 steps that are files of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    structures, parts, stopped = start, [], 0
    velocities = thermal_velocities(start, temperature, seed=seed)
    dynamics = Langevin(heated * temperature, TIMESTEP, FRICTION)
    for piece, done in enumerate(range(0, steps, CHUNK)):
        path, size = folder / f"{piece:04d}.npz", min(CHUNK, steps - done)
        if not path.exists():
            own = 1000 * seed + piece
            run = simulate(surface, structures, velocities, dynamics, size, interval=INTERVAL, observer=gate, seed=own)
            last = {"positions": run.structures.positions, "velocities": run.velocities}
            keep(path, frames=run.positions[1:], stopped=torch.tensor(len(run.failures)), **last)
        stored = kept(path)
        structures = Structures(stored["positions"], start.species, start.pointer, start.cell, start.pbc)
        velocities, stopped = stored["velocities"], stopped + int(stored["stopped"])
        parts.append(stored["frames"].double().view(-1, len(start), 14, 3))
    return Motion(torch.cat(parts), structures, velocities, steps * len(start), stopped)


def keep(path: Path, **arrays: Tensor) -> None:
    """Arrays in one file that appears complete or not at all; frames in single precision."""
    plain = {name: value.detach().numpy() for name, value in arrays.items()}
    if "frames" in plain:
        plain["frames"] = plain["frames"].astype(np.float32)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **plain)


def kept(path: Path) -> dict[str, Tensor]:
    """What :func:`keep` wrote."""
    with np.load(path) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files}


def _torsions(run: Motion) -> Trajectories:
    angles = torsion(run.settled).abs()[..., None]
    return Trajectories.of(list(angles.unbind(1)), time_step=INTERVAL * TIMESTEP / 1000, unit="ps")


def _model(lag: float) -> MarkovStateModel:
    return MarkovStateModel(lag=round(lag * 1000 / (INTERVAL * TIMESTEP)), states=STATES)


def timescale(run: Motion, *, seed: int) -> Draws:
    """Relaxation time between trans and gauche in ps: posterior of a Markov state model of the torsion.

    Raises
    ------
    ConvergenceError
        If it rests on too few independent events.
    """
    fitted = _model(LAG).fit(_torsions(run), seed=seed)
    found = fitted.timescales(1)
    if (events := float(fitted.support(found))) < FEWEST_EVENTS:
        got = f"about {events:.1f} events"
        raise ConvergenceError(expected("picoseconds", "three independent events", got, "simulate longer"))
    return found


def lags(run: Motion, *, seed: int) -> ImpliedTimescales:
    """The same at several lags."""
    model = _model(LAG)
    return implied_timescales(model, _torsions(run), [_model(lag).lag for lag in LAGS], 1, seed=seed)
