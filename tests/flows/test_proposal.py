"""Who counts as a proposal."""

import torch

from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.proposal import Proposal


class Gaussian:
    dimension = 1

    def log_prob(self, x):
        return torch.distributions.Normal(0.0, 1.0).log_prob(x[:, 0])

    def sample(self, size, *, seed):
        x = torch.randn(size, 1, generator=torch.Generator().manual_seed(seed))
        return x, self.log_prob(x)


def test_what_samples_and_knows_its_density_is_one():
    assert isinstance(Gaussian(), Proposal)


def test_an_energy_is_none():
    assert not isinstance(BoltzmannDensity(lambda x: x.sum(1), 1), Proposal)
