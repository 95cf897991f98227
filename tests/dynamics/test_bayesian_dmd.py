"""The Gibbs sampler finds rank and eigenvalues, and its conditionals are those of the model."""

import math
from dataclasses import replace

import pytest
import torch

from bayesmol.dynamics import bayesian_dmd
from bayesmol.dynamics.bayesian_dmd import BayesianDMD, _State, _sweep
from bayesmol.errors import ConvergenceError, DataError
from bayesmol.inference.random import generator

VALUES = torch.polar(torch.tensor([0.99, 0.97]).double(), torch.tensor([0.4, -1.2]).double())
SPEC = BayesianDMD(rank=4, chains=2, warmup=120, draws=120)


def snapshots(noise=0.05, time=40, space=10, seed=0):
    source = generator(seed)
    modes = torch.randn(2, space, dtype=torch.complex128, generator=source)
    clean = (VALUES[None] ** torch.arange(time)[:, None]) @ modes
    return clean + noise * torch.randn(clean.shape, dtype=clean.dtype, generator=source)


def nearest(fit):
    found = torch.view_as_complex(fit.eigenvalues.mean.contiguous())
    return (found[:, None] - VALUES).abs()


def test_rank_eigenvalues_and_noise():
    fit = SPEC.fit(snapshots(), seed=1)
    assert float(fit.rank.quantile(0.5)) == 2
    assert fit.eigenvalues.shape == (2, 2) and fit.modes.shape == (2, 10, 2)
    assert float(nearest(fit).amin(0).max()) < 0.01
    assert 0.04 < float(fit.noise_stddev.mean) < 0.06
    assert float(fit.eigenvalues.stddev.max()) < 0.01
    assert float(fit.r_hat.max()) < 1.2
    truth = (VALUES.angle() / (2 * math.pi)).sort().values
    torch.testing.assert_close(fit.frequencies.mean.sort().values, truth, atol=2e-3, rtol=0)


def test_missing_entries():
    data = snapshots(seed=2)
    gone = torch.rand(data.shape, generator=generator(3), dtype=torch.float64) < 0.2
    fit = SPEC.fit(torch.where(gone, torch.nan, data), seed=1)
    assert float(fit.rank.quantile(0.5)) == 2
    assert float(nearest(fit).amin(0).max()) < 0.015


def test_same_seed_same_draws():
    spec = replace(SPEC, warmup=5, draws=5)
    one, two, other = (spec.fit(snapshots(), seed=k).noise_stddev.values for k in (1, 1, 2))
    torch.testing.assert_close(one, two, rtol=1e-9, atol=0)
    assert not torch.allclose(one, other)


def test_sweep_leaves_the_joint_distribution_as_it_is(monkeypatch):
    """Geweke: parameters from the prior, data given them, and one sweep: their moments stay those of the prior."""
    monkeypatch.setattr(bayesian_dmd, "_VAGUE", 6.0)
    chains, count, rank, space = 4000, 3, 2, 2
    source = generator(4)

    def normal(*shape):
        return torch.randn(shape, dtype=torch.complex128, generator=source)

    def gamma(*shape):
        return torch._standard_gamma(torch.full(shape, 6.0, dtype=torch.float64), generator=source)

    relevance, noise = 6.0 / gamma(chains, rank), 6.0 / gamma(chains)
    modes = relevance.sqrt()[..., None] * normal(chains, rank, space)
    amplitudes, values = normal(chains, count, rank), math.sqrt(1e3) * normal(chains, rank)
    clean = torch.stack([amplitudes @ modes, (amplitudes * values[:, None]) @ modes], 2)
    pairs = clean + noise.sqrt()[:, None, None, None] * normal(*clean.shape)
    known = torch.rand(count, 2, space, generator=source) < 0.7
    state = _State(pairs, amplitudes, modes, values, noise, relevance)
    for _ in range(3):
        state = _sweep(state, known, source)
    checks = {
        "noise": (state.noise.log(), noise.log()),
        "relevance": (state.relevance.log().mean(1), relevance.log().mean(1)),
        "modes": ((state.modes.abs().square().sum(-1) / state.relevance).mean(1), torch.full((chains,), 2.0)),
        "values": (state.values.abs().square().mean(1) / 1e3, torch.full((chains,), 1.0)),
        "amplitudes": (state.amplitudes.abs().square().mean((1, 2)), torch.full((chains,), 1.0)),
        "phase": (state.amplitudes.real.mean((1, 2)), torch.full((chains,), 0.0)),
    }
    for name, (after, before) in checks.items():
        error = math.hypot(float(after.std()), float(before.double().std())) / math.sqrt(chains)
        assert abs(float(after.mean() - before.double().mean())) < 4.5 * error, name


def test_noise_alone_has_no_modes():
    data = torch.randn(40, 8, dtype=torch.complex128, generator=generator(7))
    try:
        fit = replace(SPEC, rank=3).fit(data, seed=0)
    except ConvergenceError as error:
        assert "at least one above the noise" in str(error)
    else:
        pytest.fail(f"{fit.eigenvalues.shape[0]} modes of pure noise")


@pytest.mark.parametrize(
    ("spec", "data", "word"),
    [
        (lambda: BayesianDMD(rank=0), snapshots(), "rank"),
        (lambda: BayesianDMD(draws=2), snapshots(), "draws"),
        (lambda: BayesianDMD(rank=39), snapshots(time=30), "rank"),
        (lambda: BayesianDMD(), torch.zeros(5), "snapshots"),
        (lambda: BayesianDMD(), snapshots() * math.inf, "snapshots"),
    ],
)
def test_bad_input(spec, data, word):
    with pytest.raises(DataError, match=word):
        spec().fit(data, seed=0)
