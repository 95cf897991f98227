from dataclasses import replace

import pytest
import torch
from scipy.stats import binom

from bayesmol.data.exact_chains import LinearProcess, MarkovChain, double_well_chain
from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.linear import TICA
from bayesmol.dynamics.moments import moments
from bayesmol.dynamics.reweighting import EquilibriumMoments, density_ratio, equilibrium_moments
from bayesmol.errors import ConvergenceError, DataError
from bayesmol.representation.basis import Indicators

CHAIN = double_well_chain(16, barrier=4.0, reach=3)
EDGES = torch.arange(2.5, 13.5, dtype=torch.float64)  # the rarest states at the ends are one
LAG = 5


def exact(chain, starts, functions):
    """Expected third moments of one pair with these probabilities of the first state."""
    x = torch.cat([torch.ones(len(functions), 1).to(functions), functions], 1)
    pairs = starts[:, None] * chain.matrix
    early = torch.einsum("s,sk,si,sj->kij", starts, x, x, x)
    cross = torch.einsum("st,sk,si,tj->kij", pairs, x, x, x)
    late = torch.einsum("st,sk,ti,tj->kij", pairs, x, x, x)
    frame = torch.eye(x.shape[1]).to(x)
    return EquilibriumMoments(early[None], cross[None], late[None], torch.zeros(1).long(), 1, 1, frame), x


def one_well(seed, trajectories=300, frames=101):
    start = torch.where(torch.arange(16) < 6, CHAIN.stationary, 0.0)
    states = CHAIN.simulate(frames, trajectories=trajectories, start=start / start.sum(), seed=seed)
    return states.mapped(lambda s: s[:, None].double())


def spec(**options):
    return TICA(lag=LAG, draws=300, dimensions=2, basis=Indicators(edges=EDGES), **options)


def timescale():
    """Of the chain seen on the cells, at equilibrium."""
    cells = torch.bucketize(torch.arange(16).double(), EDGES, right=True)
    member = torch.nn.functional.one_hot(cells).double()
    weighted = member * CHAIN.stationary[:, None]
    later = torch.matrix_power(CHAIN.matrix, LAG) @ member
    values = torch.linalg.eigvals(torch.linalg.solve(weighted.mT @ member, weighted.mT @ later)).real
    return -LAG / values.sort(descending=True).values[1:2].log()


@pytest.mark.parametrize("seed", range(3))
def test_expected_counts_from_any_start_give_the_moments_at_equilibrium(seed):
    source = torch.Generator().manual_seed(seed)
    matrix, starts = (torch.rand(*shape, generator=source, dtype=torch.float64) for shape in ((4, 4), (4,)))
    chain = MarkovChain(matrix / matrix.sum(1, keepdim=True))
    found, x = exact(chain, starts / starts.sum(), torch.eye(4, dtype=torch.float64)[:, 1:])
    early, cross, late = found.mean()
    wanted = x.mT @ (chain.stationary[:, None] * x)
    assert torch.allclose(early, wanted, atol=1e-12) and torch.allclose(late, wanted, atol=1e-12)
    assert torch.allclose(cross, x.mT @ (chain.stationary[:, None] * (chain.matrix @ x)), atol=1e-12)
    assert torch.allclose(x @ found.coefficients, chain.stationary * starts.sum() / starts, atol=1e-12)


def test_the_effective_sample_size_by_hand():
    chain = MarkovChain(torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64))
    found, _ = exact(chain, torch.tensor([0.5, 0.5], dtype=torch.float64), torch.eye(2, dtype=torch.float64)[:, 1:])
    # π = (3/4, 1/4): the weights are 3/2 and 1/2.
    assert found.effective_sample_size == pytest.approx(1 / (0.5 * 1.5**2 + 0.5 * 0.5**2))
    assert float(found.shares) == pytest.approx(1.0)


def test_sums_are_those_of_the_pairs():
    data = Trajectories.of([torch.randn(n, 2, generator=torch.Generator().manual_seed(n)) for n in (400, 3, 250)])
    found = equilibrium_moments(data, lambda x: x, 4, block=100)
    x = [torch.cat([torch.ones(len(part), 1), part], 1) for part in data]
    for name, a, b, c in (("early", 0, 0, 0), ("cross", 0, 0, 1), ("late", 0, 1, 1)):
        ends = [(one[:-4], one[4:]) for one in x if len(one) > 4]
        wanted = sum(torch.einsum("tk,ti,tj->kij", e[a], e[b], e[c]) for e in ends)
        assert torch.allclose(getattr(found, name).sum(0), wanted, rtol=1e-10, atol=1e-10)
    assert found.pairs == 396 + 246 and found.trajectory.tolist() == [0] * 4 + [2] * 3
    plain = moments(data, lambda x: x, 4, block=100)
    assert torch.allclose(found.early[:, 0], plain.early, atol=1e-10)


def test_each_draw_has_its_own_weights():
    """Draws from blocks are the estimates from those blocks alone."""
    found = equilibrium_moments(one_well(0), Indicators(edges=EDGES).fit(torch.zeros(1, 1).double()), LAG)
    assert len(found.sizes) == 300, "each trajectory is a block"
    rows = torch.zeros(2, 300, dtype=torch.float64)
    rows[0, :150], rows[1] = 1.0, 1.0
    alone = EquilibriumMoments(*(part[:150] for part in (found.early, found.cross, found.late)), found.trajectory[:150],
                               LAG, found.length, found.independent)  # fmt: skip
    for drawn, half, whole in zip(found.mean(rows), alone.mean(), found.mean(), strict=True):
        assert torch.allclose(drawn[0], half, atol=1e-9) and torch.allclose(drawn[1], whole, atol=1e-9)


def test_projections_commute():
    found = equilibrium_moments(one_well(1), Indicators(edges=EDGES).fit(torch.zeros(1, 1).double()), LAG)
    columns = found.independent
    for one, other in zip(found.projected(columns).mean(), found.mean(), strict=True):
        assert torch.allclose(one, columns.mT @ other @ columns, atol=1e-8)


def test_trajectories_from_one_well_have_the_timescale_of_both():
    data, truth = one_well(2), timescale()
    plain, weighted = spec().fit(data, seed=0), spec(equilibrium=False).fit(data, seed=0)
    assert bool(weighted.timescales(1).interval(0.95).contains(truth))
    assert float(plain.timescales(1).interval(0.999).upper) < float(truth), "what the weights are for"
    assert weighted.moments.effective_sample_size < 0.7 * plain.moments.pairs
    assert weighted.weights.freedom < plain.weights.freedom


def test_populations_are_those_of_equilibrium():
    data = one_well(3, trajectories=600)
    weighted = replace(spec(equilibrium=False), draws=20).fit(data, seed=0)
    right = torch.tensor([[15.0]], dtype=torch.float64)
    left = torch.tensor([[0.0]], dtype=torch.float64)
    # An eigenfunction of mean zero and variance one between two wells of equal population is ±1.
    ends = torch.cat([weighted.transform(side, 1) for side in (left, right)]).abs()
    assert torch.allclose(ends, torch.ones(2, 1, dtype=torch.float64), atol=0.35)


def test_at_equilibrium_nothing_changes_within_the_error():
    data = LinearProcess.autoregressive(0.95, 0.8).simulate(20000, seed=0)
    plain, weighted = (TICA(lag=2, draws=300, equilibrium=e).fit(data, seed=0) for e in (True, False))
    error = plain.timescales().stddev
    assert bool((plain.timescales().mean - weighted.timescales().mean).abs().lt(error).all())
    assert torch.allclose(weighted.timescales().stddev, error, rtol=0.25)
    assert weighted.moments.effective_sample_size > 0.98 * plain.moments.pairs


def test_what_was_never_left_is_refused():
    data = one_well(4, trajectories=20)
    stuck = [*data.parts, torch.tensor([[5.0]] * 6 + [[30.0]], dtype=torch.float64)]
    basis = Indicators(edges=torch.tensor([7.5, 20], dtype=torch.float64))
    with pytest.raises(ConvergenceError, match="never left"):
        TICA(lag=LAG, basis=basis, equilibrium=False).fit(stuck, seed=0)


def test_wells_that_nothing_connects_are_refused():
    early = torch.eye(3, dtype=torch.float64)
    with pytest.raises(ConvergenceError, match="not connected"):
        density_ratio(early, torch.diag(torch.tensor([1.0, 1, 0.5], dtype=torch.float64)))


def test_negative_weights_are_refused():
    # From far out on a line: the ratio of the densities is no straight line, and the best one is below zero there.
    source = torch.Generator().manual_seed(0)
    x = [torch.full((200, 1), 4.0, dtype=torch.float64)]
    for _ in range(20):
        x.append(0.9 * x[-1] + (1 - 0.81) ** 0.5 * torch.randn(200, 1, generator=source, dtype=torch.float64))
    with pytest.raises(ConvergenceError, match="none below zero"):
        TICA(equilibrium=False).fit(list(torch.stack(x, 1)), seed=0)


def test_negative_moments_of_a_draw_are_refused():
    uniform = torch.full((16,), 1 / 16, dtype=torch.float64)
    found, _ = exact(CHAIN, uniform, (torch.arange(16) > 9).double()[:, None])
    found.early[:, 1, 1, 1] -= 1e6 * found.coefficients[1]
    with pytest.raises(ConvergenceError, match="positive second moments"):
        found.mean()


def test_weights_that_one_trajectory_carries_are_refused():
    # Thirty trajectories end when they enter the second state; one is there, with half of the weight, and leaves it.
    enter = torch.tensor([0.0] * 40 + [1.0], dtype=torch.float64)
    leave = torch.tensor([1.0] * 40 + [0.0], dtype=torch.float64)
    with pytest.raises(ConvergenceError, match="worth 10 independent"):
        TICA(lag=1, equilibrium=False).fit([enter] * 30 + [leave], seed=0)
    assert TICA(lag=1, equilibrium=False).fit([enter] * 30 + [leave] * 30, seed=0).weights.freedom > 50


def test_many_trajectories_share_blocks_and_bad_lags():
    data = one_well(6, trajectories=1500, frames=12)
    found = equilibrium_moments(data, Indicators(edges=EDGES).fit(torch.zeros(1, 1).double()), LAG)
    assert len(found.sizes) == 750 and found.pairs == 1500 * 7
    with pytest.raises(DataError, match="lag"):
        equilibrium_moments(data, lambda x: x, 0)


@pytest.mark.slow
def test_intervals_cover():
    """100 repetitions at 95 %: the exact binomial band at three standard deviations; without weights none holds."""
    truth, repeats = timescale(), 100
    lower, upper = binom.ppf([0.00135, 0.99865], repeats, 0.95)
    hits = {e: 0 for e in (True, False)}
    for seed in range(repeats):
        for e in hits:
            hits[e] += int(
                spec(equilibrium=e).fit(one_well(seed), seed=seed).timescales(1).interval(0.95).contains(truth)
            )
    assert lower <= hits[False] <= upper and hits[True] < 5
