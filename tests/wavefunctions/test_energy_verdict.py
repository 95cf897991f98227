"""Sound runs are accepted, faulty ones are refused, each for its own reason."""

import math

import numpy as np
import pytest
from scipy.signal import lfilter

from bayesmol.wavefunctions.energy import Energy


def chains(source, walkers, draws, tau=1.0, heavy=False):
    """AR(1) chains of unit variance (three degrees of freedom if heavy) with the autocorrelation time tau."""
    phi = (tau - 1) / (tau + 1)
    if heavy:
        burn = int(10 * tau)
        noise = source.standard_t(3, (walkers, draws + burn)) / math.sqrt(3)
        return math.sqrt(1 - phi**2) * lfilter([1], [1, -phi], noise, axis=1)[:, burn:]
    noise = source.standard_normal((walkers, draws))
    noise[:, 0] /= math.sqrt(1 - phi**2)
    return math.sqrt(1 - phi**2) * lfilter([1], [1, -phi], noise, axis=1)


def energy(local, source, acceptance=0.6, gap=0.0, **further):
    """An energy with sound kinetic estimators."""
    kinetic = source.gamma(2.0, 1.0, local.shape)
    other = kinetic + source.normal(size=local.shape) - gap
    return Energy.of(local, other, kinetic, local - kinetic, acceptance=acceptance, steps=10, **further)


def two_modes(source, walkers, draws, tau=1.0):
    """Half of the walkers sit two standard deviations away and never change over."""
    local = chains(source, walkers, draws, tau)
    local[: walkers // 2] += 2.0
    return local


def wide_and_narrow(source, walkers, draws, tau=1.0):
    """Two modes of one mean: only the spread of the local energy differs."""
    local = chains(source, walkers, draws, tau)
    local[: walkers // 2] *= 3.0
    return local


def frozen(source, walkers, draws, tau=1.0):
    """One walker of fifty never moves."""
    local = chains(source, walkers, draws, tau)
    local[:: max(walkers // max(walkers // 50, 1), 1)] = local[:: max(walkers // max(walkers // 50, 1), 1), :1]
    return local


def tiny_steps(source, walkers, draws, tau=1.0):
    """The chains are as long as their own correlation."""
    return chains(source, walkers, draws, 2.0 * draws)


def heating(source, walkers, draws, tau=1.0):
    """All walkers come from one start far away."""
    return chains(source, walkers, draws, tau) + 3 * np.exp(-np.arange(draws) / (draws / 4))


FAULTS = (two_modes, wide_and_narrow, frozen, tiny_steps, heating)


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_samplers_are_refused(fault):
    source = np.random.default_rng(1)
    found = [energy(fault(source, 128, 100), source).verdict for _ in range(20)]
    assert found == ["refused"] * 20


@pytest.mark.parametrize(("tau", "heavy"), [(1.0, False), (4.0, True)])
def test_sound_samplers_are_accepted(tau, heavy):
    source = np.random.default_rng(2)
    found = [energy(chains(source, 128, 100, tau, heavy), source).verdict for _ in range(20)]
    assert found.count("refused") == 0


def test_each_fault_has_its_sentence():
    source = np.random.default_rng(3)
    sound = chains(source, 64, 200)
    assert "R-hat" in energy(two_modes(source, 64, 200), source).reasons[0]
    assert "halves" in " ".join(energy(heating(source, 64, 200), source).reasons)
    assert "did not move" in " ".join(energy(frozen(source, 64, 200), source).reasons)
    assert "fewer than 400" in " ".join(energy(chains(source, 16, 20), source).reasons)
    assert "kinetic" in energy(sound, source, gap=0.1).reasons[0]
    assert "accepted" in energy(sound, source, acceptance=0.01).reasons[0]
    assert energy(sound, source, acceptance=0.03).verdict == "suspect"
    assert energy(sound, source, acceptance=math.nan).verdict == "refused"
    heavy = np.sign(sound) * source.random(sound.shape) ** -0.9
    assert "Pareto k" in " ".join(energy(heavy, source).reasons)
    assert energy(heavy, source).verdict == "refused"


def test_log_density_is_watched_too():
    source = np.random.default_rng(4)
    local = chains(source, 64, 200)
    assert energy(local, source, log_density=chains(source, 64, 200)).verdict == "ok"
    assert energy(local, source, log_density=two_modes(source, 64, 200)).verdict == "refused"


def test_an_exact_wavefunction_is_accepted():
    source = np.random.default_rng(5)
    rounding = -0.5 + 1e-15 * source.standard_normal((32, 100))
    for local in (np.full((32, 100), -0.5), rounding):
        found = energy(local, source, log_density=chains(source, 32, 100))
        assert found.verdict == "ok", found.reasons
        assert found.pareto_k == -math.inf
        assert float(found.interval(0.95).width) < 1e-13


def test_not_finite_is_refused_without_a_number():
    source = np.random.default_rng(6)
    local = chains(source, 32, 100)
    local[3, 5] = math.nan
    found = energy(local, source)
    assert str(found) == "refused: 1 of 3200 local energies are not finite"
    assert math.isinf(float(found.estimate.standard_error))
    assert math.isinf(float(found.interval(0.9).width)) and math.isinf(float(found.variance.standard_error))
    assert found.content()["effective_sample_size"] is None
    assert found.kinetic_gap.z == pytest.approx(0.0, abs=5) and math.isnan(found.clipped.mean)


@pytest.mark.slow
@pytest.mark.parametrize(("walkers", "draws"), [(512, 100), (64, 500), (16, 1000), (4, 10_000)])
def test_rates(walkers, draws):
    """99 % of the faulty runs are refused, and sound ones hardly ever."""
    source, repeats = np.random.default_rng(7), 100
    longest = min(draws / 20, walkers * draws / 2000)  # so that the run is worth 2000 draws, and 20 of a walker
    for tau, heavy in ((1.0, False), (5.0, True), (longest, False)):
        verdicts = [energy(chains(source, walkers, draws, tau, heavy), source).verdict for _ in range(repeats)]
        print(walkers, draws, "sound", tau, heavy, {v: verdicts.count(v) for v in set(verdicts)})
        assert verdicts.count("refused") <= 0.02 * repeats
    for fault in FAULTS:
        for tau in (1.0, 5.0):
            verdicts = [energy(fault(source, walkers, draws, tau), source).verdict for _ in range(repeats)]
            print(walkers, draws, fault.__name__, tau, {v: verdicts.count(v) for v in set(verdicts)})
            assert verdicts.count("refused") >= 0.99 * repeats
