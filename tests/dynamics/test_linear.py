import math

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.linear import EDMD, TICA, VAMP
from bayesmol.dynamics.moments import streamed
from bayesmol.errors import ConvergenceError, DataError, ShapeError

RHO = np.array([0.95, 0.8, 0.3])
MIXING = np.random.default_rng(1).standard_normal((3, 3))


def linear_process(frames=6000, seed=0, mixing=MIXING):
    """Stationary AR(1) processes of variance one, mixed; their eigenvalues at lag k are the k-th powers."""
    source = np.random.default_rng(seed)
    noise = source.standard_normal((frames, 3)) * np.sqrt(1 - RHO**2)
    noise[0] = source.standard_normal(3)
    return np.stack([lfilter([1], [1, -r], noise[:, j]) for j, r in enumerate(RHO)], 1) @ mixing


@pytest.fixture(scope="module")
def data():
    return linear_process()


@pytest.mark.parametrize("kind", [TICA, VAMP, EDMD])
def test_timescales_of_a_linear_process(data, kind):
    fitted = kind(lag=3, draws=200).fit(data, seed=0)
    inside = fitted.timescales(2).interval(0.999).contains(torch.tensor(-1 / np.log(RHO[:2])))
    assert bool(inside.all())
    assert fitted.timescales().unit == "frames"
    assert fitted.eigenvalues().shape[0] == fitted.dimensions == 3


@pytest.mark.slow
@pytest.mark.parametrize("lag", [1, 10])
def test_intervals_cover(lag):
    """200 repetitions at 95 %: the exact binomial band at three standard deviations."""
    from scipy.stats import binom

    truth, repeats = torch.tensor(-1 / np.log(RHO[:2])), 200
    lower, upper = binom.ppf([0.00135, 0.99865], repeats, 0.95)
    for kind in (TICA, VAMP, EDMD):
        hits = sum(
            kind(lag=lag, draws=300).fit(linear_process(seed=k), seed=k).timescales(2).interval(0.95).contains(truth)
            for k in range(repeats)
        )
        assert lower <= int(hits.min()) and int(hits.max()) <= upper + 3, kind


def test_the_same_under_invertible_maps_of_the_features(data):
    one = TICA(lag=2, draws=50).fit(data, seed=0)
    other = TICA(lag=2, draws=50).fit(data @ np.random.default_rng(2).standard_normal((3, 3)) + 7, seed=0)
    assert torch.allclose(one.estimate.values, other.estimate.values, atol=1e-10)
    assert torch.allclose(one.timescales().values, other.timescales().values, rtol=1e-4)
    assert torch.allclose(one.score().values, other.score().values, atol=1e-8)


def test_reversible_vamp_is_tica(data):
    both = Trajectories.of([data, data[::-1].copy()])
    tica, vamp = (kind(lag=2, draws=20).fit(both, seed=0) for kind in (TICA, VAMP))
    assert torch.allclose(tica.estimate.values.abs(), vamp.estimate.values, atol=1e-8)


def test_edmd_is_least_squares(data):
    fitted = EDMD(lag=2, draws=20).fit(data, seed=0)
    x = np.concatenate([np.ones((len(data), 1)), data], 1)
    wanted = np.linalg.eigvals(np.linalg.lstsq(x[:-2], x[2:], rcond=None)[0])
    assert np.allclose(np.sort(wanted), np.sort(fitted.estimate.values.real.numpy()), atol=1e-9)


def test_rotations_have_complex_eigenvalues_of_edmd():
    source, angle = np.random.default_rng(0), 0.3
    turn = 0.95 * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    x = [np.zeros(2)]
    for _ in range(4000):
        x.append(turn @ x[-1] + source.standard_normal(2))
    fitted = EDMD(draws=200).fit(np.array(x), seed=0)
    parts = fitted.eigenvalues(2)
    assert parts.shape == (2, 2)
    assert float(parts.mean[0].square().sum().sqrt()) == pytest.approx(0.95, abs=0.02)
    assert abs(float(parts.mean[0, 1])) == pytest.approx(0.95 * math.sin(angle), abs=0.02)
    with pytest.raises(DataError, match="reversible"):
        fitted.eigenfunctions(x[:3])


def test_units_of_time(data):
    trajectories = Trajectories.of(data, time_step=0.5, unit="ps")
    fitted = TICA(lag=2, draws=50).fit(trajectories, seed=0)
    frames = TICA(lag=2, draws=50).fit(data, seed=0)
    assert fitted.timescales().unit == "ps"
    assert torch.allclose(fitted.timescales().mean, 0.5 * frames.timescales().mean)


def test_streamed_moments_give_the_same(data):
    spec = TICA(lag=2, draws=50, block=20)
    whole = spec.fit(data, seed=0)
    found = streamed([torch.from_numpy(data).split(700)], whole.basis, 2, block=20)
    part = spec.estimated(found, whole.basis, seed=0)
    assert torch.allclose(part.estimate.values, whole.estimate.values, atol=1e-10)


def test_same_seed_same_draws(data):
    one, other = (TICA(draws=20).fit(data, seed=3).timescales().values for _ in range(2))
    assert torch.equal(one, other)


def test_what_cannot_be_known_is_refused(data):
    with pytest.raises(ConvergenceError, match="at least"):
        TICA(lag=2).fit(data[:120], seed=0)
    with pytest.raises(ConvergenceError, match="longer than the lag"):
        TICA(lag=100).fit(data[:100], seed=0)
    with pytest.raises(DataError, match="constant"):
        TICA().fit(np.ones((100, 2)), seed=0)


def test_bad_input(data):
    with pytest.raises(DataError, match="MarkovStateModel"):
        TICA().fit(np.array([0, 1, 0, 1]), seed=0)
    with pytest.raises(DataError, match="frame 5"):
        TICA().fit(np.where(np.arange(3000).reshape(-1, 3) == 15, np.nan, 1.0), seed=0)
    with pytest.raises(DataError, match="positive"):
        TICA(lag=0)
    fitted = TICA(draws=20).fit(data, seed=0)
    with pytest.raises(DataError, match="count"):
        fitted.timescales(4)
    with pytest.raises((ShapeError, RuntimeError)):
        fitted.transform(data[:, :2])
