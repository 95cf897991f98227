"""The calculator hands on the answers of a learner, once for each structure."""

import numpy as np
import pytest
import torch
from ase.build import molecule

from bayesmol.acquisition.learner import Answer
from bayesmol.acquisition.on_the_fly_calculator import LearningCalculator
from bayesmol.errors import DataError


class Fake:
    """Answers with springs about the origin."""

    calls = 0

    def answer(self, structures):
        self.calls += 1
        positions = structures.positions
        return Answer(0, float(positions.square().sum()) / 2, -positions, 0.1, 0.05, 0.0)


def test_results_are_the_answer():
    atoms, learner = molecule("H2O"), Fake()
    atoms.calc = calculator = LearningCalculator(learner)
    np.testing.assert_array_equal(atoms.get_forces(), -atoms.positions)
    assert atoms.get_potential_energy() == calculator.answer.energy and learner.calls == 1
    atoms.positions += 0.1
    np.testing.assert_array_equal(atoms.get_forces(), -atoms.positions)
    assert learner.calls == 2 and calculator.answer.bound == 0.1


def test_a_run_is_taken_up_without_asking():
    atoms, learner = molecule("H2O"), Fake()
    calculator = LearningCalculator(learner)
    forces = torch.ones(3, 3).numpy()
    calculator.resume(atoms, -1.5, forces)
    atoms.calc = calculator
    assert atoms.get_potential_energy() == -1.5 and atoms.get_potential_energy(force_consistent=True) == -1.5
    np.testing.assert_array_equal(atoms.get_forces(), forces)
    assert learner.calls == 0 and calculator.answer is None


def test_atoms_are_needed():
    with pytest.raises(DataError, match="atoms"):
        LearningCalculator(Fake()).calculate()
