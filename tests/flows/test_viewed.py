import math

import pytest
import torch

from bayesmol.errors import ShapeError
from bayesmol.flows import viewed
from bayesmol.flows.bases import GaussianUniform
from bayesmol.flows.coordinates import MeanFree, Planar
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.proposal import Proposal
from bayesmol.flows.viewed import Seen, Viewed
from bayesmol.flows.whitened import whitening


class Base:
    def __init__(self, circular, dtype=torch.float64):
        self.base, self.dimension, self.dtype = GaussianUniform(circular), len(circular), dtype

    def log_prob(self, y):
        return self.base.log_prob(y)

    def sample(self, size, *, seed):
        y = self.base.sample(size, seed=seed, dtype=self.dtype)
        return y, self.log_prob(y)


@pytest.fixture
def cloud():
    return BoltzmannDensity(lambda x: x.square().sum(1) / 2, 8, space=2)


def test_weights_are_the_same_in_both_views(cloud):
    coordinates = Planar(4, scale=1.2)
    base, target = Base(coordinates.circular), Viewed(cloud, coordinates)
    y, log_q = base.sample(50, seed=0)
    x, seen = Seen(base, coordinates).sample(50, seed=0)
    torch.testing.assert_close(-cloud.reduced_energy(x) - seen, -target.reduced_energy(y) - log_q)
    torch.testing.assert_close(Seen(base, coordinates).log_prob(x), seen)
    assert isinstance(Seen(base, coordinates), Proposal)


def test_partition_function_agrees(cloud):
    """Polar and mean-free coordinates have the same integral, here the exact one."""
    for coordinates in (MeanFree(4, 2), Planar(4, scale=1.2)):
        base = Base(coordinates.circular)
        y, log_q = base.sample(40000, seed=1)
        weights = torch.exp(-Viewed(cloud, coordinates).reduced_energy(y) - log_q)
        error = weights.std() / math.sqrt(len(weights))
        assert abs(weights.mean() - (2 * math.pi) ** 3) <= 4 * error + 1e-9


def test_gradient_and_chunks(cloud, normal, monkeypatch):
    target = Viewed(cloud, Planar(4))
    y = target.coordinates(normal(10, 8))[0].requires_grad_()
    assert torch.autograd.gradcheck(target.reduced_energy, y)
    whole = target.reduced_energy(y)
    monkeypatch.setattr(viewed, "_CHUNK", 24)
    torch.testing.assert_close(target.reduced_energy(y), whole)
    seen = Seen(Base(target.circular), target.coordinates)
    x, log_q = seen.sample(10, seed=3)
    torch.testing.assert_close(seen.log_prob(x), log_q)
    assert target.reduced_energy(y[:0]).shape == (0,)
    assert target.reduced_energy(y.float()).dtype == torch.float32


def test_outside_there_is_no_density(normal):
    circle = BoltzmannDensity(lambda x: -x[:, 0].cos(), 1)
    angle = 0.2 * normal(100, 1)
    coordinates = whitening(angle, torch.tensor([True]))
    assert coordinates.straightened.all()
    y = torch.tensor([[0.0], [40.0]], dtype=torch.float64, requires_grad=True)
    energy = Viewed(circle, coordinates).reduced_energy(y)
    assert energy.isinf().tolist() == [False, True]
    assert torch.autograd.grad(energy.sum(), y)[0].isfinite().all()


def test_a_float32_flow(cloud):
    coordinates = Planar(4)
    seen = Seen(Base(coordinates.circular, torch.float32), coordinates)
    x, log_q = seen.sample(20, seed=0)
    assert x.dtype == log_q.dtype == torch.float64
    torch.testing.assert_close(seen.log_prob(x), log_q, atol=1e-4, rtol=1e-4)


def test_bad_input(cloud):
    with pytest.raises(ShapeError, match="coordinates"):
        Viewed(cloud, Planar(3))
    with pytest.raises(ShapeError, match="proposal"):
        Seen(Base(torch.zeros(8, dtype=torch.bool)), Planar(4))
