import itertools
import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.lattice import Ising, onsager
from bayesmol.testing import assert_calibrated

CRITICAL = 2 / math.log(1 + math.sqrt(2))
CATALAN = 0.915965594177219015


@pytest.mark.parametrize("side", [3, 4])
@pytest.mark.parametrize("temperature", [0.8, CRITICAL, 5.0])
def test_kaufman_against_all_configurations(side, temperature):
    spins = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=side**2)), dtype=torch.float64)
    energy = Ising(side).energy(spins.view(-1, side, side))
    want = (-energy / temperature).logsumexp(0)
    mean = ((-energy / temperature - want).exp() * energy).sum()
    assert Ising(side).log_partition(temperature) == pytest.approx(float(want), abs=1e-11)
    assert Ising(side).mean_energy(temperature) == pytest.approx(float(mean), abs=1e-10)


def test_energy_of_a_chequerboard_and_of_one_flipped_spin():
    spins = torch.ones(2, 4, 4)
    spins[0, 1, 2] = -1
    rows = torch.arange(4)
    spins[1] = ((rows[:, None] + rows) % 2) * 2.0 - 1
    assert Ising(4).energy(spins).tolist() == [-24.0, 32.0]


def test_onsager_at_the_critical_temperature_is_in_closed_form():
    assert onsager(CRITICAL) == pytest.approx(math.log(2) / 2 + 2 * CATALAN / math.pi, abs=1e-11)
    assert onsager(CRITICAL) == pytest.approx(0.929695, abs=5e-7)


@pytest.mark.parametrize("temperature", [0.05, 1.0, 2.0, 2.5, 10.0])
def test_large_lattices_reach_onsager(temperature):
    side = 128
    # Below the critical temperature two phases coexist on the torus: ln 2 in all.
    phases = math.log(2) / side**2 if temperature < CRITICAL else 0.0
    assert Ising(side).log_partition(temperature) / side**2 == pytest.approx(onsager(temperature) + phases, abs=2e-8)


def test_critical_lattices_approach_onsager_as_the_inverse_of_their_sites():
    gaps = [(Ising(side).log_partition(CRITICAL) / side**2 - onsager(CRITICAL)) * side**2 for side in (32, 64, 128)]
    assert max(gaps) - min(gaps) < 1e-3


def test_annealing_gives_the_free_energy_and_the_energy_with_true_errors():
    model = Ising(8)
    found = model.anneal(2.5, seed=0, walkers=800, steps=300)
    exact = model.log_partition(2.5) / 64
    error = float(found.log_partition.standard_error)
    assert abs(float(found.log_partition.value) - exact) < 1e-3 and error < 5e-4
    assert abs(float(found.log_partition.value) - exact) < 3 * error
    energy = found.energy.expectation()
    assert abs(float(energy.value) - model.mean_energy(2.5) / 64) < 2.5 * float(energy.standard_error)
    assert found.spins.shape == (800, 8, 8) and set(found.spins.unique().tolist()) == {-1.0, 1.0}


def test_one_step_is_importance_sampling_from_infinite_temperature():
    model = Ising(4)
    found = model.anneal(30.0, seed=1, walkers=4000, steps=1)
    gap = float(found.log_partition.value) - model.log_partition(30.0) / 16
    assert abs(gap) < 4 * float(found.log_partition.standard_error)


def test_too_few_walkers_that_count_have_an_infinite_error():
    found = Ising(16).anneal(1.5, seed=0, walkers=200, steps=5)
    assert math.isinf(float(found.log_partition.standard_error))
    assert bool(torch.isinf(found.log_partition.interval(0.9).width))


def test_same_seed_same_result():
    first, second = (Ising(4).anneal(2.0, seed=3, walkers=100, steps=5) for _ in range(2))
    assert torch.equal(first.spins, second.spins)


def test_bad_input():
    with pytest.raises(DataError, match="at least 3"):
        Ising(2)
    with pytest.raises(DataError, match="even"):
        Ising(5).anneal(2.0, seed=0)
    with pytest.raises(DataError, match="positive"):
        Ising(4).log_partition(0.0)
    with pytest.raises(DataError, match="walkers"):
        Ising(4).anneal(2.0, seed=0, walkers=10)
    with pytest.raises(ShapeError, match="walkers, 4, 4"):
        Ising(4).energy(torch.ones(2, 3, 3))


@pytest.mark.slow
def test_critical_free_energy_to_a_thousandth_and_intervals_cover():
    model, repeats, level = Ising(8), 200, 0.95
    exact, energy = model.log_partition(CRITICAL) / 64, model.mean_energy(CRITICAL) / 64
    hits = [0, 0]
    for seed in range(repeats):
        found = model.anneal(CRITICAL, seed=seed, walkers=512, steps=100)
        for index, (estimate, want) in enumerate(((found.log_partition, exact), (found.energy.expectation(), energy))):
            interval = estimate.interval(level)
            hits[index] += bool(interval.lower <= want <= interval.upper)
    for count in hits:
        assert_calibrated(count, repeats, level, confidence=0.999)
    large = Ising(16).anneal(CRITICAL, seed=0, walkers=1024, steps=800).log_partition
    assert abs(float(large.value) - Ising(16).log_partition(CRITICAL) / 256) < 1e-3
    assert float(large.standard_error) < 1e-3
