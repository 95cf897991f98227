"""Chains find what a proposal misses, know how much it is, and find nothing where nothing is missing."""

import math
from dataclasses import replace

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.discovery import Discovery, located, missed, sampled
from bayesmol.flows.model_densities import double_well, gaussian_mixture

SHORT = Discovery(walkers=32, trajectories=14, leapfrogs=5)
SHARES = torch.tensor([0.9, 0.1], dtype=torch.float64)


class Mixture:
    """Round Gaussians: a proposal of closed form."""

    def __init__(self, means, weights, scale=1.0):
        self.means, self.weights, self.scale, self.dimension = means, weights / weights.sum(), scale, means.shape[1]

    def log_prob(self, x):
        square = (x[:, None] - self.means).square().sum(2) / self.scale**2
        constant = self.dimension * math.log(self.scale * math.sqrt(2 * math.pi))
        return (self.weights.log() - square / 2).logsumexp(1) - constant

    def sample(self, size, *, seed):
        source = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
        which = torch.multinomial(self.weights, size, replacement=True, generator=source)
        noise = torch.randn(size, self.dimension, generator=source, dtype=torch.float64)
        x = self.means[which] + self.scale * noise
        return x, self.log_prob(x)


def means(distance=9.0, dimension=2):
    found = torch.zeros(2, dimension, dtype=torch.float64)
    found[1, 0] = distance
    return found


def target(dimension=2):
    return gaussian_mixture(means(dimension=dimension), torch.ones(2, dtype=torch.float64), SHARES)


def sent(proposal, density, seed=0):
    return SHORT.fit(proposal, density, sampled(proposal, density, 2000, seed), seed=seed)


@pytest.mark.parametrize("dimension", [2, 8])
def test_a_dropped_mode_is_found_with_its_mass(dimension):
    found = sent(Mixture(means(dimension=dimension)[:1], SHARES[:1]), target(dimension))
    assert int(found.found.sum()) >= 5
    assert abs(found.missing - 0.1) < 0.04


def test_without_a_start_the_heat_alone_finds_it():
    found = sent(Mixture(means()[:1], SHARES[:1]), replace(target(), start=None))
    assert abs(found.missing - 0.1) < 0.04


def test_the_larger_part_can_be_missing():
    assert sent(Mixture(means()[1:], SHARES[1:]), target()).missing > 0.8


def test_nothing_is_missing_from_the_density_itself():
    found = sent(Mixture(means(), SHARES), target())
    assert found.missing == 0
    assert not bool(found.found.any())


def test_a_wide_proposal_misses_nothing():
    assert sent(Mixture(means(), SHARES, 1.3), target()).missing == 0


def test_plain_chains_sample_the_density():
    found = sent(Mixture(means(), SHARES, 1.3), target())
    right = float((found.plain.rows[:, 0] > 4.5).double().mean())
    assert abs(right - 0.1) < 0.1
    assert abs(float(found.plain.rows[:, 1].square().mean()) - 1) < 0.5
    assert found.evaluations > 1000


def test_a_system_that_turns_freely_has_no_gaussian_region():
    density = replace(target(), space=1, dimension=2)
    found = sent(Mixture(means()[:1], SHARES[:1]), density)
    assert math.isnan(found.missing) or found.missing == 0


def test_missed_needs_both_a_low_density_and_a_large_weight():
    proposal, density = Mixture(means()[:1], SHARES[:1]), target()
    region = missed(sampled(proposal, density, 2000, 0))
    rows = torch.tensor([[0.0, 0.0], [0.0, 6.0], [9.0, 0.0]], dtype=torch.float64)
    found = region(located(rows, proposal.log_prob(rows), density))
    assert found.tolist() == [False, False, True]


def test_draws_that_are_no_configuration_have_no_weight():
    rows = torch.tensor([[0.0, 0.0], [float("nan"), 0.0]], dtype=torch.float64)
    sample = located(rows, torch.tensor([0.0, math.inf], dtype=torch.float64), double_well())
    assert sample.log_weights[1] == -math.inf
    assert bool(torch.isfinite(sample.rows).all())
    with pytest.raises(DataError, match="none"):
        located(rows[1:], torch.tensor([math.inf], dtype=torch.float64), double_well())
    with pytest.raises(DataError, match="NaN"):
        located(rows, torch.tensor([0.0, math.nan], dtype=torch.float64), double_well())
