"""Walkers on an exact wavefunction give its energy without spread, in the axes that are promised."""

import numpy as np
import pytest

from bayesmol.wavefunctions.evaluation import Evaluation
from bayesmol.wavefunctions.exact import hydrogen


@pytest.fixture(scope="module")
def found():
    state = hydrogen()
    run = Evaluation(state.log_psi, state.system, moves=3)
    start = np.random.default_rng(0).normal(size=(8, 1, 3))
    return run.energy({}, start, 25, seed=0), list(run.blocks({}, start, 25, seed=0))


def test_hydrogen(found):
    energy, _ = found
    assert energy.local.shape == (8, 25)
    assert float((energy.local + 0.5).abs().max()) < 1e-10
    assert energy.steps == 3
    assert 0.3 < energy.acceptance < 0.9


def test_blocks_are_the_same_draws(found):
    energy, parts = found
    total = np.concatenate([part.energy.total for part in parts])
    assert total.shape == (30, 8), "whole blocks"
    np.testing.assert_array_equal(total[:25].T, energy.local)
    assert np.concatenate([part.r for part in parts]).shape == (30, 8, 1, 3)
