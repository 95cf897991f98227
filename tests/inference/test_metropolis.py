"""MALA, Hamiltonian and independence chains: exact moments, adaptation, reproducibility."""

import math
from dataclasses import replace

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.metropolis import MALA, HamiltonianMonteCarlo, independence_chain

WIDTHS = torch.tensor([1.0, 3.0, 0.1]).double()


class Springs:
    dimension = 3

    def reduced_energy(self, x):
        return (x / WIDTHS.to(x)).square().sum(1) / 2


class Pairs:
    """Two particles in the plane that feel only each other: no place, no centre."""

    dimension, space = 4, 2

    def reduced_energy(self, x):
        return (x[:, :2] - x[:, 2:]).square().sum(1) / 2


SPECS = [
    HamiltonianMonteCarlo(warmup=100, draws=60, diagonal=True, leapfrogs=5),
    MALA(warmup=300, draws=200, diagonal=True),
]


@pytest.mark.parametrize("spec", SPECS, ids=["hamiltonian", "langevin"])
def test_moments(spec, source):
    start = torch.randn(50, 3, generator=source, dtype=torch.float64)
    walk = spec.fit(Springs(), start, seed=1)
    assert walk.acceptance == pytest.approx(spec.target, abs=0.1)
    draws = walk.draws()
    for power, exact in ((1, torch.zeros(3).double()), (2, WIDTHS.square())):
        found = draws.expectation(lambda x, power=power: x**power)
        assert float(((found.value - exact) / found.standard_error).abs().max()) < 4
    torch.testing.assert_close(walk.energies, Springs().reduced_energy(walk.values.flatten(0, 1)).reshape(50, -1))
    assert torch.equal(walk.rows, walk.values[:, -1])
    assert walk.evaluations == 50 * (1 + (spec.warmup + spec.draws) * spec.leapfrogs)


def test_scales_are_found_and_speed_up(source):
    start = torch.randn(20, 3, generator=source, dtype=torch.float64)
    spec = HamiltonianMonteCarlo(leapfrogs=5, warmup=100, draws=60)
    plain, diagonal = (replace(spec, diagonal=d).fit(Springs(), start, seed=0) for d in (False, True))
    ratio = diagonal.scales / WIDTHS
    assert float(ratio.max() / ratio.min()) < 2.5
    assert float(diagonal.draws().expectation().effective_sample_size[1]) > 2 * float(
        plain.draws().expectation().effective_sample_size[1]
    )


def test_seed_dtype_and_thin(source):
    start = torch.randn(4, 3, generator=source)
    spec = HamiltonianMonteCarlo(warmup=5, draws=6, thin=2, leapfrogs=3)
    first, again, other = (spec.fit(Springs(), start, seed=s).values for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.dtype == torch.float32 and first.shape == (4, 6, 3)


def test_particles_without_a_place_are_centred(source):
    start = torch.randn(30, 4, generator=source, dtype=torch.float64)
    walk = HamiltonianMonteCarlo(warmup=50, draws=50, leapfrogs=5).fit(Pairs(), start, seed=0)
    torch.testing.assert_close(walk.values[..., :2], -walk.values[..., 2:])
    # The distance has two standard normal components.
    squares = walk.draws().expectation(lambda x: (2 * x[:, :2]).square().sum(1))
    assert abs(float(squares.value) - 2) < 4 * float(squares.standard_error)


def test_bad_input():
    start = torch.ones(2, 3)
    with pytest.raises(DataError, match="step"):
        HamiltonianMonteCarlo(step=0.0)
    with pytest.raises(DataError, match="leapfrogs"):
        HamiltonianMonteCarlo(leapfrogs=0)
    with pytest.raises(ShapeError, match="start"):
        MALA().fit(Springs(), start[:, :2], seed=0)
    with pytest.raises(ShapeError, match="scales"):
        MALA().fit(Springs(), start, scales=torch.zeros(3), seed=0)
    with pytest.raises(ConvergenceError, match="acceptance"):
        HamiltonianMonteCarlo(step=1e9, warmup=2, draws=1).fit(Springs(), start, seed=0)


def test_independence_chain_has_the_weights(source):
    """Draws of a flat proposal of three states with weights 1, 2, 5."""
    labels = torch.randint(3, (60_000,), generator=source)
    log_weights = torch.tensor([1.0, 2.0, 5.0]).log()[labels]
    chain = independence_chain(log_weights, seed=0)
    share = torch.bincount(labels[chain.indices]) / 60_000
    torch.testing.assert_close(share, torch.tensor([1.0, 2.0, 5.0]) / 8, rtol=0, atol=0.015)
    # Mean over pairs of states of min(1, w'/w), the first with the weights, the second without.
    assert chain.acceptance == pytest.approx((1 * 3 + 2 * 2.5 + 5 * 1.6) / 24, abs=0.01)
    assert torch.equal(chain.indices, independence_chain(log_weights, seed=0).indices)


def test_independence_chain_stays_at_a_heavy_draw():
    log_weights = torch.zeros(500)
    log_weights[100], log_weights[0] = 50.0, -math.inf
    chain = independence_chain(log_weights, seed=3)
    assert chain.longest == 399 and int(chain.indices[0]) == 1 and bool((chain.indices[99:] == 100).all())
    one = independence_chain(torch.zeros(1), seed=0)
    assert one.indices.tolist() == [0] and one.acceptance == 0 and one.longest == 0
    with pytest.raises(DataError, match="no weight"):
        independence_chain(torch.full((3,), -math.inf), seed=0)
