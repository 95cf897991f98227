import math

import pytest
import torch

from bayesmol.calibration.adaptive import AdaptiveConformal
from bayesmol.calibration.conformal import Conformal
from bayesmol.calibration.controllers import ACI
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Gaussian


def posterior_of(*shape, stddev=1.0):
    return Gaussian(torch.zeros(*shape).double(), torch.full(shape, stddev**2).double(), unit="eV")


def correlated(steps, seed, coefficient=0.95):
    """Stationary AR(1) of unit variance."""
    noise = torch.randn(steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    values, scale = noise.tolist(), math.sqrt(1 - coefficient**2)
    for t in range(1, steps):
        values[t] = coefficient * values[t - 1] + scale * values[t]
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("method", ["aci", "dtaci", "pid"])
def test_long_run_coverage_of_a_correlated_stream(method):
    stream = correlated(5300, seed=1)
    spec = AdaptiveConformal(method)
    start = spec.start(spec.scores(posterior_of(300), stream[:300]))
    path = start.run(posterior_of(5000), stream[300:])
    assert float(path.coverage[-1]) == pytest.approx(0.9, abs=0.02)
    assert path.interval.covered(stream[300:]) == pytest.approx(float(path.coverage[-1]), abs=1e-3)
    # the fast rates of the mixture overshoot while misses come in a row
    assert float(path.interval.width.isinf().double().mean()) < (0.1 if method == "dtaci" else 0.02)


@pytest.mark.parametrize("method", ["aci", "dtaci", "pid"])
@pytest.mark.parametrize("simultaneous", [False, True])
def test_run_is_interval_and_update_in_turn(method, simultaneous, normal):
    truth, steps = normal(240, 3), torch.arange(60).repeat_interleave(4)
    spec = AdaptiveConformal(method, level=0.8, simultaneous=simultaneous, window=25)
    start = spec.start(spec.scores(posterior_of(80, 3), normal(80, 3), groups=torch.arange(20).repeat_interleave(4)))
    path, state = start.run(posterior_of(240, 3), truth, groups=steps), start
    for t in range(60):
        rows = slice(4 * t, 4 * t + 4)
        interval = state.interval(posterior_of(4, 3))
        torch.testing.assert_close(interval.upper, path.interval.upper[rows], rtol=0, atol=0)
        inside = interval.contains(truth[rows])
        missed = 1 - float(inside.all() if simultaneous else inside.double().mean())
        assert float(path.missed[t]) == pytest.approx(missed)
        state = state.update(posterior_of(4, 3), truth[rows])
    assert state.steps == path.state.steps == 60 and torch.equal(state.control, path.state.control)
    assert len(state.pool) == 25 and state.pool.shape[1] == (1 if simultaneous else 12)
    assert torch.allclose(path.coverage[-1], 1 - path.missed.mean())
    assert start.steps == 0 and len(start.pool) == 20


def test_first_interval_is_split_conformal(normal):
    truth, new = normal(120), posterior_of(3, stddev=2.0)
    for score in ("normalised", "absolute"):
        spec = AdaptiveConformal("aci", score=score)
        want = Conformal(score).fit(posterior_of(120), truth).interval(new, 0.9)
        for method in ("aci", "dtaci", "pid"):
            state = AdaptiveConformal(method, score=score).start(spec.scores(posterior_of(120), truth))
            torch.testing.assert_close(state.interval(new).upper, want.upper)


def test_coverage_returns_after_a_change(normal):
    calibration, truth = normal(300), torch.cat([normal(500), 3 * normal(1500)])
    plain = Conformal().fit(posterior_of(300), calibration).interval(posterior_of(2000), 0.9)
    assert float(plain.contains(truth)[500:].double().mean()) < 0.5
    for method in ("aci", "dtaci", "pid"):
        spec = AdaptiveConformal(method)
        path = spec.start(spec.scores(posterior_of(300), calibration)).run(posterior_of(2000), truth)
        assert 1 - float(path.missed[1000:].mean()) == pytest.approx(0.9, abs=0.03)


def test_forces_of_frames_in_the_long_run(normal):
    # a frame of 5 atoms whose errors have a common size: the entries of all frames reach the level
    size = correlated(2000, seed=3).exp().repeat_interleave(5)[:, None]
    truth, frames = size * normal(10_000, 3), torch.arange(2000).repeat_interleave(5)
    path = (
        AdaptiveConformal("aci").start(torch.zeros(0, 15).double()).run(posterior_of(10_000, 3), truth, groups=frames)
    )
    assert float(path.coverage[-1]) == pytest.approx(0.9, abs=0.02)
    assert bool(path.interval.width[0].isinf().all())


def test_guarantee_says_what_is_bounded(normal):
    spec = AdaptiveConformal(ACI(0.05))
    state = spec.start(normal(30, 1).abs())
    assert "tends to 0.1" in state.interval(posterior_of(1)).guarantee
    for _ in range(10):
        state = state.update(posterior_of(1), normal(1))
    sentence = state.interval(posterior_of(1)).guarantee
    assert f"first 10 steps differs from 0.1 by at most {0.95 / 0.5:.3g}" in sentence
    assert "a single interval has no probability" in sentence
    assert "no finite bound of the long-run share" in AdaptiveConformal("dtaci").start(normal(30, 1)).guarantee


def test_the_empty_set_is_the_mean_and_is_missed(normal):
    state = AdaptiveConformal(ACI(0.5)).start(normal(50, 1).abs())
    for _ in range(25):
        state = state.update(posterior_of(1), torch.zeros(1).double())
    path = state.run(posterior_of(60), torch.zeros(60).double())
    empty = path.thresholds == -math.inf
    assert bool(empty.any()) and bool((path.missed[empty] == 1).all())
    assert bool((path.interval.width[empty] == 0).all())


def test_bad_input(normal):
    with pytest.raises(DataError, match="method"):
        AdaptiveConformal("enbpi")
    with pytest.raises(DataError, match="level"):
        AdaptiveConformal(level=90)
    with pytest.raises(DataError, match="window"):
        AdaptiveConformal(window=0)
    spec = AdaptiveConformal()
    with pytest.raises(DataError, match=r"shape \(5,\)"):
        spec.start(normal(5))
    with pytest.raises(DataError, match="NaN or infinity"):
        spec.start(normal(5, 1) / 0)
    with pytest.raises(ShapeError, match="steps in order"):
        spec.scores(posterior_of(4), normal(4), groups=torch.tensor([0, 1, 0, 1]))
    with pytest.raises(ShapeError, match="steps in order"):
        spec.scores(posterior_of(3), normal(3), groups=torch.tensor([0, 0, 1]))
    with pytest.raises(ShapeError, match="3 entries a step"):
        spec.start(normal(5, 3)).update(posterior_of(2), normal(2))
    with pytest.raises(ShapeError):
        spec.start(normal(5, 3)).update(posterior_of(3), normal(2))
