"""Means, correlations and relaxation of a chain: spectral sums, identities, deeptime."""

import pytest
import torch

from bayesmol.dynamics.elimination import stationary_distribution
from bayesmol.dynamics.relaxation import correlation_function, mean_observable, relaxation_function
from bayesmol.errors import DataError, ShapeError


def chain(*shape, seed=0):
    """Random stochastic matrices of the leading shape; irreversible."""
    raw = torch.rand(*shape, shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3
    return raw / raw.sum(-1, keepdim=True)


def test_two_states_decay_by_one_exponential(normal):
    a, b = 0.02, 0.05
    P = torch.tensor([[1 - a, a], [b, 1 - b]], dtype=torch.float64)
    x = torch.tensor([0.0, 1.0], dtype=torch.float64)
    steps, mean = [0, 1, 3, 10, 5000], a / (a + b)
    decay = torch.tensor([(1 - a - b) ** n for n in steps], dtype=torch.float64)
    assert float(mean_observable(P, x)) == pytest.approx(mean, rel=1e-14)
    want = mean**2 + mean * (1 - mean) * decay
    torch.testing.assert_close(correlation_function(P, x, steps=steps), want, rtol=1e-12, atol=0)
    got = relaxation_function(P, 1 - x, x, steps=steps)
    torch.testing.assert_close(got, mean * (1 - decay), rtol=1e-12, atol=1e-16)


def test_limits(normal):
    P, x, y = chain(3, 12), normal(12), normal(12)
    pi = stationary_distribution(P)
    got = correlation_function(P, x, y, steps=[0, 100000])
    torch.testing.assert_close(got[:, 0], (pi * x * y).sum(1))
    torch.testing.assert_close(got[:, 1], (pi @ x) * (pi @ y), rtol=1e-10, atol=1e-12)
    start = torch.full((12,), 1 / 12, dtype=torch.float64)
    late = relaxation_function(P, start, x, steps=[100000])[:, 0]
    torch.testing.assert_close(late, mean_observable(P, x), rtol=1e-10, atol=1e-12)


def test_powers_agree_with_steps(normal):
    """The jump by squaring and the walk step by step are one function."""
    P, x = chain(6), normal(6)
    far = correlation_function(P @ P, x, steps=[300])
    torch.testing.assert_close(correlation_function(P, x, steps=[0, 1, 599, 600])[-1:], far, rtol=1e-11, atol=1e-13)


def test_bad_input(normal):
    P, x = chain(4), normal(4)
    for steps in ([], [-1], [2, 2], [3, 1]):
        with pytest.raises(DataError, match="steps"):
            correlation_function(P, x, steps=steps)
    with pytest.raises(ShapeError):
        mean_observable(P, normal(5))
    with pytest.raises(DataError, match="finite"):
        mean_observable(P, x * float("nan"))
    with pytest.raises(DataError, match="distribution"):
        relaxation_function(P, x.abs() + 1, x, steps=[1])


def test_deeptime_agrees(normal):
    deeptime = pytest.importorskip("deeptime")
    raw = chain(7)
    pi = stationary_distribution(raw)
    P = (raw + (raw.T * pi[None] / pi[:, None])) / 2  # reversible, as deeptime's sums over eigenvectors want it
    model, x, y = deeptime.markov.msm.MarkovStateModel(P.numpy()), normal(7), normal(7)
    _, theirs = model.correlation(x.numpy(), y.numpy(), maxtime=5)
    ours = correlation_function(P, x, y, steps=range(len(theirs)))
    torch.testing.assert_close(ours, torch.as_tensor(theirs), rtol=1e-9, atol=1e-11)
    start = torch.eye(7, dtype=torch.float64)[2]
    _, theirs = model.relaxation(start.numpy(), x.numpy(), maxtime=5)
    ours = relaxation_function(P, start, x, steps=range(len(theirs)))
    torch.testing.assert_close(ours, torch.as_tensor(theirs), rtol=1e-9, atol=1e-11)
