"""Frequently used regression models with uncertainties, behind one pair of calls.

``Model(...).fit(inputs, targets, seed=0).predict(inputs)`` gives a posterior of new labels. Inputs and targets are
standardised by the training rows alone; what a model writes (``law``) is in standard units. Here are linear models and
Gaussian processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Gaussian, Mixture, Posterior
from bayesmol.posterior.quantiles import Quantiles

Law = Callable[[Tensor], Posterior]


@dataclass(frozen=True)
class Model(ABC):
    """Specification of a model; its fields are its settings."""

    def fit(
        self,
        inputs: Float[Tensor, "rows features"],
        targets: Float[Tensor, " rows"],
        *,
        seed: int | torch.Generator,
        unit: str = "",
    ) -> Fitted:
        """Fitted model; its posteriors are in ``unit``, that of the targets."""
        if inputs.ndim != 2 or targets.shape != inputs.shape[:1]:
            raise ShapeError(expected("targets", f"one a row of {tuple(inputs.shape)}", tuple(targets.shape)))
        centre, spread = inputs.double().mean(0), inputs.double().std(0)
        spread = torch.where(spread > 0, spread, 1.0)
        level, scale = targets.double().mean(), targets.double().std()
        law = self.law((inputs - centre) / spread, (targets - level) / scale, generator(seed))
        return Fitted(law, centre, spread, float(level), float(scale), unit)

    @abstractmethod
    def law(self, x: Float[Tensor, "rows features"], y: Float[Tensor, " rows"], source: torch.Generator) -> Law:
        """Posterior as a function of inputs, all in standard units."""


@dataclass(frozen=True)
class Fitted:
    """A law in standard units and the way there and back."""

    law: Law
    centre: Float[Tensor, " features"]
    spread: Float[Tensor, " features"]
    level: float
    scale: float
    unit: str

    def predict(self, inputs: Float[Tensor, "rows features"]) -> Posterior:
        """Posterior of a new label at each input."""
        return rescaled(self.law((inputs.double() - self.centre) / self.spread), self.level, self.scale, self.unit)


def rescaled(posterior: Posterior, level: float, scale: float, unit: str) -> Posterior:
    """Distribution of ``level + scale · y`` for y from a Gaussian, a mixture or quantiles."""
    if isinstance(posterior, Quantiles):
        return Quantiles(posterior.levels, level + scale * posterior.values, unit=unit)
    if isinstance(posterior, Mixture):
        moments = level + scale * posterior.means, scale**2 * posterior.variances
        return Mixture(*moments, posterior.weights, unit=unit)
    parts = posterior.epistemic
    epistemic = None if parts is None else scale**2 * parts.variance
    moments = level + scale * posterior.mean, scale**2 * posterior.variance
    return Gaussian(*moments, unit=unit, epistemic_variance=epistemic)


@dataclass(frozen=True)
class Ridge(Model):
    """Bayesian linear regression; precision of weights and noise by evidence (MacKay, Neural Comput. 4, 415 (1992))."""

    def law(self, x: Tensor, y: Tensor, source: torch.Generator) -> Law:
        return linear_law(x, y)


def linear_law(x: Float[Tensor, "rows features"], y: Float[Tensor, " rows"]) -> Law:
    """Posterior of a linear model of features whose two precisions maximise the evidence."""
    from sklearn.linear_model import BayesianRidge

    fitted = BayesianRidge().fit(x.numpy(), y.numpy())

    def law(inputs: Tensor) -> Gaussian:
        mean, deviation = map(torch.from_numpy, fitted.predict(inputs.numpy(), return_std=True))
        noise = 1 / fitted.alpha_
        epistemic = (deviation.square() - noise).clamp_min(0.0) + noise / len(
            y
        )  # scikit-learn leaves out the intercept
        return Gaussian(mean, epistemic + noise, unit="", epistemic_variance=epistemic)

    return law


@dataclass(frozen=True)
class ExactGP(Model):
    """Gaussian process, Matérn-5/2 with a length for each input; all hyper-parameters by marginal likelihood."""

    steps: int = 50

    def law(self, x: Tensor, y: Tensor, source: torch.Generator) -> Law:
        import gpytorch

        class Process(gpytorch.models.ExactGP):
            def __init__(self) -> None:
                super().__init__(x, y, gpytorch.likelihoods.GaussianLikelihood())
                self.mean, self.kernel = gpytorch.means.ConstantMean(), matern(x)

            def forward(self, inputs: Tensor) -> gpytorch.distributions.MultivariateNormal:
                return gpytorch.distributions.MultivariateNormal(self.mean(inputs), self.kernel(inputs))

        process = Process().double()
        evidence = gpytorch.mlls.ExactMarginalLogLikelihood(process.likelihood, process)
        with _by_cholesky():
            ascend(process, lambda: evidence(process(x), y), self.steps)
        return _process_law(process)


@dataclass(frozen=True)
class SparseGP(Model):
    """Variational Gaussian process with inducing points (Hensman et al., UAI 2013), all rows in each step."""

    points: int = 64
    steps: int = 100

    def law(self, x: Tensor, y: Tensor, source: torch.Generator) -> Law:
        import gpytorch

        chosen = x[torch.randperm(len(x), generator=source)[: self.points]].clone()

        class Process(gpytorch.models.ApproximateGP):
            def __init__(self) -> None:
                law = gpytorch.variational.CholeskyVariationalDistribution(len(chosen), mean_init_std=0.0)
                super().__init__(gpytorch.variational.VariationalStrategy(self, chosen, law))
                self.mean, self.kernel = gpytorch.means.ConstantMean(), matern(x)
                self.likelihood = gpytorch.likelihoods.GaussianLikelihood()

            def forward(self, inputs: Tensor) -> gpytorch.distributions.MultivariateNormal:
                return gpytorch.distributions.MultivariateNormal(self.mean(inputs), self.kernel(inputs))

        process = Process().double()
        bound = gpytorch.mlls.VariationalELBO(process.likelihood, process, num_data=len(y))
        with _by_cholesky():
            ascend(process, lambda: bound(process(x), y), self.steps)
        return _process_law(process)


def matern(x: Float[Tensor, "rows features"]) -> Any:
    """Kernel whose lengths start at the typical distance of two rows."""
    import gpytorch

    features = x.shape[1]
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(2.5, ard_num_dims=features))
    kernel.base_kernel.lengthscale = features**0.5
    return kernel


def ascend(process: Any, objective: Callable[[], Tensor], steps: int) -> None:
    """Maximise an objective of a process by L-BFGS from a noise of 0.1; leaves it ready to predict."""
    process.likelihood.noise = 0.1
    process.train()
    optimiser = torch.optim.LBFGS(process.parameters(), max_iter=steps, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -objective()
        value.backward()
        return value.detach()

    with torch.random.fork_rng(devices=[]):  # GPyTorch draws from the global generator
        optimiser.step(loss)
    process.eval()


def _by_cholesky() -> Any:
    import gpytorch

    return gpytorch.settings.fast_computations(covar_root_decomposition=False, log_prob=False, solves=False)


def _process_law(process: Any) -> Law:
    def law(inputs: Tensor) -> Gaussian:
        with torch.no_grad(), _by_cholesky():
            found = process(inputs)
            epistemic = found.variance.clamp_min(0.0)
            return Gaussian(found.mean, epistemic + process.likelihood.noise, unit="", epistemic_variance=epistemic)

    return law
