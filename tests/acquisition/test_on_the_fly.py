"""Learning on the fly: what it accepts is right, what it may not trust it asks for, and a kill changes nothing."""

import json
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from ase.build import molecule

from bayesmol.acquisition.on_the_fly import Langevin, OnTheFly
from bayesmol.acquisition.trace import ACCEPTED, AUDITED, REFERENCE
from bayesmol.data import Labelled, Source, Structures
from bayesmol.data.labelling import Reference, Result
from bayesmol.errors import DataError
from bayesmol.potentials import GradientGP


@dataclass(frozen=True)
class Morse(Reference):
    """Morse potential of water; beyond a distance it fails, and labels made can be counted."""

    reach: float = 50.0
    library = "ase"

    @property
    def source(self):
        return Source("Morse", "CC0-1.0", "none", "")

    def calculation(self):
        def calculate(frame):
            positions = torch.tensor(frame.positions, requires_grad=True)
            first, second = torch.triu_indices(3, 3, offset=1)
            distance = (positions[first] - positions[second]).norm(dim=1)
            if float(distance.detach().max()) > self.reach:
                raise RuntimeError("too long")
            numbers = torch.tensor(frame.numbers)
            rest = 0.7 + 0.03 * (numbers[first] + numbers[second])
            energy = ((1 - torch.exp(-1.2 * (distance - rest))).square() - 1).sum()
            (slope,) = torch.autograd.grad(energy, positions)
            return Result(float(energy.detach()), -slope.numpy())

        return calculate


MODEL = GradientGP(length_scale=3.0, energy_noise=1e-3, force_noise=1e-2)
SPEC = OnTheFly(
    MODEL, Morse(), tolerance=0.1, dynamics=Langevin(600.0), initial=6, checkpoint=40, audit=0.15, refit=4.0
)


def water(seed=0):
    atoms = molecule("H2O")
    atoms.set_momenta(0.1 * np.random.default_rng(seed).normal(size=(3, 3)))
    return atoms


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return SPEC.run(folder, water(), 80, seed=1), folder


def test_bounds_decide(run):
    learned, _ = run
    trace = learned.trace
    own = trace.kind != REFERENCE
    assert bool((trace.bound[own] <= SPEC.tolerance).all())
    asked = trace.kind >= AUDITED
    assert torch.equal(trace.error.isfinite(), asked)
    assert bool((trace.kind == REFERENCE)[:3].all()) and 0.3 < float(own[40:].double().mean())
    assert bool(trace.bound[0].isinf())


def test_calls_are_counted(run):
    learned, folder = run
    entries = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    labels = [entry for entry in entries if entry["kind"] == "label"]
    assert len(labels) == learned.calls["triggered"] + learned.calls["checks"] == len(learned.labels) - 6
    assert learned.calls["initial"] == 6 and learned.calls["failed"] == 0
    assert learned.calls["checks"] == learned.audits.checked == sum(e["purpose"] != REFERENCE for e in labels)
    assert learned.call_fraction == pytest.approx(len(learned.labels) / 80)
    assert "80 steps" in str(learned) and "at all times together" in str(learned)
    fits = [entry["labels"] for entry in entries if entry["kind"] == "fit"]
    assert fits[0] == 6 and all(later >= 4 * earlier for earlier, later in pairwise(fits))


def test_labels_are_those_of_the_reference(run):
    learned, _ = run
    again = Morse().label(learned.labels.structures).labelled
    torch.testing.assert_close(again.forces, learned.labels.forces, rtol=1e-12, atol=1e-12)
    assert bool(learned.model.training is not None) and len(learned.model.training) == len(learned.labels)


def test_recorded_errors_are_true(run):
    """The forces that moved the atoms differ from the reference by the error that was recorded."""
    learned, _ = run
    trace = learned.trace
    checked = (trace.kind == AUDITED).nonzero()[:, 0]
    assert len(checked) > 3 and float(trace.error[checked].max()) <= SPEC.tolerance
    truth = Morse().label(trace.structures(torch.arange(len(trace)))).labelled.forces.view(trace.forces.shape)
    error = (trace.forces - truth).norm(dim=2).amax(1)
    torch.testing.assert_close(error[checked], trace.error[checked], rtol=1e-8, atol=1e-8)
    assert float(error[trace.kind == REFERENCE].max()) < 1e-10
    assert float((error <= trace.bound)[trace.kind != REFERENCE].double().mean()) > 0.8


def test_random_checks_have_their_probability(run):
    audits = run[0].audits
    from scipy.stats import binom

    low, high = binom.ppf([0.0005, 0.9995], audits.accepted, SPEC.audit)
    assert low <= audits.checked <= high and audits.probability == SPEC.audit


def test_the_same_seed_gives_the_same_run(run, tmp_path):
    learned, _ = run
    again = SPEC.run(tmp_path / "again", water(), 40, seed=1)
    assert torch.equal(again.trace.positions, learned.trace.positions[:40])
    other = SPEC.run(tmp_path / "other", water(), 5, seed=2)
    assert not torch.equal(other.trace.positions, learned.trace.positions[:5])


def test_other_settings_are_refused(run):
    with pytest.raises(DataError, match="folder: expected a run with these settings"):
        replace(SPEC, tolerance=0.2).run(run[1], water(), 80, seed=1)
    with pytest.raises(DataError, match="folder: expected a run with these settings"):
        SPEC.run(run[1], water(), 150, seed=3)


def test_given_labels_and_budget(tmp_path):
    initial = Morse().label(SPEC.displaced(water(), 5)).labelled
    learned = SPEC.run(tmp_path / "a", water(), 100, initial=initial, budget=4, seed=0)
    assert learned.calls["initial"] == 0 and learned.calls["triggered"] + learned.calls["checks"] == 4
    assert "budget of 4 calls" in learned.reason and len(learned.labels) == 10


@pytest.mark.parametrize("wrong", [{"level": 1.0}, {"audit": 0.0}, {"tolerance": 0.0}, {"refit": 1.0}, {"rewind": -1}])
def test_bad_settings(wrong):
    with pytest.raises(DataError, match=next(iter(wrong))):
        replace(SPEC, **wrong)


def test_structures_of_the_trace(run):
    learned, _ = run
    found = learned.trace.structures(learned.accepted[:3])
    assert isinstance(found, Structures) and len(found) == 3
    assert isinstance(learned.labels, Labelled) and ACCEPTED == 0
