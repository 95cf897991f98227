"""The same seed on one and on two threads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import bayesmol as bm
from bayesmol.report import Study

__all__ = ["FAMILIES", "TOLERANCES", "answer", "apart", "compare"]

Arrays = dict[str, np.ndarray]


def _numpy(**tensors: Tensor) -> Arrays:
    return {name: tensor.detach().double().numpy() for name, tensor in tensors.items()}


def _predicted(model: object, data: bm.data.Labelled) -> Arrays:
    found = model.predict(data.structures)
    means = {"energy": found.energy.mean - data.energies.mean(), "forces": found.forces.mean}
    return _numpy(**means, energy_stddev=found.energy.stddev, forces_stddev=found.forces.stddev)


def gradient_gp(seed: int) -> Arrays:
    """Gaussian process of gradients."""
    data = bm.data.load("rmd17/ethanol")
    return _predicted(bm.potentials.GradientGP().fit(data[:40], seed=seed), data[100:120])


def ace(seed: int) -> Arrays:
    """Bayesian ACE."""
    from bayesmol.potentials import BayesianACE, MixingSchedule

    data = bm.data.load("rmd17/ethanol")
    spec = BayesianACE(channels=(8, 8, 4), mixing=MixingSchedule(steps=2, checks=1))
    return _predicted(spec.fit(data[:40], seed=seed), data[100:120])


def network(seed: int) -> Arrays:
    """Equivariant network with a Laplace posterior."""
    from bayesmol.potentials.network_equivariant import Equivariant
    from bayesmol.potentials.neural import NeuralPotential
    from bayesmol.potentials.training import Training

    data = bm.data.load("rmd17/ethanol")
    spec = NeuralPotential(Equivariant(channels=16, width=16, radial=8), "laplace", Training(epochs=10, batch=5))
    return _predicted(spec.fit(data[:40], data[40:50], seed=seed), data[100:120])


def flow(seed: int) -> Arrays:
    """Spline couplings, trained from an energy."""
    from bayesmol.flows.model_densities import double_well
    from bayesmol.flows.objectives import ReverseKL
    from bayesmol.flows.optimisation import Optimisation

    objective = ReverseKL(Optimisation(steps=100, batch=1024))
    found = bm.flows.BoltzmannGenerator(objective=objective).fit(double_well(), seed=seed)
    x, log_weights = found.weighted(20_000, seed=seed)
    return _numpy(x=x, log_weights=log_weights)


def wavefunction(seed: int) -> Arrays:
    """Neural wavefunction of H2."""
    from bayesmol.wavefunctions import FermiNet, Molecule, Training

    training = Training(walkers=64, steps=10, minutes=None, burn_in=50, moves=5)
    found = FermiNet(determinants=2, width=8, layers=1, training=training).fit(Molecule.named("H2"), seed=seed)
    return {"energies": found.trained.history.energy, "walkers": found.trained.walkers}


def kinetics(seed: int) -> Arrays:
    """Koopman matrix and Markov state model of a particle in Prinz's potential, with their posteriors."""
    from bayesmol.data.exact import prinz
    from bayesmol.data.trajectory import Trajectories

    run = prinz().simulate(50_000, step=1e-3, steps=5, seed=seed)
    cells = Trajectories.of(torch.bucketize(run.parts[0][:, 0], torch.linspace(-1.15, 1.15, 49).double()))
    times = bm.dynamics.MarkovStateModel(lag=5).fit(cells, seed=seed).timescales(3)
    edmd = bm.dynamics.EDMD(dimensions=4, draws=200).fit(run, seed=seed)
    slow = edmd.timescales(1)
    return _numpy(msm=times.mean, msm_stddev=times.stddev, koopman=slow.mean, koopman_stddev=slow.stddev)


FAMILIES: dict[str, Callable[[int], Arrays]] = {
    one.__name__: one for one in (gradient_gp, ace, network, flow, wavefunction, kinetics)
}


TOLERANCES = {"gradient_gp": 1e-3, "ace": 1e-2, "network": 5e-2, "flow": 1e-1, "wavefunction": 1e-6, "kinetics": 1e-5}
"""Largest difference of one and two threads, relative to the root mean square of the numbers of its kind."""


def compare(study: Study, folder: Path, *, seed: int) -> None:
    """Fill in, for each family, the largest difference of a number of one and two threads, relative to its kind."""
    for family in FAMILIES:
        with study.stage(family, family):
            one, two = (_answers(family, count, folder / f"{family}-{count}.npz", seed) for count in (1, 2))
            again = _answers(family, 2, folder / f"{family}-again.npz", seed)
        study.add(f"{family}_one_to_two_threads", max(apart(one, two).values()))
        study.add(f"{family}_two_threads_again", max(apart(two, again).values()))
        study.notes.append(f"{family}: " + ", ".join(f"{name} {value:.1e}" for name, value in apart(one, two).items()))


def answer(family: str, path: Path, *, cores: int, seed: int) -> None:
    """Write the arrays of a family, computed on so many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    with path.open("wb") as file:
        np.savez(file, **FAMILIES[family](seed))


def apart(one: Arrays, two: Arrays) -> dict[str, float]:
    """Largest difference of each array, relative to the root mean square of the array; 0 where all bits are equal."""
    found = {}
    for name, first in one.items():
        same = np.array_equal(first, two[name], equal_nan=True)
        scale = np.sqrt(np.mean(np.square(first[np.isfinite(first)])))
        found[name] = 0.0 if same else float(np.nanmax(np.abs(first - two[name])) / scale)
    return found


def _answers(family: str, threads: int, path: Path, seed: int) -> Arrays:
    """Arrays of a family in a process with so many threads and cores."""
    environment = {"OMP_NUM_THREADS": str(threads), "MKL_DYNAMIC": "FALSE", "OMP_WAIT_POLICY": "PASSIVE"}
    script = Path(__file__).with_name("reliability.py")
    command = [sys.executable, str(script), "answers", family, str(path), "--cores", str(threads), "--seed", str(seed)]
    subprocess.run(command, env={**os.environ, **environment}, check=True)
    with np.load(path) as found:
        return dict(found)
