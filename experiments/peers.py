"""Other packages on the same data, each as ``fit(training, seed)``, which gives ``predict(structures)``, which gives
energies, forces, and standard deviations of the energies where the package has them.

A peer that is not installed raises :class:`ImportError` when it is fitted; nothing here stands in for it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from statistics import median
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from bayesmol.data import Labelled, Structures
from bayesmol.progress import progress
from bayesmol.report import cpu_seconds

Predictor = Callable[[Structures], tuple[Tensor, Tensor, Tensor | None]]
Fit = Callable[[Labelled, int], Predictor]
LENGTH_SCALE = 10  # sGDML's sigma and GradientGP's length scale, in 1/Å
STEPS = 100  # of Adam, for the hyper-parameters of the GPyTorch baseline


@dataclass(frozen=True)
class Outcome:
    """What one side predicts, and what that costs: medians over its turns."""

    energies: Tensor
    forces: Tensor
    deviations: Tensor | None
    train_cpu_seconds: float
    predict_cpu_seconds: float


def in_turns(
    sides: dict[str, Fit], training: Labelled, structures: Structures, *, repeats: int, threads: int, seed: int
) -> tuple[dict[str, Outcome], dict[str, str]]:
    """Outcomes of all sides that are installed, in turns on the same threads, and why the others are missing."""
    turns: dict[str, list[Outcome]] = {}
    missing: dict[str, str] = {}
    torch.set_num_threads(threads)
    with threadpool_limits(threads), progress("comparing", repeats * len(sides)) as advance:
        for name in list(sides) * repeats:
            if name not in missing:
                try:
                    turns.setdefault(name, []).append(_turn(sides[name], training, structures, seed))
                except ImportError as error:
                    missing[name] = str(error)
            advance()
    outcomes = {}
    for name, found in turns.items():
        if found:
            times = {f: median(getattr(one, f) for one in found) for f in ("train_cpu_seconds", "predict_cpu_seconds")}
            outcomes[name] = replace(found[-1], **times)
    return outcomes, missing


def _turn(fit: Fit, training: Labelled, structures: Structures, seed: int) -> Outcome:
    start = cpu_seconds()
    predict = fit(training, seed)
    trained = cpu_seconds()
    found = predict(structures)
    return Outcome(*found, trained - start, cpu_seconds() - trained)


def sgdml(training: Labelled, seed: int) -> Predictor:
    """Symmetrised gradient-domain machine learning (Chmiela et al., Nat. Commun. 9, 3887 (2018)); one process."""
    from sgdml.predict import GDMLPredict
    from sgdml.train import GDMLTrain
    from sgdml.utils import io

    frames = len(training)
    positions = _molecules(training.structures).numpy()
    dataset: dict[str, Any] = {"type": "d", "code_version": "1", "name": np.array("peer"), "theory": np.array("none")}
    dataset |= {"z": training.structures.species[: positions.shape[1]].numpy(), "R": positions}
    dataset |= {"E": training.energies.numpy(), "F": training.forces.view(frames, -1, 3).numpy()}
    dataset |= {"r_unit": "Ang", "e_unit": "eV"}
    dataset["md5"] = io.dataset_md5(dataset)
    np.random.seed(seed)  # sGDML has no other way
    with _old_numpy(), redirect_stdout(StringIO()):
        trainer = GDMLTrain(max_processes=1)
        task = trainer.create_task(dataset, frames, dataset, 0, sig=LENGTH_SCALE, lam=1e-10)
        model = trainer.train(task)
    del trainer  # it allows one instance at a time

    def predict(structures: Structures) -> tuple[Tensor, Tensor, None]:
        with redirect_stdout(StringIO()):
            field = GDMLPredict(model, max_processes=1)
            energies, forces = field.predict(_molecules(structures).flatten(1).numpy())
        return torch.from_numpy(energies), torch.from_numpy(forces).reshape(-1, 3), None

    return predict


def gpytorch(training: Labelled, seed: int) -> Predictor:
    """What GPyTorch gives in thirty lines: an RBF process on inverse distances from energies, forces by autograd."""
    import gpytorch as gp

    torch.manual_seed(seed)
    features = _inverse_distances(_molecules(training.structures))
    centre, scale = features.mean(0), features.std(0)
    level, spread = training.energies.mean(), training.energies.std()

    class Process(gp.models.ExactGP):
        def __init__(self, inputs: Tensor, targets: Tensor) -> None:
            super().__init__(inputs, targets, gp.likelihoods.GaussianLikelihood())
            self.mean = gp.means.ConstantMean()
            self.kernel = gp.kernels.ScaleKernel(gp.kernels.RBFKernel(ard_num_dims=inputs.shape[1]))

        def forward(self, inputs: Tensor) -> gp.distributions.MultivariateNormal:
            return gp.distributions.MultivariateNormal(self.mean(inputs), self.kernel(inputs))

    inputs, targets = (features - centre) / scale, (training.energies - level) / spread
    process = Process(inputs, targets).double()
    process.kernel.base_kernel.lengthscale = inputs.shape[1] ** 0.5
    evidence = gp.mlls.ExactMarginalLogLikelihood(process.likelihood, process)
    optimiser = torch.optim.Adam(process.parameters(), lr=0.1)
    process.train()
    for _ in range(STEPS):
        optimiser.zero_grad()
        (-evidence(process(inputs), targets)).backward()
        optimiser.step()
    process.eval()

    def predict(structures: Structures) -> tuple[Tensor, Tensor, Tensor]:
        positions = _molecules(structures).requires_grad_()
        law = process.likelihood(process((_inverse_distances(positions) - centre) / scale))
        (slope,) = torch.autograd.grad(law.mean.sum(), positions)
        energies, deviations = law.mean.detach() * spread + level, law.stddev.detach() * spread
        return energies, (-slope * spread).view(-1, 3), deviations

    return predict


PEERS: dict[str, Fit] = {"sgdml": sgdml, "gpytorch": gpytorch}


def _molecules(structures: Structures) -> Tensor:
    return structures.positions.double().view(len(structures), -1, 3).clone()


def _inverse_distances(positions: Tensor) -> Tensor:
    first, second = torch.triu_indices(positions.shape[1], positions.shape[1], 1)
    return 1 / (positions[:, first] - positions[:, second]).norm(dim=-1)


@contextmanager
def _old_numpy() -> Iterator[None]:
    """Give NumPy 2.4 the name ``in1d`` back, which sGDML 1.0.3 calls, for as long as it trains."""
    if hasattr(np, "in1d"):
        yield
        return
    np.in1d = np.isin
    try:
        yield
    finally:
        del np.in1d
