import math

import numpy as np
import pytest
import scoringrules
import torch
from scipy import integrate, stats

from bayesmol.calibration.metrics import (
    auroc,
    coverage,
    crps,
    interval_area,
    mean_absolute_error,
    miscalibration_area,
    nll,
    pointwise_crps,
    root_mean_square_error,
    separation,
    z_std,
)
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Draws, Gaussian, Interval, Laplace, Mixture, StudentT


@pytest.fixture
def sample():
    source = torch.Generator().manual_seed(3)
    mean = torch.randn(400, 3, generator=source, dtype=torch.float64)
    stddev = 0.1 + torch.rand(400, 3, generator=source, dtype=torch.float64)
    truth = mean + 1.3 * stddev * torch.randn(400, 3, generator=source, dtype=torch.float64) + 0.05
    return Gaussian(mean, stddev**2, unit="eV/Å"), truth


def test_errors_by_hand():
    posterior = Gaussian(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 4.0]), unit="eV")
    truth = torch.tensor([3.0, -3.0])
    assert float(mean_absolute_error(posterior, truth)) == 3.5
    assert float(root_mean_square_error(posterior, truth)) == pytest.approx(math.sqrt(12.5))
    # z = 3 and −2
    assert float(z_std(posterior, truth)) == pytest.approx(2.5)
    expected = -stats.norm.logpdf([3.0, -3.0], [0.0, 1.0], [1.0, 2.0]).mean()
    assert float(nll(posterior, truth)) == pytest.approx(expected, rel=1e-6)
    assert float(mean_absolute_error(posterior, truth, torch.tensor([3.0, 1.0]))) == pytest.approx(13 / 4)


def test_coverage_of_interval_and_posterior():
    z = float(stats.norm.ppf(0.95))
    posterior = Gaussian(torch.zeros(4), torch.ones(4), unit="eV")
    truth = torch.tensor([0.0, z - 1e-3, z + 1e-3, -9.0])
    assert float(coverage(posterior, truth, 0.9)) == 0.5
    interval = Interval(torch.full((4,), -1.0), torch.full((4,), 1.0), 0.5, "eV", "")
    assert float(coverage(interval, truth)) == 0.25
    assert float(coverage(interval, truth, weights=torch.tensor([3.0, 1, 1, 1]))) == 0.5


def test_miscalibration_area_is_the_integral_on_a_dense_grid(sample):
    posterior, truth = sample
    central = (2 * stats.norm.cdf(((truth - posterior.mean) / posterior.stddev).numpy()) - 1).ravel()
    central = np.sort(np.abs(central))
    grid = (np.arange(400_000) + 0.5) / 400_000
    brute = np.abs(np.searchsorted(central, grid, side="right") / central.size - grid).mean()
    assert float(miscalibration_area(posterior, truth)) == pytest.approx(brute, abs=2e-6)
    weights = torch.arange(1200, dtype=torch.float64).reshape(400, 3) % 3
    repeated = torch.repeat_interleave(torch.arange(1200), weights.flatten().long())
    picked = Gaussian(posterior.mean.flatten()[repeated], posterior.variance.flatten()[repeated], unit="eV/Å")
    direct = miscalibration_area(picked, truth.flatten()[repeated])
    assert float(miscalibration_area(posterior, truth, weights)) == pytest.approx(float(direct), abs=1e-12)


def test_miscalibration_area_closed_forms():
    assert float(interval_area(torch.zeros(5))) == pytest.approx(0.5)
    assert float(interval_area(torch.ones(5))) == pytest.approx(0.5)
    # one step at 1/2: two triangles of area 1/8 each
    assert float(interval_area(torch.tensor([0.5]))) == pytest.approx(0.25)
    n = 1000
    assert float(interval_area((torch.arange(n) + 0.5) / n)) == pytest.approx(0.25 / n, rel=1e-3)


def test_miscalibration_area_of_a_true_posterior_is_the_stated_floor():
    source = torch.Generator().manual_seed(0)
    central = torch.rand(400, 500, generator=source, dtype=torch.float64).sort(1).values
    areas = torch.stack([interval_area(row) for row in central])
    error = float(areas.std()) / math.sqrt(len(areas))
    expected = math.sqrt(2 / math.pi) * math.pi / 8 / math.sqrt(500)
    assert abs(float(areas.mean()) - expected) < 4 * error + 0.02 * expected


def test_crps_is_its_defining_integral():
    posterior = Gaussian(torch.tensor([0.3]), torch.tensor([0.49]), unit="eV")
    exact = (
        integrate.quad(lambda x: stats.norm.cdf(x, 0.3, 0.7) ** 2, -9, 1.1)[0]
        + integrate.quad(lambda x: stats.norm.sf(x, 0.3, 0.7) ** 2, 1.1, 9)[0]
    )
    assert float(crps(posterior, torch.tensor([1.1]))) == pytest.approx(exact, rel=1e-5)
    mean, variance = torch.full((3, 1), 0.3), torch.full((3, 1), 0.49)
    mixture = Mixture(mean, variance, unit="eV")
    assert float(crps(mixture, torch.tensor([1.1]))) == pytest.approx(exact, rel=0.1)


def test_crps_scales_with_the_unit(sample):
    posterior, truth = sample
    scaled = Gaussian(1000 * posterior.mean, 1e6 * posterior.variance, unit="meV/Å")
    assert float(crps(scaled, 1000 * truth)) == pytest.approx(1000 * float(crps(posterior, truth)))


def test_auroc_counts_pairs_with_ties_and_infinity():
    source = torch.Generator().manual_seed(1)
    scores = torch.randint(8, (60,), generator=source).double()
    scores[:3] = math.inf
    positives = torch.rand(60, generator=source) < 0.4
    plus, minus = scores[positives], scores[~positives]
    brute = (plus[:, None] > minus).double().mean() + 0.5 * (plus[:, None] == minus).double().mean()
    assert float(auroc(scores, positives)) == pytest.approx(float(brute), abs=1e-12)
    assert float(auroc(-positives.double(), positives)) == 0.0
    assert float(auroc(torch.zeros(60), positives)) == 0.5
    twice = torch.cat([scores, scores]), torch.cat([positives, positives])
    weights = (1 + torch.arange(60) % 2).double()
    direct = auroc(torch.cat([scores, scores[1::2]]), torch.cat([positives, positives[1::2]]))
    assert float(auroc(scores, positives, weights)) == pytest.approx(float(direct), abs=1e-12)
    assert float(auroc(*twice)) == pytest.approx(float(brute), abs=1e-12)


def test_bad_input(sample):
    posterior, truth = sample
    with pytest.raises(ShapeError, match="truth: expected shape"):
        mean_absolute_error(posterior, truth[:, 0])
    with pytest.raises(DataError, match="finite labels"):
        crps(posterior, truth.clone().fill_(math.nan))
    with pytest.raises(ShapeError, match="weights"):
        z_std(posterior, truth, torch.ones(3))
    with pytest.raises(DataError, match="positive finite variances"):
        z_std(Gaussian(torch.zeros(2), torch.zeros(2), unit="eV"), torch.ones(2))
    with pytest.raises(DataError, match="positives and negatives"):
        auroc(torch.arange(3.0), torch.ones(3, dtype=torch.bool))
    with pytest.raises(DataError, match="NaN"):
        auroc(torch.tensor([1.0, math.nan]), torch.tensor([True, False]))
    with pytest.raises(ShapeError):
        auroc(torch.arange(3.0), torch.ones(2, dtype=torch.bool))


def test_separation_has_the_error_of_repeated_samples(normal):
    found = separation(normal(40) + 1, normal(60))
    areas = torch.stack([separation(normal(40) + 1, normal(60)).value for _ in range(400)])
    assert float(found.standard_error) == pytest.approx(float(areas.std()), rel=0.4)
    truth = 0.5 * (1 + torch.erf(torch.tensor(0.5)))
    assert float(areas.mean()) == pytest.approx(float(truth), abs=5 * float(areas.std()) / 20)


def test_separation_counts_ties_half_and_takes_infinite_scores():
    strange, usual = torch.tensor([1.0, 3.0, torch.inf]).double(), torch.tensor([0.0, 1.0, 4.0]).double()
    scores, positives = torch.cat([strange, usual]), torch.arange(6) < 3
    assert float(separation(strange, usual).value) == pytest.approx(float(auroc(scores, positives)))
    assert float(separation(usual + 10, usual).standard_error) == 0
    assert torch.isinf(separation(strange[:1], usual).standard_error)


@pytest.mark.parametrize("law", ["student", "laplace"])
def test_crps_of_heavier_tails_agrees_with_draws(law):
    location, scale = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.tensor([1.0, 0.5], dtype=torch.float64)
    posterior = StudentT(location, scale, 4.0, unit="eV") if law == "student" else Laplace(location, scale, unit="eV")
    truth = torch.tensor([0.3, 2.0], dtype=torch.float64)
    draws = Draws(posterior.sample(100_000, seed=0)[None], unit="eV")
    assert torch.allclose(pointwise_crps(posterior, truth), pointwise_crps(draws, truth), atol=0.01)


def test_crps_without_mean_and_z_without_variance_are_refused():
    zero, one = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    with pytest.raises(DataError, match="degree"):
        crps(StudentT(zero, one, 1.0, unit="eV"), zero)
    with pytest.raises(DataError, match="finite variances"):
        z_std(StudentT(zero, one, 2.0, unit="eV"), zero)


def test_crps_of_a_mixture_is_the_closed_form():
    source = torch.Generator().manual_seed(0)
    means, truth = (torch.randn(*shape, generator=source, dtype=torch.float64) for shape in ((5, 60), (60,)))
    variances = torch.rand(5, 60, generator=source, dtype=torch.float64) + 0.05
    found = pointwise_crps(Mixture(means, variances, unit="eV"), 2 * truth)
    wanted = scoringrules.crps_mixnorm(2 * truth.numpy(), means.T.numpy(), variances.sqrt().T.numpy())
    torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=1e-3, atol=1e-4)


def test_crps_of_a_normal_claim_keeps_all_digits():
    zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    exact = (math.sqrt(2) - 1) / math.sqrt(math.pi)
    assert float(crps(Gaussian(zero, one, unit="eV"), zero)) == pytest.approx(exact, abs=1e-15)
    far = Gaussian(zero, one * 1e-12, unit="eV")
    assert float(crps(far, one)) == pytest.approx(1, rel=1e-5)
