import math

import numpy as np
import pytest
import torch
from scipy import optimize

from bayesmol.calibration.curves import affine, isotonic, probabilities, scale
from bayesmol.errors import DataError
from bayesmol.posterior import Draws, Gaussian
from bayesmol.posterior.quantiles import Quantiles


@pytest.fixture
def entries(normal):
    """Standard deviations, squared residuals whose root is 0.3 σ + 0.5, and uneven weights."""
    sigma = 0.1 + 2 * torch.special.ndtr(normal(3000))
    weights = normal(3000).abs()
    return sigma, ((0.3 * sigma + 0.5) * normal(3000)).square(), weights / weights.sum()


def cost(a, b, sigma, squares, weights):
    line = a * sigma + b
    return float((weights * (line.log() + squares / (2 * line.square()))).sum())


def test_scale_by_hand():
    sigma, squares = torch.tensor([1.0, 2.0]).double(), torch.tensor([4.0, 4.0]).double()
    assert scale(sigma, squares, torch.tensor([0.25, 0.75]).double())[0].item() == pytest.approx(math.sqrt(1.75))
    with pytest.raises(DataError, match="differ from the mean"):
        scale(sigma, 0 * squares, torch.ones(2).double() / 2)


def test_affine_is_the_best_of_a_brute_force(entries):
    a, b = affine(*entries)[:, 0].tolist()
    found = optimize.minimize(lambda x: cost(*x, *entries), [1.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-8})
    assert (a, b) == (pytest.approx(found.x[0], abs=1e-5), pytest.approx(found.x[1], abs=1e-5))
    assert a == pytest.approx(0.3, abs=0.08) and b == pytest.approx(0.5, abs=0.08)
    sigma, squares, weights = entries
    assert float((weights * squares / (a * sigma + b).square()).sum()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("power", "which"), [(2.0, 1), (-1.0, 0)])
def test_affine_stops_at_its_bounds(entries, power, which):
    """Errors that grow faster than σ need no constant, those that fall with it need nothing else."""
    sigma, _, weights = entries
    a_and_b = affine(sigma, sigma.pow(2 * power), weights)[:, 0]
    assert float(a_and_b[which]) == pytest.approx(0.0, abs=1e-12) and float(a_and_b[1 - which]) > 0
    for other in ((0.5, 0.5), (1.0, 0.1), (0.1, 1.0)):
        assert cost(*a_and_b.tolist(), sigma, sigma.pow(2 * power), weights) < cost(
            *other, sigma, sigma.pow(2 * power), weights
        )


def test_affine_of_two_maxima():
    """The better one of two local maxima, found by a scan of all directions."""
    sigma = torch.cat([torch.full((30,), 1e-3), torch.full((70,), 1.0)]).double()
    squares = torch.cat([torch.full((30,), 1e-6), torch.full((70,), 4.0)]).double()
    squares[0] = 1.0
    weights = torch.full((100,), 0.01).double()
    got = cost(*affine(sigma, squares, weights)[:, 0].tolist(), sigma, squares, weights)
    scan = []
    for angle in np.linspace(0, math.pi / 2, 5001):
        line = math.cos(angle) * sigma + math.sin(angle)
        size = math.sqrt(float((weights * squares / line.square()).sum()))
        scan.append(cost(size * math.cos(angle), size * math.sin(angle), sigma, squares, weights))
    assert got <= min(scan) + 1e-12


def test_isotonic_is_monotone_and_keeps_the_mean(entries):
    sigma, squares, weights = entries
    knots = isotonic(*entries)
    assert bool((knots[0].diff() > 0).all() & (knots[1].diff() >= 0).all() & (knots[1] > 0).all())
    fitted = torch.from_numpy(np.interp(sigma, *knots))
    assert float((weights * fitted).sum()) == pytest.approx(float((weights * squares).sum()), rel=1e-12)
    truth = (0.3 * sigma + 0.5).square()
    assert float((fitted / truth).log().abs().mean()) < 0.25
    order = sigma.argsort()
    assert float(fitted[order][:20].std()) == float(fitted[order][-20:].std()) == 0.0


def test_isotonic_is_the_projection(entries):
    """No other monotone function is closer: the residual of the fit makes no acute angle with the cone."""
    sigma, squares, weights = (part[:200] for part in entries)
    order = sigma.argsort()
    sigma, squares, weights = sigma[order], squares[order].clone(), weights[order] / weights.sum()
    for end in (slice(None, 20), slice(-20, None)):
        squares[end] = (weights[end] * squares[end]).sum() / weights[end].sum()
    fitted = torch.from_numpy(np.interp(sigma, *isotonic(sigma, squares, weights)))
    tails = (weights * (squares - fitted)).flip(0).cumsum(0).flip(0)
    assert float(tails.max()) < 1e-12
    assert float((weights * (squares - fitted) * fitted).sum()) == pytest.approx(0.0, abs=1e-12)


def test_one_small_error_makes_no_step():
    sigma = torch.linspace(1, 2, 100, dtype=torch.float64)
    squares = torch.ones(100, dtype=torch.float64)
    squares[0], squares[-1] = 0.0, 100.0
    knots = isotonic(sigma, squares, torch.full((100,), 0.01, dtype=torch.float64))
    assert float(knots[1, 0]) == pytest.approx(0.95) and float(knots[1, -1]) == pytest.approx(119 / 20)
    with pytest.raises(DataError, match="at least 40"):
        isotonic(sigma[:39], squares[:39], torch.ones(39).double() / 39)
    with pytest.raises(DataError, match="a step of 0"):
        isotonic(sigma, (squares - 1).clamp_min(0.0), torch.full((100,), 0.01, dtype=torch.float64))


def test_equal_standard_deviations_are_one_step():
    knots = isotonic(torch.ones(50).double(), torch.arange(50).double(), torch.full((50,), 0.02).double())
    assert knots.tolist() == [[1.0], [pytest.approx(24.5)]]


def test_probabilities_by_hand(normal):
    posterior = Gaussian(torch.zeros(4).double(), torch.ones(4).double(), unit="")
    truth = posterior.quantile(torch.tensor([0.1, 0.2, 0.3, 0.8], dtype=torch.float64))[:, 0]
    # ⌈√4⌉ = 2 steps: one knot where half of the labels lie below, at (0.2 + 0.3)/2; the old curve weighs 1 of 5.
    got = probabilities(posterior, truth, torch.full((4,), 0.25).double(), 4)
    torch.testing.assert_close(got, torch.tensor([[0.0, 0.25, 1.0], [0.0, (4 * 0.5 + 0.25) / 5, 1.0]]).double())
    levels = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    known = Quantiles(levels, posterior.quantile(levels), unit="")
    got = probabilities(known, truth - 1e-9, torch.full((4,), 0.25).double(), 4)
    want = [0.0, (2 + 0.2) / 5, (3 + 0.5) / 5, (4 + 0.9) / 5, 1.0]
    torch.testing.assert_close(got[1], torch.tensor(want).double())
    torch.testing.assert_close(got[0, 1:-1], levels)


def test_probabilities_turn_round_with_the_labels(normal):
    posterior = Gaussian(torch.zeros(500).double(), torch.ones(500).double(), unit="")
    truth, weights = normal(500).exp(), normal(500).abs()
    weights /= weights.sum()
    one, other = (probabilities(posterior, sign * truth, weights, 500) for sign in (1, -1))
    torch.testing.assert_close(other, (1 - one).flip(1), rtol=0, atol=1e-9)
    assert one.shape == (2, 24)


def test_ties_make_one_knot():
    posterior = Gaussian(torch.zeros(100).double(), torch.ones(100).double(), unit="")
    truth = torch.cat([torch.zeros(50), torch.ones(50)]).double()
    knots = probabilities(posterior, truth, torch.full((100,), 0.01).double(), 100)
    assert bool((knots.diff(dim=1) > 0).all())


def test_what_has_no_continuous_distribution_is_refused(normal):
    weights = torch.full((50,), 0.02).double()
    with pytest.raises(DataError, match="got Draws"):
        probabilities(Draws(normal(1, 20, 50), unit=""), normal(50), weights, 50)
    narrow = Gaussian(torch.zeros(50).double(), torch.full((50,), 1e-6).double(), unit="")
    with pytest.raises(DataError, match="'scale' first"):
        probabilities(narrow, normal(50), weights, 50)
