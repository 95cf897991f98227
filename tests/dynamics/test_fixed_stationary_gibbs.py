"""Posteriors with known populations against quadrature, for every shape of two- and three-state counts."""

import itertools

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from bayesmol.dynamics.fixed_stationary_gibbs import FixedStationaryGibbs, _rounds
from bayesmol.errors import DataError, ShapeError


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


def two_state_moments(counts, pi):
    """Mean and standard deviation of x_12 by quadrature in its logit."""
    s, (a, b), top = counts[0][1] + counts[1][0], [c if c else 1 for c in (counts[0][0], counts[1][1])], min(pi)

    def moment(power):
        def integrand(z):
            t = 1 / (1 + np.exp(-z))
            x, spare = top * t, top / (1 + np.exp(z))
            rest = [spare + (p - top) for p in pi]
            return x ** (s + power) * rest[0] ** (a - 1) * rest[1] ** (b - 1) * spare

        return quad(integrand, -30 / min(s, 1), 30 / min(a, b, 1), limit=400, epsabs=0, epsrel=1e-9)[0]

    zero, one, two = (moment(k) for k in range(3))
    return one / zero, (two / zero - (one / zero) ** 2) ** 0.5


@pytest.mark.parametrize(
    ("counts", "pi", "mean", "std"),
    [
        ([[5, 3], [0, 4]], (0.45, 0.55), 0.1323, 0.0621),
        ([[3, 1], [1, 2]], (0.45, 0.55), 0.1581, 0.0840),
        ([[20, 3], [2, 30]], (0.40, 0.60), 0.04613, 0.01941),
    ],
)
def test_published_checks(counts, pi, mean, std):
    exact = two_state_moments(counts, pi)
    assert exact == pytest.approx((mean, std), abs=6e-5)
    x = FixedStationaryGibbs(draws=200000, chains=20000, sweeps=2, warmup=8).fit(tensor(counts), tensor(pi), seed=0)
    flows = x.flows[..., 0]
    assert float(flows.mean()) == pytest.approx(exact[0], abs=6 * exact[1] / 200000**0.5)
    assert float(flows.std()) == pytest.approx(exact[1], rel=0.02)


_TWO = [counts for counts in itertools.product((0, 0.6, 4), repeat=4) if counts[1] + counts[2] > 0]


def test_all_two_state_counts():
    """Every pattern of zeros, counts below one and counts above, one-way counts included."""
    for counts in _TWO:
        rows, pi = [list(counts[:2]), list(counts[2:])], (0.3, 0.7)
        mean, std = two_state_moments(rows, pi)
        x = FixedStationaryGibbs(draws=8000, chains=2000, sweeps=2, warmup=8).fit(tensor(rows), tensor(pi), seed=1)
        flows = x.flows[..., 0]
        assert float(flows.mean()) == pytest.approx(mean, abs=6 * std / 5000**0.5), rows
        assert float(flows.std()) == pytest.approx(std, rel=0.08), rows


def three_state_moments(counts, pi, nodes=120):
    """Means and standard deviations of x_12, x_13, x_23 by a grid over the polytope."""
    total = counts + counts.mT
    stay = torch.where(counts.diagonal() > 0, counts.diagonal(), 1.0)
    t = torch.sigmoid(torch.linspace(-14, 14, nodes, dtype=torch.float64))
    u, v, w = torch.meshgrid(t, t, t, indexing="ij")
    a = u * pi[:2].min()
    b = v * torch.minimum(pi[0] - a, pi[2])
    top = torch.minimum(pi[1] - a, pi[2] - b)
    c = w * top
    log = (u * (1 - u) * v * (1 - v) * w * (1 - w) * torch.minimum(pi[0] - a, pi[2]) * top).log()
    for x, (i, j) in ((a, (0, 1)), (b, (0, 2)), (c, (1, 2))):
        log = log + (total[i, j] - 1) * x.log()
    for i, gone in enumerate((a + b, a + c, b + c)):
        log = log + (stay[i] - 1) * (pi[i] - gone).clamp_min(1e-300).log()
    weight = (log - log.max()).exp()
    weight = weight / weight.sum()
    means = torch.stack([(weight * x).sum() for x in (a, b, c)])
    squares = torch.stack([(weight * x * x).sum() for x in (a, b, c)])
    return means, (squares - means.square()).sqrt()


@pytest.mark.parametrize(
    "counts",
    [
        [[5.0, 2, 1], [3, 6, 2], [1, 1, 7]],
        [[5.0, 2, 1], [0, 6, 2], [0, 0, 7]],
        [[0.0, 2, 1], [3, 0, 2], [1, 1, 3]],
        [[2.0, 0, 0], [1, 2, 0], [2, 1, 2]],
    ],
)
def test_three_state_counts(counts):
    counts, pi = tensor(counts), tensor([0.2, 0.5, 0.3])
    means, spreads = three_state_moments(counts, pi)
    samples = FixedStationaryGibbs(draws=60000, chains=6000, sweeps=4, warmup=25).fit(counts, pi, seed=2)
    flows = samples.flows[..., :3].flatten(0, 1)
    assert bool(((flows.mean(0) - means).abs() < 6 * spreads / 20000**0.5).all())
    torch.testing.assert_close(flows.std(0), spreads, rtol=0.03, atol=0)


def test_draws_keep_the_populations():
    counts = torch.rand(9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64).mul(4).round()
    pi = torch.linspace(1, 3, 9, dtype=torch.float64)
    samples = FixedStationaryGibbs(draws=1600).fit(counts, pi, seed=3)  # R-hat of 200 is up to 1.12 by chance
    batch = samples.transitions()
    flows = batch.stationary[..., None] * batch.transition
    assert float((batch.stationary - pi / pi.sum()).abs().max()) < 1e-12
    assert float((batch.transition.sum(-1) - 1).abs().max()) < 1e-12
    assert float((flows - flows.mT).abs().max()) < 1e-12
    assert bool((samples.flows > 0).all())
    assert float(samples.agreement(2).r_hat.max()) < 1.1


@pytest.mark.parametrize("states", [2, 3, 8, 9])
def test_rounds_are_disjoint_and_complete(states):
    pairs = torch.ones(states, states).triu(1).nonzero().T
    rounds = _rounds(pairs, torch.ones(states, states), states)
    for one in rounds:
        members = torch.cat([one.first, one.second])
        assert len(members.unique()) == len(members)
    assert sorted(torch.cat([one.rows for one in rounds]).tolist()) == list(range(pairs.shape[1]))
    assert len(rounds) == states - 1 + states % 2


def test_bad_input():
    counts = torch.ones(3, 3)
    with pytest.raises(DataError, match="positive populations"):
        FixedStationaryGibbs().fit(counts, tensor([0.5, 0.5, 0.0]), seed=0)
    with pytest.raises(ShapeError):
        FixedStationaryGibbs().fit(counts, tensor([0.5, 0.5]), seed=0)
    with pytest.raises(DataError, match="without any"):
        FixedStationaryGibbs().fit(torch.diag(tensor([1, 0, 1])) + 0.0, tensor([1, 1, 1]), seed=0)
