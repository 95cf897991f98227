"""Histories of trainings: when further steps do not help."""

import numpy as np
import pytest

from bayesmol.wavefunctions.history import History, note, stalled


def history(energy, variance=None):
    steps = len(energy)
    variance = np.full(steps, 0.4) if variance is None else variance
    columns = (
        np.arange(steps),
        energy,
        variance,
        np.full(steps, 0.5),
        np.zeros(steps),
        np.zeros(steps),
        np.ones(steps),
    )
    return History.of(np.array(columns).T)


@pytest.fixture
def noise():
    return 0.01 * np.random.default_rng(1).normal(size=200)


def test_rows_become_columns():
    found = History.of(
        [np.array([1.0, -2.0, 0.3, 0.5, 0.01, 2.0, 1.0]), np.array([2.0, -2.1, 0.2, 0.6, 0.0, 0.0, 0.0])]
    )
    np.testing.assert_array_equal(found.seconds, [1.0, 2.0])
    np.testing.assert_array_equal(found.redrawn, [2, 0])
    np.testing.assert_array_equal(found.taken, [True, False])
    assert found.redrawn.dtype.kind == "i" and found.taken.dtype.kind == "b"


def test_a_falling_energy_is_no_stall(noise):
    # Standard error of the difference of two means of 100: 0.0014.
    fall = np.repeat([0.0, -0.01], 100)
    assert not stalled(history(-2.8 + fall + noise), 100)
    assert stalled(history(-2.8 - fall + noise), 100)


def test_a_falling_variance_is_no_stall(noise):
    energy = -2.8 + np.tile(noise[:100], 2)
    assert stalled(history(energy), 100)
    assert stalled(history(energy, np.repeat([0.4, 0.398], 100)), 100)
    assert not stalled(history(energy, np.repeat([0.4, 0.38], 100)), 100)


def test_of_too_few_steps_nothing_is_said(noise):
    assert not stalled(history(noise[:199]), 100)


def test_skipped_steps_are_left_out(noise):
    energy = -2.8 + np.tile(noise[:100], 2)
    energy[::7] = np.nan
    energy[5] = np.inf
    assert stalled(history(energy), 100)
    assert not stalled(history(energy - np.repeat([0, 1], 100)), 100)


def test_the_note_shows_the_last_step():
    found = note(history(np.array([-2.0, -2.2])), 7)
    assert found == "step 7, -2.1000 ± 0.0707 Ha, variance 0.4 Ha², acceptance 50 %"
