"""Molecular dynamics of many replicas side by side, on any device: they share each call of the potential."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior.estimate import Estimate, effective_sample_size
from bayesmol.potentials.failures import Failure, Watch, Watched
from bayesmol.potentials.integrators import Langevin, VelocityVerlet, kinetic_energies, masses, units
from bayesmol.potentials.surface import Surface, surface_function
from bayesmol.progress import progress

__all__ = ["Simulation", "drift", "simulate"]

Observer = Callable[[Structures], Tensor | None]


@dataclass(frozen=True, eq=False)
class Simulation:
    """What a simulation remembers: frames, energies and failures.

    Attributes
    ----------
    structures, velocities
        The last frame of each replica (of a failed one the last before the failure), in Å and Å/fs: what goes on from
        there.
    times
        Of the remembered frames, in fs, from 0.
    positions
        In Å.
    potential, kinetic
        Energies in eV, NaN from the failure of a replica on.
    failures
        One for each replica that failed.
    """

    structures: Structures
    velocities: Float[Tensor, "atoms 3"]
    times: Float[Tensor, " frames"]
    positions: Float[Tensor, "frames atoms 3"]
    potential: Float[Tensor, "frames replicas"]
    kinetic: Float[Tensor, "frames replicas"]
    failures: tuple[Failure, ...] = ()

    @property
    def total(self) -> Float[Tensor, "frames replicas"]:
        """Total energies in eV."""
        return self.potential + self.kinetic

    @property
    def survivors(self) -> Bool[Tensor, " replicas"]:
        """Which replicas did not fail."""
        return self.potential[-1].isfinite()

    def temperatures(self, *, resting: bool = False) -> Float[Tensor, "frames replicas"]:
        """Kinetic temperatures in K; ``resting``: of replicas whose centre of mass does not move."""
        freedom = 3 * (self.structures.counts - int(resting))
        return 2 * self.kinetic / (units()[1] * freedom)

    def trajectory(self, replica: int) -> Structures:
        """Frames of one replica, as far as it did not fail."""
        start, stop = self.structures.pointer[replica : replica + 2].tolist()
        frames = self.positions[self.potential[:, replica].isfinite(), start:stop]
        one = self.structures[replica]
        parts = [moved(one, positions) for positions in frames]
        return Structures.concatenate(parts)

    def drift(self, over: float = 1e5) -> Estimate:
        """Drift of the total energy of a replica over so many fs; see :func:`drift`.

        Raises
        ------
        DataError
            If every replica failed.
        """
        if not bool(self.survivors.any()):
            raise DataError(expected("simulation", "a replica that did not fail", "none"))
        return drift(self.times, self.total[:, self.survivors], over)


def simulate(
    model: Any,
    structures: Structures,
    velocities: Float[Tensor, "atoms 3"],
    integrator: VelocityVerlet | Langevin,
    steps: int,
    *,
    interval: int = 10,
    watch: Watch | Watched | None = None,
    observer: Observer | None = None,
    seed: int | torch.Generator = 0,
) -> Simulation:
    """Advance all replicas together; they are judged, remembered and shown to the observer at every ``interval``.

    A replica that fails stays where it last was well, and the others go on. Cells do not change.

    Parameters
    ----------
    model
        Anything that :func:`~bayesmol.potentials.surface.surface` takes; its mean moves the atoms.
    structures, velocities
        One structure a replica, and velocities in Å/fs, as from
        :func:`~bayesmol.potentials.integrators.thermal_velocities` or an earlier simulation.
    watch
        What counts as a failure; by default :class:`~bayesmol.potentials.failures.Watch`. ``Watch().start(first)`` to
        go on with a run whose bonds were those of an earlier frame.
    observer
        Is shown all replicas; a mask that it returns stops the replicas it marks, as a failure.

    Raises
    ------
    DataError, ShapeError
        If a number of steps is not positive, velocities do not fit, or a start has failed already.
    """
    if steps < 1 or interval < 1:
        raise DataError(expected("steps, interval", "at least 1", (steps, interval)))
    if velocities.shape != structures.positions.shape:
        raise ShapeError(expected("velocities", f"shape {tuple(structures.positions.shape)}", tuple(velocities.shape)))
    watched = watch if isinstance(watch, Watched) else (watch or Watch()).start(structures)
    run = _Run(surface_function(model), structures, velocities, watched, observer, integrator.timestep)
    move = integrator.mover(structures, generator(seed, velocities.device))
    run.look(0)
    if run.failures:
        raise DataError(expected("structures", "starts within the limits of the watch", str(run.failures[0])))
    with progress("molecular dynamics", steps) as advance:
        for step in range(1, steps + 1):
            run.advance(move)
            if step % interval == 0 or step == steps:
                run.look(step)
                if not bool(run.well.any()):
                    break
            advance()
    return run.simulation()


@dataclass
class _Run:
    """A simulation under way."""

    surface: Callable[..., Surface]
    structures: Structures
    velocities: Tensor
    watched: Watched
    observer: Observer | None
    timestep: float
    failures: list[Failure] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.owner = self.structures.structure_index
        self.well = torch.ones(len(self.structures), dtype=torch.bool, device=self.owner.device)
        self.kick = 0.5 * self.timestep * units()[0] / masses(self.structures)
        self.frames: list[tuple[Tensor, ...]] = []
        self.times: list[float] = []
        self.energies, self.forces = self._energies_and_forces()
        self.kept = self.structures.positions, self.velocities, self.forces, self.energies

    def _energies_and_forces(self) -> tuple[Tensor, Tensor]:
        found = self.surface(self.structures)
        return found.energies, found.forces

    def advance(self, move: Callable) -> None:
        """One step of all replicas; the failed ones stay."""
        before = self.structures.positions, self.velocities
        positions, velocities = move(before[0], before[1] + self.kick * self.forces)
        self.structures = moved(self.structures, self._kept_where_failed(positions, before[0]))
        self.energies, self.forces = self._energies_and_forces()
        self.velocities = self._kept_where_failed(velocities + self.kick * self.forces, before[1])

    def _kept_where_failed(self, new: Tensor, old: Tensor) -> Tensor:
        return torch.where(self.well[self.owner, None], new, old) if self.failures else new

    def look(self, step: int) -> None:
        """Judge, remember and show the present frame."""
        time, before = step * self.timestep, self.well
        for reason, failed in self._verdicts().items():
            for replica in (failed & self.well).nonzero()[:, 0].tolist():
                self.failures.append(Failure(replica, step, time, reason))
            self.well = self.well & ~failed
        if bool((before & ~self.well).any()):
            self._restore()
        state = self.structures.positions, self.velocities, self.forces, self.energies
        self.kept, kinetic = state, kinetic_energies(self.structures, self.velocities)
        nothing = torch.full_like(kinetic, math.nan)
        energies = [torch.where(self.well, part, nothing) for part in (self.energies, kinetic)]
        self.frames.append((self.structures.positions, *energies))
        self.times.append(time)

    def _verdicts(self) -> dict[str, Tensor]:
        """By reason, which replicas have failed."""
        numbers = torch.cat([self.structures.positions, self.velocities, self.forces], 1).isfinite().all(1)
        finite = self.energies.isfinite()
        finite[self.owner[~numbers]] = False
        positions = torch.where(finite[self.owner, None], self.structures.positions, self.kept[0])
        present = moved(self.structures, positions)
        found = self.watched.verdicts(present, finite)
        mask = None if self.observer is None else self.observer(present)
        return found if mask is None else found | {"the observer stopped it": mask}

    def _restore(self) -> None:
        """Put failed replicas back to where they were well."""
        self.structures = moved(self.structures, self._kept_where_failed(self.structures.positions, self.kept[0]))
        self.velocities = self._kept_where_failed(self.velocities, self.kept[1])
        self.forces = self._kept_where_failed(self.forces, self.kept[2])
        self.energies = torch.where(self.well, self.energies, self.kept[3])

    def simulation(self) -> Simulation:
        """What was remembered."""
        positions, potential, kinetic = (torch.stack(part) for part in zip(*self.frames, strict=True))
        times = positions.new_tensor(self.times)
        parts = times, positions, potential, kinetic, tuple(self.failures)
        return Simulation(self.structures, self.velocities, *parts)


def moved(structures: Structures, positions: Float[Tensor, "atoms 3"]) -> Structures:
    """The same atoms elsewhere, without the checks of new structures: a simulation judges its frames itself."""
    found = copy.copy(structures)
    object.__setattr__(found, "positions", positions)
    return found


def drift(times: Float[Tensor, " frames"], energies: Float[Tensor, "frames replicas"], over: float = 1e5) -> Estimate:
    r"""Change of the energy over so many fs by a straight line through each replica, averaged over the replicas.

    .. math:: \hat b = \frac{\sum_t (t - \bar t)\, E_t}{\sum_t (t - \bar t)^2}, \qquad
        \mathrm{se}(\hat b)^2 = \frac{s^2}{\sum_t (t - \bar t)^2} \frac{n}{n_\mathrm{eff}}

    with the variance s² of the residuals and their effective number :func:`n_eff
    <bayesmol.posterior.estimate.effective_sample_size>`, which allows for their correlation in time.

    Parameters
    ----------
    times, energies
        In fs and eV.
    over
        In fs; 1e5 fs are 100 ps.

    Raises
    ------
    DataError
        If there are fewer than 16 frames.
    ConvergenceError
        If the residuals of a replica are worth fewer than 10 independent ones: it takes a longer simulation.
    """
    if len(times) < 16 or energies.shape[0] != len(times):
        raise DataError(expected("energies", "one row for each of 16 or more times", tuple(energies.shape)))
    centred, values = (times - times.mean()).double()[:, None], energies.double() - energies.double().mean(0)
    square = centred.square().sum()
    slopes = (centred * values).sum(0) / square
    residuals = values - slopes * centred
    worth = effective_sample_size(residuals[None])
    if float(worth.min()) < 10:
        got = f"residuals worth {float(worth.min()):.1f}"
        raise ConvergenceError(expected("energies", "residuals worth 10 independent ones", got, "simulate longer"))
    variances = residuals.square().sum(0) / (len(times) - 2) / square * len(times) / worth
    return Estimate(over * slopes.mean(), over * variances.sum().sqrt() / len(variances), worth.sum(), "eV")
