"""A flow that is a Gaussian, a Gaussian target, and their divergences in closed form."""

import pytest
import torch
from nflows.transforms.base import Transform
from torch import nn

from bayesmol.flows.bases import GaussianUniform
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.flow import Flow
from bayesmol.inference.random import generator


class Affine(Transform):
    """x = m + e^s z."""

    def __init__(self, shift, log_scale):
        super().__init__()
        self.shift, self.log_scale = nn.Parameter(torch.as_tensor(shift)), nn.Parameter(torch.as_tensor(log_scale))

    def forward(self, inputs, context=None):
        return (inputs - self.shift) * torch.exp(-self.log_scale), -self.log_scale.sum().expand(len(inputs))

    def inverse(self, inputs, context=None):
        return self.shift + torch.exp(self.log_scale) * inputs, self.log_scale.sum().expand(len(inputs))


@pytest.fixture
def affine():
    return _affine


def _affine(shift, log_scale):
    """Flow that is a Gaussian, in float64."""
    shift, log_scale = (torch.tensor(v, dtype=torch.float64) for v in (shift, log_scale))
    return Flow(GaussianUniform(torch.zeros(len(shift), dtype=torch.bool)), Affine(shift, log_scale))


class Gaussian:
    """Energy of a Gaussian with a mean and deviations."""

    def __init__(self, mean, scale):
        self.mean, self.scale = (torch.tensor(v, dtype=torch.float64) for v in (mean, scale))
        self.dimension = len(self.mean)

    def reduced_energy(self, x):
        return ((x - self.mean.to(x)) / self.scale.to(x)).square().sum(1) / 2

    def sample(self, size, seed=0):
        noise = torch.randn(size, self.dimension, generator=generator(seed), dtype=torch.float64)
        return self.mean + self.scale * noise


def _gradient(loss, flow):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(flow.parameters()))])


def _reverse(shift, log_scale, target):
    """Closed form of KL(q‖p) up to a constant."""
    spread = (torch.exp(2 * log_scale) + (shift - target.mean).square()) / (2 * target.scale.square())
    return (spread - log_scale).sum()


def _forward(shift, log_scale, target):
    spread = (target.scale.square() + (shift - target.mean).square()) / (2 * torch.exp(2 * log_scale))
    return (spread + log_scale).sum()


@pytest.fixture
def gaussian():
    """Target with mean (0.5, -1) and deviations (0.7, 1.5)."""
    return Gaussian([0.5, -1.0], [0.7, 1.5])


@pytest.fixture
def gradient():
    """Gradient of a loss in the parameters of a flow, as one vector."""
    return _gradient


@pytest.fixture
def reverse_divergence():
    return _reverse


@pytest.fixture
def forward_divergence():
    return _forward


@pytest.fixture
def harmonic():
    """Correlated Gaussian about (1, -0.5), of variances 1.25 and 1 at temperature 1."""
    inverse = torch.linalg.inv(torch.tensor([[1.25, 0.5], [0.5, 1.0]], dtype=torch.float64))
    centre = torch.tensor([1.0, -0.5], dtype=torch.float64)

    def energy(x):
        apart = x - centre.to(x)
        return ((apart @ inverse.to(x)) * apart).sum(1) / 2

    return BoltzmannDensity(energy, 2)
