"""Sides are compared in turns; what is not installed is named; the baseline is what it says."""

import pytest
import torch

import bayesmol as bm


@pytest.fixture
def peers(study):
    return study("peers")


@pytest.fixture
def frames():
    return bm.data.load("rmd17/ethanol").split(12, 3)


def test_turns_alternate_and_the_missing_are_named(peers, frames):
    calls = []

    def side(name):
        def fit(training, seed):
            calls.append((name, len(training), seed))
            return lambda structures: (torch.zeros(len(structures)), torch.zeros_like(structures.positions), None)

        return fit

    def absent(training, seed):
        raise ImportError("no such package")

    outcomes, missing = peers.in_turns(
        {"a": side("a"), "x": absent, "b": side("b")}, frames[0], frames[1].structures, repeats=2, threads=1, seed=5
    )
    assert calls == [("a", 12, 5), ("b", 12, 5)] * 2
    assert missing == {"x": "no such package"} and outcomes.keys() == {"a", "b"}
    assert outcomes["a"].train_cpu_seconds >= 0 and outcomes["a"].forces.shape == (27, 3)


def test_the_forces_of_the_baseline_are_slopes_of_its_energies(peers, frames):
    training, test = frames
    predict = peers.gpytorch(training, 0)
    structures = test.structures[:1]
    energies, forces, deviations = predict(structures)
    assert energies.shape == (1,) and bool((deviations > 0).all())
    step = torch.zeros_like(structures.positions)
    step[4, 1] = 1e-4
    moved = [predict(type(structures)(structures.positions + s * step, *_rest(structures)))[0] for s in (1, -1)]
    assert float(moved[0] - moved[1]) / 2e-4 == pytest.approx(-float(forces[4, 1]), rel=1e-3, abs=1e-5)


def _rest(structures):
    return structures.species, structures.pointer, structures.cell, structures.pbc
