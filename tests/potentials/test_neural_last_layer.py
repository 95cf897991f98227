"""Posteriors of the last layer: against dense algebra, closed forms, moments of the heads, and the laws of rotation."""

from dataclasses import replace

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError
from bayesmol.potentials import neural_last_layer
from bayesmol.potentials.network_atomic import Atomic
from bayesmol.potentials.neural import NeuralPotential
from bayesmol.potentials.neural_last_layer import (
    FrozenFeatures,
    LastLayerLaplace,
    ShallowEnsemble,
    VariationalLastLayer,
)
from bayesmol.potentials.neural_member import moments
from bayesmol.potentials.training import Training, score
from bayesmol.potentials.training_loss import probability_loss
from bayesmol.representation.radial import RadialBasis

SMALL = Atomic(basis=RadialBasis(cutoff=3.5, size=5), degree=1, correlation=3, channels=2, hidden=(4,), width=3)
HEADS = 5


@pytest.fixture(scope="module")
def run():
    """A trained network in float64 with its four training and three validation structures."""
    frames = bm.data.load("rmd17/ethanol").split(4, 3)
    spec = NeuralPotential(SMALL, training=Training(epochs=3, batch=2), dtype=torch.float64)
    return spec.run(*frames)


@pytest.fixture(scope="module")
def jacobian(run):
    """Derivatives of the energies and forces of the training structures by the last layer, by automatic
    differentiation of the energy, and their labels and noise variances."""

    def outputs(weights):
        parts = {"head": weights[:-3, None], "shift": weights[-3:, None]}
        rows = torch.func.functional_call(run.energy, parts, (run.data.environment,), {"graph": True})
        return torch.cat([rows.energy[:, 0], rows.forces[:, 0]])

    start = torch.cat([run.energy.head, run.energy.shift])[:, 0].detach()
    rows = torch.autograd.functional.jacobian(outputs, start)
    noise = torch.cat(
        [run.noise[0] * run.data.counts.double(), torch.full_like(run.data.forces.flatten(), run.noise[1])]
    )
    return rows, torch.cat([run.data.energies, run.data.forces.flatten()]), noise


def covariance(member):
    return member.root @ member.root.T


def dense_precision(rows, noise, trained):
    """Of the weights, given the rows and the prior that is told in words."""
    features, constants = trained[: SMALL.width].square().mean(), trained[SMALL.width :].square().mean().clamp_min(1.0)
    prior = torch.cat([features.expand(SMALL.width), constants.expand(3)])
    return rows.T @ (rows / noise[:, None]) + torch.diag(1 / prior)


@pytest.fixture(scope="module")
def weights(run):
    return torch.cat([run.energy.head, run.energy.shift])[:, 0].detach()


def test_laplace_has_the_covariance_of_dense_algebra_about_the_trained_weights(run, jacobian, weights):
    rows, _, noise = jacobian
    (member,) = LastLayerLaplace().members(run)
    torch.testing.assert_close(member.mean, weights, rtol=1e-12, atol=0)
    wanted = dense_precision(rows, noise, weights).inverse()
    torch.testing.assert_close(covariance(member), wanted, rtol=1e-8, atol=1e-10 * float(wanted.abs().max()))


def test_frozen_features_is_ridge_regression_on_the_labels(run, jacobian, weights):
    rows, labels, noise = jacobian
    (member,) = FrozenFeatures().members(run)
    precision = dense_precision(rows, noise, weights)
    wanted = torch.linalg.solve(precision, rows.T @ (labels / noise))
    torch.testing.assert_close(member.mean, wanted, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(covariance(member), precision.inverse(), rtol=1e-8, atol=1e-12)


def test_force_covariance_is_that_of_the_weights_carried_by_the_jacobian(run, jacobian):
    rows = jacobian[0][len(run.data) :]
    members = LastLayerLaplace().members(run)
    found = moments(members, run.labelled.structures)["forces"]
    wanted = rows @ covariance(members[0]) @ rows.T
    scale = float(wanted.abs().max())
    torch.testing.assert_close(found.factor @ found.factor.T, wanted, rtol=0, atol=1e-10 * scale)
    torch.testing.assert_close(found.variance, wanted.diagonal(), rtol=1e-6, atol=1e-10 * scale)


def test_the_stochastic_search_finds_the_closed_form(run):
    (exact,) = FrozenFeatures().members(run)
    (found,) = VariationalLastLayer(steps=400, rate=0.02).members(run)
    whitening = torch.linalg.inv(torch.linalg.cholesky(covariance(exact)))
    assert float((whitening @ (found.mean - exact.mean)).abs().max()) < 0.1
    white = whitening @ covariance(found) @ whitening.T
    torch.testing.assert_close(white, torch.eye(len(white)).to(white), rtol=0, atol=0.1)


@pytest.fixture(scope="module")
def shallow(run):
    """A shallow ensemble: energies before and after the training of the heads, and the member made of them."""
    seen = []

    def recorded(start, *parts, **options):
        seen.extend([start, trained(start, *parts, **options)])
        return seen[-1]

    trained = neural_last_layer.trained
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neural_last_layer, "trained", recorded)
        members = ShallowEnsemble(heads=HEADS, epochs=5, rate=5e-3).members(run)
    return (*seen, members)


def test_the_moments_of_a_shallow_ensemble_are_those_of_its_heads(run, shallow):
    _, heads, members = shallow
    found = moments(members, run.labelled.structures)
    each = heads(run.data.environment)
    base = run.energy.baseline(run.labelled.structures)
    for name, rows, below in (("energy", each.energy, base[0]), ("forces", each.forces, base[1].flatten())):
        torch.testing.assert_close(found[name].mean, (rows.mean(1) + below).detach(), rtol=1e-10, atol=1e-10)
        wanted = torch.cov(rows.detach())
        factor = found[name].factor
        torch.testing.assert_close(factor @ factor.T, wanted, rtol=0, atol=1e-10 * float(wanted.abs().max()))


def test_training_the_heads_makes_the_labels_more_probable(run, shallow):
    loss = probability_loss("nll", *run.noise)
    before, after, _ = shallow
    assert before.head.shape == (SMALL.width, HEADS)
    assert score(after, run.validation, loss) < score(before, run.validation, loss)


def test_heads_start_as_draws_of_the_laplace_approximation(run):
    (member,) = LastLayerLaplace().members(run)
    start = ShallowEnsemble(heads=4000)._start(run)
    heads = torch.cat([start.head, start.shift]).detach()
    white = torch.linalg.solve(torch.linalg.cholesky(covariance(member)), heads - member.mean[:, None])
    torch.testing.assert_close(white @ white.T / 4000, torch.eye(len(white)).to(white), rtol=0, atol=0.1)


def test_same_seed_same_heads(run):
    spec = ShallowEnsemble(heads=3, epochs=1, score="crps")
    one, same, other = (spec.members(part)[0] for part in (run, run, replace(run, seed=7)))
    assert torch.equal(one.root, same.root) and torch.equal(one.mean, same.mean)
    assert not torch.equal(one.root, other.root)
    assert one.root.shape == (SMALL.width + 3, 3)


@pytest.mark.parametrize("kind", [LastLayerLaplace, FrozenFeatures])
def test_mean_and_covariance_of_forces_turn_with_the_molecule(run, kind, normal):
    members, structures = kind().members(run), run.labelled.structures[:1]
    turn = -torch.linalg.qr(normal(3, 3))[0]
    moved = replace(structures, positions=structures.positions @ turn.T + 2.0)
    here, there = (moments(members, part) for part in (structures, moved))
    torch.testing.assert_close(there["energy"].mean, here["energy"].mean, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(there["energy"].variance, here["energy"].variance, rtol=1e-8, atol=0)
    every = torch.block_diag(*[turn] * 9)
    torch.testing.assert_close(there["forces"].mean, every @ here["forces"].mean, rtol=0, atol=1e-9)
    wanted = every @ here["forces"].factor @ here["forces"].factor.T @ every.T
    factor = there["forces"].factor
    torch.testing.assert_close(factor @ factor.T, wanted, rtol=0, atol=1e-9 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    "bad", [{"heads": 1}, {"epochs": 0}, {"rate": 0.0}, {"score": "mse"}], ids=lambda bad: next(iter(bad))
)
def test_a_shallow_ensemble_that_cannot_be(bad):
    with pytest.raises(DataError, match=next(iter(bad))):
        ShallowEnsemble(**bad)
