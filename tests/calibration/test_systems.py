import math

import numpy as np
import pytest
import torch
from scipy import stats

from bayesmol.calibration.reference import coverage_band
from bayesmol.calibration.systems import ConformalDistribution, ConformalSystem, OutwardQuantiles, ResidualLaw
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Gaussian
from bayesmol.testing import assert_calibrated, check_posterior


def gaussian(mean, stddev=1.0, unit="eV"):
    return Gaussian(mean, torch.as_tensor(stddev).to(mean).square().expand_as(mean), unit=unit)


@pytest.fixture
def system(normal):
    """System of 60 labels whose noise is skewed, and the residuals."""
    mean, stddev = normal(60), 0.5 + normal(60).abs()
    scores = normal(60).square() - 0.3
    return ConformalSystem().fit(gaussian(mean, stddev), mean + stddev * scores), scores


def test_contract(normal, system):
    fitted, _ = system
    check_posterior(fitted(gaussian(normal(20), 0.5)))
    check_posterior(fitted(gaussian(normal(4, 3).float(), 2.0)))
    check_posterior(fitted(gaussian(1e6 + normal(20).float(), 2.0)))
    tied = ConformalSystem().fit(gaussian(normal(40).round()), normal(40).round())
    check_posterior(tied(gaussian(normal(20))))


def test_is_the_definition(normal, system):
    fitted, scores = system
    mean, stddev = normal(9), 0.5 + normal(9).abs()
    law, values = fitted(gaussian(mean, stddev)), 2 * normal(9)
    atoms = mean[:, None] + stddev[:, None] * scores
    smaller = (atoms < values[:, None]).sum(1)
    torch.testing.assert_close(law.cdf(values), (smaller.double() + 0.5) / 61)
    draws = torch.stack([law.pit(values, seed=s) for s in range(300)])
    assert bool((draws.amin(0) >= smaller / 61).all() & (draws.amax(0) <= (smaller + 1) / 61).all())
    torch.testing.assert_close(draws.mean(0), (smaller.double() + 0.5) / 61, rtol=0, atol=5 / 61 / math.sqrt(12 * 300))
    torch.testing.assert_close(law.mean, atoms.mean(1))
    torch.testing.assert_close(law.variance, atoms.var(1, correction=0))
    ordered = atoms.sort(1).values
    for p in (0.01, 0.2, 0.5, 0.9, 0.99):
        torch.testing.assert_close(law.quantile(p), ordered[:, math.ceil(61 * p - 0.5 - 1e-9) - 1])


def test_ties_share_their_probability(normal):
    fitted = ConformalSystem().fit(
        gaussian(torch.zeros(4).double()), torch.tensor([0.1, 0.3, 0.3, 0.7], dtype=torch.float64)
    )
    law = fitted(gaussian(torch.full((1,), 5.0, dtype=torch.float64), 3.0))
    tied = torch.full((1,), 5 + 3 * 0.3, dtype=torch.float64)
    draws = torch.stack([law.pit(tied, seed=s) for s in range(400)])
    assert 0.2 <= float(draws.min()) < 0.22 and 0.78 < float(draws.max()) <= 0.8
    assert float(law.cdf(tied)) == pytest.approx(3.5 / 5)


def test_pit_is_uniform_whatever_the_model(normal):
    # Standard deviations and means that are wrong: one new label for each of 600 calibration sets.
    found = []
    for seed in range(600):
        truth = normal(13).exp()
        fitted = ConformalSystem().fit(gaussian(torch.ones(12).double(), 0.2), truth[:12])
        found.append(float(fitted(gaussian(torch.ones(1).double(), 0.2)).pit(truth[12:], seed=seed)))
    assert stats.kstest(found, "uniform").pvalue > 1e-4
    plain = [stats.norm.cdf(x, 1, 0.2) for x in normal(600).exp().tolist()]
    assert stats.kstest(plain, "uniform").pvalue < 1e-10


def test_tails_beyond_the_sample_are_infinite(normal, system):
    law = system[0](gaussian(normal(3)))
    assert bool(law.quantile(0.5 / 61 - 1e-6).isinf().all() & law.quantile(1 - 0.5 / 61 + 1e-6).isinf().all())
    assert bool(law.quantile(0.5 / 61 + 1e-6).isfinite().all() & law.quantile(1 - 0.5 / 61 - 1e-6).isfinite().all())
    assert float(law.cdf(-1e9)[0]) == pytest.approx(0.5 / 61) and float(law.cdf(1e9)[0]) == pytest.approx(60.5 / 61)
    interval = law.interval(0.97)
    assert bool(interval.width.isinf().all())
    assert "needs n ≥ 66" in interval.guarantee and "got 60" in interval.guarantee
    assert bool(law.interval(0.96).width.isfinite().all())


@pytest.mark.parametrize("level", [0.5, 0.8])
def test_interval_takes_the_next_residual_outwards(normal, level):
    count = 33
    scores = normal(count).sort().values
    fitted = ConformalSystem().fit(gaussian(torch.zeros(count).double()), scores)
    interval = fitted(gaussian(torch.zeros(2).double())).interval(level)
    side = (1 - level) / 2
    assert float(interval.lower[0]) == float(scores[math.floor((count + 1) * side + 1e-9) - 1])
    assert float(interval.upper[0]) == float(scores[math.ceil((count + 1) * (1 - side) - 1e-9) - 1])
    assert f"≥ {level:g}" in interval.guarantee and "n = 33" in interval.guarantee


def test_interval_covers_in_the_exact_band(normal):
    # 39 scores at level 0.9: ranks 2 and 38, which leaves 36 of 40 gaps
    hits = 0
    for _ in range(600):
        scores = normal(40) ** 3
        fitted = ConformalSystem().fit(gaussian(torch.zeros(39).double(), 0.3), scores[:39])
        hits += int(fitted(gaussian(torch.zeros(1).double(), 0.3)).interval(0.9).contains(scores[39:]).sum())
    assert_calibrated(hits, 600, 0.9, confidence=0.999)
    fitted = ConformalSystem().fit(gaussian(torch.zeros(399).double()), normal(399))
    covered = fitted(gaussian(torch.zeros(4000).double())).interval(0.9).covered(normal(4000))
    low, high = coverage_band(399, 4000, 0.9, confidence=0.9999)
    assert low <= covered <= high


def test_structures_have_one_weight(normal):
    # Rows of forces: four structures of 1, 2, 3 and 4 atoms with three components each
    pointer = torch.tensor([1, 2, 3, 4])
    groups, truth = torch.repeat_interleave(pointer), normal(10, 3)
    fitted = ConformalSystem().fit(gaussian(torch.zeros(10, 3).double()), truth, groups=groups)
    weights = (1 / (3 * pointer.double()))[groups].repeat_interleave(3)
    law = fitted(gaussian(torch.zeros(2, 3).double()))
    for value in (-1.0, 0.2, 1.3):
        want = ((weights * (truth.flatten() <= value)).sum() + 0.5) / 5
        torch.testing.assert_close(law.cdf(value), want.expand(2, 3))
    torch.testing.assert_close(law.mean, ((weights * truth.flatten()).sum() / 4).expand(2, 3))
    assert bool(law.interval(0.9).width.isinf().all()) and bool(law.interval(0.6).width.isfinite().all())
    assert "a random component of a new structure" in law.interval(0.5).guarantee
    draws = law.sample(20000, seed=0)
    share = float((draws <= 0.2).double().mean())
    assert share == pytest.approx(float((weights * (truth.flatten() <= 0.2)).sum() / 4), abs=0.01)
    check_posterior(ConformalSystem().fit(gaussian(normal(90, 3)), normal(90, 3), groups=torch.arange(90) // 2)(law))


def test_crps_is_that_of_the_atoms(normal, system):
    fitted, scores = system
    mean, stddev, values = normal(9), 0.5 + normal(9).abs(), 3 * normal(9)
    found = fitted(gaussian(mean, stddev)).crps(values)
    atoms = mean[:, None] + stddev[:, None] * scores
    spread = (atoms[:, :, None] - atoms[:, None]).abs().mean((1, 2)) / 2
    torch.testing.assert_close(found, (atoms - values[:, None]).abs().mean(1) - spread)


def test_a_floor_holds_in_calibration_and_prediction(normal):
    truth = normal(30)
    exact = Gaussian(torch.zeros(30).double(), torch.zeros(30).double(), unit="eV")
    with pytest.raises(DataError, match="give a floor"):
        ConformalSystem().fit(exact, truth)
    fitted = ConformalSystem(floor=0.5).fit(exact, truth)
    torch.testing.assert_close(fitted(exact).mean, truth.mean().expand(30))
    with pytest.raises(DataError, match="give a floor"):
        ConformalSystem().fit(gaussian(torch.zeros(30).double()), truth)(exact)


def test_selection_keeps_law_and_rule(normal, system):
    law = system[0](gaussian(normal(5, 3)))
    part = law[torch.tensor([3, 1])]
    assert torch.equal(part.quantile(0.3), law.quantile(0.3)[[3, 1]])
    assert torch.equal(part.interval(0.8).lower, law.interval(0.8).lower[[3, 1]])
    assert law.with_rule(None)[:2].rule is None and law.unit == part.unit == "eV"
    assert repr(part) == "ConformalDistribution(shape=(2, 3), unit='eV')"


def test_many_points_and_scores_are_fast(normal):
    import time

    mean, truth = normal(100_000), normal(100_000)
    fitted = ConformalSystem().fit(gaussian(mean[:10_000]), truth[:10_000])
    start = time.process_time()
    pit = fitted(gaussian(mean)).pit(truth, seed=0)
    # 10⁹ comparisons would take many seconds
    assert time.process_time() - start < 1.0
    assert 0.45 < float(pit.mean()) < 0.55


def test_bad_input(normal, system):
    fitted, _ = system
    with pytest.raises(DataError, match="floor"):
        ConformalSystem(floor=-1.0)
    with pytest.raises(ShapeError, match="truth"):
        ConformalSystem().fit(gaussian(normal(5)), normal(4))
    with pytest.raises(DataError, match="finite"):
        ConformalSystem().fit(gaussian(normal(5)), normal(5) * math.nan)
    law = ResidualLaw.of(normal(5), torch.arange(5))
    with pytest.raises(ShapeError, match="scale"):
        ConformalDistribution(normal(3), torch.ones(2).double(), law, unit="eV")
    with pytest.raises(DataError, match="positive scales"):
        ConformalDistribution(normal(3), torch.zeros(3).double(), law, unit="eV")
    with pytest.raises(DataError, match="ConformalDistribution"):
        gaussian(normal(3)).with_rule(OutwardQuantiles()).interval(0.9)
    with pytest.raises(DataError, match="density"):
        fitted(gaussian(normal(3))).log_prob(0.0)
    with pytest.raises(ShapeError, match="value"):
        fitted(gaussian(normal(3))).pit(normal(4), seed=0)
    assert np.isfinite(float(fitted(gaussian(normal(3))).crps(normal(3)).sum()))
