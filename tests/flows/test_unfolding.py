"""A symmetric flow learns from one image of each sample what it would learn from all."""

import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.coordinates import Cartesian, Composed
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.particle_densities import dw4
from bayesmol.flows.systems import coordinates
from bayesmol.flows.unfolding import SymmetricFlow, UnfoldedKL
from bayesmol.inference.importance import effective_size

AWAY, WIDTH = 2.0, 0.5


@pytest.fixture
def mirrored():
    """Two Gaussians at ±2 of the first coordinate; the mirror image is a symmetry."""

    def energy(x):
        wells = [((x[:, 0] - sign * AWAY) / WIDTH).square() / 2 for sign in (1, -1)]
        return -torch.logaddexp(-wells[0], -wells[1]) + x[:, 1].square() / 2

    places = torch.tensor([[0, 1], [0, 1]])
    return BoltzmannDensity(energy, 2, symmetry=places, signs=torch.tensor([[1.0, 1.0], [-1.0, 1.0]]))


def flow_of(density, **options):
    system = Composed([Cartesian(density.dimension)])
    return SymmetricFlow(Couplings(**options).build(system.circular, seed=0), system, density)


def draws(normal, source):
    x = normal(2000, 2)
    sides = 2.0 * torch.randint(2, (2000,), generator=source) - 1
    return torch.stack([sides * AWAY + WIDTH * x[:, 0], x[:, 1]], 1)


def test_the_two_wells_are_learnt_as_one(mirrored, normal, source):
    flow = flow_of(mirrored, layers=0)
    budget = Optimisation(steps=300, batch=128, rate=2e-2, marginal=1.0)
    spec = UnfoldedKL(optimisation=budget, rounds=4, unfolded=1000, own=0)
    training = spec.fit(flow, mirrored, draws(normal, source), seed=0)
    x, log_q = flow.sample(4000, seed=1)
    assert effective_size(-mirrored.reduced_energy(x) - log_q.double()).fraction > 0.97
    assert (flow.flow.sample(500, seed=2)[0][:, 0] > 0).double().mean() in (0.0, 1.0), "one side has the flow"
    assert training.steps == 300


def test_images_are_drawn_by_their_shares(mirrored, source):
    flow = flow_of(mirrored, layers=0)
    shifted = torch.distributions.Normal(torch.tensor([0.5, 0.0]), torch.tensor(1.0))
    flow._average.proposal = type("Shifted", (), {"log_prob": lambda self, x: shifted.log_prob(x.float()).sum(1)})()
    x = torch.tensor([[1.0, 0.3]]).double().expand(4000, 2)
    images, log_shares = flow.likely(x, source)
    share = (images[:, 0] > 0).double().mean()
    exact = 1 / (1 + math.exp(-0.5 * 1.5**2 + 0.5 * 0.5**2))
    assert float(share) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4000))
    shares = torch.where(images[:, 0] > 0, exact, 1 - exact)
    torch.testing.assert_close(log_shares.exp().float(), shares.float(), rtol=1e-4, atol=0)


def test_the_nearest_image_is_that_of_brute_force(normal):
    density = dw4()
    system = coordinates(density, density.start[:1].double() + 0.1 * normal(50, 8))
    flow = SymmetricFlow(Couplings(layers=1, width=4, bins=4).build(system.circular, seed=0), system, density)
    x, like = normal(20, 8), normal(8)
    found = flow.aligned(x, like)
    angles = torch.linspace(0, 2 * math.pi, 721).double()[:-1]
    turns = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], 1).reshape(-1, 2, 2)

    def overlap(rows):
        return torch.einsum("...is,rst,it->...r", rows.unflatten(-1, (4, 2)), turns, like.unflatten(0, (4, 2))).amax(-1)

    images = flow._average.images(x)
    best = overlap(images).amax(1)
    torch.testing.assert_close(overlap(found), best, rtol=1e-4, atol=1e-4)
    moved = images[torch.arange(20), torch.arange(20)]
    torch.testing.assert_close(overlap(flow.aligned(moved, like)), best, rtol=1e-4, atol=1e-4)


def test_bad_settings():
    with pytest.raises(DataError, match="rounds"):
        UnfoldedKL(rounds=0)
    with pytest.raises(DataError, match="unfolded"):
        UnfoldedKL(unfolded=0)


def test_a_flow_without_symmetry_is_refused(mirrored, normal, source):
    flow = Couplings(layers=0).build(torch.zeros(2, dtype=torch.bool), seed=0)
    with pytest.raises(DataError, match="symmetry"):
        UnfoldedKL(optimisation=Optimisation(steps=2)).fit(flow, mirrored, draws(normal, source), seed=0)
    with pytest.raises(DataError, match="symmetry"):
        flow_of(BoltzmannDensity(mirrored.energy, 2), layers=0)
