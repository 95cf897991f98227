"""Alanine dipeptide in implicit solvent: from its energy, with or without frames of molecular dynamics."""

import math
from dataclasses import replace
from pathlib import Path

import boltzmann_train
import numpy as np
import torch
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.files import replacing
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.fitted import FittedGenerator
from bayesmol.flows.generator import BoltzmannGenerator
from bayesmol.flows.molecular_coordinates import molecular
from bayesmol.flows.molecule import alanine_dipeptide
from bayesmol.flows.systems import Exploration
from bayesmol.flows.viewed import Viewed
from bayesmol.flows.weighted import BoltzmannDraws
from bayesmol.inference.tempering import ParallelTempering
from bayesmol.posterior import Draws, Estimate
from bayesmol.report import Study
from bayesmol.representation.internal import dihedral

PHI, PSI = (4, 6, 8, 14), (6, 8, 14, 16)  # C-N-CA-C and N-CA-C-N in Amber's order of atoms
COORDINATES = 66
BINS = 100


def torsions(x: Tensor) -> Tensor:
    """φ and ψ of each row, in rad."""
    return dihedral(x, torch.tensor([PHI, PSI], device=x.device))


def positive(x: Tensor) -> Tensor:
    """State of each row: 0 for φ < 0, 1 for φ ≥ 0."""
    return (torsions(x.flatten(1))[:, 0] >= 0).long()


def configurations(path: str | Path) -> Tensor:
    """Frames of a file as rows in Å, in their order: npz with ``positions_nm`` or ``positions`` (Å), or ASE's.

    Raises
    ------
    DataError
        If an npz has neither.
    """
    if Path(path).suffix != ".npz":
        import ase.io

        return torch.tensor(np.stack([frame.positions for frame in ase.io.read(path, ":")])).flatten(1)
    with np.load(path, allow_pickle=False) as found:
        for name, factor in (("positions_nm", 10.0), ("positions", 1.0)):
            if name in found:
                return factor * torch.from_numpy(np.asarray(found[name], dtype=np.float64).reshape(-1, COORDINATES))
    raise DataError(expected("--data", "an npz with positions_nm or positions", str(path)))


def train(
    study: Study,
    *,
    data: str | None,
    reference: str | None,
    minutes: float,
    draws: int,
    seed: int,
    device: str = "cpu",
) -> tuple[FittedGenerator, BoltzmannDraws, Tensor | None]:
    """Train, judge, and estimate; without ``data`` parallel tempering finds the configurations.

    The shares of the budget were chosen by runs on frames of our own tempering, not by the figures of this one.
    """
    density = placed(alanine_dipeptide(300.0), device)
    samples = None if data is None else configurations(data).to(device)
    known = None if reference is None else configurations(reference).to(device)
    exploring = 0.3 * minutes
    spec = BoltzmannGenerator(minutes=minutes - exploring, exploration=exploration(exploring))
    with study.stage("train", "training"):
        generator = spec.fit(density, samples, seed=seed)
    boltzmann_train.verdict(study, generator, known, seed=seed)
    with study.stage("sample", "sampling"):
        weighted = generator.sample(draws, seed=seed + 1)
    figures(study, generator, weighted)
    if known is not None:
        compare(study, weighted, known)
    return generator, weighted, known


def tempering(study: Study, out: Path, *, minutes: float, seed: int) -> None:
    """Configurations at 300 K by parallel tempering up to 990 K, into a new file: a reference that no flow has seen."""
    density, plan = alanine_dipeptide(300.0), exploration(minutes / 0.6)
    with study.stage("tempering", "tempering"):
        view = molecular(density, seed=seed)
        ladder = ParallelTempering.geometric(plan.hottest, plan.rungs)
        sampler = ParallelTempering(ladder, leapfrogs=plan.leapfrogs, warmup=plan.warmup, draws=plan.draws)
        start = view(density.start[:1])[0].expand(plan.walkers, -1)
        found = sampler.fit(Viewed(density, view), start, seed=seed)
        rows = view.inverse(found.rows())[0]
    study.add("frames", len(rows))
    study.add("energy_evaluations", found.evaluations)
    states = Draws(positive(rows).double().unflatten(0, found.values.shape[1:3]), unit="")
    study.add("population_positive_phi", states.expectation())
    with replacing(out) as path, path.open("wb") as file:
        np.savez(file, positions=rows.float().unflatten(1, (-1, 3)).numpy())


def placed(density: BoltzmannDensity, device: str) -> BoltzmannDensity:
    """The density with its start on a device; its energy follows the rows."""
    return replace(density, start=density.start.to(device))


def exploration(minutes: float) -> Exploration:
    """Tempering and chains that take about so many CPU minutes at 9000 energies with gradients a second."""
    walkers, rungs, leapfrogs, chains = 48, 8, 10, 1024
    evaluations = 60 * minutes * 9000
    sweeps = max(int(0.6 * evaluations / (walkers * rungs * leapfrogs)), 40)
    length = max(int(0.4 * evaluations / (chains * leapfrogs)) - 20, 10)
    return Exploration(3.3, rungs, walkers, sweeps // 5, sweeps - sweeps // 5, 1, leapfrogs, chains, length)


def figures(study: Study, generator: FittedGenerator, draws: BoltzmannDraws) -> None:
    """What the draws say of themselves."""
    study.add("ess_fraction", draws.effective.fraction)
    study.add("k_hat", draws.k_hat)
    study.add("log_partition", draws.log_partition)
    study.add("energy_evaluations", sum(t.energy_evaluations for t in generator.trainings))
    study.add("population_positive_phi", scalar(draws.populations(positive, 2), 1))
    study.add("free_energy_positive_phi", draws.free_energy_difference(0, 1, positive))
    level, reasons = draws.verdict
    study.notes += [f"verdict of the draws: {level or 'not diagnosed'}; {'; '.join(reasons)}".rstrip("; ")]


def compare(study: Study, draws: BoltzmannDraws, reference: Tensor) -> None:
    """Torsions and energies against reference frames; divergences of histograms of 100 bins, from the reference."""
    angles = torsions(draws.values[0].flatten(1))
    weights = draws.weights[0]
    theirs = torsions(reference)
    halves = theirs[: len(theirs) // 2], theirs[len(theirs) // 2 :]
    for k, name in enumerate(("phi", "psi")):
        ours = histogram(angles[:, k], weights)
        study.add(f"torsion_kl_{name}", divergence(histogram(theirs[:, k]), ours))
        study.add(f"torsion_kl_{name}_floor", divergence(*(histogram(half[:, k]) for half in halves)))
    study.add("torsion_kl", max(study.figures[f"torsion_kl_{name}"].value for name in ("phi", "psi")))
    share = (theirs[:, 0] >= 0).double().mean()
    study.add("population_positive_phi_reference", float(share))


def histogram(angles: Tensor, weights: Tensor | None = None) -> Tensor:
    """Probabilities of 100 bins of the circle."""
    place = ((angles + math.pi) / (2 * math.pi) * BINS).long().clamp(0, BINS - 1)
    weights = torch.ones_like(angles) if weights is None else weights.to(angles)
    counts = torch.zeros(BINS, dtype=torch.float64).index_add(0, place.cpu(), weights.double().cpu())
    return counts / counts.sum()


def divergence(p: Tensor, q: Tensor) -> float:
    """Kullback-Leibler divergence of histograms; bins that are empty in the second count as a millionth."""
    return float(torch.xlogy(p, p / q.clamp_min(1e-6)).sum())


def scalar(estimate: Estimate, index: int) -> Estimate:
    """One entry of an estimate."""
    value, error, size = (
        part[index] for part in (estimate.value, estimate.standard_error, estimate.effective_sample_size)
    )
    return Estimate(value, error, size, estimate.unit)
