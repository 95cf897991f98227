"""Models to deeptime and back."""

import sys

import numpy as np
import pytest
import torch

from bayesmol.data.exact_chains import MarkovChain
from bayesmol.dynamics.deeptime import from_deeptime, to_deeptime
from bayesmol.dynamics.linear import EDMD, TICA, VAMP
from bayesmol.dynamics.markov_state_model import MarkovStateModel
from bayesmol.errors import DataError, DependencyError

T = torch.tensor([[0.9, 0.1, 0.0], [0.1, 0.8, 0.1], [0.0, 0.1, 0.9]], dtype=torch.float64)


def features(frames=3000):
    source = np.random.default_rng(0)
    x = np.zeros((frames, 3))
    for t in range(1, frames):
        x[t] = np.array([0.95, 0.8, 0.3]) * x[t - 1] + source.normal(size=3)
    return x @ np.array([[1.0, 0.2, 0.1], [0.0, 1.0, 0.3], [0.1, 0.0, 1.0]]) + 5.0


def test_markov_state_models():
    pytest.importorskip("deeptime")
    fitted = MarkovStateModel(lag=2, draws=20).fit(MarkovChain(T).simulate(3000, seed=0), seed=0)
    theirs = to_deeptime(fitted)
    assert theirs.lagtime == 2
    assert theirs.reversible
    slow = -2 / torch.linalg.eigvals(fitted.transition_matrix).real.sort(descending=True).values[1:].log()
    assert np.allclose(theirs.timescales(), slow)
    assert np.allclose(
        theirs.mfpt([0], [2]), fitted.posterior(lambda m: m.transition[:, 0, 0]).mean * 0 + theirs.mfpt(0, 2)
    )
    back = from_deeptime(theirs)
    assert torch.allclose(back.transition, fitted.transition_matrix)
    assert torch.allclose(back.stationary, fitted.estimate.stationary)
    assert torch.equal(from_deeptime(theirs.count_model), fitted.counts.total())


def test_posteriors_of_deeptime():
    deeptime = pytest.importorskip("deeptime")
    samples = [deeptime.markov.msm.MarkovStateModel(T.numpy()) for _ in range(4)]
    found = from_deeptime(deeptime.markov.msm.BayesianMSMPosterior(samples[0], samples))
    assert found.transition.shape == (4, 3, 3)


@pytest.mark.parametrize("spec", [TICA, VAMP])
def test_koopman_models(spec):
    deeptime = pytest.importorskip("deeptime")
    x = features()
    fitted = spec(lag=3, dimensions=2, draws=20).fit(x, seed=0)
    ours = to_deeptime(fitted)
    estimator = deeptime.decomposition.TICA if spec is TICA else deeptime.decomposition.VAMP
    theirs = estimator(lagtime=3, dim=2, scaling=None).fit_from_timeseries(x).fetch_model()
    assert np.allclose(ours.singular_values, theirs.singular_values[:2], atol=1e-6)
    assert np.allclose(np.abs(ours.transform(x)), np.abs(theirs.transform(x)), atol=1e-3)
    assert np.allclose(ours.transform(x), fitted.transform(torch.as_tensor(x)))
    assert np.allclose(ours.cov_00, theirs.cov_00, rtol=1e-3)
    assert np.allclose(ours.mean_0, theirs.mean_0)
    for model in (ours, theirs):
        spectrum = from_deeptime(model)
        assert torch.allclose(spectrum.values[1:].abs(), fitted.estimate.values[1:].abs(), atol=1e-6)
        values = spectrum.right[0] + torch.as_tensor(x) @ spectrum.right[1:]
        assert torch.allclose(values[:, 1:].abs(), fitted.transform(torch.as_tensor(x)).abs(), atol=1e-3)


def test_what_has_no_counterpart():
    pytest.importorskip("deeptime")
    with pytest.raises(DataError, match="model"):
        to_deeptime(3)
    with pytest.raises(DataError, match="model"):
        from_deeptime(3)
    rotation = 0.9 * torch.tensor([[0.8, 0.6], [-0.6, 0.8]]).double()
    x, noise = torch.zeros(2000, 2).double(), torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    for t in range(1, 2000):
        x[t] = rotation @ x[t - 1] + noise[t]
    with pytest.raises(DataError, match="EDMD"):
        to_deeptime(EDMD(dimensions=2, draws=10).fit(x, seed=0))


def test_without_deeptime(monkeypatch):
    monkeypatch.setitem(sys.modules, "deeptime", None)
    with pytest.raises(DependencyError, match="deeptime"):
        from_deeptime(None)
