"""Learning on the fly against GFN2-xTB: calls of the reference, errors of accepted steps, torsions, and failures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.acquisition.biased import Biased, strength
from bayesmol.acquisition.on_the_fly import Langevin, Learned, OnTheFly
from bayesmol.data import Structures, load
from bayesmol.data.reference import TBLite
from bayesmol.inference.random import numpy_generator
from bayesmol.potentials import BayesianACE, MixingSchedule
from bayesmol.progress import progress
from bayesmol.report import Study, cpu_seconds, proportion

TORSIONS = {"ccoh": [(1, 0, 2, 8)], "hcco": [(5, 1, 0, 2), (6, 1, 0, 2), (7, 1, 0, 2)]}
BONDS = {"O-H": (2, 8), "C-H": (1, 5), "C-C": (0, 1), "C-O": (0, 2)}
BINS = 36
FAILED = 0.5  # eV, of the energy difference to the start
POTENTIAL = BayesianACE(cutoffs=(5.0,), channels=(16, 16, 8), mixing=MixingSchedule(steps=80))

Forces = Callable[[Structures], Tensor]


def on_the_fly(
    study: Study,
    folder: Path,
    *,
    steps: int = 10_000,
    tolerance: float = 0.2,
    temperature: float = 500.0,
    replicas: int = 20,
    sampling: int = 2500,
    trials: int = 20,
    seeds: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
    """Ethanol against GFN2-xTB, all that is measured; figures by name. What is in ``folder`` is not computed again."""
    learned = learn(study, folder, steps=steps, tolerance=tolerance, temperature=temperature, seed=seed)
    checked, errors = verified(study, learned, tolerance)
    options = {"replicas": replicas, "steps": sampling, "temperature": temperature, "seed": seed}
    shares = compare_torsions(study, learned, folder, **options)
    failures(study, learned, trials=trials, steps=min(300, sampling), seed=seed)
    biased(study, seeds=seeds, steps=min(200, sampling), temperature=temperature)
    return plots(learned, checked, errors, shares, tolerance)


def learn(study: Study, folder: Path, *, steps: int, tolerance: float, temperature: float, seed: int) -> Learned:
    """Dynamics of ethanol on the fly; how often the reference was asked, and whether accepted steps are right."""
    atoms = _start(temperature, seed)
    settings = OnTheFly(POTENTIAL, TBLite(), tolerance=tolerance, initial=30, dynamics=Langevin(temperature))
    with study.stage("learning on the fly"):
        learned = settings.run(folder, atoms, steps, seed=seed)
    study.add("reference_call_fraction", learned.call_fraction)
    for name, count in learned.calls.items():
        study.add(f"calls_{name}", count)
    study.add("share_above_tolerance_bound", learned.audits.share)
    study.notes += [str(learned)]
    return learned


def verified(study: Study, learned: Learned, tolerance: float, *, every: int = 20) -> tuple[Tensor, Tensor]:
    """Recompute each ``every``-th accepted step with the reference; the steps and the errors of the forces used."""
    steps = learned.accepted[::every]
    with study.stage("recomputing accepted steps"):
        truth = TBLite().label(learned.trace.structures(steps)).labelled.forces.view(len(steps), -1, 3)
    errors = (learned.trace.forces[steps] - truth).norm(dim=2).amax(1)
    study.add("accepted_within_tolerance", proportion(int((errors <= tolerance).sum()), len(errors)))
    study.add("accepted_error_mean", float(errors.mean()), "eV/Å", error=float(errors.std() / len(errors) ** 0.5))
    study.add("accepted_error_largest", float(errors.max()), "eV/Å")
    return steps, errors


@dataclass(frozen=True, eq=False)
class Sampled:
    """Positions of replicas at equal times, in Å, and CPU seconds for each step of one replica."""

    positions: Float[Tensor, "times replicas atoms 3"]
    cost: float


def sampled(
    forces: Forces, start: Structures, steps: int, temperature: float, *, timestep: float = 1.0, seed: int = 0
) -> Sampled:
    """Langevin dynamics (BAOAB) of all structures at once, kept each 5th step; masses in u, friction 10/ps."""
    from ase import units
    from ase.data import atomic_masses

    source = numpy_generator(seed)
    step, thermal = timestep * units.fs, units.kB * temperature
    mass = torch.from_numpy(atomic_masses)[start.species][:, None]
    damping = float(np.exp(-0.01 * timestep))
    positions, kept = start.positions.clone(), []
    normal = lambda: torch.from_numpy(source.standard_normal(tuple(positions.shape)))  # noqa: E731
    velocity = (thermal / mass).sqrt() * normal()
    begun, force = cpu_seconds(), forces(start)
    with progress("sampling", steps) as advance:
        for number in range(steps):
            velocity = velocity + 0.5 * step * force / mass
            positions = positions + 0.5 * step * velocity
            velocity = damping * velocity + (thermal / mass * (1 - damping**2)).sqrt() * normal()
            positions = positions + 0.5 * step * velocity
            force = forces(Structures(positions, start.species, start.pointer, start.cell, start.pbc))
            velocity = velocity + 0.5 * step * force / mass
            advance()
            if number % 5 == 4:
                kept.append(positions.view(len(start), -1, 3))
    return Sampled(torch.stack(kept), (cpu_seconds() - begun) / steps / len(start))


def torsions(positions: Float[Tensor, "*frames atoms 3"], quadruples: list[tuple[int, ...]]) -> Tensor:
    """Dihedral angles in degrees, of all quadruples together."""
    found = []
    for a, b, c, d in quadruples:
        one, two, three = (positions[..., j, :] - positions[..., i, :] for i, j in ((a, b), (b, c), (c, d)))
        left, right = torch.linalg.cross(one, two), torch.linalg.cross(two, three)
        sine = (torch.linalg.cross(left, right) * two).sum(-1) / two.norm(dim=-1)
        found.append(torch.rad2deg(torch.atan2(sine, (left * right).sum(-1))))
    return torch.stack(found, -1)


def histogram(angles: Tensor) -> Float[Tensor, " bins"]:
    """Shares of the angles in 36 bins."""
    counts = torch.histc(angles.flatten(), BINS, -180.0, 180.0)
    return counts / counts.sum()


def divergence(first: Float[Tensor, " bins"], second: Float[Tensor, " bins"]) -> float:
    """Jensen-Shannon divergence in nats."""
    middle = (first + second) / 2
    parts = [(torch.special.xlogy(part, part) - torch.special.xlogy(part, middle)).sum() for part in (first, second)]
    return float(sum(parts) / 2)


def compare_torsions(
    study: Study, learned: Learned, folder: Path, *, replicas: int, steps: int, temperature: float, seed: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Torsions of the learned potential and of the reference from equally long runs, and the noise of such runs."""
    accepted = learned.accepted
    start = learned.trace.structures(accepted[torch.linspace(len(accepted) // 2, len(accepted) - 1, replicas).long()])
    reference = TBLite()
    runs = {}
    for name, forces in (
        ("learned", lambda structures: learned.model.predict(structures).forces.mean),
        ("direct", lambda structures: reference.label(structures).labelled.forces),
    ):
        with study.stage(f"{name} dynamics"):
            path = folder / f"{name}-{replicas}-{steps}-{seed}.npz"
            runs[name] = _kept(path) or sampled(forces, start, steps, temperature, seed=seed + (name == "direct"))
            np.savez(path, positions=runs[name].positions.numpy(), cost=runs[name].cost)
        study.add(f"{name}_step", runs[name].cost, "s")
    study.add("cost_ratio", runs["direct"].cost / runs["learned"].cost)
    study.notes.append(f"torsions: {replicas} replicas of {steps} fs each, at {temperature:g} K")
    found = {}
    for name, quadruples in TORSIONS.items():
        angles = {kind: torsions(run.positions, quadruples) for kind, run in runs.items()}
        shares = {kind: histogram(value) for kind, value in angles.items()}
        halves = [histogram(angles["direct"][:, part::2]) for part in (0, 1)]
        study.add(f"js_{name}", divergence(shares["learned"], shares["direct"]))
        study.add(f"js_{name}_noise", divergence(*halves))
        found[name] = shares["learned"], shares["direct"]
    return found


def failures(study: Study, learned: Learned, *, trials: int, steps: int, seed: int) -> None:
    """Runs that must fail: heated to 1500 K, or a bond pulled; does the gate close before the energy is 0.5 eV off?"""
    outcomes = {"heated": [], "pulled": []}
    with study.stage("injected failures"):
        for trial in range(trials):
            for kind, frames in (("heated", partial(_heated, steps=steps)), ("pulled", _pulled)):
                chosen = frames(learned, trial, seed)
                closed, failed = _first(~learned.gate.look(learned.model, chosen).trusted), _error(learned, chosen)
                outcomes[kind].append((closed, failed))
    for kind, pairs in outcomes.items():
        late = sum(failed is not None and (closed is None or failed < closed) for closed, failed in pairs)
        study.add(f"{kind}_stopped_in_time", proportion(len(pairs) - late, len(pairs)))
        study.add(f"{kind}_failed", sum(failed is not None for _, failed in pairs))
        study.notes.append(f"{kind}: (first untrusted, first failed) step of each trial: {pairs}")


def biased(study: Study, *, seeds: int, steps: int, temperature: float) -> None:
    """Largest deviation of the energy that dynamics with and without bias have met after equally many steps."""
    gains = []
    with study.stage("biased dynamics"):
        for seed in range(seeds):
            frames = load("rmd17/ethanol").shuffle(seed=seed)[:30]
            model = replace(POTENTIAL, channels=(8, 8, 4), mixing=MixingSchedule(steps=0)).fit(frames[:10], seed=seed)
            push = Biased(model, strength(model, frames[10:], 0.25))
            met = []
            for sampler in (model, push):
                run = sampled(
                    lambda s, m=sampler: m.predict(s).forces.mean, frames[10:14].structures, steps, temperature
                )
                last = run.positions[-1]
                like = frames[10:14].structures
                ends = Structures(last.reshape(-1, 3), like.species, like.pointer, like.cell, like.pbc)
                met.append(float(model.deviation_gradient(ends)[0].mean()))
            gains.append(met[1] / met[0])
    study.add("biased_deviation_gain", float(np.mean(gains)), error=float(np.std(gains, ddof=1) / seeds**0.5))


def plots(learned: Learned, steps: Tensor, errors: Tensor, shares: dict[str, tuple[Tensor, Tensor]], tolerance: float):
    """Figures: bound, true errors and calls over time; torsions of the learned potential and of the reference."""
    from matplotlib.figure import Figure

    trace = learned.trace.plot(tolerance, 0.5)
    trace.axes[0].plot(
        steps * 0.5e-3, errors, ".", color="#888888", markersize=2, label="recomputed afterwards", zorder=1
    )
    trace.axes[0].legend(fontsize="small", ncols=3)
    angles = Figure(figsize=(7.2, 3.0), layout="constrained")
    centres = (torch.arange(BINS) + 0.5) * 360 / BINS - 180
    for axis, (name, pair) in zip(angles.subplots(1, len(shares), sharey=True), shares.items(), strict=True):
        for kind, share, color in zip(("learned", "direct GFN2-xTB"), pair, ("#2f6fb3", "#222222"), strict=True):
            axis.step(centres, share, where="mid", label=kind, color=color)
        axis.set(title="-".join(name.upper()), xlabel="torsion / degrees")
    angles.axes[0].set(ylabel="share")
    angles.axes[0].legend()
    return {"on_the_fly": trace, "torsions": angles}


def _kept(path: Path) -> Sampled | None:
    if not path.exists():
        return None
    with np.load(path) as stored:
        return Sampled(torch.from_numpy(stored["positions"]), float(stored["cost"]))


def _start(temperature: float, seed: int) -> Any:
    from ase.md.velocitydistribution import thermalize_momenta

    atoms = load("rmd17/ethanol")[500].structures.to_ase()[0]
    thermalize_momenta(atoms, temperature_K=temperature, rng=np.random.default_rng(seed))
    return atoms


def _frame(learned: Learned, trial: int, seed: int) -> Structures:
    accepted = learned.accepted[len(learned.accepted) // 2 :]
    return learned.trace.structures(accepted[numpy_generator(1000 * seed + trial).integers(len(accepted), size=1)])


def _heated(learned: Learned, trial: int, seed: int, *, steps: int) -> Structures:
    """Frames of the learned potential at 1500 K."""
    start = _frame(learned, trial, seed)
    run = sampled(lambda s: learned.model.predict(s).forces.mean, start, steps, 1500.0, seed=trial)
    return _together(start, run.positions[:, 0])


def _pulled(learned: Learned, trial: int, seed: int) -> Structures:
    """A bond that grows by 0.02 Å a frame to twice its length, the smaller part moved with it."""
    start = _frame(learned, trial, seed)
    atoms = start.to_ase()[0]
    one, two = list(BONDS.values())[trial % len(BONDS)]
    moved = {8: [8], 5: [5], 1: [1, 5, 6, 7], 2: [2, 8]}[two]
    way = atoms.positions[two] - atoms.positions[one]
    way /= np.linalg.norm(way)
    frames = []
    for number in range(60):
        positions = atoms.positions.copy()
        positions[moved] += 0.02 * number * way
        frames.append(torch.from_numpy(positions))
    return _together(start, torch.stack(frames))


def _together(like: Structures, positions: Float[Tensor, "frames atoms 3"]) -> Structures:
    count, atoms = positions.shape[:2]
    pointer = torch.arange(count + 1) * atoms
    cell, pbc = like.cell.expand(count, 3, 3).clone(), like.pbc.expand(count, 3).clone()
    return Structures(positions.reshape(-1, 3), like.species.repeat(count), pointer, cell, pbc)


def _first(flags: Tensor) -> int | None:
    return int(flags.nonzero()[0, 0]) if bool(flags.any()) else None


def _error(learned: Learned, frames: Structures) -> int | None:
    """First frame whose energy, relative to that of the first, is wrong by more than 0.5 eV or has no label."""
    found = TBLite().label(frames)
    wrong = torch.ones(len(frames), dtype=torch.bool)
    good = found.succeeded.nonzero()[:, 0]
    error = learned.model.predict(frames[good]).energy.mean - found.labelled.energies
    wrong[good] = (error - error[0]).abs() > FAILED
    return _first(wrong)
