"""Times follow a clock that the tests turn; larger systems are copies that do not feel each other."""

import math

import pytest
import torch
from ase.build import bulk

import bayesmol.scorecard_timing as timing
from bayesmol.data import Structures, load
from bayesmol.errors import DataError
from bayesmol.representation.neighbours import neighbours
from bayesmol.scorecard_timing import Budget, Growth, Timing, growth, replicated, timed


@pytest.fixture
def clock(monkeypatch):
    """Processor time that only ``spend`` moves."""
    now = [0.0]
    monkeypatch.setattr(timing, "_clock", lambda device: now[0])

    def spend(seconds):
        now[0] += seconds

    return spend


ETHANOL = load("rmd17/ethanol").structures[:1]


def test_a_timing_is_the_median_of_the_repeats_and_six_bound_it(clock):
    durations = iter([100.0, 3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
    found = timed(lambda: clock(next(durations)), 10, torch.device("cpu"), 6, 1e4)
    assert found == Timing(10, (3.0, 1.0, 2.0, 5.0, 4.0, 6.0))  # the first is not counted
    assert found.score.value == pytest.approx(3.5e5)
    assert (found.score.lower, found.score.upper) == pytest.approx((1e5, 6e5))
    few = Timing(10, (1.0, 2.0, 3.0)).score
    assert few.lower == 0.0 and few.upper == math.inf


def test_slow_calls_are_repeated_less_often(clock):
    for seconds, repeats in {30.0: 6, 10.0: 1, 13.0: 2, 1.0: 1}.items():
        assert len(timed(lambda: clock(4.0), 1, torch.device("cpu"), 6, seconds).seconds) == repeats


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_exponent_is_that_of_the_clock(clock, power):
    def mean(system):
        clock(1e-9 * len(system.positions) ** power)
        return torch.tensor([float(len(system.positions))])

    found = growth(mean, ETHANOL, (100, 10_000), Budget(seconds=1e6, memory_mb=1e6))
    assert found.stopped == "" and found.timings[-1].atoms == 9999
    assert found.exponent.value == pytest.approx(power, abs=1e-6) and found.last == pytest.approx(power, abs=1e-6)
    assert found.exponent.upper - found.exponent.lower < 1e-6
    assert found.extensivity == pytest.approx(0.0)


def test_an_energy_that_is_not_extensive_is_seen(clock):
    def mean(system):
        clock(1.0)
        return torch.tensor([len(system.positions) + 1.0])

    found = growth(mean, ETHANOL, (18, 40), Budget(seconds=1e6, memory_mb=1e6))
    assert found.extensivity == pytest.approx(0.5)


def test_it_stops_when_time_or_memory_would_not_suffice(clock, monkeypatch):
    def mean(system):
        clock(1e-4 * len(system.positions))
        return torch.ones(1)

    found = growth(mean, ETHANOL, (100, 10_000), Budget(seconds=3.0, memory_mb=1e6))
    assert 1 <= len(found.timings) < 7 and "s are left" in found.stopped
    peak = iter([100.0, *range(200, 10_000, 100)])
    monkeypatch.setattr(timing, "_memory", lambda device: float(next(peak)))
    found = growth(lambda s: torch.ones(1) * clock_free(clock), ETHANOL, (100, 10_000), Budget(1e6, memory_mb=600.0))
    assert len(found.timings) == 2 and "MB of 600" in found.stopped
    assert math.isinf(found.exponent.upper)


def clock_free(clock):
    clock(1e-6)
    return 1.0


def test_copies_of_a_molecule_are_far_apart():
    for atoms in (100, 1000):
        system = replicated(ETHANOL, atoms)
        assert len(system) == 1 and abs(len(system.positions) - atoms) <= 5
        alone, there = neighbours(ETHANOL, 14.9), neighbours(system, 14.9)
        copies = len(system.positions) // 9
        assert len(there.vectors) == copies * len(alone.vectors)
        assert torch.equal(system.species.view(copies, 9), ETHANOL.species.expand(copies, 9))


def test_a_supercell_has_the_neighbours_of_the_cell():
    cell = Structures.from_ase(bulk("Si", cubic=True))
    system = replicated(cell, 100)
    assert len(system.positions) == 96 and bool(system.pbc.all())
    per_atom = [len(neighbours(s, 5.0).vectors) / len(s.positions) for s in (cell, system)]
    assert per_atom[0] == per_atom[1]
    density = [len(s.positions) / float(s.cell[0].det().abs()) for s in (cell, system)]
    assert density[0] == pytest.approx(density[1])


def test_refusals():
    slab = Structures(
        ETHANOL.positions, ETHANOL.species, ETHANOL.pointer, 20 * torch.eye(3)[None].double(), ~ETHANOL.pbc
    )
    slab.pbc[0, 2] = False
    for bad in (slab, load("rmd17/ethanol").structures[:2]):
        with pytest.raises(DataError, match="one molecule"):
            replicated(bad, 100)


def test_two_sizes_give_no_interval(clock):
    found = growth(lambda s: torch.ones(1) * clock_free(clock), ETHANOL, (100, 10_000), Budget(0.0, 1e6))
    assert isinstance(found, Growth) and len(found.timings) == 1 and math.isnan(found.exponent.value)
