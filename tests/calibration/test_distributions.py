import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions as td

from bayesmol.calibration.distributions import as_tensor, from_distribution, from_frozen, random_key, seeded
from bayesmol.errors import DataError
from bayesmol.posterior import Draws, Gaussian, Mixture
from bayesmol.posterior.location_scale import Laplace, StudentT

OPTIONS = {"unit": "eV", "size": 2000, "seed": 0}


@pytest.fixture
def parts(normal):
    return normal(5, 2), 0.1 + normal(5, 2).abs()


def test_exact_classes(parts):
    location, scale = parts
    cases = {
        Gaussian: td.Normal(location, scale),
        Laplace: td.Laplace(location, scale),
        StudentT: td.StudentT(4.0, location, scale),
    }
    for kind, source in cases.items():
        for wrapped in (source, td.Independent(source, 1)):
            got = from_distribution(wrapped, **OPTIONS)
            assert type(got) is kind and got.unit == "eV" and got.shape == (5, 2)
            torch.testing.assert_close(got.mean, source.mean)
            torch.testing.assert_close(got.variance, source.variance)
            torch.testing.assert_close(got.log_prob(0.3), source.log_prob(torch.tensor(0.3).double()))


def test_a_covariance_is_kept(normal):
    root = normal(3, 4, 4)
    covariance, mean = root @ root.mT, normal(3, 4)
    one = from_distribution(td.MultivariateNormal(mean[0], covariance[0]), **OPTIONS)
    torch.testing.assert_close(one.covariance, covariance[0])
    batch = from_distribution(td.MultivariateNormal(mean, covariance), **OPTIONS)
    assert batch.shape == (3, 4) and len(batch.covariance) == 3
    torch.testing.assert_close(torch.stack(batch.covariance), covariance)
    low = td.LowRankMultivariateNormal(mean[0], root[0, :, :1], torch.ones(4).double())
    torch.testing.assert_close(from_distribution(low, **OPTIONS).covariance, low.covariance_matrix)


@pytest.mark.parametrize("event", [False, True])
def test_a_mixture_of_normals(normal, event):
    weights = torch.tensor([0.2, 0.8], dtype=torch.float64)
    location, scale = normal(2, 3), 0.1 + normal(2, 3).abs()
    if event:
        source = td.MixtureSameFamily(td.Categorical(weights), td.Independent(td.Normal(location, scale), 1))
    else:
        source = td.MixtureSameFamily(td.Categorical(weights.expand(3, 2)), td.Normal(location.T, scale.T))
    got = from_distribution(source, **OPTIONS)
    assert isinstance(got, Mixture)
    torch.testing.assert_close(got.mean, source.mean)
    torch.testing.assert_close(got.variance, source.variance)
    torch.testing.assert_close(got.means, location)


def test_other_distributions_are_drawn_without_touching_the_global_state(normal):
    uneven = td.Categorical(torch.tensor([[0.2, 0.8], [0.6, 0.4]]).double())
    mixture = td.MixtureSameFamily(uneven, td.Normal(normal(2, 2), normal(2, 2).abs() + 0.1))
    for source in (td.LogNormal(normal(3), 0.3), td.Gamma(torch.ones(3).double(), 1.0), mixture):
        before = torch.random.get_rng_state()
        got, again = (from_distribution(source, **OPTIONS) for _ in range(2))
        assert torch.equal(torch.random.get_rng_state(), before)
        assert isinstance(got, Draws) and got.values.shape == (1, 2000, *source.batch_shape)
        assert torch.equal(got.values, again.values)
        assert bool(((got.mean - source.mean).abs() < 6 * (source.variance / 2000).sqrt()).all())
    assert not torch.equal(got.values, from_distribution(source, **OPTIONS | {"seed": 1}).values)


@pytest.mark.parametrize("degrees", [{"df": 1.5}, {"df": np.array([3.0, 9.0])}])
def test_frozen_distributions_of_scipy(degrees):
    location, scale = np.array([0.5, -1.0]), np.array([0.2, 3.0])
    cases = {
        Gaussian: stats.norm(location, scale),
        Laplace: stats.laplace(location, scale),
        StudentT: stats.t(**degrees, loc=location, scale=scale),
    }
    for kind, source in cases.items():
        got = from_frozen(source, **OPTIONS)
        assert type(got) is kind and got.shape == (2,)
        torch.testing.assert_close(got.cdf(0.7), torch.tensor(source.cdf(0.7)))
        torch.testing.assert_close(got.quantile(0.9), torch.tensor(source.ppf(0.9)))
    positional = from_frozen(stats.t(5, location, scale), **OPTIONS)
    torch.testing.assert_close(positional.quantile(0.9), torch.tensor(stats.t(5, location, scale).ppf(0.9)))
    gamma = from_frozen(stats.gamma(2.0, scale=scale), **OPTIONS)
    assert isinstance(gamma, Draws) and gamma.values.shape == (1, 2000, 2)
    torch.testing.assert_close(gamma.mean, torch.tensor(2 * scale), rtol=0.1, atol=0)
    assert from_frozen(stats.norm(0.0, 2.0), **OPTIONS).variance.item() == pytest.approx(4.0)
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    joint = from_frozen(stats.multivariate_normal([0.0, 1.0], covariance), **OPTIONS)
    torch.testing.assert_close(joint.covariance, torch.tensor(covariance))


def test_distributions_of_pyro_and_gpytorch(parts, normal):
    import gpytorch
    from pyro import distributions as pd

    location, scale = parts
    got = from_distribution(pd.Normal(location, scale).to_event(1), **OPTIONS)
    assert type(got) is Gaussian and torch.equal(got.mean, location)
    assert type(from_distribution(pd.StudentT(3.0, location, scale), **OPTIONS)) is StudentT
    assert type(from_distribution(pd.Uniform(location, location + scale), **OPTIONS)) is Draws
    root = normal(6, 6)
    covariance, mean = root @ root.T, normal(3, 2)
    process = gpytorch.distributions.MultivariateNormal(mean.flatten(), covariance)
    torch.testing.assert_close(from_distribution(process, **OPTIONS).covariance, covariance)
    tasks = gpytorch.distributions.MultitaskMultivariateNormal(mean, covariance)
    torch.testing.assert_close(from_distribution(tasks, **OPTIONS).covariance, covariance)
    other = gpytorch.distributions.MultitaskMultivariateNormal(mean, covariance, interleaved=False)
    got = from_distribution(other, **OPTIONS)
    torch.testing.assert_close(got.variance, other.variance)
    # Entry (row, task) is number task · 3 + row there, and row · 2 + task here.
    torch.testing.assert_close(got.covariance[1, 2], covariance[3, 1])


def test_distributions_of_numpyro(parts):
    from numpyro import distributions as nd

    location, scale = (part.float().numpy() for part in parts)
    got = from_distribution(nd.Normal(location, scale).to_event(1), **OPTIONS)
    assert type(got) is Gaussian and got.shape == (5, 2)
    torch.testing.assert_close(got.stddev, torch.tensor(scale).double())
    assert type(from_distribution(nd.StudentT(4.0, location, scale), **OPTIONS)) is StudentT
    assert from_distribution(nd.Laplace(0.0, 1.0).expand([3]), **OPTIONS).shape == (3,)
    drawn = from_distribution(nd.Gumbel(location, scale), **OPTIONS)
    assert isinstance(drawn, Draws) and drawn.values.shape == (1, 2000, 5, 2)
    assert torch.equal(drawn.values, from_distribution(nd.Gumbel(location, scale), **OPTIONS).values)


def test_arrays():
    assert as_tensor([[1, 2], [3, 4]]).dtype == torch.float64
    assert as_tensor(torch.ones(2)).dtype == torch.float32 and as_tensor(torch.ones(2).int()).dtype == torch.float64
    assert not as_tensor(torch.ones(2, requires_grad=True)).requires_grad
    frozen = np.ones(3)
    frozen.flags.writeable = False
    assert as_tensor(frozen).tolist() == [1.0, 1.0, 1.0]
    for wrong in ([[1.0], [1.0, 2.0]], "text", object()):
        with pytest.raises(DataError, match="rectangular"):
            as_tensor(wrong)


def test_seeds():
    with seeded(3):
        one = torch.rand(2)
    with seeded(3):
        assert torch.equal(one, torch.rand(2))
    assert np.array_equal(random_key(3), random_key(3)) and not np.array_equal(random_key(3), random_key(4))
