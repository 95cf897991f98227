"""Gaussian on lines, uniform on circles: closed forms."""

import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.bases import GaussianUniform

CIRCULAR = torch.tensor([False, True, False])


def test_log_density():
    z = torch.tensor([[0.3, 2.0, -1.0]], dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(z[:, [0, 2]]).sum(1)
    torch.testing.assert_close(GaussianUniform(CIRCULAR).log_prob(z), normal - math.log(2 * math.pi))


def test_angles_are_periodic():
    base, z = GaussianUniform(CIRCULAR), torch.rand(4, 3)
    torch.testing.assert_close(base.log_prob(z), base.log_prob(z + torch.tensor([0.0, 2 * math.pi, 0.0])))


def test_draws():
    z = GaussianUniform(CIRCULAR).sample(20_000, seed=0, dtype=torch.float64)
    assert z.dtype == torch.float64
    assert z[:, 1].abs().max() <= math.pi
    expected = torch.tensor([1.0, math.pi**2 / 3, 1.0], dtype=torch.float64)
    torch.testing.assert_close(z.square().mean(0), expected, rtol=0.04, atol=0)
    torch.testing.assert_close(z.mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=0.06)


def test_same_seed_same_draws():
    base = GaussianUniform(CIRCULAR)
    assert torch.equal(base.sample(5, seed=3), base.sample(5, seed=3))
    assert not torch.equal(base.sample(5, seed=3), base.sample(5, seed=4))


def test_bad_input():
    with pytest.raises(DataError, match="circular"):
        GaussianUniform(torch.zeros(0, dtype=torch.bool))
