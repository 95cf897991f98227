"""Molecular dynamics of alanine dipeptide in implicit solvent, saved piece by piece; a killed run goes on exactly.

A piece depends only on the state at its start, which the piece before ends with, and on its own seed: so the pieces of
a run that was killed are those of one that was not, bit by bit.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bayesmol.data.labelling import program_version
from bayesmol.errors import ConvergenceError, DataError, DependencyError, expected
from bayesmol.files import replacing
from bayesmol.flows.molecule import alanine_dipeptide
from bayesmol.progress import progress
from bayesmol.report import Study
from bayesmol.representation.internal import dihedral

ATOMS = {
    "ACE": "H1 CH3 H2 H3 C O",
    "ALA": "N H CA HA CB HB1 HB2 HB3 C O",
    "NME": "N H C H1 H2 H3",
}
HEAVY = (1, 4, 5, 6, 8, 10, 14, 15, 16, 18)
PHI, PSI = (4, 6, 8, 14), (6, 8, 14, 16)  # C-N-CA-C and N-CA-C-N in Amber's order of atoms
FORCE_FIELD = ("amber14/protein.ff14SB.xml", "implicit/obc2.xml")


@dataclass(frozen=True)
class Dynamics:
    """Langevin dynamics at constant temperature; bonds to hydrogen are rigid.

    A step of 4 fs needs heavier hydrogens: mass moves to them from the atoms that they are bonded to. The Boltzmann
    density of positions does not know of masses; rates may shift a little, for the long run and its pieces alike.

    Attributes
    ----------
    temperature, friction
        In K and 1/ps.
    step, every
        Of the integrator in fs; between two saved frames in ps.
    hydrogen_mass
        In dalton.
    piece, equilibration
        Frames of a file; frames that are thrown away at the start of a trajectory.
    """

    temperature: float = 300.0
    friction: float = 1.0
    step: float = 4.0
    every: float = 1.0
    hydrogen_mass: float = 1.5
    piece: int = 500
    equilibration: int = 100

    def __post_init__(self) -> None:
        steps = 1000 * self.every / self.step
        if min(self.step, self.every) <= 0 or steps < 1 or abs(steps - round(steps)) > 1e-9:
            raise DataError(expected("every", f"a multiple of the step of {self.step} fs", f"{self.every} ps"))
        if self.step > 2 and self.hydrogen_mass < 1.5:
            raise DataError(expected("step", "2 fs or less with hydrogens so light", self.step, "hydrogen_mass=1.5"))
        if self.piece < 1 or self.equilibration < 0:
            raise DataError(expected("piece", "one frame or more", self.piece))

    @property
    def stride(self) -> int:
        """Steps of the integrator between two frames."""
        return round(1000 * self.every / self.step)


@dataclass(frozen=True)
class State:
    """Positions in nm and velocities in nm/ps of all atoms."""

    positions: NDArray[np.float64]
    velocities: NDArray[np.float64]


class Simulation:
    """The molecule, one thread on the CPU."""

    def __init__(self, dynamics: Dynamics) -> None:
        self.dynamics = dynamics
        try:
            import openmm
        except ImportError as error:
            raise DependencyError.extra("openmm", "reference") from error
        ps, kelvin, fs = openmm.unit.picosecond, openmm.unit.kelvin, openmm.unit.femtosecond
        pace = (dynamics.temperature * kelvin, dynamics.friction / ps, dynamics.step * fs)
        self.integrator = openmm.LangevinMiddleIntegrator(*pace)
        platform = openmm.Platform.getPlatformByName("CPU")
        system = _system(dynamics.hydrogen_mass)
        self.context = openmm.Context(system, self.integrator, platform, {"Threads": "1"})

    @cached_property
    def minimum(self) -> NDArray[np.float64]:
        """Positions in nm at a minimum of the energy."""
        import openmm

        start = alanine_dipeptide(300.0, solvent="obc2").start.reshape(-1, 3).numpy() / 10
        self.context.setPositions(start)
        openmm.LocalEnergyMinimizer.minimize(self.context)
        return self._state().positions

    def start(self, seed: int) -> State:
        """An equilibrated state."""
        minimum = self.minimum
        self._seed(seed)
        self.context.setPositions(minimum)
        self.context.setVelocitiesToTemperature(self.dynamics.temperature, _positive(seed, 1))
        for _ in range(self.dynamics.equilibration):
            self.integrator.step(self.dynamics.stride)
        return self._state()

    def run(self, state: State, frames: int, seed: int) -> tuple[NDArray[np.float32], State]:
        """Positions of all atoms in Å, frame by frame, and the last state."""
        self._seed(seed)
        self.context.setPositions(state.positions)
        self.context.setVelocities(state.velocities)
        found = np.empty((frames, len(state.positions), 3), np.float32)
        for row in found:
            self.integrator.step(self.dynamics.stride)
            row[:] = 10 * self.context.getState(getPositions=True).getPositions(asNumpy=True)._value
        if not np.isfinite(found).all():
            raise ConvergenceError(f"the positions are no longer finite; shorten the step of {self.dynamics.step} fs")
        return found, self._state()

    def _seed(self, seed: int) -> None:
        """The noise from here on depends on the seed alone, not on what ran before."""
        self.integrator.setRandomNumberSeed(_positive(seed, 0))
        self.context.reinitialize()

    def _state(self) -> State:
        found = self.context.getState(getPositions=True, getVelocities=True)
        arrays = (found.getPositions(asNumpy=True)._value, found.getVelocities(asNumpy=True)._value)
        return State(*(np.asarray(array, dtype=np.float64) for array in arrays))


def generate(
    study: Study,
    out: Path,
    nanoseconds: float,
    seed: int,
    *,
    trajectories: int = 1,
    dynamics: Dynamics = Dynamics(),
) -> None:
    """Run until the folder holds ``nanoseconds`` in all; what is there already is kept.

    Each file ``trajectory_000/piece_00000.npz`` has the heavy atoms in Å, φ and ψ in rad, and the last state.

    Parameters
    ----------
    trajectories
        Independent ones, each from the minimum with its own velocities; they grow in turn.

    Raises
    ------
    DataError
        If the folder was made with other settings.
    """
    if nanoseconds <= 0 or trajectories < 1:
        raise DataError(expected("nanoseconds, trajectories", "positive numbers", (nanoseconds, trajectories)))
    out.mkdir(parents=True, exist_ok=True)
    program = {"openmm": program_version("openmm"), "force_field": list(FORCE_FIELD)}
    check_settings(out, {"seed": seed, **program, **asdict(dynamics)})
    wanted = 1000 * nanoseconds / (dynamics.piece * dynamics.every) / trajectories
    pieces = int(np.ceil(wanted - 1e-6))  # 6.000000001 pieces are 6
    missing = [(t, p) for p in range(pieces) for t in range(trajectories) if not path(out, t, p).exists()]
    simulation = Simulation(dynamics) if missing else None
    with study.stage("generate", "dynamics"), progress("dynamics, pieces", len(missing)) as advance:
        for trajectory, piece in missing:
            _write(simulation, out, trajectory, piece, seed)
            advance()
    summarise(study, out)


def summarise(study: Study, out: Path) -> None:
    """How much there is, and the share of φ ≥ 0 with the number of times that it was entered."""
    angles = [angles for angles, _ in read(out)]
    positive = [angle[:, 0] >= 0 for angle in angles]
    entered = sum(int((~one[:-1] & one[1:]).sum()) for one in positive)
    study.add("nanoseconds", time_step(out) * sum(map(len, angles)) / 1000, "ns")
    study.add("trajectories", len(angles))
    study.add("share_positive_phi", float(np.concatenate(positive).mean()))
    study.add("entries_into_positive_phi", entered)


def time_step(out: Path) -> float:
    """Between two saved frames, in ps."""
    return float(json.loads((out / "settings.json").read_text(encoding="utf-8"))["every"])


def read(out: Path) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """φ and ψ in rad (frames, 2) and heavy atoms in Å (frames, 10, 3) of each trajectory, up to its first gap.

    Raises
    ------
    DataError
        If the folder has no pieces.
    """
    folders = sorted(path for path in out.glob("trajectory_*") if (path / "piece_00000.npz").exists())
    if not folders:
        raise DataError(expected("folder", "pieces of trajectories", f"none in {out}", "run generate first"))
    for folder in folders:
        pieces = []
        while (path := folder / f"piece_{len(pieces):05d}.npz").exists():
            with np.load(path, allow_pickle=False) as found:
                pieces.append((found["torsions"], found["positions"]))
        yield tuple(np.concatenate(part) for part in zip(*pieces, strict=True))


def _write(simulation: Simulation, out: Path, trajectory: int, piece: int, seed: int) -> None:
    """Run one piece from the end of the one before."""
    place = path(out, trajectory, piece)
    place.parent.mkdir(exist_ok=True)
    if piece:
        with np.load(path(out, trajectory, piece - 1), allow_pickle=False) as before:
            state = State(before["last_positions_nm"], before["last_velocities"])
    else:
        state = simulation.start(_mixed(seed, trajectory, 0))
    positions, last = simulation.run(state, simulation.dynamics.piece, _mixed(seed, trajectory, piece + 1))
    rows = torch.from_numpy(positions.astype(np.float64)).flatten(1)
    angles = dihedral(rows, torch.tensor([PHI, PSI])).numpy()
    arrays = {"positions": positions[:, HEAVY], "torsions": angles.astype(np.float32)}
    arrays |= {"last_positions_nm": last.positions, "last_velocities": last.velocities}
    with replacing(place) as temporary, temporary.open("wb") as file:
        np.savez(file, time_step_ps=simulation.dynamics.every, **arrays)


def path(out: Path, trajectory: int, piece: int) -> Path:
    """Of a piece."""
    return out / f"trajectory_{trajectory:03d}" / f"piece_{piece:05d}.npz"


def check_settings(out: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a new folder; refuse others in an old one."""
    place = out / "settings.json"
    if not place.exists():
        with replacing(place) as temporary:
            temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
    known = json.loads(place.read_text(encoding="utf-8"))
    if known != settings:
        other = {key: (known.get(key), value) for key, value in settings.items() if known.get(key) != value}
        raise DataError(
            expected("out", "a folder made with these settings", f"(there, now): {other}", "choose another")
        )


def _mixed(*numbers: int) -> int:
    """A seed of its own for each tuple of numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _positive(seed: int, stream: int) -> int:
    """Seed of OpenMM: 31 bits, and not 0, which would be taken from the clock."""
    return int(_mixed(seed, stream) % (2**31 - 1)) + 1


def _system(hydrogen_mass: float) -> Any:
    """Amber ff14SB with OBC2, without cutoff."""
    from openmm import app, unit

    options = {"nonbondedMethod": app.NoCutoff, "constraints": app.HBonds}
    mass = {"hydrogenMass": hydrogen_mass * unit.dalton}
    return app.ForceField(*FORCE_FIELD).createSystem(_topology(), **options, **mass)


def _topology() -> Any:
    """Acetyl–alanine–N-methylamide in Amber's order of atoms."""
    from openmm import app

    topology = app.Topology()
    chain = topology.addChain()
    for residue, names in ATOMS.items():
        place = topology.addResidue(residue, chain)
        for name in names.split():
            topology.addAtom(name, app.Element.getBySymbol(name[0]), place)
    topology.createStandardBonds()
    return topology
