"""A learner trusts, checks, asks, calibrates and learns as its rules say."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bayesmol.acquisition.learner import Learner, largest_force_error
from bayesmol.acquisition.trace import AUDITED, MISSED, REFERENCE
from bayesmol.data import Labelled, Structures
from bayesmol.errors import ApplicabilityError

from .test_on_the_fly import SPEC, Morse, water


def learner(settings=SPEC, label=None, seed=0):
    entries = []
    initial = Morse().label(settings.displaced(water(), 3)).labelled
    found = Learner(
        settings,
        initial,
        label or settings.labelled,
        lambda kind, **values: entries.append((kind, values)),
        np.random.default_rng(seed),
        0,
    )
    found.fit()
    return found, entries


def frames(count, seed=9):
    return replace(SPEC, initial=count + 1).displaced(water(), seed)[:count]


@pytest.fixture
def trained():
    """A learner with a finite factor."""
    found, entries = learner()
    many = frames(25)
    for place in range(25):
        found.answer(many[place : place + 1])
    return found, entries


def test_nothing_is_trusted_before_there_are_enough_scores():
    found, entries = learner()
    assert found.factor == math.inf
    answer = found.answer(frames(1))
    truth = Morse().label(frames(1)).labelled
    assert answer.kind == REFERENCE and answer.bound == math.inf
    torch.testing.assert_close(answer.forces, truth.forces)
    assert len(found.labels) == 7 and [kind for kind, _ in entries] == ["fit", "label"]
    assert found.factor_state.steps == 1


def test_the_factor_becomes_finite_and_then_only_checks_move_it(trained):
    found, _ = trained
    assert math.isfinite(found.factor) and found.factor_state.steps >= 19
    before, found.settings = found.factor_state, replace(SPEC, tolerance=1e-9)
    assert found.answer(frames(1, 30)).kind == REFERENCE and found.factor_state is before
    found.settings = replace(SPEC, tolerance=1e9, audit=1 - 1e-12)
    found.widest = math.inf
    answer = found.answer(frames(1, 31))
    assert answer.kind == AUDITED and found.factor_state.steps == before.steps + 1
    assert float(found.factor_state.pool[-1]) == pytest.approx(answer.error / answer.deviation)


def test_a_check_beyond_the_tolerance_is_missed(trained):
    found, entries = trained
    found.settings, found.widest = replace(SPEC, tolerance=1e9, audit=1 - 1e-12), math.inf
    prediction = found.model.predict(frames(1, 32))

    def wrong(structures):
        truth = Morse().label(structures).labelled
        return replace(truth, forces=truth.forces + 1e10)

    found._label = wrong
    answer = found.answer(frames(1, 32))
    assert answer.kind == MISSED and found.counts["exceeded"] == 1
    assert entries[-1][1]["purpose"] == MISSED
    assert answer.error == pytest.approx(largest_force_error(prediction, wrong(frames(1, 32))))


def test_a_stranger_structure_is_not_trusted(trained):
    found, _ = trained
    found.settings = replace(SPEC, tolerance=1e9)
    found.widest = -1.0
    assert found.answer(frames(1, 33)).kind == REFERENCE
    assert found.widest > 0


def test_a_failure_is_not_learned():
    found, entries = learner(label=lambda structures: "no convergence")
    answer = found.answer(frames(1))
    assert answer.failure == "no convergence" and len(found.labels) == 6
    assert entries[-1] == (
        "failure",
        {"purpose": REFERENCE, "reason": "no convergence", "positions": frames(1).positions.tolist()},
    )
    assert found.counts["failed"] == found.counts["triggered"] == 1


def test_refits_at_multiples(trained):
    fits = [values["labels"] for kind, values in trained[1] if kind == "fit"]
    assert fits == [6, 24] and trained[0].fitted == 24


def test_bias_is_added_to_the_forces_of_the_model(trained):
    found, _ = trained
    found.settings, found.widest = replace(SPEC, tolerance=1e9, audit=1e-12, bias=2.0), math.inf
    structure = frames(1, 34)
    answer, prediction = found.answer(structure), found.model.predict(structure)
    deviation, slope = found.model.deviation_gradient(structure)
    torch.testing.assert_close(answer.forces, prediction.forces.mean + 2 * slope)
    assert answer.energy == pytest.approx(float(prediction.energy.mean) - 2 * float(deviation))


def test_forces_are_needed():
    structure = frames(1)
    found, _ = learner()
    truth = Labelled(Structures.coerce(structure), energies=torch.zeros(1, dtype=torch.float64))
    with pytest.raises(ApplicabilityError, match="reference: expected forces"):
        largest_force_error(found.model.predict(structure), truth)
