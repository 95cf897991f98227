"""The posterior of the weights: its density written out, its curvature against the closed form of a linear model."""

from dataclasses import replace

import pytest
import torch

import bayesmol as bm
from bayesmol.potentials.network_atomic import Atomic
from bayesmol.potentials.neural import NeuralPotential
from bayesmol.potentials.neural_weights import WeightPosterior, certain, residuals
from bayesmol.potentials.training import Training
from bayesmol.representation.radial import RadialBasis

SMALL = Atomic(basis=RadialBasis(cutoff=3.5, size=5), degree=1, correlation=3, channels=2, hidden=(4,), width=3)


@pytest.fixture(scope="module")
def run():
    frames = bm.data.load("rmd17/ethanol").split(4, 3)
    spec = NeuralPotential(SMALL, training=Training(epochs=2, batch=2), dtype=torch.float64)
    return spec.run(*frames)


def last_layer(name):
    return name in ("head", "shift")


def test_density_is_a_normal_likelihood_and_a_prior_of_the_size_of_each_array(run):
    posterior = WeightPosterior.of(run)
    with torch.no_grad():
        found = run.energy(run.data.environment)
        prior, start = 0.0, 0
        for parameter in run.energy.parameters():
            scale = parameter.square().mean().sqrt().clamp_min(1e-3).expand(parameter.numel())
            prior = prior + torch.distributions.Normal(0.0, scale).log_prob(parameter.flatten()).sum()
            torch.testing.assert_close(posterior.target.prior.scale[start : start + len(scale)], scale)
            start += len(scale)
        energy = (found.energy[:, 0] - run.data.energies).square() / (9 * run.noise[0])
        force = (found.forces[:, 0] - run.data.forces.flatten()).square() / run.noise[1]
    wanted = prior - 0.5 * (energy.sum() + force.sum())
    torch.testing.assert_close(posterior.target.log_density(posterior.start).detach(), wanted, rtol=1e-10, atol=0)


def test_missing_labels_count_for_nothing(run):
    posterior = WeightPosterior.of(run)
    partial = replace(run.data, has_energies=torch.zeros(4).double(), has_forces=torch.tensor([1.0, 0, 0, 0]).double())
    rows = residuals(replace(run, data=partial), posterior.flattened, posterior.start, torch.arange(4)).detach()
    whole = residuals(run, posterior.flattened, posterior.start, torch.arange(4)).detach()
    assert bool((rows[:4] == 0).all()) and bool((rows[4 + 27 :] == 0).all())
    torch.testing.assert_close(rows[4 : 4 + 27], whole[4 : 4 + 27])


def test_information_of_a_linear_model_is_the_gram_matrix_of_its_rows(run):
    gram = run.normal_equations[0]
    rows = [WeightPosterior.of(replace(run, seed=seed), last_layer)._sensitivities for seed in range(40)]
    found = torch.stack([part.T @ part for part in rows])
    error = found.std(0) / len(found) ** 0.5
    assert float(((found.mean(0) - gram) / error).abs().max()) < 4.5


def test_deviations_and_the_shortest_of_them(run):
    posterior = WeightPosterior.of(run, last_layer)
    information = posterior._sensitivities.T @ posterior._sensitivities
    precision = information + posterior.target.prior.scale.pow(-2).diag()
    torch.testing.assert_close(posterior.deviations, precision.diagonal().rsqrt())
    white = posterior.deviations[:, None] * precision * posterior.deviations
    stiffest = float(torch.linalg.eigvalsh(white)[-1])
    assert stiffest**-0.5 >= posterior.shortest >= (1 + stiffest) ** -0.5  # the prior counts in full


def test_drawn_networks_have_the_weights_that_are_given_and_the_others_as_they_were(run):
    posterior = WeightPosterior.of(run, last_layer)
    same, other = posterior.drawn(torch.stack([posterior.start, posterior.start + 1]))
    for name, parameter in run.energy.named_parameters():
        assert torch.equal(same.energy.get_parameter(name), parameter)
        assert torch.equal(other.energy.get_parameter(name), parameter + 1 if last_layer(name) else parameter)
    assert same.root.shape == (SMALL.width + 3, 0)
    assert certain([run.energy])[0].energy is run.energy
