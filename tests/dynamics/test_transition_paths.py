"""Transition-path theory: conservation, one-dimensional closed forms, decomposition into paths, deeptime."""

import pytest
import torch

from bayesmol.dynamics.passage import mean_first_passage_time
from bayesmol.dynamics.transition_paths import capacity, pathways, reactive_flux
from bayesmol.errors import ConvergenceError, DataError, ShapeError


def chain(*shape, seed=0):
    """Random stochastic matrices of the leading shape; irreversible."""
    raw = torch.rand(*shape, shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3
    return raw / raw.sum(-1, keepdim=True)


def test_flux_is_conserved():
    P, A, B = chain(3, 25), [0, 1], [10, 24]
    flux = reactive_flux(P, A, B, lag=2)
    rest = [i for i in range(25) if i not in A + B]
    torch.testing.assert_close(flux.gross.sum(-1)[:, rest], flux.gross.sum(-2)[:, rest], rtol=1e-12, atol=0)
    torch.testing.assert_close(flux.gross[..., B].sum((-2, -1)), flux.total, rtol=1e-12, atol=0)
    net = flux.net
    into_source = net[..., A].sum((-2, -1))
    torch.testing.assert_close(net[:, A].sum((-2, -1)), flux.total, rtol=1e-12, atol=0)
    assert bool((into_source == 0).all()) and bool((net * net.mT == 0).all())


def test_rate_of_a_single_source_is_one_over_the_passage_time():
    """From one state the start on the way is the stationary one, so that F/π(q⁻) and the passage times must meet."""
    P = chain(9)
    flux = reactive_flux(P, [2], [5], lag=3)
    there = mean_first_passage_time(P, [2], [5], lag=3)
    back = mean_first_passage_time(P, [5], [2], lag=3)
    assert float(1 / flux.rate) == pytest.approx(float(there), rel=1e-12)
    assert float(flux.total) == pytest.approx(3 / float(there + back), rel=1e-12)  # one passage for each round trip


def test_paths_carry_the_whole_flux():
    flux = reactive_flux(chain(8), [0, 1], [6, 7])
    paths = pathways(flux.net, [0, 1], [6, 7], share=1.0)
    assert sum(path.flux for path in paths) == pytest.approx(float(flux.total), rel=1e-10)
    assert all(path.states[0] in (0, 1) and path.states[-1] in (6, 7) for path in paths)
    assert [p.flux for p in paths] == sorted((p.flux for p in paths), reverse=True)
    first = paths[0]
    assert float(capacity(flux.net, first.states)) == pytest.approx(first.flux)


def test_paths_of_a_small_network():
    """Two ways 0-1-4 (3) and 0-2-3-4 (bottleneck 2, beside it as wide as can be), by hand."""
    net = torch.zeros(6, 6, dtype=torch.float64)
    for i, j, flow in [(0, 1, 3.0), (1, 4, 3.0), (0, 2, 2.0), (2, 3, 1.5), (3, 4, 1.5), (2, 5, 0.5), (5, 4, 0.5)]:
        net[i, j] = flow
    paths = pathways(net, [0], [4], share=1.0)
    assert [(p.states, p.flux) for p in paths] == [((0, 1, 4), 3.0), ((0, 2, 3, 4), 1.5), ((0, 2, 5, 4), 0.5)]
    assert [p.states for p in pathways(net, [0], [4], share=0.55)] == [(0, 1, 4)]
    with pytest.raises(ConvergenceError, match="more paths"):
        pathways(net, [0], [4], share=1.0, most=2)


def test_beside_the_bottleneck_the_path_is_the_widest():
    """0→1 (1) is the bottleneck of both ways; behind it 1→2→4 (4) is wider than 1→3→4 (2)."""
    net = torch.zeros(5, 5, dtype=torch.float64)
    for i, j, flow in [(0, 1, 1.0), (1, 2, 4.0), (2, 4, 4.0), (1, 3, 2.0), (3, 4, 2.0)]:
        net[i, j] = flow
    assert pathways(net, [0], [4], share=1.0)[0].states == (0, 1, 2, 4)


def test_equal_bottlenecks_and_direct_flux():
    net = torch.zeros(4, 4, dtype=torch.float64)
    net[0, 1] = net[1, 2] = net[2, 3] = net[0, 3] = 1.0
    paths = pathways(net, [0], [3], share=1.0)
    assert {p.states for p in paths} == {(0, 3), (0, 1, 2, 3)} and sum(p.flux for p in paths) == 2.0


def test_draws_and_capacity():
    flux = reactive_flux(chain(5, 6), [0], [5])
    assert flux.rate.shape == flux.total.shape == (5,)
    torch.testing.assert_close(capacity(flux.net, [0, 5]), flux.net[:, 0, 5])
    with pytest.raises(ShapeError, match="mean"):
        pathways(flux.net, [0], [5])
    pathways(flux.net.mean(0), [0], [5])


def test_bad_input():
    P = chain(4)
    for A, B in (([], [1]), ([0], [0]), ([0], [4])):
        with pytest.raises(DataError):
            reactive_flux(P, A, B)
    with pytest.raises(DataError, match="lag"):
        reactive_flux(P, [0], [1], lag=0)
    net = reactive_flux(P, [0], [1]).net
    with pytest.raises(DataError, match="share"):
        pathways(net, [0], [1], share=0.0)
    with pytest.raises(DataError):
        pathways(torch.zeros(4, 4, dtype=torch.float64), [0], [1])
    with pytest.raises(DataError, match="two states"):
        capacity(net, [0])


def test_deeptime_agrees():
    deeptime = pytest.importorskip("deeptime")
    P, A, B = chain(10), [0, 4], [8, 9]
    theirs = deeptime.markov.msm.MarkovStateModel(P.numpy(), lagtime=3).reactive_flux(A, B)
    ours = reactive_flux(P, A, B, lag=3)
    torch.testing.assert_close(ours.gross, torch.as_tensor(theirs.gross_flux), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(ours.net, torch.as_tensor(theirs.net_flux), rtol=1e-9, atol=1e-14)
    assert float(ours.total) == pytest.approx(theirs.total_flux, rel=1e-10)
    assert float(ours.rate) == pytest.approx(theirs.rate / 3, rel=1e-10)  # deeptime's is for a step of the lag
    paths, flows = theirs.pathways(fraction=0.9)
    mine = pathways(ours.net, A, B, share=0.9)
    assert mine[0].states == tuple(paths[0]) and mine[0].flux == pytest.approx(flows[0], rel=1e-9)
