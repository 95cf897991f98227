"""Tests of the processes in discrete time: closed forms, brute force, frequencies."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from bayesmol.data.exact_chains import (
    LinearProcess,
    LogisticMap,
    MarkovChain,
    double_well_chain,
    hermite_eigenfunctions,
)
from bayesmol.errors import DataError, ShapeError

SMALL = torch.tensor([[0.7, 0.3, 0.0], [0.1, 0.5, 0.4], [0.0, 0.2, 0.8]], dtype=torch.float64)
FIVE = (0.99, 0.95, 0.8, 0.5, 0.2)


def test_two_states_have_a_closed_form():
    chain = MarkovChain(torch.tensor([[0.9, 0.1], [0.3, 0.7]], dtype=torch.float64))
    torch.testing.assert_close(chain.stationary, torch.tensor([0.75, 0.25]).double())
    assert float(chain.timescales(1)) == pytest.approx(-1 / math.log(0.6))


def test_simulated_jumps_have_the_frequencies_of_the_matrix():
    chain = MarkovChain(SMALL)
    path = torch.stack(chain.simulate(400, trajectories=50, seed=0).parts)
    counts = torch.zeros(3, 3).index_put_((path[:, :-1].flatten(), path[:, 1:].flatten()), torch.tensor(1.0), True)
    assert float(counts[0, 2]) == 0 == float(counts[2, 0])
    for row, law in zip(counts.numpy(), SMALL.numpy(), strict=True):
        used = law > 0
        assert stats.chisquare(row[used], row.sum() * law[used]).pvalue > 1e-3


def test_first_frame_has_the_law_asked_for():
    chain = MarkovChain(SMALL)
    first = torch.cat(chain.simulate(1, trajectories=3000, seed=1).parts)
    assert stats.chisquare(torch.bincount(first).numpy(), 3000 * chain.stationary.numpy()).pvalue > 1e-3
    start = torch.tensor([0.0, 1.0, 0.0]).double()
    assert set(torch.cat(chain.simulate(1, trajectories=20, start=start, seed=1).parts).tolist()) == {1}


def test_double_well_chain_is_reversible_with_one_slow_process():
    chain = double_well_chain()
    flow = chain.stationary[:, None] * chain.matrix
    torch.testing.assert_close(flow, flow.mT, rtol=1e-9, atol=1e-14)
    energy = 3.0 * (torch.linspace(-1.5, 1.5, 100, dtype=torch.float64).square() - 1).square()
    torch.testing.assert_close(chain.stationary, torch.softmax(-energy, 0), rtol=1e-9, atol=1e-12)
    slow = chain.timescales(3)
    assert slow[0] > 5 * slow[1]
    path = chain.simulate(5, trajectories=2, seed=0)
    assert path.discrete and path.lengths == [5, 5]


def test_autoregressive_process_keeps_its_eigenvalues_under_mixing():
    mixing = torch.as_tensor(np.random.default_rng(0).standard_normal((5, 5)))
    process = LinearProcess.autoregressive(*FIVE, mixing=mixing)
    torch.testing.assert_close(process.covariance, mixing @ mixing.mT)
    torch.testing.assert_close(
        process.eigenvalues(10).real, torch.tensor(FIVE, dtype=torch.float64) ** 10, rtol=1e-8, atol=1e-12
    )
    torch.testing.assert_close(process.timescales()[:1], torch.tensor([-1 / math.log(0.99)], dtype=torch.float64))


def test_simulated_covariances_are_those_of_the_process():
    process = LinearProcess.autoregressive(0.9, 0.5, mixing=torch.tensor([[1.0, 0.5], [-1.0, 2.0]]).double())
    path = torch.stack(process.simulate(12, trajectories=6000, seed=3).parts)
    for lag in (0, 4):
        got = path[:, 3].mT @ path[:, 3 + lag] / 6000
        want = process.covariance @ torch.linalg.matrix_power(process.matrix, lag).mT
        assert float((got - want).abs().max()) < 6 * float(process.covariance.max()) * 2**0.5 / 6000**0.5


def test_ornstein_uhlenbeck_process_has_the_variance_diffusion_over_rate():
    process = LinearProcess.ornstein_uhlenbeck(rate=2.0, diffusion=0.5, time_step=0.1)
    assert float(process.covariance) == pytest.approx(0.25)
    assert float(process.eigenvalues(3).real) == pytest.approx(math.exp(-0.6))
    path = torch.stack(process.simulate(2, trajectories=4000, seed=0).parts)[:, :, 0]
    assert stats.kstest(path[:, 1].numpy(), "norm", args=(0, 0.5)).pvalue > 1e-3
    assert process.simulate(2, seed=0).time_step == 0.1


def test_oscillators_turn_by_their_angles():
    process = LinearProcess.oscillators((0.3, 1.1), (0.99, 0.9))
    want = torch.polar(torch.tensor([0.99, 0.99, 0.9, 0.9]), torch.tensor([0.3, -0.3, 1.1, -1.1]))
    got = process.eigenvalues()
    torch.testing.assert_close(got.abs(), want.abs().double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(got.angle().sort().values, want.angle().double().sort().values, rtol=1e-6, atol=0)
    torch.testing.assert_close(process.covariance, torch.eye(4).double())


def test_hermite_functions_are_orthonormal_and_eigenfunctions():
    nodes, weights = np.polynomial.hermite_e.hermegauss(30)
    sigma, rho = 1.7, 0.6
    values = hermite_eigenfunctions(torch.as_tensor(nodes) * sigma, 6, sigma**2)
    law = torch.as_tensor(weights) / math.sqrt(2 * math.pi)
    torch.testing.assert_close(values.mT @ (law[:, None] * values), torch.eye(7).double(), rtol=0, atol=1e-10)
    next_ones = 0.4 * rho + math.sqrt(1 - rho**2) * sigma * torch.as_tensor(nodes)
    moved = law @ hermite_eigenfunctions(next_ones, 6, sigma**2)
    start = torch.tensor([0.4], dtype=torch.float64)
    want = rho ** torch.arange(7, dtype=torch.float64) * hermite_eigenfunctions(start, 6, sigma**2)[0]
    torch.testing.assert_close(moved, want, rtol=0, atol=1e-10)


def test_logistic_transition_density_is_a_cosine_power():
    system, x = LogisticMap(20), torch.rand(7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.arange(400, dtype=torch.float64) / 400
    density = system.transition_density(x, y)
    torch.testing.assert_close(density.mean(1), torch.ones(7).double(), rtol=1e-10, atol=0)
    shape = torch.cos(math.pi * (y - 4 * (x * (1 - x))[:, None])) ** 20
    torch.testing.assert_close(density, shape / shape.mean(1, keepdim=True), rtol=1e-9, atol=1e-12)


def test_logistic_spectrum_is_that_of_its_kernel_by_brute_force():
    system, nodes = LogisticMap(10), np.polynomial.legendre.leggauss(150)
    x, weights = torch.as_tensor((nodes[0] + 1) / 2), torch.as_tensor(nodes[1] / 2)
    brute = torch.linalg.eigvals(system.transition_density(x, x) * weights)
    brute = brute[brute.abs().argsort(descending=True)][:4]
    got = system.eigenvalues(4)
    torch.testing.assert_close(got.abs(), brute.abs(), rtol=1e-8, atol=0)
    torch.testing.assert_close(got.real, brute.real, rtol=1e-7, atol=1e-10)
    density = system.density(x)
    torch.testing.assert_close((weights * density) @ system.transition_density(x, x), density, rtol=1e-8, atol=0)
    assert float(weights @ density) == pytest.approx(1, rel=1e-10)


def test_logistic_frames_follow_the_density_and_the_transitions():
    system = LogisticMap(20)
    path = torch.stack(system.simulate(2, trajectories=4000, seed=0).parts)[:, :, 0].numpy()
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64)
    density = system.density(grid).numpy()
    law = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)]) / 2000
    assert stats.kstest(path[:, 1], lambda x: np.interp(x, grid, law)).pvalue > 1e-3
    # The noise itself, folded back to the circle: its second Fourier moment is known by quadrature.
    kick = path[:, 1] - 4 * path[:, 0] * (1 - path[:, 0])
    weight = np.cos(math.pi * grid.numpy()) ** 20
    want = (weight * np.cos(2 * math.pi * grid.numpy())).sum() / weight.sum()
    got = np.cos(2 * math.pi * kick)
    assert abs(got.mean() - want) < 5 * got.std() / 4000**0.5


def test_bad_input():
    with pytest.raises(ShapeError, match="matrix"):
        MarkovChain(torch.ones(2, 3).double())
    with pytest.raises(DataError, match="distributions"):
        MarkovChain(torch.ones(2, 2).double())
    with pytest.raises(DataError, match="spectral radius"):
        LinearProcess(torch.eye(2).double(), torch.eye(2).double())
    with pytest.raises(ShapeError, match="matrix, noise"):
        LinearProcess(0.5 * torch.eye(2).double(), torch.eye(3).double())
    with pytest.raises(DataError, match="order"):
        LogisticMap(3)
