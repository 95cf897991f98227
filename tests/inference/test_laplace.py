"""Last layers: closed forms, the maximum of the evidence, and calibration by simulation."""

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.conjugate import log_evidence, posterior_from_rows
from bayesmol.inference.laplace import evidence_precision, laplace, ridge
from bayesmol.inference.simulation import simulated_ranks
from bayesmol.inference.streaming import Stream


def sums(model):
    """Gram matrix and moment of the rows, as a stream sums them up."""
    noise = torch.full_like(model.targets, model.noise**2)
    stream = Stream.empty(model.design.shape[1])
    for part in torch.arange(len(noise)).split(17):
        stream = stream.updated(model.design[part], model.targets[part], noise[part])
    return stream.gram, stream.moment


def test_ridge_is_the_conjugate_posterior(linear, normal):
    model, rows = linear(), normal(7, 5)
    found = ridge(*sums(model), precision=model.scale**-2)
    torch.testing.assert_close(found.mean, model.mean)
    torch.testing.assert_close(found.covariance(rows), rows @ model.covariance @ rows.T)
    noise = torch.full_like(model.targets, model.noise**2)
    other = posterior_from_rows(model.design * model.scale, model.targets, noise)
    torch.testing.assert_close(found.variance(rows), other.variance(rows * model.scale))


def test_laplace_stays_at_the_trained_weights(linear, normal):
    model, rows, trained = linear(), normal(7, 5), normal(5)
    found = laplace(sums(model)[0], trained, precision=model.scale**-2)
    torch.testing.assert_close(found.mean, trained)
    torch.testing.assert_close(found.covariance(rows), rows @ model.covariance @ rows.T)


def test_single_precision_is_solved_in_double(linear, normal):
    model = linear()
    gram, moment = sums(model)
    found = ridge(gram.float(), moment.float())
    assert found.mean.dtype == found.root.dtype == torch.float64
    assert laplace(gram.float(), moment.float()).mean.dtype == torch.float64
    torch.testing.assert_close(found.mean, ridge(gram, moment).mean, rtol=1e-4, atol=1e-5)


def test_posterior_can_be_updated_and_drawn(linear):
    """The result is a posterior like any other: half of the data, then the rest."""
    model = linear()
    noise = torch.full_like(model.targets, model.noise**2)
    half = Stream.empty(5).updated(model.design[:30], model.targets[:30], noise[:30])
    found = ridge(half.gram, half.moment, precision=model.scale**-2)
    found = found.updated(model.design[30:], model.targets[30:], noise[30:])
    torch.testing.assert_close(found.mean, model.mean)
    draws = found.sample(50_000, seed=0)
    torch.testing.assert_close(draws.T.cov(), model.covariance, rtol=0.05, atol=2e-4)


def test_precision_maximises_the_evidence(linear):
    model = linear(weights=6)
    groups = torch.tensor([0, 0, 1, 1, 1, 0])
    found = evidence_precision(*sums(model)[:1], moment=sums(model)[1], groups=groups)
    assert len(found.unique()) == 2

    def evidence(first, second):
        scales = torch.stack([first, second])[groups]
        kernel = (model.design / scales) @ model.design.T + model.noise**2 * torch.eye(60)
        return log_evidence(kernel, model.targets)

    free = torch.stack([found[0], found[2]]).log().requires_grad_()
    best = evidence(*free.exp())
    (slope,) = torch.autograd.grad(best, free)
    torch.testing.assert_close(slope, torch.zeros(2).double(), rtol=0, atol=1e-4)
    for step in (torch.tensor([0.3, 0.0]), torch.tensor([0.0, -0.3])):
        assert bool(evidence(*(free.detach() + step).exp()) < best)


def test_precision_about_trained_weights_is_a_fixed_point(linear, normal):
    gram, trained = sums(linear())[0], normal(5)
    found = evidence_precision(gram, mean=trained)
    determined = 5 - float((found * torch.linalg.inv(gram + torch.diag(found)).diagonal()).sum())
    assert float(found[0]) == pytest.approx(determined / float(trained.square().sum()), rel=1e-5)
    torch.testing.assert_close(laplace(gram, trained).root, laplace(gram, trained, precision=found).root)


@pytest.mark.parametrize("factor", [1.0, 0.6])
def test_simulation_based_calibration(normal, factor):
    """The right posterior passes; with its deviations times 0.6 it does not."""
    design = normal(8, 3)

    def posterior(targets, source):
        found = ridge(design.T @ design / 0.25, design.T @ targets / 0.25, precision=1.0)
        return found.mean + factor * (found.sample(31, seed=source) - found.mean)

    ranks = simulated_ranks(
        lambda source: torch.randn(3, generator=source, dtype=torch.float64),
        lambda vector, source: design @ vector + 0.5 * torch.randn(8, generator=source, dtype=torch.float64),
        posterior,
        simulations=400,
        draws=31,
        seed=0,
    )
    assert (ranks.p_value > 0.01) if factor == 1 else (ranks.p_value < 0.003)


def test_bad_input_is_named(normal):
    gram = torch.eye(3).double()
    with pytest.raises(ShapeError, match="gram"):
        laplace(gram, normal(4))
    with pytest.raises(DataError, match="precision"):
        ridge(gram, normal(3), precision=0.0)
    with pytest.raises(DataError, match="mean, moment"):
        evidence_precision(gram, mean=normal(3), moment=normal(3))
    with pytest.raises(ConvergenceError, match="precision"):
        evidence_precision(gram, moment=torch.zeros(3).double())
