"""Trained neural networks with uncertainties: deep ensembles, dropout, last-layer Laplace, SWAG.

A stack is several networks of one shape: weights (members, in, out), so that five members cost little more than one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from calibration_models import Law, Model, linear_law
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from bayesmol.posterior import Mixture

Stack = list[Tensor]  # weights and biases of each layer in turn
BATCH = 64  # rows in a step
NOISE = 1e-3  # least variance of the noise, in variances of the training targets


def stack(sizes: list[int], members: int, source: torch.Generator) -> Stack:
    """Networks with weights of variance 2/in (He et al.) and no biases yet."""
    found = []
    for before, after in pairwise(sizes):
        found.append(torch.randn(members, before, after, generator=source) * math.sqrt(2 / before))
        found.append(torch.zeros(members, 1, after))
    return [part.requires_grad_() for part in found]


def hidden(layers: Stack, x: Float[Tensor, "members rows features"], mask: Callable[[Tensor], Tensor]) -> Tensor:
    """Last hidden layer of each member, (members, rows, units); the mask thins out each hidden layer."""
    for weight, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        x = mask(torch.baddbmm(bias, x, weight).relu())
    return x


def outputs(layers: Stack, x: Tensor, mask: Callable[[Tensor], Tensor] = lambda values: values) -> Tensor:
    """Outputs of each member, (members, rows, outputs)."""
    return torch.baddbmm(layers[-1], hidden(layers, x, mask), layers[-2])


def gaussian_loss(found: Tensor, y: Tensor) -> Tensor:
    """Negative log-density of normal distributions with means and raw variances as outputs; sum over members."""
    variance = softplus(found[..., 1]) + NOISE
    return 0.5 * ((y - found[..., 0]).square() / variance + variance.log()).mean(-1).sum()


@dataclass(frozen=True)
class Network(Model):
    """A multilayer perceptron whose two outputs are the mean and the raw variance of a label.

    ``steps`` of Adam on batches, with a rate that falls to zero; ``decay`` is decoupled (AdamW).
    """

    units: int = 50
    layers: int = 2
    steps: int = 500
    rate: float = 5e-3
    decay: float = 1e-3

    def _initial(self, x: Tensor, members: int, source: torch.Generator) -> Stack:
        return stack([x.shape[1], *[self.units] * self.layers, 2], members, source)

    def _train(
        self, layers: Stack, x: Tensor, y: Tensor, source: torch.Generator, mask: Callable[[Tensor], Tensor]
    ) -> None:
        optimiser = torch.optim.AdamW(layers, lr=self.rate, weight_decay=self.decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        for rows in batches(len(x), len(layers[0]), self.steps, source):
            optimiser.zero_grad()
            gaussian_loss(outputs(layers, x[rows], mask), y[rows]).backward()
            optimiser.step()
            schedule.step()


def batches(rows: int, members: int, steps: int, source: torch.Generator) -> Any:
    """Rows of each step, (members, batch); each member goes through the rows in its own order, again and again."""
    size = min(BATCH, rows)
    while True:
        order = torch.stack([torch.randperm(rows, generator=source) for _ in range(members)])
        for start in range(0, rows - size + 1, size):
            if steps == 0:
                return
            steps -= 1
            yield order[:, start : start + size]


def mixture_law(layers: Stack, mask: Callable[[Tensor], Tensor] = lambda values: values) -> Law:
    """Equal mixture of the normal distributions of all members."""

    def law(inputs: Tensor) -> Mixture:
        with torch.no_grad():
            found = outputs(layers, inputs.float().expand(len(layers[0]), -1, -1), mask).double()
        return Mixture(found[..., 0], softplus(found[..., 1]) + NOISE, unit="")

    return law


@dataclass(frozen=True)
class DeepEnsemble(Network):
    """Networks from different starts (Lakshminarayanan, Pritzel, Blundell, NeurIPS 2017), trained at once."""

    members: int = 5

    def law(self, x: Tensor, y: Tensor, source: torch.Generator) -> Law:
        layers = self._initial(x, self.members, source)
        self._train(layers, x.float(), y.float(), source, lambda values: values)
        return mixture_law(layers)


@dataclass(frozen=True)
class Dropout(Network):
    """Hidden units left out at random in training and in prediction (Gal, Ghahramani, ICML 2016)."""

    probability: float = 0.1
    masks: int = 32

    def law(self, x: Tensor, y: Tensor, source: torch.Generator) -> Law:
        layers = self._initial(x, 1, source)
        kept = 1 - self.probability

        def mask(values: Tensor) -> Tensor:
            return values * torch.bernoulli(torch.full_like(values, kept), generator=source) / kept

        self._train(layers, x.float(), y.float(), source, mask)
        seed = int(torch.randint(2**31, (), generator=source))

        def law(inputs: Tensor) -> Mixture:
            # One mask a member for all inputs, the same in each call: a prediction does not depend on its neighbours.
            draws = torch.Generator().manual_seed(seed)
            shape = (self.masks, 1, self.units)
            chosen = [torch.bernoulli(torch.full(shape, kept), generator=draws) / kept for _ in range(self.layers)]
            turn = iter(chosen)
            return mixture_law([part.expand(self.masks, -1, -1) for part in layers], lambda v: v * next(turn))(inputs)

        return law


@dataclass(frozen=True)
class LastLayerLaplace(Network):
    """A trained network whose last layer is then a Bayesian linear model; precisions by evidence.

    Of a last layer that is linear in its weights the Laplace approximation is exact (Daxberger et al., NeurIPS 2021).
    """

    def law(self, x: Tensor, y: Tensor, source: torch.Generator) -> Law:
        layers = self._initial(x, 1, source)
        self._train(layers, x.float(), y.float(), source, lambda values: values)

        def features(inputs: Tensor) -> Tensor:
            with torch.no_grad():
                return hidden(layers, inputs.float()[None], lambda values: values)[0].double()

        last = linear_law(features(x), y)
        return lambda inputs: last(features(inputs))


@dataclass(frozen=True)
class Swag(Network):
    """Normal distribution of weights from the path of gradient descent (Maddox et al., NeurIPS 2019).

    Mean, diagonal and deviations of ``snapshots``, one an epoch, at the constant rate ``descent``.
    """

    snapshots: int = 20
    draws: int = 32
    descent: float = 5e-3

    def law(self, x: Tensor, y: Tensor, source: torch.Generator) -> Law:
        layers = self._initial(x, 1, source)
        self._train(layers, x.float(), y.float(), source, lambda values: values)
        path = self._path(layers, x.float(), y.float(), source)
        mean, deviations = path.mean(0), path - path.mean(0)
        low = torch.randn(self.draws, len(path), generator=source) @ deviations / math.sqrt(len(path) - 1)
        own = torch.randn(self.draws, path.shape[1], generator=source) * path.std(0)
        drawn = (mean + (own + low) / math.sqrt(2)).split([part.numel() for part in layers], dim=1)
        return mixture_law([d.reshape(self.draws, *p.shape[1:]) for d, p in zip(drawn, layers, strict=True)])

    def _path(self, layers: Stack, x: Tensor, y: Tensor, source: torch.Generator) -> Float[Tensor, "snapshots weights"]:
        optimiser = torch.optim.SGD(layers, lr=self.descent, momentum=0.9, weight_decay=self.decay)
        epoch, found = max(1, len(x) // BATCH), []
        for step, rows in enumerate(batches(len(x), 1, epoch * self.snapshots, source)):
            optimiser.zero_grad()
            gaussian_loss(outputs(layers, x[rows]), y[rows]).backward()
            torch.nn.utils.clip_grad_norm_(layers, 1.0)
            optimiser.step()
            if (step + 1) % epoch == 0:
                found.append(torch.cat([part.detach().flatten() for part in layers]))
        return torch.stack(found)
