"""Molecular dynamics with a potential that knows what it does not know: cost, stability, drift and the prior energy."""

from __future__ import annotations

import time
from typing import Any

import torch
from harness import average
from jaxtyping import Float
from torch import Tensor

from bayesmol.data import Structures
from bayesmol.posterior import Estimate
from bayesmol.posterior.estimate import effective_sample_size
from bayesmol.potentials.ace_surface import ACESurface
from bayesmol.potentials.integrators import Langevin, VelocityVerlet, thermal_velocities
from bayesmol.potentials.molecular_dynamics import Simulation, moved, simulate
from bayesmol.potentials.surface import surface_function
from bayesmol.report import Study, proportion
from bayesmol.representation.neighbours import neighbours

NEAR = 0.3  # Å: how close two atoms are pushed


def step_cost(
    study: Study, model: Any, frames: Structures, *, sizes: tuple[int, ...] = (1, 64), repeats: int = 5
) -> None:
    """CPU time an atom of the mean surface and of ``predict``, in turns: the least of some repetitions."""
    fast = surface_function(model)
    for size in sizes:
        batch = frames[:size]
        calls = {"surface": lambda batch=batch: fast(batch), "predict": lambda batch=batch: model.predict(batch)}
        found = {name: [_seconds(call) for _ in range(repeats)] for name, call in calls.items()}
        least = {name: 1e6 * min(values) / len(batch.positions) for name, values in found.items()}
        for name, value in least.items():
            study.add(f"{name}_microseconds_per_atom_{size}", value, "µs/atom")
        study.add(f"ratio_predict_to_surface_{size}", least["predict"] / least["surface"])


def against_ase(
    study: Study, model: Any, frames: Structures, *, steps: int = 5, timestep: float = 0.5, seed: int
) -> None:
    """CPU time an atom and step: all frames side by side, and one of them through ASE's Langevin and our calculator."""
    from ase import units
    from ase.md.langevin import Langevin as AseLangevin

    velocities = thermal_velocities(frames, 300, seed=seed)
    ours = _seconds(lambda: simulate(model, frames, velocities, Langevin(300, timestep), steps, seed=seed))
    (atoms,) = frames[0].to_ase()
    atoms.calc = model.calculator()
    dynamics = AseLangevin(atoms, timestep * units.fs, temperature_K=300, friction=0.01 / units.fs, fixcm=False)
    theirs = _seconds(lambda: dynamics.run(steps))
    found = {"side_by_side": ours / len(frames.positions), "ase": theirs / len(atoms)}
    for name, seconds in found.items():
        study.add(f"{name}_microseconds_per_atom_step", 1e6 * seconds / steps, "µs")
    study.add("ratio_to_ase", found["ase"] / found["side_by_side"])


def _seconds(call: Any) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def md_soak(
    study: Study,
    model: Any,
    starts: Structures,
    *,
    replicas: int = 100,
    steps: int = 10_000,
    temperature: float = 300.0,
    timestep: float = 0.5,
    friction: float = 0.01,
    looks: int = 100,
    seed: int,
) -> Simulation:
    """Langevin dynamics of many replicas of a certified model: failures, share of frames inside, temperature.

    Parameters
    ----------
    starts
        The replicas begin at these frames in turn.
    steps
        Of each replica.
    looks
        How often all replicas are shown to the domain.
    """
    first = starts[torch.arange(replicas) % len(starts)]
    interval, seen = 10, _Gate(model, max(1, steps // 10 // looks))
    integrator = Langevin(temperature, timestep, friction)
    velocities = thermal_velocities(first, temperature, seed=seed)
    with study.stage("dynamics"):
        run = simulate(model, first, velocities, integrator, steps, interval=interval, observer=seen, seed=seed)
    done = float(_steps_done(run, timestep).sum())
    study.add("steps_of_all_replicas", done)
    study.add("failures", proportion(len(run.failures), replicas))
    seen.report(study)
    late = run.temperatures()[len(run.times) // 5 :, run.survivors]
    if len(late) >= 4:
        study.add("temperature", _mean_of_chains(late.T, "K"))
    atoms = done * len(first.positions) / replicas
    study.add("dynamics_microseconds_per_atom_step", 1e6 * (study.cpu_seconds["dynamics"] - seen.seconds) / atoms, "µs")
    study.notes += [str(failure) for failure in run.failures]
    study.notes.append(f"{done:.3g} steps are those of all {replicas} replicas together, {steps} of each at most")
    return run


class _Gate:
    """Observer that counts the frames inside the domain of a certified model, at every so many looks."""

    def __init__(self, model: Any, every: int) -> None:
        self.model, self.every, self.calls, self.inside, self.seconds = model, every, 0, [], 0.0

    def __call__(self, structures: Structures) -> None:
        self.calls += 1
        if hasattr(self.model, "domain") and (self.calls - 1) % self.every == 0:
            start = time.process_time()
            self.inside.append(self.model.domain.assess(self.model.strangeness(structures)).inside)
            self.seconds += time.process_time() - start

    def report(self, study: Study) -> None:
        """Share of frames inside, with the standard error of the means of the replicas."""
        if self.inside:
            share = torch.stack(self.inside).double().mean(0)
            study.add("inside_share", average(share) if len(share) > 1 else float(share))
            study.add("frames_judged", len(self.inside) * len(share))


def _steps_done(run: Simulation, timestep: float) -> Float[Tensor, " replicas"]:
    """Steps of each replica until its last good look."""
    last = run.potential.isfinite().sum(0) - 1
    return run.times[last] / timestep


def _mean_of_chains(values: Float[Tensor, "chains draws"], unit: str) -> Estimate:
    worth = effective_sample_size(values)
    return Estimate(values.mean(), values.std() / worth.sqrt(), worth, unit)


def nve_drift(
    study: Study,
    model: Any,
    starts: Structures,
    *,
    replicas: int = 4,
    picoseconds: float = 100.0,
    timestep: float = 0.5,
    temperature: float = 300.0,
    seed: int,
) -> Simulation:
    """Drift of the total energy at constant energy over 100 ps, with its interval."""
    first = starts[torch.arange(replicas) % len(starts)]
    velocities = thermal_velocities(first, temperature, seed=seed)
    steps = round(1000 * picoseconds / timestep)
    with study.stage("constant energy"):
        run = simulate(
            model, first, velocities, VelocityVerlet(timestep), steps, interval=max(1, min(20, steps // 100)), seed=seed
        )
    study.add("nve_failures", len(run.failures))
    found = run.drift(1e5)
    interval = found.interval(0.95)
    study.add("nve_drift_100ps", found)
    study.add("nve_drift_100ps_largest", max(abs(float(interval.lower)), abs(float(interval.upper))), "eV")
    study.add("nve_fluctuation", float(run.total[:, run.survivors].std(0).mean()), "eV")
    study.notes.append(
        f"drift: mean of {replicas} replicas of {picoseconds:g} ps at {timestep:g} fs, scaled to 100 ps; "
        "largest: the end of its 95 % interval that is farther from zero"
    )
    return run


def walls(study: Study, model: Any, frame: Structures, *, draws: int = 20, seed: int) -> Float[Tensor, "draws pairs"]:
    """Energy of every posterior draw when any two atoms of a molecule are pushed to 0.3 Å, above its frame in eV."""
    pushed, rises = _pushed(frame), []
    with study.stage("walls"):
        for draw in potential_of(model).draws(draws, seed=seed):
            fast = surface_function(draw)
            rises.append(fast(pushed).energies - fast(frame).energies)
    found = torch.stack(rises)
    study.add("wall_least", float(found.min()), "eV")
    study.add("wall_draws_above_10_ev", proportion(int((found > 10).all(1).sum()), draws))
    study.notes.append(
        f"least energy over {draws} draws and {found.shape[1]} pairs pushed to {NEAR} Å, above the frame"
    )
    return found


def _pushed(frame: Structures) -> Structures:
    """Frames of one molecule in each of which one pair of atoms is 0.3 Å apart: the lighter atom comes nearer."""
    edges = neighbours(frame, 50.0)
    once = (frame.species[edges.first] > frame.species[edges.second]) | (
        (frame.species[edges.first] == frame.species[edges.second]) & (edges.first < edges.second)
    )
    found = []
    for first, second, vector in zip(edges.first[once], edges.second[once], edges.vectors[once], strict=True):
        positions = frame.positions.clone()
        positions[second] = positions[first] + NEAR * vector / vector.norm()
        found.append(moved(frame, positions))
    return Structures.concatenate(found)


def draws_soak(
    study: Study,
    model: Any,
    start: Structures,
    *,
    draws: int = 20,
    picoseconds: float = 100.0,
    temperature: float = 600.0,
    timestep: float = 0.5,
    seed: int,
) -> Simulation:
    """Langevin dynamics of posterior draws side by side, each moved by its own potential: none may collapse."""
    drawn = ACESurface.of(*potential_of(model).draws(draws, seed=seed))
    first = start[torch.arange(draws) % len(start)]
    velocities = thermal_velocities(first, temperature, seed=seed)
    steps = round(1000 * picoseconds / timestep)
    with study.stage("draws"):
        run = simulate(drawn, first, velocities, Langevin(temperature, timestep), steps, interval=20, seed=seed)
    study.add("draws_without_collapse", proportion(draws - len(run.failures), draws))
    study.add("draws_picoseconds", float(_steps_done(run, timestep).min()) * timestep / 1000, "ps")
    study.notes += [str(failure) for failure in run.failures]
    return run


def potential_of(model: Any) -> Any:
    """The potential of a certified model, or the model itself."""
    return model.model if hasattr(model, "domain") else model
