"""Posterior of the weights of a trained network: what every sampler of all weights samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.inference.parameters import Flattened
from bayesmol.inference.random import generator
from bayesmol.inference.targets import NormalPrior, Target
from bayesmol.potentials.neural_energy import NeuralEnergy
from bayesmol.potentials.neural_member import Member
from bayesmol.potentials.neural_run import Run
from bayesmol.representation.design import Design

_FISHER_BATCHES = 64  # from which the curvature is estimated


@dataclass(frozen=True, eq=False)
class WeightPosterior:
    """Posterior of weights given normal labels; the prior of each array has the root mean square of the trained one.

    That prior is an empirical Bayes choice which has no knob.

    Attributes
    ----------
    flattened
        Order of the weights.
    target, start
        Their posterior, and the trained weights.
    """

    run: Run
    flattened: Flattened
    target: Target
    start: Float[Tensor, " parameters"]

    @classmethod
    def of(cls, run: Run, chosen: Callable[[str], bool] | None = None) -> WeightPosterior:
        """Posterior of the ``chosen`` parameters, of all if ``None``, with the others as they are."""
        flattened = Flattened.of(run.energy, chosen)
        arrays = dict(run.energy.named_parameters())
        sizes = [
            arrays[name].detach().square().mean().sqrt().clamp_min(1e-3).expand(arrays[name].numel())
            for name in flattened.names
        ]

        def log_likelihood(vector: Tensor, rows: Tensor) -> Tensor:
            return -0.5 * residuals(run, flattened, vector, rows).square().sum()

        prior, size = NormalPrior.centred(torch.cat(sizes)), len(run.data)
        target = Target(log_likelihood, prior, size, min(size, run.schedule.batch))
        return cls(run, flattened, target, flattened.vector(run.energy))

    @cached_property
    def _sensitivities(self) -> Float[Tensor, "batches parameters"]:
        r"""Rows g with :math:`\mathbb E\, \sum g g^T` the Fisher information at the trained weights."""
        source, device = generator(self.run.seed), self.start.device
        batches = torch.randperm(self.target.size, generator=source).split(self.target.batch)[:_FISHER_BATCHES]
        leaf, found = self.start.clone().requires_grad_(), []
        for rows in batches:
            own = residuals(self.run, self.flattened, leaf, rows.to(device))
            signs = torch.randn(len(own), generator=source).to(own)
            found.append(torch.autograd.grad(own @ signs, leaf)[0])
        seen = sum(len(rows) for rows in batches)
        return torch.stack(found) * (self.target.size / seen) ** 0.5

    @cached_property
    def deviations(self) -> Float[Tensor, " parameters"]:
        """Posterior deviation of each weight if all others stayed, by the curvature at the trained weights."""
        information = self._sensitivities.square().sum(0)
        return (information + self.target.prior.scale**-2).rsqrt()

    @cached_property
    def shortest(self) -> float:
        """Posterior deviation along the stiffest direction, of weights in units of :attr:`deviations`."""
        rows = self._sensitivities * self.deviations
        return float((1 + torch.linalg.eigvalsh((rows @ rows.T).double())[-1]) ** -0.5)

    def drawn(self, vectors: Float[Tensor, "draws parameters"]) -> tuple[Member, ...]:
        """Networks with these weights, each without uncertainty of its own."""
        energies: list[Any] = [self.flattened.module(self.run.energy, vector) for vector in vectors]
        return certain(energies)


def residuals(
    run: Run, flattened: Flattened, vector: Float[Tensor, " parameters"], rows: Int[Tensor, " batch"]
) -> Float[Tensor, " labels"]:
    """Errors of energies and forces of training structures in units of the noise; zero where there is no label."""
    batch = run.data[rows]
    found: Design = torch.func.functional_call(
        run.energy, flattened.named(vector), (batch.environment,), {"graph": True}
    )
    deviation = (run.noise[0] * batch.counts.to(found.energy)).sqrt()
    energy = (found.energy[:, 0] - batch.energies) * batch.has_energies / deviation
    known = batch.has_forces[batch.environment.structure] / run.noise[1] ** 0.5
    force = (found.given("forces").reshape(-1, 3) - batch.forces) * known[:, None]
    return torch.cat([energy, force.flatten()])


def certain(energies: list[NeuralEnergy]) -> tuple[Member, ...]:
    """Members without uncertainty of their own."""
    weights = energies[0].network.width + len(energies[0].shift)
    return tuple(Member(energy, energy.references.new_zeros(weights, 0)) for energy in energies)
