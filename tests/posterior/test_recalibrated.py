import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior.draws import Draws
from bayesmol.posterior.gaussian import Gaussian
from bayesmol.posterior.location_scale import Laplace, StudentT
from bayesmol.posterior.mixture import Mixture
from bayesmol.posterior.recalibrated import Recalibrated
from bayesmol.testing import check_posterior

CURVE = torch.tensor([[0.0, 0.1, 0.5, 0.8, 1.0], [0.0, 0.25, 0.4, 0.9, 1.0]], dtype=torch.float64)
OTHER = torch.tensor([[0.0, 0.4, 1.0], [0.0, 0.6, 1.0]], dtype=torch.float64)
SAME = torch.tensor([[0.0, 0.3, 1.0], [0.0, 0.3, 1.0]], dtype=torch.float64)
KINDS = ["gaussian", "student", "degrees", "laplace", "mixture"]


@pytest.fixture
def bases(normal):
    mean, scale = normal(6, 2), 0.2 + normal(6, 2).abs()
    return {
        "gaussian": Gaussian(mean, scale.square(), unit="eV"),
        "student": StudentT(mean, scale, 6.0, unit="eV"),
        "degrees": StudentT(mean, scale, torch.linspace(5, 20, 12, dtype=torch.float64).reshape(6, 2), unit="eV"),
        "laplace": Laplace(mean, scale, unit="eV"),
        "mixture": Mixture(normal(3, 6, 2), 0.1 + normal(3, 6, 2).square(), unit="eV"),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_contract(bases, kind):
    check_posterior(Recalibrated(bases[kind][:3], (OTHER, CURVE), torch.tensor([1, 0, 1])))


@pytest.mark.parametrize("kind", KINDS)
def test_moments_are_exact(bases, kind):
    """Against sums over a fine grid of the distribution function."""
    posterior = Recalibrated(bases[kind], (CURVE,))
    edges = torch.linspace(-100, 100, 40_001, dtype=torch.float64)
    share = posterior.cdf(edges[:, None, None].expand(-1, 6, 2)).diff(dim=0)
    middle = ((edges[1:] + edges[:-1]) / 2)[:, None, None]
    mean = (share * middle).sum(0)
    torch.testing.assert_close(posterior.mean, mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(posterior.variance, (share * (middle - mean).square()).sum(0), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_curve_that_changes_nothing(bases, kind, normal):
    base, value = bases[kind], normal(3, 6, 2)
    same = Recalibrated(base, (SAME,))
    torch.testing.assert_close(same.mean, base.mean)
    torch.testing.assert_close(same.variance, base.variance)
    torch.testing.assert_close(same.cdf(value), base.cdf(value))
    torch.testing.assert_close(same.log_prob(value), base.log_prob(value))
    torch.testing.assert_close(same.quantile(0.83), base.quantile(0.83))
    torch.testing.assert_close(same.sample(5, seed=1), base.sample(5, seed=1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_distribution_function_density_and_quantile_belong_together(bases, kind):
    posterior, step = Recalibrated(bases[kind], (CURVE,)), 1e-6
    for p in (0.01, 0.3, 0.6, 0.97):
        value = posterior.quantile(p)
        torch.testing.assert_close(posterior.cdf(value), torch.full((6, 2), p).double())
        slope = (posterior.cdf(value + step) - posterior.cdf(value - step)) / (2 * step)
        torch.testing.assert_close(posterior.log_prob(value).exp(), slope, rtol=1e-5, atol=1e-8)


def test_the_curve_moves_probabilities(bases):
    posterior = Recalibrated(bases["gaussian"], (CURVE,))
    for old, new in CURVE[:, 1:-1].T.tolist():
        torch.testing.assert_close(posterior.quantile(new), bases["gaussian"].quantile(old))


def test_rows_of_a_category_are_the_rows_of_its_curve(bases, normal):
    category, value = torch.tensor([1, 0, 0, 1, 1, 0]), normal(4, 6, 2)
    for base in (bases["degrees"], bases["gaussian"]):
        both = Recalibrated(base, (OTHER, CURVE), category)
        for k, curve in enumerate((OTHER, CURVE)):
            rows, single = category == k, Recalibrated(base, (curve,))
            for name in ("mean", "variance"):
                torch.testing.assert_close(getattr(both, name)[rows], getattr(single, name)[rows])
            for name in ("cdf", "log_prob"):
                torch.testing.assert_close(getattr(both, name)(value)[:, rows], getattr(single, name)(value)[:, rows])
            torch.testing.assert_close(both.quantile(0.3)[rows], single.quantile(0.3)[rows])
            torch.testing.assert_close(both.sample(3, seed=0)[:, rows], single.sample(3, seed=0)[:, rows])
        chosen = both[torch.tensor([4, 1])]
        torch.testing.assert_close(chosen.quantile(0.3), both.quantile(0.3)[[4, 1]])
        torch.testing.assert_close(both[3].mean, both.mean[3])


def test_draws_keep_the_dependence_between_entries():
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    base = Gaussian(torch.zeros(2).double(), torch.ones(2).double(), unit="eV", covariance=covariance)
    draws = Recalibrated(base, (CURVE,)).sample(4000, seed=0)
    ranks, old = draws.argsort(0).argsort(0).double(), base.sample(4000, seed=0).argsort(0).argsort(0).double()
    assert torch.equal(ranks, old)
    assert float(torch.corrcoef(ranks.T)[0, 1]) == pytest.approx(6 / math.pi * math.asin(0.45), abs=0.03)


def test_float32_stays(bases):
    base = Gaussian(bases["gaussian"].mean.float(), bases["gaussian"].variance.float(), unit="eV")
    posterior = Recalibrated(base, (CURVE,))
    check_posterior(posterior)
    for result in (posterior.mean, posterior.variance, posterior.cdf(0.1), posterior.log_prob(0.1)):
        assert result.dtype == torch.float32
    assert posterior.sample(2, seed=0).dtype == posterior.quantile(0.1).dtype == torch.float32


def test_tails_without_moments():
    location = torch.zeros(2, dtype=torch.float64)
    heavy = Recalibrated(StudentT(location, location + 1, 2.0, unit="eV"), (CURVE,))
    assert bool(heavy.variance.isinf().all()) and bool(heavy.mean.isfinite().all())
    cauchy = Recalibrated(StudentT(location, location + 1, 1.0, unit="eV"), (CURVE,))
    assert cauchy.shape == (2,) and len(cauchy) == 2 and bool((cauchy.interval(0.5).width > 0).all())
    with pytest.raises(DataError, match="more than 1"):
        _ = cauchy.mean


@pytest.mark.parametrize(
    ("curve", "match"),
    [
        (torch.zeros(3, 4), "two rows"),
        (CURVE[:, 1:], "two rows from 0 to 1"),
        (torch.tensor([[0.0, 0.5, 0.5, 1.0], [0.0, 0.2, 0.3, 1.0]]), "ascending"),
        (torch.tensor([[0.0, 0.4, 0.5, 1.0], [0.0, 0.3, 0.3, 1.0]]), "ascending"),
        (torch.tensor([[0.0, math.nan, 1.0], [0.0, 0.3, 1.0]]), "ascending"),
    ],
)
def test_bad_curves_are_refused(bases, curve, match):
    with pytest.raises(DataError, match=match):
        Recalibrated(bases["gaussian"], (curve,))


def test_bad_input_is_refused(bases, normal):
    base = bases["gaussian"]
    with pytest.raises(DataError, match="Mixture"):
        Recalibrated(Draws(normal(1, 5, 3), unit="eV"), (CURVE,))
    with pytest.raises(DataError, match="positive variances"):
        Recalibrated(Gaussian(base.mean, 0 * base.variance, unit="eV"), (CURVE,))
    with pytest.raises(ShapeError, match="which of the 2 curves"):
        Recalibrated(base, (CURVE, OTHER))
    with pytest.raises(ShapeError, match="one number a row"):
        Recalibrated(base, (CURVE, OTHER), torch.zeros(2, dtype=torch.long))
    with pytest.raises(DataError, match="from 0 to 1"):
        Recalibrated(base, (CURVE, OTHER), torch.tensor([0, 1, 2, 0, 0, 0]))
