"""Learning on the fly against GFN2-xTB: calls of the reference, errors of accepted steps, torsions, and failures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from active_learning_sampling import BINS, divergence, histogram, kept, sampled, torsions
from jaxtyping import Float
from torch import Tensor

from bayesmol.acquisition.biased import Biased, strength
from bayesmol.acquisition.on_the_fly import Langevin, Learned, OnTheFly
from bayesmol.data import Structures, load
from bayesmol.data.reference import TBLite
from bayesmol.inference.random import numpy_generator
from bayesmol.potentials import BayesianACE, MixingSchedule
from bayesmol.report import Study, proportion

TORSIONS = {"ccoh": [(1, 0, 2, 8)], "hcco": [(5, 1, 0, 2), (6, 1, 0, 2), (7, 1, 0, 2)]}
BONDS = {"O-H": (2, 8), "C-H": (1, 5), "C-C": (0, 1), "C-O": (0, 2)}
FAILED = 0.5  # eV, of the energy difference to the start
POTENTIAL = BayesianACE(cutoffs=(5.0,), channels=(16, 16, 8), mixing=MixingSchedule(steps=80))


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
            runs[name] = kept(path) or sampled(forces, start, steps, temperature, seed=seed + (name == "direct"))
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
    with study.stage("injected failures"):
        start = _frames(learned, trials, seed)
        heated = sampled(lambda s: learned.model.predict(s).forces.mean, start, steps, 1500.0, seed=seed).positions
        sets = {"heated": heated.unbind(1), "pulled": [_pulled(start[k], k) for k in range(trials)]}
        for kind, runs in sets.items():
            pairs = [_stopped(learned, _together(start[:1], run)) for run in runs]
            late = sum(failed is not None and (closed is None or failed < closed) for closed, failed in pairs)
            study.add(f"{kind}_stopped_in_time", proportion(len(pairs) - late, len(pairs)))
            study.add(f"{kind}_failed", sum(failed is not None for _, failed in pairs))
            good = len(pairs) - late
            low, high = proportion_interval(good, len(pairs))
            text = f"{kind}: stopped in time {good} of {len(pairs)}, exact 95 % interval {low:.3f} to {high:.3f}"
            study.notes.append(f"{text}; (first untrusted, first failed) frame of each: {pairs}")


def biased(study: Study, *, seeds: int, steps: int, temperature: float) -> None:
    """Steps until the deviation of the energy is twice the largest of like frames, with and without bias."""
    found = []
    with study.stage("biased dynamics"):
        for seed in range(seeds):
            frames = load("rmd17/ethanol").shuffle(seed=seed)[:30]
            model = replace(POTENTIAL, channels=(8, 8, 4), mixing=MixingSchedule(steps=0)).fit(frames[:10], seed=seed)
            level = 2 * float(model.deviation_gradient(frames[10:])[0].max())
            push = Biased(model, strength(model, frames[10:], 0.25))
            start = frames[10].structures
            found.append([_reached(sampler, start, level, steps, temperature, seed) for sampler in (model, push)])
    plain, pushed = zip(*found, strict=True)
    for name, counts in (("unbiased", plain), ("biased", pushed)):
        study.add(f"{name}_steps_to_uncertainty", float(np.mean(counts)), error=float(np.std(counts) / seeds**0.5))
    study.notes.append(f"steps to twice the uncertainty, at most {steps}, without and with bias: {found}")


def _reached(model: Any, start: Structures, level: float, steps: int, temperature: float, seed: int) -> int:
    """First step at which the deviation of the energy is above a level, else the number of steps."""
    seen: list[float] = []

    def forces(structures: Structures) -> Tensor:
        prediction = model.predict(structures)
        seen.append(float(prediction.energy.epistemic.stddev.max()))
        return prediction.forces.mean

    sampled(forces, start, steps, temperature, seed=seed, stop=lambda: seen[-1] > level)
    return len(seen) - 1


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


def _start(temperature: float, seed: int) -> Any:
    from ase.md.velocitydistribution import thermalize_momenta

    atoms = load("rmd17/ethanol")[500].structures.to_ase()[0]
    thermalize_momenta(atoms, temperature_K=temperature, rng=np.random.default_rng(seed))
    return atoms


def _frames(learned: Learned, count: int, seed: int) -> Structures:
    """Random accepted frames of the second half."""
    accepted = learned.accepted[len(learned.accepted) // 2 :]
    return learned.trace.structures(accepted[numpy_generator(seed).integers(len(accepted), size=count)])


def _pulled(start: Structures, trial: int) -> Float[Tensor, "frames atoms 3"]:
    """A bond that grows by 0.02 Å a frame by 1.2 Å, what hangs on its end moved with it."""
    one, two = list(BONDS.values())[trial % len(BONDS)]
    moved = {8: [8], 5: [5], 1: [1, 5, 6, 7], 2: [2, 8]}[two]
    way = start.positions[two] - start.positions[one]
    positions = start.positions.repeat(60, 1, 1)
    positions[:, moved] += 0.02 * torch.arange(60)[:, None, None] * way / way.norm()
    return positions


def _together(like: Structures, positions: Float[Tensor, "frames atoms 3"]) -> Structures:
    count, atoms = positions.shape[:2]
    pointer = torch.arange(count + 1) * atoms
    cell, pbc = like.cell.expand(count, 3, 3).clone(), like.pbc.expand(count, 3).clone()
    return Structures(positions.reshape(-1, 3), like.species.repeat(count), pointer, cell, pbc)


def _first(flags: Tensor) -> int | None:
    return int(flags.nonzero()[0, 0]) if bool(flags.any()) else None


def _stopped(learned: Learned, frames: Structures) -> tuple[int | None, int | None]:
    """First frame that is not trusted, and first whose energy against the first frame is 0.5 eV off or unknown."""
    found, prediction = TBLite().label(frames), learned.model.predict(frames)
    wrong = torch.ones(len(frames), dtype=torch.bool)
    good = found.succeeded.nonzero()[:, 0]
    error = prediction.energy.mean[good] - found.labelled.energies
    wrong[good] = (error - error[0]).abs() > FAILED
    return _first(~learned.gate.look(learned.model, frames, prediction).trusted), _first(wrong)


def proportion_interval(hits: int, trials: int) -> tuple[float, float]:
    """Exact 95 % (Clopper-Pearson) interval of a share."""
    from scipy.stats import binomtest

    found = binomtest(hits, trials).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)
