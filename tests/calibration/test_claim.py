import pytest
import scoringrules
import torch
from scipy import stats

from bayesmol.calibration.claim import LEVELS, Claim, probability_transform
from bayesmol.errors import DataError
from bayesmol.posterior import Draws, Gaussian, Mixture, Quantiles


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def claim():
    return Claim(Gaussian(numbers(50), numbers(50, seed=1).square() + 0.1, unit="eV"))


def test_scores_of_a_gaussian_are_the_closed_forms(claim):
    values = numbers(50, seed=2)
    scores = claim.scores(values)
    z = (values - claim.mean) / claim.stddev
    assert torch.allclose(scores.z, z) and torch.allclose(scores.normal, z)
    assert torch.allclose(scores.pit, torch.from_numpy(stats.norm.cdf(z)))
    assert torch.allclose(scores.nll, -torch.from_numpy(stats.norm.logpdf(values, claim.mean, claim.stddev)))
    crps = scoringrules.crps_normal(values.numpy(), claim.mean.numpy(), claim.stddev.numpy())
    assert torch.allclose(scores.crps, torch.from_numpy(crps))
    assert torch.equal(scores.inside(0.9), z.abs() <= stats.norm.ppf(0.95))


@pytest.mark.parametrize("level", LEVELS)
def test_interval_score_agrees_with_scoringrules(claim, level):
    values = 3 * numbers(50, seed=2)
    interval = claim.posterior.interval(level)
    ends = interval.lower.numpy(), interval.upper.numpy()
    wanted = scoringrules.interval_score(values.numpy(), *ends, 1 - level)
    assert torch.allclose(claim.scores(values).penalty(level), torch.from_numpy(wanted))


def test_weighted_interval_score_is_its_definition(claim):
    values = 3 * numbers(50, seed=2)
    total = 0.5 * (values - claim.mean).abs()
    for level in LEVELS:
        total = total + (1 - level) / 2 * claim.scores(values).penalty(level)
    assert torch.allclose(claim.scores(values).weighted, total / (len(LEVELS) + 0.5))


def test_normal_scores_keep_their_digits_far_out():
    claim = Claim(Gaussian(torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64), unit="eV"))
    assert float(claim.scores(torch.tensor([40.0], dtype=torch.float64)).normal) == 40.0
    mixture = Claim(Mixture(torch.zeros(1, 1), torch.ones(1, 1), unit="eV"))
    assert 8 < float(mixture.scores(torch.tensor([40.0])).normal) < 9


def test_transform_among_draws_is_exactly_uniform_for_one_more_draw():
    values = numbers(1, 9, 40_000)
    pit = probability_transform(Draws(values, unit="eV"), numbers(40_000, seed=1), seed=2)
    assert stats.kstest(pit.numpy(), "uniform").pvalue > 1e-3
    assert 0 < float(pit.min()) and float(pit.max()) < 1


def test_transform_among_weighted_draws_uses_their_effective_number():
    log_weights = torch.zeros(1, 100, dtype=torch.float64)
    log_weights[0, 50:] = -50.0
    pit = probability_transform(
        Draws(numbers(1, 100, 3), log_weights, unit="eV"), torch.full((3,), 99.0, dtype=torch.float64), seed=0
    )
    assert bool((pit >= 50 / 51 - 1e-9).all()) and bool((pit < 1).all())


def test_labels_drawn_from_the_claim_have_its_correlations():
    block = torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)
    posterior = Gaussian(torch.zeros(2000), torch.ones(2000), unit="eV", covariance=(block.float(),) * 1000)
    scores = Claim(posterior).simulated(torch.arange(1000).repeat_interleave(2), torch.Generator().manual_seed(0))
    pairs = scores.z.view(-1, 2)
    assert float(torch.corrcoef(pairs.T)[0, 1]) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize("law", ["draws", "mixture"])
def test_each_structure_has_a_member_of_its_own_and_its_rows_share_it(law):
    values = numbers(2, 20)[:, :, None].expand(2, 20, 3000)
    flat = values.flatten(0, 1).contiguous()
    mixture = Mixture(flat, torch.full_like(flat, 1e-12), unit="eV")
    posterior = Draws(values.contiguous(), unit="eV") if law == "draws" else mixture
    owner = torch.arange(1000).repeat_interleave(3)
    rows = Claim(posterior).simulated(owner, torch.Generator().manual_seed(0)).values.view(1000, 3)
    assert torch.allclose(rows, rows[:, :1].expand(-1, 3), atol=1e-4)
    assert len(rows[:, 0].mul(1e3).round().unique()) > 35


def test_quantiles_are_uniform_within_their_cells():
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    values = torch.special.ndtri(levels)[:, None].expand(3, 20_000).contiguous()
    pit = probability_transform(Quantiles(levels, values, unit="eV"), numbers(20_000), seed=1)
    assert stats.kstest(pit.numpy(), "uniform").pvalue > 1e-3


def test_a_claim_without_spread_is_refused():
    with pytest.raises(DataError, match="noise of the labels"):
        Claim(Gaussian(torch.zeros(2), torch.tensor([1.0, 0.0]), unit="eV"))
