import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Gaussian
from bayesmol.testing import assert_calibrated, check_posterior


def matrix(normal, size):
    root = normal(size, size)
    return root @ root.T + torch.eye(size, dtype=torch.float64)


@pytest.fixture
def blocked(normal):
    blocks = (matrix(normal, 2), matrix(normal, 4))
    variance = torch.cat([b.diagonal() for b in blocks]).reshape(3, 2)
    return Gaussian(normal(3, 2), variance, unit="eV/Å", covariance=blocks, epistemic_variance=variance - 0.5)


def test_contract(normal, blocked):
    variance = normal(4).square()
    check_posterior(Gaussian(normal(4), variance, unit="eV", epistemic_variance=variance / 3))
    check_posterior(blocked)
    check_posterior(Gaussian(normal(3).float(), torch.zeros(3), unit="eV"))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_interval_covers_new_values(normal, level):
    means, values = normal(2000), normal(2000)
    posterior = Gaussian(means, torch.full_like(means, 4.0), unit="eV")
    inside = posterior.interval(level).contains(means + 2 * values)
    assert_calibrated(int(inside.sum()), 2000, level)
    wrong = Gaussian(means, torch.full_like(means, 2.0), unit="eV").interval(level).contains(means + 2 * values)
    with pytest.raises(AssertionError, match="inside"):
        assert_calibrated(int(wrong.sum()), 2000, level)


def test_densities_against_torch(normal, blocked):
    value = normal(3, 2)
    law = torch.distributions.Normal(blocked.mean, blocked.stddev)
    torch.testing.assert_close(blocked.log_prob(value), law.log_prob(value))
    torch.testing.assert_close(blocked.cdf(value), law.cdf(value))
    torch.testing.assert_close(blocked.quantile(0.3), law.icdf(torch.tensor(0.3, dtype=torch.float64)))
    full = torch.block_diag(*blocked.covariance)
    joint = torch.distributions.MultivariateNormal(blocked.mean.flatten(), full)
    torch.testing.assert_close(blocked.joint_log_prob(value), joint.log_prob(value.flatten()))
    plain = Gaussian(blocked.mean, blocked.variance, unit="eV/Å")
    torch.testing.assert_close(plain.joint_log_prob(value), law.log_prob(value).sum())


def test_draws_have_the_covariance(blocked):
    draws = blocked.sample(40000, seed=3).flatten(1)
    want = torch.block_diag(*blocked.covariance)
    error = (want.square() + torch.outer(want.diagonal(), want.diagonal())).sqrt() / math.sqrt(40000)
    assert bool(((draws.T.cov() - want).abs() < 5 * error).all())


def test_a_singular_covariance_is_sampled(normal):
    direction = normal(5, 2)
    covariance = direction @ direction.T
    posterior = Gaussian(torch.zeros(5).double(), covariance.diagonal(), unit="eV", covariance=covariance)
    draws = posterior.sample(20, seed=0)
    assert torch.linalg.matrix_rank(draws, rtol=1e-6) == 2
    indefinite = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)
    with pytest.raises(DataError, match="semi-definite"):
        Gaussian(torch.zeros(2).double(), torch.ones(2).double(), unit="eV", covariance=indefinite).sample(1, seed=0)


def test_scaling_squares_in_the_variance(blocked):
    factor = torch.arange(1.0, 7.0, dtype=torch.float64).reshape(3, 2)
    scaled = blocked.scaled(factor)
    torch.testing.assert_close(scaled.stddev, factor * blocked.stddev)
    torch.testing.assert_close(scaled.epistemic.stddev, factor * blocked.epistemic.stddev)
    got, want = torch.block_diag(*scaled.covariance), torch.block_diag(*blocked.covariance)
    torch.testing.assert_close(got, want * torch.outer(factor.flatten(), factor.flatten()))
    torch.testing.assert_close(blocked.scaled(2.0).variance, 4 * blocked.variance)
    assert torch.equal(scaled.mean, blocked.mean)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf])
def test_bad_factors_are_refused(blocked, factor):
    with pytest.raises(DataError, match="factor"):
        blocked.scaled(factor)


def test_factors_do_not_broadcast(blocked):
    with pytest.raises(ShapeError, match="factor"):
        blocked.scaled(torch.ones(2))


def test_the_noise_leaves_the_diagonal_of_the_epistemic_covariance(blocked):
    got = torch.block_diag(*blocked.epistemic.covariance)
    want = torch.block_diag(*blocked.covariance) - 0.5 * torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(blocked.aleatoric.variance, torch.full((3, 2), 0.5, dtype=torch.float64))
    assert blocked.epistemic.epistemic is None and blocked.epistemic.aleatoric is None


@pytest.mark.parametrize("index", [slice(1, None), slice(0, 1), slice(None, None, 2), torch.tensor([2, 0]), 1])
def test_selection_keeps_the_joint_law(blocked, index):
    selected = blocked[index]
    flat = torch.arange(6).reshape(3, 2)[index].flatten()
    covariance = selected.covariance
    got = torch.block_diag(*covariance) if isinstance(covariance, tuple) else covariance
    torch.testing.assert_close(got, torch.block_diag(*blocked.covariance)[flat][:, flat])
    assert torch.equal(selected.mean, blocked.mean[index])
    assert torch.equal(selected.epistemic.variance, blocked.epistemic.variance[index])


def test_selection_from_a_full_covariance(normal):
    covariance = matrix(normal, 4)
    posterior = Gaussian(normal(4), covariance.diagonal(), unit="eV", covariance=covariance)
    assert torch.equal(posterior[1:3].covariance, covariance[1:3, 1:3])


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"variance": torch.ones(2)}, ShapeError, "variance"),
        ({"variance": torch.tensor([1.0, -1.0, 1.0])}, DataError, "variance"),
        ({"variance": torch.tensor([1.0, math.nan, 1.0])}, DataError, "variance"),
        ({"mean": torch.tensor([1.0, math.inf, 1.0])}, DataError, "mean"),
        ({"covariance": torch.eye(2)}, ShapeError, "covariance"),
        ({"covariance": torch.ones(3, 2)}, ShapeError, "covariance"),
        ({"covariance": 2 * torch.eye(3)}, DataError, "diagonal"),
        ({"covariance": (torch.eye(2), torch.eye(2))}, ShapeError, "covariance"),
        ({"epistemic_variance": torch.full((3,), 2.0)}, DataError, "epistemic_variance"),
        ({"epistemic_variance": torch.ones(1)}, ShapeError, "epistemic_variance"),
    ],
)
def test_bad_input_is_refused(change, error, match):
    arguments = {"mean": torch.zeros(3), "variance": torch.ones(3), "unit": "eV"} | change
    with pytest.raises(error, match=match):
        Gaussian(**arguments)


def test_certain_values_have_no_density():
    certain = Gaussian(torch.zeros(2), torch.zeros(2), unit="eV")
    assert certain.cdf(torch.tensor([0.0, -1.0])).tolist() == [1.0, 0.0]
    with pytest.raises(DataError, match="variance"):
        certain.log_prob(0.0)
