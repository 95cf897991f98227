"""Noisy moves: weights of single steps by brute force, detailed balance, gradients that know of rejections."""

import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.moves import Langevin, Metropolis

LINES = torch.zeros(2, dtype=torch.bool)


def quartic(x):
    return (x**4 / 4 + x.square() / 2).sum(1) + x[:, 0] * x[:, 1] / 3


def slope(x):
    return x**3 + x + x.flip(1) / 3


def law(mean, step):
    return torch.distributions.Normal(mean, math.sqrt(2 * step))


def test_a_langevin_step_is_weighed_by_the_way_back(normal, source):
    x = normal(50, 2)
    with torch.no_grad():
        move = Langevin(1.0, steps=1, step=0.07)(x, quartic, LINES, source)
    y = move.rows
    back, there = law(y - 0.07 * slope(y), 0.07).log_prob(x), law(x - 0.07 * slope(x), 0.07).log_prob(y)
    torch.testing.assert_close(move.entropy, (back - there).sum(1), rtol=1e-5, atol=1e-5)
    assert float((y - x).abs().min()) > 0


def test_a_trajectory_is_weighed_by_its_energy(normal, source):
    x = normal(200, 2)
    with torch.no_grad():
        move = Metropolis(1.0, steps=3, leapfrogs=2, step=0.8)(x, quartic, LINES, source)
    torch.testing.assert_close(move.entropy, quartic(move.rows) - quartic(x))
    assert 0 < int((move.rows == x).all(1).sum()) < 200
    assert bool((move.chance <= 0).all())


@pytest.mark.parametrize("step", [0.2, 1.5])
def test_metropolis_leaves_the_density_as_it_is(normal, source, step):
    x = normal(20_000, 2) * 0.5

    def energy(rows):
        return 2 * rows.square().sum(1)

    with torch.no_grad():
        y = Metropolis(1.0, steps=2, step=step)(x, energy, LINES, source).rows
    torch.testing.assert_close(y.square().mean(0), torch.full((2,), 0.25).double(), rtol=0.04, atol=0)
    torch.testing.assert_close(y.pow(4).mean(0), torch.full((2,), 3 / 16).double(), rtol=0.08, atol=0)


def test_infinite_energies_are_left_and_never_entered(source):
    def wall(x):
        return torch.where(x[:, 0] > 0, x.square().sum(1) / 2, torch.inf)

    x = torch.tensor([[0.3, 0.0], [-0.3, 0.0]], dtype=torch.float64).repeat(100, 1)
    with torch.no_grad():
        move = Metropolis(1.0, steps=4, step=0.9)(x, wall, LINES, source)
    assert bool((move.rows[::2, 0] > 0).all())
    entered = move.rows[1::2, 0] > 0
    assert bool(entered.any())
    assert bool((move.entropy[1::2][entered] == -torch.inf).all())
    assert not bool(torch.isnan(move.entropy).any())


def test_angles_come_back(source):
    x = torch.full((100, 2), 3.1, dtype=torch.float64)
    circle = torch.tensor([True, False])
    for move in (Langevin(1.0, step=0.1), Metropolis(1.0, step=0.5)):
        with torch.no_grad():
            y = move(x, lambda rows: rows.sum(1) * 0, circle, source).rows
        assert float(y[:, 0].abs().max()) <= math.pi
        assert float(y[:, 1].max()) > math.pi


def test_the_gradient_knows_of_rejections(source):
    """Derivative of a mean over accepted and rejected ends, by the score and by differences."""
    x = torch.randn(100_000, 2, generator=source, dtype=torch.float64)

    def mean(log_step, followed=False):
        layer = Metropolis(1.0, steps=1, step=1.0)
        layer.log_step.data.fill_(log_step)
        move = layer(x, quartic, LINES, torch.Generator().manual_seed(3))
        cost = move.rows.square().sum(1) + move.entropy
        if not followed:
            return float(cost.mean().detach())
        loss = cost.mean() + ((cost - cost.mean()).detach() * move.chance).mean()
        return float(torch.autograd.grad(loss, layer.log_step)[0])

    difference = (mean(0.1) - mean(-0.1)) / 0.2
    # Without the score it is 5.4, with it 2.5; its noise has a heavy tail.
    assert mean(0.0, followed=True) == pytest.approx(difference, abs=0.35)


@pytest.mark.parametrize(("share", "steps", "step"), [(1.1, 1, 0.1), (0.5, 0, 0.1), (0.5, 1, 0.0)])
def test_bad_input(share, steps, step):
    for kind in (Langevin, Metropolis):
        with pytest.raises(DataError, match="share"):
            kind(share, steps=steps, step=step)
