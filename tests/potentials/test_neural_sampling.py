"""Posteriors over all weights: closed forms of a linear model, reproducible draws, steps that do not diverge."""

import copy
from dataclasses import replace

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import ConvergenceError, DataError
from bayesmol.inference.langevin import StochasticHamiltonian
from bayesmol.potentials.network_atomic import Atomic
from bayesmol.potentials.network_equivariant import Equivariant
from bayesmol.potentials.neural import NeuralPotential
from bayesmol.potentials.neural_last_layer import with_heads
from bayesmol.potentials.neural_member import moments
from bayesmol.potentials.neural_sampling import DeepEnsemble, Hamiltonian, MeanField, WeightAveraging
from bayesmol.potentials.neural_weights import WeightPosterior
from bayesmol.potentials.training import Training
from bayesmol.representation.radial import RadialBasis

SMALL = Atomic(basis=RadialBasis(cutoff=3.5, size=5), degree=1, correlation=3, channels=2, hidden=(4,), width=3)
EQUIVARIANT = Equivariant(basis=RadialBasis(cutoff=3.5, size=4), channels=4, degree=1, layers=1, radial=4, width=4)
FEW = StochasticHamiltonian(step=0.2, momentum=0.9, warmup=2, draws=3, thin=2, chains=1)


def trained(architecture, dtype):
    frames = bm.data.load("rmd17/ethanol").split(4, 3)
    return NeuralPotential(architecture, training=Training(epochs=2, batch=2), dtype=dtype).run(*frames)


@pytest.fixture(scope="module")
def run():
    return trained(SMALL, torch.float64)


@pytest.fixture(scope="module")
def linear(run):
    """The same, of which only the last layer is free, in one batch: the posterior is normal."""
    energy = copy.deepcopy(run.energy)
    energy.network.requires_grad_(False)
    return replace(run, energy=energy, schedule=replace(run.schedule, batch=4))


def exact(linear):
    """Mean and covariance of the last layer."""
    gram, moment = linear.normal_equations
    covariance = (gram + WeightPosterior.of(linear).target.prior.scale.pow(-2).diag()).inverse()
    return covariance @ moment, covariance


def weights(members):
    return torch.stack([torch.cat([m.energy.head, m.energy.shift])[:, 0].detach() for m in members])


def test_networks_of_an_ensemble_differ_and_are_reproducible(run):
    one, same = (DeepEnsemble(networks=3).members(run) for _ in range(2))
    assert one[0].energy is run.energy
    found = weights(one)
    assert torch.equal(found, weights(same))
    assert float(torch.pdist(found).min()) > 0.1
    assert not torch.equal(one[1].energy.network.mixing, one[2].energy.network.mixing)


def test_mean_field_has_the_variance_of_each_weight_given_all_others(linear):
    mean, covariance = exact(linear)
    found = weights(MeanField(steps=250, rate=0.08, draws=300).members(linear))
    narrow = covariance.inverse().diagonal().rsqrt()
    assert float(((found.mean(0) - mean) / covariance.diagonal().sqrt()).abs().max()) < 0.4
    assert float((found.std(0) / narrow - 1).abs().max()) < 0.2


def test_hamiltonian_draws_have_the_mean_and_the_covariance_of_the_posterior(linear):
    mean, covariance = exact(linear)
    sampler = StochasticHamiltonian(step=0.8, momentum=0.9, warmup=50, draws=80, thin=5, chains=1)
    found = weights(Hamiltonian(sampler).members(linear))
    white = torch.linalg.solve(torch.linalg.cholesky(covariance), (found - mean).T)
    assert float(white.mean(1).abs().max()) < 0.6
    assert 0.5 < float(white.std(1).min()) and float(white.std(1).max()) < 1.6


def test_iterates_of_an_average_stay_about_the_goal(linear):
    run = replace(linear, energy=with_heads(linear.energy, exact(linear)[0][:, None]))
    mean, covariance = exact(run)
    found = weights(WeightAveraging(rate=0.05, steps=100, warmup=50, every=2, draws=100).members(run))
    assert float(((found.mean(0) - mean) / covariance.diagonal().sqrt()).abs().max()) < 1.0
    assert float(found.std(0).min()) > 0


@pytest.mark.parametrize(
    "spec", [MeanField(steps=10, draws=3), WeightAveraging(steps=20, warmup=2, every=2, draws=3), Hamiltonian(FEW)]
)
def test_same_seed_same_networks(run, spec):
    one, same, other = (spec.members(part) for part in (run, run, replace(run, seed=5)))
    assert len(one) == 3 and torch.equal(weights(one), weights(same))
    assert not torch.equal(weights(one), weights(other))


def test_default_rates_do_not_diverge_in_single_precision():
    run = trained(EQUIVARIANT, torch.float32)
    posterior = WeightPosterior.of(run)
    before = -float(posterior.target.log_density(posterior.start).detach())
    sampler = replace(Hamiltonian().sampler, warmup=20, thin=5, draws=5)
    for spec in (WeightAveraging(steps=40, warmup=10), Hamiltonian(sampler)):
        for member in spec.members(run):
            place = posterior.flattened.vector(member.energy)
            density = -float(posterior.target.log_density(place).detach())
            assert density < 3 * before + len(posterior.start), type(spec).__name__


def test_too_large_a_rate_is_an_error(run):
    with pytest.raises(ConvergenceError, match="rate"):
        WeightAveraging(rate=1e300, steps=10, warmup=0, every=1).members(run)


def test_spread_of_draws_turns_with_the_molecule(run, normal):
    members, structures = Hamiltonian(FEW).members(run), run.labelled.structures[:1]
    turn = -torch.linalg.qr(normal(3, 3))[0]
    every = torch.block_diag(*[turn] * 9)
    moved = replace(structures, positions=structures.positions @ turn.T + 2.0)
    here, there = (moments(members, part)["forces"] for part in (structures, moved))
    assert float(here.variance.min()) > 0
    torch.testing.assert_close(there.mean, every @ here.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(there.factor, every @ here.factor, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("spec", "bad"),
    [
        (DeepEnsemble, {"networks": 1}),
        (MeanField, {"draws": 1}),
        (WeightAveraging, {"draws": 1}),
        (WeightAveraging, {"rank": 1}),
        (WeightAveraging, {"steps": 20, "every": 11}),
        (Hamiltonian, {"sampler": replace(FEW, draws=1)}),
    ],
)
def test_fewer_than_two_networks_have_no_spread(spec, bad):
    with pytest.raises(DataError, match=next(iter(bad))):
        spec(**bad)
