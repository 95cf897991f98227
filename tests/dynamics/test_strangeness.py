import numpy as np
import pytest
import torch

from bayesmol.applicability import Domain, check_score
from bayesmol.data.exact_chains import LinearProcess
from bayesmol.dynamics.linear import EDMD, TICA, VAMP
from bayesmol.errors import ShapeError
from bayesmol.representation.basis import Indicators, Monomials

LAG = 2
MAP = torch.from_numpy(np.random.default_rng(2).standard_normal((3, 3)))


@pytest.fixture(scope="module")
def data():
    return LinearProcess.autoregressive(0.95, 0.8, 0.3).simulate(6000, seed=0).parts[0] + 3


def pairs_of(frames, lag=LAG):
    return torch.stack([frames[:-lag], frames[lag:]], 1)


@pytest.fixture(scope="module", params=[TICA, VAMP, EDMD])
def fitted(request, data):
    return request.param(lag=LAG, draws=20).fit(data, seed=0)


def test_leverage_is_the_diagonal_of_the_hat_matrix(data, fitted):
    both = torch.cat([data[:-LAG], data[LAG:]])
    x = torch.cat([torch.ones(len(both), 1), both], 1)
    # The moments are means over both ends, so the 2N rows of both count as N.
    hat = 2 * (x @ torch.linalg.inv(x.mT @ x) * x).sum(1)
    assert torch.allclose(fitted.leverage(both), hat, rtol=1e-8)
    assert float(fitted.leverage(both).sum()) == pytest.approx(2 * 4, rel=1e-9)


def test_leverage_is_the_variance_of_a_regression(data, fitted):
    centre, far = fitted.leverage(torch.stack([data.mean(0), data.mean(0) + 50]))
    assert float(centre) == pytest.approx(1 / fitted.moments.pairs, rel=1e-3)
    assert far > 100 * centre


def test_residual_by_least_squares_in_standard_deviations(data, fitted):
    x = torch.cat([torch.ones(len(data), 1), data], 1)
    missed = x[LAG:] - x[:-LAG] @ torch.linalg.lstsq(x[:-LAG], x[LAG:]).solution
    spread = torch.cat([data[:-LAG], data[LAG:]]).mT.cov(correction=0)
    wanted = (missed[:, 1:] @ torch.linalg.inv(spread) * missed[:, 1:]).sum(1).sqrt()
    assert torch.allclose(fitted.residual(pairs_of(data)), wanted, rtol=1e-8)


def test_the_mean_square_is_what_is_forgotten_within_a_lag(data):
    fitted = VAMP(lag=LAG, draws=20).fit(data, seed=0)
    found = float(fitted.residual(pairs_of(data)).square().mean())
    assert found == pytest.approx(3 - float(fitted.estimate.values[1:].square().sum()), rel=1e-2)


@pytest.mark.parametrize("kind", [TICA, VAMP, EDMD])
def test_the_same_under_invertible_maps_of_the_features(data, kind):
    one = kind(lag=LAG, draws=20).fit(data, seed=0)
    other = kind(lag=LAG, draws=20).fit(data @ MAP + 7, seed=0)
    new = data[:50] * 1.5 - 1
    assert torch.allclose(one.leverage(new), other.leverage(new @ MAP + 7), rtol=1e-7)
    assert torch.allclose(one.residual(pairs_of(new)), other.residual(pairs_of(new @ MAP + 7)), rtol=1e-7)


def test_both_keep_the_contract_of_a_score(data, fitted):
    check_score(fitted.leverage, data[:20])
    check_score(fitted.residual, pairs_of(data)[:20])
    check_score(fitted.leverage, data[:20].float(), rtol=1e-4)


def test_a_state_that_was_never_visited_is_infinitely_strange(data):
    line = data[:, :1]
    edges = torch.tensor([2.0, 3, 4, 50], dtype=torch.float64)  # no frame is above 50
    fitted = TICA(lag=LAG, draws=20, basis=Indicators(edges=edges)).fit(line, seed=0)
    new = torch.tensor([[2.5], [60.0]], dtype=torch.float64)
    assert fitted.leverage(new).isinf().tolist() == [False, True]
    assert bool(fitted.leverage(line).isfinite().all())
    steps = torch.stack([new, new.flip(0)], 1)
    assert fitted.residual(torch.cat([steps, new[:1].expand(2, 1)[None]])).isinf().tolist() == [True, True, False]


def test_a_bond_that_never_changed_is_infinitely_strange_when_it_does(data):
    rigid = torch.cat([data, torch.full((len(data), 1), 1.5), data[:, :1] - data[:, 1:2]], 1)
    fitted = TICA(lag=LAG, draws=20).fit(rigid, seed=0)
    assert torch.allclose(fitted.leverage(rigid), TICA(lag=LAG, draws=20).fit(data, seed=0).leverage(data), rtol=1e-6)
    for column in (3, 4):
        broken = rigid[:5].clone()
        broken[:, column] += 0.1
        assert bool(fitted.leverage(broken).isinf().all())


def test_other_kinetics_with_the_same_populations_are_seen_by_the_residual_only():
    process = LinearProcess.autoregressive(0.95, 0.9)
    frames = process.simulate(20000, seed=0).parts[0]
    fitted = TICA(lag=1, draws=20, basis=Monomials(2)).fit(frames[:10000], seed=0)
    slow, fast = frames[10000:], frames[10000:].roll(1, 0)[torch.randperm(10000, generator=torch.manual_seed(0))]
    assert float(fitted.leverage(fast).mean()) == pytest.approx(float(fitted.leverage(slow).mean()), rel=1e-6)
    assert fitted.residual(pairs_of(fast, 1)).mean() > 2 * fitted.residual(pairs_of(slow, 1)).mean()


def test_a_domain_takes_them(data, fitted):
    domain = Domain(fitted.leverage, level=0.1).calibrate(data[::60])
    assert not bool(domain.assess(data[:5] + 20).inside.any())


def test_bad_input(fitted, data):
    with pytest.raises(ShapeError, match="x"):
        fitted.leverage(data[:, :2])
    with pytest.raises(ShapeError, match="frames"):
        fitted.leverage(data[0])
    with pytest.raises(ShapeError, match="one lag apart"):
        fitted.residual(data)
