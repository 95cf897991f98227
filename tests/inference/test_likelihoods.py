"""Each law is a density, draws of it are recovered, and it is the mixture of normal laws that it says."""

import math

import pytest
import torch
from scipy import stats

from bayesmol.errors import DataError
from bayesmol.inference.likelihoods import (
    ContaminatedNoise,
    GaussianNoise,
    KnownNoise,
    LaplaceNoise,
    StudentNoise,
)

FREE = {
    GaussianNoise(): [0.3],
    StudentNoise(): [-0.2, 1.1],
    LaplaceNoise(): [0.4],
    ContaminatedNoise(): [-0.3, -1.0, 0.2],
    KnownNoise(): [],
    KnownNoise(jitter=True): [-0.5],
}
LAWS = pytest.mark.parametrize("law", FREE, ids=repr)


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def errors_for(law, rows):
    return torch.full((rows,), 0.7, dtype=torch.float64) if isinstance(law, KnownNoise) else None


@LAWS
def test_density_integrates_to_one(law):
    grid = torch.linspace(-3000, 3000, 600_001, dtype=torch.float64)
    density = law.log_prob(grid, errors_for(law, len(grid)), tensor(FREE[law])).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-5)


@LAWS
def test_leading_axes_are_draws(law):
    free = tensor(FREE[law]) + torch.zeros(2, 3, len(FREE[law]), dtype=torch.float64)
    residuals = tensor([0.0, 0.5, -2.0])
    values = law.log_prob(residuals, errors_for(law, 3), free)
    assert values.shape == (2, 3, 3) and law.log_prior(free).shape == (2, 3)
    torch.testing.assert_close(values[1, 2], law.log_prob(residuals, errors_for(law, 3), tensor(FREE[law])))
    assert all(part.shape == (2, 3) for part in law.parameters(free)) and len(law.names) == free.shape[-1]


def test_densities_are_those_of_scipy():
    e = tensor([-3.0, 0.1, 0.9])
    scale, degrees = math.exp(-0.2), math.exp(1.1)
    want = {
        GaussianNoise(): stats.norm(0, math.exp(0.3)).logpdf(e),
        StudentNoise(): stats.t(degrees, 0, scale).logpdf(e),
        LaplaceNoise(): stats.laplace(0, math.exp(0.4)).logpdf(e),
        KnownNoise(): stats.norm(0, 0.7).logpdf(e),
        KnownNoise(jitter=True): stats.norm(0, math.hypot(0.7, math.exp(-0.5))).logpdf(e),
    }
    for law, value in want.items():
        torch.testing.assert_close(law.log_prob(e, errors_for(law, 3), tensor(FREE[law])), tensor(value))
    scale, fraction, ratio = ContaminatedNoise().parameters(tensor(FREE[ContaminatedNoise()]))
    inlier, outlier = (stats.norm(0, float(s)).pdf(e) for s in (scale, ratio * scale))
    value = tensor((1 - float(fraction)) * inlier + float(fraction) * outlier).log()
    torch.testing.assert_close(ContaminatedNoise().log_prob(e, None, tensor(FREE[ContaminatedNoise()])), value)


@LAWS
def test_variances_have_the_conditional_law_of_the_mixture(law, source):
    # p(e) E[1/v | e] = −p'(e)/e holds for every scale mixture of normal laws
    free, rows = tensor(FREE[law]), 200_000
    for value in (0.05, 0.8, 3.0):
        e = torch.full((rows,), value, dtype=torch.float64)
        drawn = law.variances(e, errors_for(law, rows), free, source).reciprocal()
        point = tensor([value]).requires_grad_()
        law.log_prob(point, errors_for(law, 1), free).sum().backward()
        error = float(drawn.std()) / rows**0.5
        assert float(drawn.mean()) == pytest.approx(-float(point.grad) / value, abs=5 * error + 1e-9)


@LAWS
def test_prior_is_proper(law):
    if not law.names:
        assert float(law.log_prior(tensor([]))) == 0
        return
    grid = torch.linspace(-40, 40, 8001, dtype=torch.float64)
    for axis in range(len(law.names)):
        free = torch.zeros(len(grid), len(law.names), dtype=torch.float64)
        free[:, axis] = grid
        density = law.log_prior(free).exp()
        assert bool((density[[0, -1]] < 1e-12 * density.max()).all())


def test_known_noise_needs_errors():
    with pytest.raises(DataError, match="standard error"):
        KnownNoise().check(None)
    with pytest.raises(DataError, match="standard error"):
        KnownNoise(jitter=True).check(tensor([0.1, 0.0]))
    with pytest.raises(DataError, match="standard error"):
        KnownNoise().log_prob(tensor([0.1, 0.0]), None, tensor([]))
    GaussianNoise().check(None)
