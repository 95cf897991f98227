"""The alarm in dynamics on made-up streams and on a few steps of a tiny potential."""

from dataclasses import replace

import pytest
import torch
from ase import units

import bayesmol as bm
from bayesmol.potentials.ace_learning import MixingSchedule
from bayesmol.report import Study


@pytest.fixture
def module(study):
    return study("applicability_monitor")


@pytest.fixture(scope="module")
def frames():
    return bm.data.load("rmd17/ethanol")


@pytest.fixture(scope="module")
def model(frames):
    small = bm.potentials.BayesianACE(
        cutoffs=(4.0,), channels=(4, 4, 2), degrees=(2, 2, 1), mixing=MixingSchedule(steps=2)
    )
    return small.fit(frames[:6], seed=0)


def logarithms(module, source, chains, frames):
    circle = torch.zeros(2 * frames, dtype=torch.float64)
    circle[:20] = 0.6 ** torch.arange(20.0)
    circle[-19:] = circle[1:20].flip(0)
    return module.gaussian(torch.fft.rfft(circle).real.clamp_min(0), chains, frames, source)


def test_made_up_streams_have_their_spectrum(module, source):
    values = logarithms(module, source, 40, 1000)
    assert float(values.var()) == pytest.approx(1, abs=0.05)
    for lag in (1, 3):
        found = float((values[:, lag:] * values[:, :-lag]).mean())
        assert found == pytest.approx(0.6**lag, abs=0.03)
    again = module.gaussian(module.measured_spectrum(values, 1000), 40, 1000, source)
    assert float((again[:, 1:] * again[:, :-1]).mean()) == pytest.approx(0.6, abs=0.05)


def test_marginal(module, source):
    ordered = torch.randn(5000, generator=source, dtype=torch.float64).exp().sort().values
    normal = torch.randn(20_000, generator=source, dtype=torch.float64)
    found = module.marginal(normal, ordered, 1.0)
    for level in (0.1, 0.5, 0.9):
        assert float(found.quantile(level)) == pytest.approx(float(ordered.quantile(level)), rel=0.06)
    places = torch.tensor([4.0, 5.0]).double()
    far = module.marginal(places, ordered, 1.0)
    want = -float(torch.special.log_ndtr(-places).diff())
    assert float(far.diff()) == pytest.approx(want, rel=1e-9)


def test_forces_and_score(module, model, frames):
    few = frames.structures[:3]
    prediction = model.predict(few)
    forces, score = module.forces_and_score(model, few)
    torch.testing.assert_close(forces, prediction.forces.mean, rtol=1e-9, atol=1e-10)
    ratio = model.strangeness(few, prediction) / score
    torch.testing.assert_close(ratio, ratio[:1].expand(3), rtol=1e-7, atol=0)


def test_dynamics_keep_the_temperature(module, frames, source):
    """Free particles: the thermostat alone."""
    structures = replace(frames.structures[:60], positions=100 * frames.structures[:60].positions)

    module.forces_and_score = lambda model, s: (torch.zeros_like(s.positions), torch.ones(len(s)).double())
    start = torch.zeros_like(structures.positions)
    (_, velocities), scores = module.langevin(None, structures, start, 600.0, 300, source)
    temperature = float((module.masses(structures) * velocities.square()).mean() / units.kB)
    assert temperature == pytest.approx(600, rel=0.1) and scores.shape == (60, 300)


def test_simulated(module, model, frames):
    streams = module.simulated(model, frames.structures[:2], 20, 10, 10, 0, forget=2)
    assert [tuple(part.shape) for part in (streams.calibration, streams.usual, streams.hot)] == [(2, 2), (2, 1), (2, 1)]
    assert bool((streams.usual > 0).all())


def test_watched(module, source):
    study = Study("applicability", "monitor")
    usual = (0.2 * logarithms(module, source, 20, 400)).exp()
    hot = (1.5 + 0.2 * logarithms(module, source, 20, 100)).exp()
    plots = module.watched(study, module.Streams(usual[:, :200], usual[:, 200:], hot), 1000, 5, 0)
    found = {name: figure.value for name, figure in study.figures.items()}
    assert found["alarm_false_rate_chains"] <= 0.1 and found["alarm_false_rate"] <= 0.2
    assert found["alarm_found"] == 1 and 1 <= found["alarm_delay_frames"] <= 40
    assert 0 < found["alarm_microseconds"] < 500 and list(plots) == ["monitor"]
