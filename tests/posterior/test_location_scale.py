import math

import pytest
import torch
from scipy import stats

from bayesmol.errors import DataError, ShapeError
from bayesmol.inference.random import generator
from bayesmol.posterior.gaussian import Gaussian
from bayesmol.posterior.location_scale import Laplace, StudentT
from bayesmol.testing import assert_calibrated, check_posterior


@pytest.fixture
def parts(normal):
    return normal(5, 3), 0.1 + normal(5, 3).abs()


@pytest.fixture
def degrees():
    return torch.linspace(5, 30, 15, dtype=torch.float64).reshape(5, 3)


def test_contract(parts, degrees):
    check_posterior(StudentT(*parts, 7, unit="eV"))
    check_posterior(StudentT(*parts, degrees, unit="eV"))
    check_posterior(Laplace(*parts, unit="eV/Å"))
    single = StudentT(parts[0].float(), parts[1].float(), 8.0, unit="eV")
    check_posterior(single)
    assert single.quantile(0.2).dtype == single.cdf(0.1).dtype == single.log_prob(0.1).dtype == torch.float32


@pytest.mark.parametrize("nu", [0.3, 1.0, 2.0, 5.0, 999.0, 1001.0, 1e7])
def test_student_t_against_scipy(parts, normal, nu):
    (location, scale), value = parts, normal(4, 5, 3)
    got, want = StudentT(location, scale, nu, unit="eV"), stats.t(nu, location.numpy(), scale.numpy())
    for name, reference in {"cdf": want.cdf, "log_prob": want.logpdf}.items():
        expected = torch.as_tensor(reference(value.numpy()))
        torch.testing.assert_close(getattr(got, name)(value), expected, rtol=1e-9, atol=1e-11)
    for p in (0.001, 0.5, 0.9):
        torch.testing.assert_close(got.quantile(p), torch.as_tensor(want.ppf(p)), rtol=1e-9, atol=1e-12)


def test_laplace_against_torch(parts, normal):
    (location, scale), value = parts, normal(4, 5, 3)
    got, want = Laplace(location, scale, unit="eV"), torch.distributions.Laplace(location, scale)
    torch.testing.assert_close(got.cdf(value), want.cdf(value))
    torch.testing.assert_close(got.log_prob(value), want.log_prob(value))
    torch.testing.assert_close(got.variance, want.variance)
    torch.testing.assert_close(got.quantile(0.3), want.icdf(torch.tensor(0.3).double()))
    far = Laplace(torch.zeros(1).double(), torch.ones(1).double(), unit="")
    torch.testing.assert_close(
        far.cdf(-100.0), torch.tensor([math.exp(-100) / 2], dtype=torch.float64), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("value", [3.5, 1.0])
def test_degrees_one_an_entry_are_the_entries(parts, degrees, value):
    many = StudentT(*parts, degrees, unit="eV")
    for index in ((0, 0), (2, 1), (4, 2)):
        one = StudentT(parts[0][index], parts[1][index], float(degrees[index]), unit="eV")
        for name in ("cdf", "log_prob"):
            torch.testing.assert_close(getattr(many, name)(value)[index], getattr(one, name)(value))
        torch.testing.assert_close(many.quantile(0.8)[index], one.interval(0.6).upper)
    selected = many[torch.tensor([3, 1])]
    assert torch.equal(selected.degrees, degrees[[3, 1]])
    torch.testing.assert_close(selected.quantile(0.1), many.quantile(0.1)[[3, 1]])


def test_large_degrees_are_the_gaussian(parts, normal):
    (location, scale), value = parts, normal(5, 3)
    limit, gaussian = StudentT(location, scale, 1e9, unit="eV"), Gaussian(location, scale.square(), unit="eV")
    torch.testing.assert_close(limit.log_prob(value), gaussian.log_prob(value), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(limit.cdf(value), gaussian.cdf(value), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(limit.variance, gaussian.variance)


def test_moments_that_do_not_exist(parts):
    two = StudentT(*parts, 2.0, unit="eV")
    assert torch.equal(two.mean, parts[0]) and bool(torch.isinf(two.variance).all())
    for degrees in (1.0, torch.linspace(0.5, 7.5, 15).double().reshape(5, 3)):
        cauchy = StudentT(*parts, degrees, unit="eV")
        for name in ("mean", "variance", "stddev"):
            with pytest.raises(DataError, match="more than 1"):
                getattr(cauchy, name)
    cauchy = StudentT(*parts, 1.0, unit="eV")
    assert cauchy.shape == (5, 3) and len(cauchy) == 5
    torch.testing.assert_close(cauchy.quantile(0.75), parts[0] + parts[1])  # tan(π/4) = 1
    torch.testing.assert_close(cauchy.cdf(parts[0]), torch.full((5, 3), 0.5).double())
    assert cauchy.sample(4, seed=0).shape == (4, 5, 3)
    assert bool((cauchy.interval(0.9).width > 0).all()) and cauchy[1:].shape == (4, 3)


def test_from_stddev(parts, degrees):
    mean, stddev = parts
    for made in (
        StudentT.from_stddev(mean, stddev, degrees, unit="eV"),
        StudentT.from_stddev(mean, stddev, 2.5, unit="eV"),
        Laplace.from_stddev(mean, stddev, unit="eV"),
    ):
        torch.testing.assert_close(made.stddev, stddev)
        assert torch.equal(made.mean, mean)
    with pytest.raises(DataError, match="more than 2"):
        StudentT.from_stddev(mean, stddev, 2.0, unit="eV")


def test_scaling(parts, degrees):
    factor = torch.linspace(0.5, 2, 15, dtype=torch.float64).reshape(5, 3)
    for posterior in (StudentT(*parts, degrees, unit="eV"), StudentT(*parts, 4, unit="eV"), Laplace(*parts, unit="eV")):
        scaled = posterior.scaled(factor)
        assert type(scaled) is type(posterior) and torch.equal(scaled.mean, posterior.mean)
        torch.testing.assert_close(scaled.stddev, factor * posterior.stddev)
        torch.testing.assert_close(posterior.scaled(3.0).variance, 9 * posterior.variance)
        for wrong in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(DataError, match="factor"):
                posterior.scaled(wrong)
        with pytest.raises(ShapeError, match="factor"):
            posterior.scaled(torch.ones(3))


@pytest.mark.parametrize("make", [lambda m, s: StudentT(m, s, 3.0, unit="eV"), lambda m, s: Laplace(m, s, unit="eV")])
def test_intervals_cover_their_own_draws(normal, make):
    posterior = make(normal(3000), 0.1 + normal(3000).abs())
    value = posterior.sample(1, seed=5)[0]
    assert_calibrated(int(posterior.interval(0.9).contains(value).sum()), 3000, 0.9)
    assert_calibrated(int(posterior.scaled(2.0).interval(0.5).contains(2 * value - posterior.mean).sum()), 3000, 0.5)
    with pytest.raises(AssertionError, match="inside"):
        assert_calibrated(int(posterior.scaled(0.8).interval(0.9).contains(value).sum()), 3000, 0.9)


def test_a_generator_continues_its_stream(parts):
    posterior, source = Laplace(*parts, unit="eV"), generator(0)
    assert not torch.equal(posterior.sample(2, seed=source), posterior.sample(2, seed=source))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"scale": torch.ones(2)}, ShapeError, "scale"),
        ({"scale": torch.tensor([1.0, 0.0, 1.0])}, DataError, "scale"),
        ({"scale": torch.tensor([1.0, math.nan, 1.0])}, DataError, "scale"),
        ({"location": torch.tensor([1.0, math.inf, 1.0])}, DataError, "location"),
        ({"degrees": 0.0}, DataError, "degrees"),
        ({"degrees": math.inf}, DataError, "Gaussian"),
        ({"degrees": torch.ones(2)}, ShapeError, "degrees"),
    ],
)
def test_bad_input_is_refused(change, error, match):
    arguments = {"location": torch.zeros(3), "scale": torch.ones(3), "degrees": 4.0, "unit": "eV"} | change
    with pytest.raises(error, match=match):
        StudentT(**arguments)
