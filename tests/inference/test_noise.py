"""Posteriors of laws of noise against closed forms and quadrature; the law that made the labels is found."""

import math

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.conjugate import group_members, left_out_from_covariance, posterior_from_rows
from bayesmol.inference.likelihoods import (
    GaussianNoise,
    KnownNoise,
    StudentNoise,
)
from bayesmol.inference.noise import _importance, noise_comparison, noise_posterior


def student(normal, rows, degrees=3, scale=0.05):
    return scale * normal(rows) / normal(rows, degrees).square().mean(1).sqrt()


def quadrature(law, residuals, axes):
    """Posterior weights on a grid of free parameters, and the densities of all residuals there."""
    free = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    likelihood = law.log_prob(residuals, None, free)
    return free, law.log_prior(free), likelihood


def exact_leave_one_out(law, residuals, axes):
    _, prior, likelihood = quadrature(law, residuals, axes)
    total = prior + likelihood.sum(1)
    return total.logsumexp(0) - (total.unsqueeze(1) - likelihood).logsumexp(0)


def test_parameters_are_those_of_quadrature(normal):
    residuals = student(normal, 100)
    unit = float((residuals - residuals.median()).abs().median())
    axes = [torch.linspace(-2, 2, 101, dtype=torch.float64), torch.linspace(-2, 6, 101, dtype=torch.float64)]
    free, prior, likelihood = quadrature(StudentNoise(), residuals / unit, axes)
    weights = (prior + likelihood.sum(1)).softmax(0)
    scale, degrees = StudentNoise().parameters(free)
    found = noise_posterior(StudentNoise(), residuals, draws=1000, seed=0)
    for name, values in {"scale": unit * scale, "degrees": degrees}.items():
        mean = float(weights @ values)
        spread = float(weights @ (values - mean).square()) ** 0.5
        got = found.parameters[name]
        assert float(got.mean()) == pytest.approx(mean, abs=5 * spread / 1000**0.5)
        assert float(got.std()) == pytest.approx(spread, rel=0.15)


def test_leave_one_out_of_residuals_is_exact_to_a_standard_error(normal):
    residuals = student(normal, 60)
    unit = float((residuals - residuals.median()).abs().median())
    axes = [torch.linspace(-3, 3, 101, dtype=torch.float64), torch.linspace(-3, 7, 101, dtype=torch.float64)]
    exact = exact_leave_one_out(StudentNoise(), residuals / unit, axes) - math.log(unit)
    found = noise_posterior(StudentNoise(), residuals, draws=2000, seed=0).leave_one_out()
    assert found.reliable and float(found.pareto_k.max()) < 0.7
    torch.testing.assert_close(found.pointwise, exact, atol=0.05, rtol=0)
    assert abs(float(found.total.value - exact.sum())) < 0.1 * float(found.total.standard_error)


def test_leave_one_out_of_a_linear_model_is_the_closed_form(normal):
    design, errors = normal(80, 5), 0.1 + 0.2 * normal(80).abs()
    targets = design @ normal(5) + errors * normal(80)
    covariance = design @ design.mT + torch.diag(errors.square())
    exact = -left_out_from_covariance(covariance, targets, group_members(torch.arange(80)), 80).score
    posterior = noise_posterior(KnownNoise(), targets, design, errors=errors, draws=2000, seed=0)
    found = posterior.leave_one_out()
    assert float(found.pareto_k.max()) < 0.7 and posterior.parameters == {}
    assert abs(float(found.total.value - exact.sum())) < 0.1 * float(found.total.standard_error)
    groups = torch.arange(80) // 2
    exact = -left_out_from_covariance(covariance, targets, group_members(groups), 40).score
    assert abs(float(posterior.leave_one_out(groups).total.value - exact.sum())) < 1.0


@pytest.mark.parametrize(("rows", "weights"), [(60, 4), (6, 9)])
def test_weights_are_those_of_the_conjugate_posterior(normal, rows, weights):
    design, errors = normal(rows, weights), torch.full((rows,), 0.3, dtype=torch.float64)
    targets = design @ normal(weights) + errors * normal(rows)
    want = posterior_from_rows(design, targets, errors.square())
    got = noise_posterior(KnownNoise(), targets, design, errors=errors, draws=1000, seed=0).weights.flatten(0, 1)
    spread = want.variance(torch.eye(weights, dtype=torch.float64)).sqrt()
    assert bool(((got.mean(0) - want.mean).abs() < 5 * spread / 1000**0.5).all())
    torch.testing.assert_close(got.std(0), spread, rtol=0.15, atol=0)


def test_linear_model_and_its_residuals_agree_on_the_law(normal):
    law = StudentNoise()
    design = normal(150, 2)
    noise = student(normal, 150, scale=0.3)
    targets = design @ torch.tensor([1.0, -0.5], dtype=torch.float64) + noise
    joint = noise_posterior(law, targets, design, draws=300, seed=0)
    alone = noise_posterior(law, noise, seed=0)
    for name, values in alone.parameters.items():
        assert abs(float(joint.parameters[name].mean() - values.mean())) < 0.8 * float(values.std()), name
    assert float((joint.weights.mean((0, 1)) - torch.tensor([1.0, -0.5])).abs().max()) < 0.15


def test_units_only_shift_the_densities(normal):
    residuals = student(normal, 100)
    one, other = (noise_posterior(StudentNoise(), k * residuals, seed=0) for k in (1.0, 1000.0))
    torch.testing.assert_close(other.parameters["scale"], 1000 * one.parameters["scale"])
    torch.testing.assert_close(other.log_likelihood, one.log_likelihood - math.log(1000))
    torch.testing.assert_close(other.parameters["degrees"], one.parameters["degrees"])
    again = noise_posterior(StudentNoise(), residuals, seed=0)
    assert torch.equal(again.log_likelihood, one.log_likelihood)


def test_known_errors_make_true_z_scores_and_jitter_finds_what_they_lack(normal):
    errors = 0.1 + normal(5000).abs()
    exact, lacking = errors * normal(5000), errors * normal(5000) + 0.5 * normal(5000)
    for residuals, jitter in {exact: 0.0, lacking: 0.5}.items():
        posterior = noise_posterior(KnownNoise(jitter=True), residuals, errors=errors, draws=200, seed=0)
        found = posterior.parameters["jitter"].square().mean()
        z = residuals / (errors.square() + found).sqrt()
        assert float(z.square().mean()) == pytest.approx(1.0, abs=0.05)
        assert float(found.sqrt()) == pytest.approx(jitter, abs=0.06)
    table = noise_comparison(lacking[:500], errors=errors[:500], laws=[KnownNoise(), KnownNoise(jitter=True)], seed=0)
    assert table.best == "KnownNoise(jitter=True)"


def test_the_law_of_the_labels_is_preferred(normal):
    table = noise_comparison(student(normal, 400), draws=200, seed=0)
    assert table.names[0] == "StudentNoise()" and "GaussianNoise()" in table.behind
    known = 0.1 + normal(300).abs()
    table = noise_comparison(known * normal(300), errors=known, draws=200, seed=0)
    assert table.names[0].startswith("KnownNoise") and "GaussianNoise()" in table.behind


@pytest.mark.slow
def test_student_is_preferred_for_heavy_tails(normal):
    hits = clear = 0
    for _ in range(100):
        laws = [GaussianNoise(), StudentNoise()]
        table = noise_comparison(student(normal, 500), laws=laws, seed=0)
        hits += table.names[0] == "StudentNoise()"
        clear += table.best == "StudentNoise()"
    print(f"Student preferred in {hits}, by two standard errors in {clear} of 100")
    assert hits >= 95


def spiked(free):
    """Density of a narrow spike on a wide plain, of which a normal approximation knows nothing."""
    return torch.where(free[..., 0].abs() < 1e-3, 0.0, -20.0) - 1e-6 * free[..., 0].square()


def test_bad_input(normal):
    with pytest.raises(ShapeError, match="rows"):
        noise_posterior(GaussianNoise(), normal(5), normal(4, 2), seed=0)
    with pytest.raises(ShapeError, match="rows"):
        noise_posterior(GaussianNoise(), normal(5), errors=normal(4).abs(), seed=0)
    with pytest.raises(DataError, match="finite"):
        noise_posterior(GaussianNoise(), normal(5) / 0, seed=0)
    with pytest.raises(DataError, match="zeros"):
        noise_posterior(GaussianNoise(), torch.zeros(5, dtype=torch.float64), seed=0)
    with pytest.raises(DataError, match="draws"):
        noise_posterior(GaussianNoise(), normal(5), draws=10, seed=0)
    with pytest.raises(DataError, match="standard error"):
        noise_posterior(KnownNoise(), normal(5), seed=0)
    with pytest.raises(ConvergenceError, match="effective"):
        _importance(spiked, 1, 1000, torch.Generator().manual_seed(0))
