"""Molecular dynamics of many replicas of alanine dipeptide side by side, by the package's own batched force field.

On one core of a CPU 64 replicas together make many times the nanoseconds of OpenMM with one, and a GPU runs the same
code. Bonds are flexible and hydrogens heavy: a step is 2 fs.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import kinetics_generate
import numpy as np
import torch
from ase import units
from kinetics_generate import HEAVY, PHI, PSI, Dynamics
from numpy.typing import NDArray
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.files import replacing
from bayesmol.flows.force_field import ForceField
from bayesmol.flows.molecule import bundled
from bayesmol.progress import progress
from bayesmol.report import Study
from bayesmol.representation.internal import dihedral

FIELD = "alanine-dipeptide/obc2"

BOLTZMANN = units.kB  # eV/K
ACCELERATION = units.fs**2  # of 1 eV/(Å Da) in Å/fs²
FLEXIBLE = Dynamics(step=2.0, hydrogen_mass=3.0, equilibration=400)


@dataclass(frozen=True)
class State:
    """Positions in Å and velocities in Å/fs of all replicas (replicas, atoms, 3)."""

    positions: Tensor
    velocities: Tensor


class Replicas:
    """Langevin dynamics by the splitting BAOAB (Leimkuhler, Matthews, Appl. Math. Res. Express 2013, 34)."""

    def __init__(self, field: ForceField, dynamics: Dynamics, replicas: int) -> None:
        self.field, self.dynamics, self.replicas = field, dynamics, replicas
        self.masses = heavy_hydrogens(field, dynamics.hydrogen_mass).float()[:, None]
        self.thermal = (ACCELERATION * BOLTZMANN * dynamics.temperature / self.masses).sqrt()

    def start(self, seed: int) -> State:
        """Thermal velocities at the geometry of the force field, and the frames of equilibration after that."""
        source = torch.Generator().manual_seed(seed)
        positions = self.field.positions.float().expand(self.replicas, -1, 3).clone()
        state = State(positions, self.thermal * torch.randn(positions.shape, generator=source))
        return self.run(state, self.dynamics.equilibration, seed + 1)[1]

    def run(self, state: State, frames: int, seed: int) -> tuple[NDArray[np.float32], State]:
        """Positions of all atoms in Å (frames, replicas, atoms, 3), and the last state."""
        source = torch.Generator().manual_seed(seed)
        kick = self.dynamics.step / 2 * ACCELERATION / self.masses
        keep = math.exp(-self.dynamics.friction * self.dynamics.step / 1000)
        spread, half = math.sqrt(1 - keep**2) * self.thermal, self.dynamics.step / 2
        x, v, found = state.positions, state.velocities, []
        force = self._force(x)
        for _ in range(frames):
            for _ in range(self.dynamics.stride):
                v = v + kick * force
                moved = keep * v + spread * torch.randn(v.shape, generator=source)
                x = x + half * (v + moved)
                force = self._force(x)
                v = moved + kick * force
            found.append(x.numpy().copy())
        if not bool(torch.isfinite(x).all()):
            raise ConvergenceError(f"the positions are no longer finite; shorten the step of {self.dynamics.step} fs")
        return np.stack(found), State(x, v)

    def _force(self, x: Tensor) -> Tensor:
        return -self.field.energy_and_gradient(x.flatten(1))[1].view_as(x)


def heavy_hydrogens(field: ForceField, mass: float) -> Tensor:
    """Masses in dalton after each hydrogen took what it lacks from the atom that it is bonded to."""
    masses, light = field.masses.clone(), field.species == 1
    for first, second in field.bonds.tolist():
        for hydrogen, heavy in ((first, second), (second, first)):
            if light[hydrogen] and not light[heavy]:
                masses[heavy] -= mass - field.masses[hydrogen]
                masses[hydrogen] = mass
    if bool((masses <= 0).any()):
        raise DataError(expected("hydrogen_mass", "less than what the heavy atoms can give", f"{mass} Da"))
    return masses


def generate(
    study: Study, out: Path, nanoseconds: float, seed: int, *, replicas: int = 64, dynamics: Dynamics = FLEXIBLE
) -> None:
    """Run until the folder holds ``nanoseconds`` in all, in the files of :func:`kinetics_generate.generate`.

    A piece of all replicas depends on the states at its start and its own seed: a killed run goes on bit by bit.

    Raises
    ------
    DataError
        If the folder was made with other settings.
    """
    if nanoseconds <= 0 or replicas < 2:
        raise DataError(expected("nanoseconds, replicas", "positive, and two or more", (nanoseconds, replicas)))
    out.mkdir(parents=True, exist_ok=True)
    kinetics_generate.check_settings(
        out, {"seed": seed, "force_field": FIELD, "replicas": replicas, **asdict(dynamics)}
    )
    pieces = math.ceil(1000 * nanoseconds / (dynamics.piece * dynamics.every) / replicas - 1e-6)
    done = 0
    while done < pieces and kinetics_generate.path(out, replicas - 1, done).exists():
        done += 1
    simulation = Replicas(bundled(FIELD), dynamics, replicas)
    with study.stage("generate", "dynamics"), progress("dynamics, pieces", pieces - done) as advance:
        for piece in range(done, pieces):
            _write(simulation, out, piece, seed)
            advance()
    kinetics_generate.summarise(study, out)


def _write(simulation: Replicas, out: Path, piece: int, seed: int) -> None:
    """Run one piece of all replicas; the file of the last one is written last and says that all are there."""
    state = _last(out, piece - 1, simulation.replicas) if piece else simulation.start(_seed(seed, 0))
    frames, last = simulation.run(state, simulation.dynamics.piece, _seed(seed, piece + 1))
    for replica, positions in enumerate(frames.transpose(1, 0, 2, 3)):
        rows = torch.from_numpy(positions.astype(np.float64)).flatten(1)
        arrays = {
            "positions": positions[:, HEAVY],
            "torsions": dihedral(rows, torch.tensor([PHI, PSI])).numpy().astype(np.float32),
            "last_positions": last.positions[replica].numpy(),
            "last_velocities": last.velocities[replica].numpy(),
        }
        path = kinetics_generate.path(out, replica, piece)
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, time_step_ps=simulation.dynamics.every, **arrays)


def _last(out: Path, piece: int, replicas: int) -> State:
    found = []
    for replica in range(replicas):
        with np.load(kinetics_generate.path(out, replica, piece), allow_pickle=False) as arrays:
            found.append((torch.from_numpy(arrays["last_positions"]), torch.from_numpy(arrays["last_velocities"])))
    return State(*map(torch.stack, zip(*found, strict=True)))


def _seed(seed: int, piece: int) -> int:
    return int(np.random.SeedSequence((seed, piece)).generate_state(1, np.uint64)[0] % 2**63)
