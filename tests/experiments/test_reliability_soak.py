"""A calculator that answers step by step keeps nothing."""

import numpy as np
import pytest
from ase.calculators.calculator import all_changes


@pytest.fixture
def soak(study):
    return study("reliability_soak")


def test_a_step_leaves_no_object(soak):
    assert soak.new_objects(soak.calculated(labels=10), 40) <= 0


def test_a_calculator_that_keeps_its_results_would_be_found(soak, monkeypatch):
    atoms, kept = soak.calculated(labels=10), []
    calculate = type(atoms.calc).calculate

    def keeping(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        calculate(self, atoms, properties, system_changes)
        kept.append([self.results])

    monkeypatch.setattr(type(atoms.calc), "calculate", keeping)
    assert soak.new_objects(atoms, 20) >= 20


def test_memory_is_looked_at_and_its_slope_has_an_error(soak):
    done, found = soak.memory(soak.calculated(labels=10), 40, 4)
    assert done.tolist() == [10, 20, 30, 40] and (found > 50).all()
    early, _ = soak.memory(soak.calculated(labels=10), 40, 4, seconds=0.0)
    assert early.tolist() == [10]
    slope, error = soak.slope(np.arange(10.0), 3 * np.arange(10.0) + np.arange(10) % 2)
    assert slope == pytest.approx(3, abs=3 * error) and error > 0


@pytest.mark.slow
def test_memory_is_flat_over_thousands_of_steps(soak):
    """A leak of one kilobyte a step, as of one kept array of this molecule, would be a gigabyte in a million steps."""
    done, found = soak.memory(soak.calculated(), 8000, 80)
    late = slice(20, None)
    slope, error = soak.slope(done[late], found[late])
    assert 1e6 * (slope - 3 * error) < 20, "MB in a million steps"
    assert found[-1] - found[20] < 2
