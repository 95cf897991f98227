"""Bayesian neural networks with one hidden layer: variational inference by Pyro, the no-U-turn sampler of NumPyro.

All weights are one vector, whose order :func:`prior` says, so both libraries sample one site with the same network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from calibration_models import Law, Model
from jaxtyping import Float
from torch import Tensor

from bayesmol.posterior import Mixture


@dataclass(frozen=True)
class Variational(Model):
    """One hidden layer with independent normal weights that maximise the evidence bound, by Pyro."""

    units: int = 32
    steps: int = 500
    rate: float = 0.02
    draws: int = 32

    def law(self, x: Tensor, y: Tensor, source: torch.Generator) -> Law:
        import pyro

        mean, scale = map(torch.from_numpy, prior(x.shape[1], self.units))

        def model() -> None:
            weights = pyro.sample("weights", pyro.distributions.Normal(mean, scale).to_event(1))
            law = pyro.distributions.Normal(perceptron(weights, x, self.units, torch.tanh), weights[0].exp())
            pyro.sample("y", law.to_event(1), obs=y)

        with pyro.get_param_store().scope(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=source)))
            guide = pyro.infer.autoguide.AutoDiagonalNormal(model, init_scale=0.02)
            optimiser = pyro.optim.ClippedAdam({"lr": self.rate, "lrd": 0.1 ** (1 / self.steps)})
            inference = pyro.infer.SVI(model, guide, optimiser, pyro.infer.Trace_ELBO())
            for _ in range(self.steps):
                inference.step()
            found = guide.get_posterior().sample((self.draws,)).detach()
        return perceptron_law(found, self.units)


@dataclass(frozen=True)
class Nuts(Model):
    """Draws of all weights of a small network by the no-U-turn sampler of NumPyro, from a part of the rows.

    Without ``units`` it is a linear model; ``noise`` fixes the standard deviation of the labels.
    """

    units: int = 8
    rows: int = 300
    warmup: int = 200
    draws: int = 150
    chains: int = 2
    depth: int = 6
    kept: int = 40
    noise: float | None = None

    def law(self, x: Tensor, y: Tensor, source: torch.Generator) -> Law:
        rows = min(self.rows, max(50, len(x) // 50 * 50))  # few shapes: each is compiled anew
        chosen = torch.randperm(len(x), generator=source)[:rows]
        found = self.sample(x[chosen], y[chosen], source).flatten(0, 1)
        return perceptron_law(found[torch.linspace(0, len(found) - 1, self.kept).long()], self.units)

    def sample(self, x: Tensor, y: Tensor, source: torch.Generator) -> Float[Tensor, "chains draws weights"]:
        """Draws of the flat weights, see :func:`prior`."""
        import jax

        seed = int(torch.randint(2**31, (), generator=source))
        with jax.enable_x64(True):
            keys = jax.random.split(jax.random.PRNGKey(seed), self.chains)
            found = torch.from_numpy(np.array(sampler(self, x.shape[1])(keys, x.numpy(), y.numpy())))
        if self.noise is not None:
            found[..., 0] = math.log(self.noise)
        return found


@cache
def sampler(model: Nuts, features: int) -> Callable[[Any, Any, Any], Any]:
    """Compiled function of a key for each chain, inputs and targets; compiling costs more than sampling."""
    import jax
    from numpyro.infer.hmc import hmc

    mean, scale = prior(features, model.units)

    def energy(x: Any, y: Any) -> Callable[[Any], Any]:
        def negative_log_posterior(weights: Any) -> Any:
            noise = jax.numpy.exp(weights[0]) if model.noise is None else model.noise
            residuals = (y - perceptron(weights, x, model.units, jax.numpy.tanh)) / noise
            likelihood = 0.5 * (residuals**2).sum() + len(y) * jax.numpy.log(noise)
            return likelihood + 0.5 * (((weights - mean) / scale) ** 2).sum()

        return negative_log_posterior

    def chain(key: Any, x: Any, y: Any) -> Any:
        start, step = hmc(potential_fn_gen=energy, algo="NUTS")
        first = mean + 0.1 * scale * jax.random.normal(key, mean.shape)
        state = start(first, model.warmup, max_tree_depth=model.depth, model_args=(x, y), rng_key=key)

        def move(state: Any, _: None) -> tuple[Any, Any]:
            state = step(state, model_args=(x, y))
            return state, state.z

        return jax.lax.scan(move, state, None, model.warmup + model.draws)[1][model.warmup :]

    return jax.jit(lambda keys, x, y: jax.lax.map(lambda key: chain(key, x, y), keys))


def prior(features: int, units: int) -> tuple[Any, Any]:
    """Means and standard deviations of the weights: logarithm of the noise, bias, last layer, then the hidden layer.

    In standard units the outputs have about unit variance a priori.
    """
    last = [1.0] * features if units == 0 else [1.5 / math.sqrt(units)] * units
    scale = np.array([1.0, 1.0, *last, *[1.0] * units, *[1 / math.sqrt(features)] * (features * units)])
    mean = np.zeros(len(scale))
    mean[0] = -1.0
    return mean, scale


def perceptron(weights: Any, x: Any, units: int, tanh: Callable[[Any], Any]) -> Any:
    """Means of the labels (…, rows) from flat weights (…, weights) as torch or JAX arrays."""
    first, size = 2 + units, x.shape[1] if units == 0 else units
    if units:
        matrix = weights[..., first + units :].reshape(*weights.shape[:-1], x.shape[1], units)
        x = tanh(x @ matrix + weights[..., None, first : first + units])
    return (x * weights[..., None, 2 : 2 + size]).sum(-1) + weights[..., 1:2]


def perceptron_law(draws: Float[Tensor, "draws weights"], units: int) -> Law:
    """Equal mixture over draws of the weights."""

    def law(inputs: Tensor) -> Mixture:
        means = perceptron(draws, inputs, units, torch.tanh)
        return Mixture(means, (2 * draws[:, :1]).exp().expand_as(means).contiguous(), unit="")

    return law
