"""Reversible posteriors against Beta laws, brute-force quadrature and deeptime."""

import pytest
import torch
from scipy import stats

from bayesmol.dynamics.reversible import reversible_estimate
from bayesmol.dynamics.reversible_gibbs import ReversibleGibbs
from bayesmol.errors import DataError, ShapeError

THREE = torch.tensor([[5.0, 2, 1], [3, 6, 2], [1, 1, 7]], dtype=torch.float64)


def banded(states, scale, seed=0):
    """Counts of a walk in a double well, connected through neighbours."""
    x = torch.linspace(-1.5, 1.5, states, dtype=torch.float64)
    well = -2 * (x.square() - 1).square()
    rate = torch.exp(-((x[:, None] - x) / 0.25).square() + (well[:, None] + well) / 2)
    counts = torch.poisson(scale * rate / rate.sum(), generator=torch.Generator().manual_seed(seed))
    near = torch.ones(states - 1, dtype=torch.float64)
    return counts + torch.diag(near, 1) + torch.diag(near, -1)


def three_state_moments(counts, nodes=400):
    """Exact mean and mean square of p_ij: staying is Beta, the three flows between states are integrated in the plane.

    With x_ii integrated out, 1 − p_ii ~ Beta(c_i − c_ii, c_ii) is independent of the rest, whose density on
    x_12 + x_13 + x_23 = 1 is the product of x_ij^(c_ij + c_ji − 1) and of o_i^(c_ii − c_i), o_i the flow out of i.
    """
    grid = (torch.arange(nodes, dtype=torch.float64) + 0.5) / nodes
    logit = 24 * grid - 12
    u, v = torch.sigmoid(logit)[:, None], torch.sigmoid(logit)[None, :]
    x12, x13, x23 = u * v, u * (1 - v), (1 - u) * torch.ones_like(v)
    area = u * u * (1 - u) * v * (1 - v)  # dx12 dx13 = u du dv, each a logit
    flows = {(0, 1): x12, (0, 2): x13, (1, 2): x23}
    out = [x12 + x13, x12 + x23, x13 + x23]
    log = area.log()
    for (i, j), x in flows.items():
        log = log + (counts[i, j] + counts[j, i] - 1) * x.log()
    leaving = counts.sum(1) - counts.diagonal()
    for i in range(3):
        log = log - leaving[i] * out[i].log()
    weight = (log - log.max()).exp()
    weight = weight / weight.sum()
    first, second = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    for i in range(3):
        law = stats.beta(float(leaving[i]), float(counts[i, i]))
        first[i, i], second[i, i] = 1 - law.mean(), law.var() + (1 - law.mean()) ** 2
        for j in range(3):
            if i != j:
                jump = flows[min(i, j), max(i, j)] / out[i]
                first[i, j] = law.mean() * (weight * jump).sum()
                second[i, j] = (law.var() + law.mean() ** 2) * (weight * jump.square()).sum()
    return first, second


@pytest.mark.parametrize("scale", [1.0, 0.3, 30.0])
def test_three_states_match_quadrature(scale):
    counts = THREE * scale
    first, second = three_state_moments(counts)
    samples = ReversibleGibbs(draws=40000, chains=4000).fit(counts, seed=0)
    p = samples.transitions().transition
    effective = 0.7 * len(p)  # a margin for what correlation is left
    assert bool(((p.mean(0) - first).abs() < 5 * p.std(0) / effective**0.5).all())
    squares = p.square()
    assert bool(((squares.mean(0) - second).abs() < 5 * squares.std(0) / effective**0.5).all())


def test_two_states_and_chains_of_states_are_beta():
    counts = torch.tensor([[6.0, 2, 0], [1, 4, 3], [0, 0.5, 5]], dtype=torch.float64)
    p = ReversibleGibbs(draws=4000, chains=400, moves=3).fit(counts, seed=1).transitions().transition.numpy()
    # On a tree of states detailed balance is no constraint, and the posterior is that of independent rows.
    assert stats.kstest(p[:, 0, 1], stats.beta(2, 6).cdf).pvalue > 1e-4
    assert stats.kstest(p[:, 1, 2], stats.beta(3, 5).cdf).pvalue > 1e-4
    assert stats.kstest(p[:, 2, 1], stats.beta(0.5, 5).cdf).pvalue > 1e-4
    assert (p[:, 0, 2] == 0).all()


def test_draws_are_stochastic_and_reversible():
    samples = ReversibleGibbs(draws=200).fit(banded(40, 5e3), seed=2)
    batch = samples.transitions()
    flows = batch.stationary[..., None] * batch.transition
    assert float((batch.transition.sum(-1) - 1).abs().max()) < 1e-12
    assert float((flows - flows.mT).abs().max()) < 1e-12
    assert float((batch.stationary[:, None] @ batch.transition - batch.stationary[:, None]).abs().max()) < 1e-12
    torch.testing.assert_close(samples.stationary.flatten(0, 1), batch.stationary, rtol=1e-12, atol=1e-15)


def test_draws_are_nearly_independent_and_chains_agree():
    samples = ReversibleGibbs(draws=1000).fit(banded(40, 5e3), seed=3)
    r_hat, size = samples.agreement(3)
    assert bool((r_hat < 1.03).all()) and bool((size > 600).all())
    assert samples.acceptance > 0.7
    times = samples.timescales(2, lag=0.5, unit="ns")
    assert times.unit == "ns" and times.shape == (2,)
    torch.testing.assert_close(times.values, -0.5 / samples.eigenvalues(2).values.abs().log())


def test_pseudocounts_keep_matrices_of_few_counts_near_the_estimate():
    counts = banded(30, 2e4) / 50
    best = reversible_estimate(counts)
    sparse = ReversibleGibbs(draws=500).fit(counts, seed=4).transitions().transition
    proper = ReversibleGibbs(draws=500, pseudocounts=1.0).fit(counts, seed=4).transitions().transition
    zero = best.transition == 0
    assert bool((sparse[:, zero] == 0).all()) and bool((proper[:, zero] > 0).double().mean() > 0.8)
    assert float((proper.sum(-1) - 1).abs().max()) < 1e-12


def test_agrees_with_deeptime():
    deeptime = pytest.importorskip("deeptime")
    counts = banded(12, 2e3)
    sampler = deeptime.markov.tools.estimation.tmatrix_sampler(counts.numpy(), reversible=True, nsteps=8)
    theirs = torch.as_tensor(sampler.sample(nsamples=1500))
    ours = ReversibleGibbs(draws=4000).fit(counts, seed=5).transitions().transition
    error = (theirs.var(0) / 600 + ours.var(0) / 3000).sqrt() + 1e-12
    assert float(((theirs.mean(0) - ours.mean(0)).abs() / error).max()) < 5
    seen = ours.std(0) > 0
    assert float((theirs.std(0)[seen] / ours.std(0)[seen]).log().abs().max()) < 0.3


def test_same_seed_gives_the_same_draws():
    spec = ReversibleGibbs(draws=20, chains=4)
    assert torch.equal(spec.fit(THREE, seed=6).flows, spec.fit(THREE, seed=6).flows)


def test_bad_input():
    with pytest.raises(DataError, match="strongly connected"):
        ReversibleGibbs().fit(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), seed=0)
    with pytest.raises(ShapeError):
        ReversibleGibbs().fit(THREE[None], seed=0)
    with pytest.raises(DataError, match="multiple"):
        ReversibleGibbs(draws=1001)
