"""The move of many walkers: exact draws stay exact, walls, infinities, NaN, angles."""

import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.inference.trajectories import centred, chosen, differentiated, move, started, surface, tuned, wrapped


class Density:
    """A target from a function."""

    def __init__(self, energy, dimension=1, **more):
        self.reduced_energy, self.dimension = energy, dimension
        self.__dict__.update(more)


def spring(x):
    return x.square().sum(1) / 2


def half_line(x):
    return torch.where(x[:, 0] > 0, x[:, 0], math.inf)


def moved(target, rows, *, steps, leapfrogs, seed=0, moves=3):
    source, evaluated = torch.Generator().manual_seed(seed), surface(target)
    place = evaluated(rows)
    for _ in range(moves):
        place, share = move(evaluated, place, steps, leapfrogs, source)
    return place, share


@pytest.mark.parametrize("leapfrogs", [1, 4])
def test_exact_draws_stay_exact(source, leapfrogs):
    """Independent walkers that start in the density have it after moves with far too long steps as well."""
    start = torch.randn(40_000, 2, generator=source, dtype=torch.float64)
    place, share = moved(Density(spring, 2), start, steps=1.3, leapfrogs=leapfrogs)
    assert 0.3 < float(share.mean()) < 0.98
    assert float((place.rows == start).all(1).double().mean()) < 0.4
    error = 1 / math.sqrt(40_000)
    assert float(place.rows.mean(0).abs().max()) < 4 * error
    assert float((place.rows.square().mean(0) - 1).abs().max()) < 4 * math.sqrt(2) * error
    torch.testing.assert_close(place.energy, spring(place.rows))
    torch.testing.assert_close(place.gradient, place.rows)


@pytest.mark.parametrize("leapfrogs", [1, 3])
def test_a_wall_of_infinite_energy(source, leapfrogs):
    start = -torch.rand(40_000, 1, generator=source, dtype=torch.float64).log()
    place, _ = moved(Density(half_line), start, steps=0.7, leapfrogs=leapfrogs)
    assert bool((place.rows > 0).all())
    assert float(place.rows.mean()) == pytest.approx(1, abs=0.02)
    assert float((place.rows > 1).double().mean()) == pytest.approx(math.exp(-1), abs=0.01)


def test_runaways_are_rejected_and_nan_is_an_error(source):
    start = torch.randn(100, 1, generator=source, dtype=torch.float64)
    place, share = moved(Density(lambda x: x.pow(4).sum(1)), start, steps=1e6, leapfrogs=8)
    assert torch.equal(place.rows, start) and float(share.max()) == 0
    with pytest.raises(DataError, match="NaN"):
        moved(Density(lambda x: (x[:, 0] - 3).log()), start, steps=0.1, leapfrogs=1)


def test_reduced_gradient_of_the_target_is_used(normal):
    rows = normal(5, 2)
    target = Density(spring, 2, reduced_gradient=lambda x: (spring(x), 7 * x))
    assert torch.equal(surface(target)(rows).gradient, 7 * rows)
    value, gradient = differentiated(spring, rows)
    assert torch.equal(gradient, rows) and torch.equal(value, spring(rows)) and not value.requires_grad


def test_angles_come_back_in_one_period(source):
    circular = torch.tensor([True, False])
    target = Density(lambda x: -x[:, 0].cos() + x[:, 1].square() / 2, 2, circular=circular)
    start = torch.randn(500, 2, generator=source, dtype=torch.float64)
    place, _ = moved(target, start, steps=1.5, leapfrogs=5, moves=4)
    assert bool((place.rows[:, 0].abs() <= math.pi).all())
    rows = torch.tensor([[3 * math.pi + 0.5, 9.0]])
    torch.testing.assert_close(wrapped(rows, circular), torch.tensor([[0.5 - math.pi, 9.0]]))
    assert wrapped(rows, None) is rows


def test_small_parts(normal):
    rows = normal(4, 6)
    torch.testing.assert_close(centred(rows, 3).unflatten(1, (2, 3)).mean(1), torch.zeros(4, 3).double())
    assert centred(rows, 0) is rows
    evaluated = surface(Density(spring, 6))
    old, new = evaluated(rows), evaluated(rows + 1)
    mixed = chosen(torch.tensor([True, False, True, False]), new, old)
    assert torch.equal(mixed.energy[:2], torch.stack([new.energy[0], old.energy[1]]))
    assert float(tuned(1.0, torch.tensor(0.9), 0.7, 0)) > 1 > float(tuned(1.0, torch.tensor(0.5), 0.7, 0))
    with pytest.raises(ShapeError, match="start"):
        started(Density(spring, 6), rows[:, :2])
    with pytest.raises(DataError, match="finite energies"):
        started(Density(half_line), torch.tensor([[1.0], [-1.0]]))
