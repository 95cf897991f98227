import pytest
import torch

from bayesmol.calibration.density_ratio import DensityRatio, FittedRatio, check_samples, cross_fitted
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior.estimate import kish


def test_logistic_finds_the_ratio_of_shifted_normals(normal):
    old, new = normal(3000, 2), normal(2000, 2) + torch.tensor([1.0, 0.0], dtype=torch.float64)
    ratio = DensityRatio().fit(old, new, seed=0)
    points = normal(50, 2)
    found = ratio.weights(points).log()
    torch.testing.assert_close(found, points[:, 0] - 0.5, rtol=0, atol=0.3)
    # its mean over the calibration distribution is one, whatever the sizes of the samples
    assert float(ratio.calibration.mean()) == pytest.approx(1, abs=0.15)
    assert ratio.calibration.shape == (3000,) and ratio.new.shape == (2000,)
    assert float(kish(ratio.calibration.log())) / 3000 == pytest.approx(float(torch.tensor(-1.0).exp()), abs=0.1)


def test_quadratic_finds_the_ratio_of_spread_normals(normal):
    old, new = normal(3000, 1), 1.5 * normal(3000, 1)
    points = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    want = 0.5 * points[:, 0].square() * (1 - 1 / 1.5**2) - torch.log(torch.tensor(1.5))
    quadratic = DensityRatio("quadratic").fit(old, new, seed=0).weights(points).log()
    torch.testing.assert_close(quadratic, want, rtol=0, atol=0.25)
    linear = DensityRatio("logistic").fit(old, new, seed=0).weights(points).log()
    assert float((linear - want).abs().max()) > 0.6


def test_trees_find_a_step(source):
    old, new = torch.rand(1500, 1, generator=source), torch.rand(1500, 1, generator=source)
    new = torch.cat([new[:750] / 2, new[750:]])  # density 3/2 below one half, 1/2 above
    ratio = DensityRatio("boosting").fit(old, new, seed=0)
    low, high = ratio.weights(torch.tensor([[0.25], [0.75]])).tolist()
    assert low == pytest.approx(1.5, rel=0.25) and high == pytest.approx(0.5, rel=0.3)


def test_no_shift_gives_equal_weights(normal):
    ratio = DensityRatio().fit(normal(800, 3), normal(800, 3), seed=0)
    assert float(ratio.calibration.std()) < 0.3 and float(ratio.calibration.mean()) == pytest.approx(1, abs=0.05)


def test_each_row_is_judged_by_a_classifier_that_has_not_seen_it(source):
    # Labels of pure noise: who had seen a row could tell, who has not cannot.
    old, new = torch.rand(200, 1, generator=source), torch.rand(200, 1, generator=source)
    part = torch.arange(200).numpy() % 4
    log_odds, classifiers = cross_fitted("boosting", old, new, (part, part))
    assert len(classifiers) == 4
    honest = (log_odds[200:, None] > log_odds[None, :200]).mean()
    rows = torch.cat([old, new]).double().numpy()
    seen = sum(one.decision_function(rows) for one in classifiers)
    assert abs(honest - 0.5) < 0.12 and (seen[200:, None] > seen[None, :200]).mean() > 0.7


def test_known_densities(normal):
    new, old = torch.distributions.Normal(1.0, 1.0), torch.distributions.Normal(0.0, 1.0)
    ratio = FittedRatio(lambda x: new.log_prob(x[:, 0]) - old.log_prob(x[:, 0]))
    points = normal(10, 1)
    torch.testing.assert_close(ratio.weights(points), (points[:, 0] - 0.5).exp())
    with pytest.raises(DataError, match="subtract a constant"):
        FittedRatio(lambda x: x[:, 0] + 1e4).weights(points)


def test_same_seed_same_weights(normal):
    old, new = normal(60, 2), normal(40, 2) + 1
    first, second, third = (DensityRatio().fit(old, new, seed=seed).calibration for seed in (0, 0, 1))
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_repeats_steady_the_weights(normal):
    old, new = normal(80, 2), normal(80, 2) + 1

    def spread(repeats):
        ratio = DensityRatio(repeats=repeats)
        return torch.stack([ratio.fit(old, new, seed=seed).calibration.log() for seed in range(6)]).std(0).mean()

    assert float(spread(6)) < 0.6 * float(spread(1))


def test_bad_input(normal):
    with pytest.raises(ShapeError, match="two samples"):
        check_samples(normal(10, 2), normal(10, 3), 2)
    with pytest.raises(DataError, match="finite"):
        check_samples(normal(10, 2) / 0, normal(10, 2), 2)
    with pytest.raises(DataError, match="folds"):
        DensityRatio().fit(normal(9, 2), normal(100, 2), seed=0)
    with pytest.raises(DataError, match="repeats"):
        DensityRatio(repeats=0).fit(normal(20, 2), normal(20, 2), seed=0)
    with pytest.raises(DataError, match="method"):
        DensityRatio("svm").fit(normal(20, 2), normal(20, 2), seed=0)
