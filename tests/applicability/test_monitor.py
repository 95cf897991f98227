"""The monitor: martingale and tail in closed form, false alarms on streams in the domain, and quick alarms outside."""

import math
import time

import pytest
import torch
from scipy import stats

from bayesmol.applicability import Domain
from bayesmol.applicability.alarm_bounds import PowerStarts
from bayesmol.applicability.monitor import Monitor
from bayesmol.calibration.drift import ConformalMartingale
from bayesmol.errors import ApplicabilityError, DataError, ShapeError


@pytest.fixture
def domain(normal):
    return Domain().calibrate(normal(400).exp())


def stream(source, chains, frames, coefficient=0.8):
    """Stationary positive scores whose logarithms are autoregressive with unit variance."""
    values = torch.randn(chains, frames, generator=source, dtype=torch.float64)
    for t in range(1, frames):
        values[:, t] = coefficient * values[:, t - 1] + math.sqrt(1 - coefficient**2) * values[:, t]
    return (0.3 * values).exp()


def test_far_is_immediate(domain):
    monitor = Monitor(domain, spacing=50)
    for _ in range(7):
        assert monitor.update(1.0) is None
    alarm = monitor.update(math.inf)
    assert (alarm.frame, alarm.reason, alarm.score) == (8, "far", math.inf)
    assert monitor.update(1.0) is alarm and monitor.alarm is alarm, "it is not forgotten"
    assert "frame 8" in str(alarm) and "stop" in str(alarm)
    monitor.restart()
    assert monitor.alarm is None and monitor.frames == 0 and monitor.update(1.0) is None


def test_far_bound_spends_no_more_than_its_half(domain):
    """The tail probabilities of the bounds of all horizons, times their frames, add up to half of the false alarms."""
    monitor = Monitor(domain, 0.02, horizon=1000)
    spent = 0.0
    for epoch in range(2000):
        monitor.frames = 1000 * epoch
        [bound], [tail] = monitor._far_bounds(), monitor.tails
        spent += 1000 * tail.fraction * math.exp(-(math.log(bound) - tail.start) / tail.index)
    assert 0.999 * 0.01 < spent < 0.01


def test_drift_is_that_of_the_martingale(domain, source):
    scores = stream(source, 1, 300)[0]
    monitor = Monitor(domain, spacing=3)
    for score in scores.tolist():
        monitor.update(score)
    state = ConformalMartingale(PowerStarts(patience=100_000 / 3), 0.005).start(domain.scores).run(scores[::3])
    assert monitor.log_martingale == pytest.approx(float(state.log_martingale[-1]), rel=1e-12)


def test_drift_within_few_frames(domain, normal):
    monitor = Monitor(domain)
    for score in normal(500).exp().tolist():
        assert monitor.update(score) is None
    strange = (float(domain.scores[-1]) * (1 + step / 100) for step in range(1, 20))
    alarm = next(filter(None, map(monitor.update, strange)))
    assert alarm.reason == "drift" and alarm.frame <= 507 and alarm.score >= alarm.bound == pytest.approx(math.log(200))


def test_false_alarms_of_correlated_streams(source):
    """Streams as long as a hundred memories, with a monitor from a trajectory of their kind."""
    alarms, streams = 0, 40
    for _ in range(streams):
        trajectory = stream(source, 8, 400)
        monitor = Monitor(Domain().calibrate(trajectory.flatten()), 0.1, trajectory=trajectory)
        assert 12 <= monitor.spacing <= 28, "two autocorrelation times of (1 + 0.8) / (1 - 0.8) = 9 frames"
        for score in stream(source, 1, 900)[0].tolist():
            monitor.update(score)
        alarms += monitor.alarm is not None
    assert alarms <= stats.binom.ppf(0.999, streams, 0.1)


def test_features(normal, domain):
    fitted = Domain("knn").fit(normal(200, 3)).calibrate(normal(300, 3))
    monitor = Monitor(fitted)
    assert monitor.update(normal(20, 3)) is None and monitor.frames == 20
    assert monitor.update(1e6 * torch.ones(1, 3, dtype=torch.float64)).reason == "far"


def test_an_update_is_cheap(domain, normal):
    scores = normal(20_000).exp().clamp_max(2.0).tolist()
    monitor = Monitor(domain, spacing=20)
    start = time.process_time()
    for score in scores:
        monitor.update(score)
    assert (time.process_time() - start) / len(scores) < 2e-4


@pytest.mark.parametrize("callback", [True, False])
def test_attached_to_dynamics(domain, callback):
    from ase import Atoms, units
    from ase.calculators.lj import LennardJones
    from ase.md.verlet import VelocityVerlet

    atoms = Atoms("Ar2", [[0, 0, 0], [1.2, 0, 0]], calculator=LennardJones())
    dynamics, monitor, found = VelocityVerlet(atoms, units.fs), Monitor(domain), []
    monitor.attach(dynamics, lambda a: math.inf if dynamics.nsteps >= 6 else 1.0, interval=2, on_alarm=found.append)
    if callback:
        dynamics.run(20)
        assert [alarm.frame for alarm in found] == [4] and dynamics.nsteps == 20
        return
    monitor.restart()
    again = VelocityVerlet(atoms, units.fs)
    monitor.attach(again, lambda a: math.inf if again.nsteps >= 6 else 1.0, interval=2)
    with pytest.raises(ApplicabilityError, match="far"):
        again.run(20)
    assert again.nsteps == 6


def test_guarantee(domain):
    said = Monitor(domain, 0.02, spacing=7).guarantee
    assert "≤ 0.02" in said and "7 apart" in said and "400 calibration scores" in said and "tail" in said


def test_bad_input(domain, normal):
    for options in ({"false_alarm": 0.0}, {"spacing": 0}, {"horizon": 0}):
        with pytest.raises(DataError):
            Monitor(domain, **options)
    with pytest.raises(DataError, match="NaN"):
        Monitor(domain).update(math.nan)
    with pytest.raises(ShapeError, match="trajectory"):
        Monitor(domain, trajectory=normal(2, 3))
    with pytest.raises(ApplicabilityError, match="simulate longer"):
        Monitor(domain, trajectory=normal(2, 30).exp())
    with pytest.raises(DataError, match="finite"):
        Monitor(domain, trajectory=torch.full((2, 100), math.inf).double())


def test_the_running_mean_finds_what_single_frames_hide(source):
    trajectory = stream(source, 8, 400)
    monitor = Monitor(Domain().calibrate(trajectory.flatten()), trajectory=trajectory)
    single, mean = monitor._bounds
    assert 5 <= monitor.windows[1] <= 14 and mean < 0.9 * single
    assert monitor.update(0.99 * single) is None, "too few frames for a mean"
    monitor.restart()
    alarm = next(filter(None, (monitor.update((mean + single) / 2) for _ in range(50))))
    assert alarm.reason == "far" and alarm.frame == monitor.windows[1] and alarm.bound == mean
