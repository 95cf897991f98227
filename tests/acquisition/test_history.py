from dataclasses import replace

import pytest
import torch

from bayesmol.acquisition.history import History, content, force_errors
from bayesmol.data import Labelled
from bayesmol.errors import DataError
from bayesmol.posterior import Gaussian, Prediction

from .conftest import Springs, pool

CHECK = {"labels": 2, "errors": [0.25], "mean": 0.25, "look": None, "bound": None}


@pytest.fixture(scope="module")
def candidates():
    return pool(6)


@pytest.fixture(scope="module")
def labelled(candidates):
    return Springs().label(candidates).labelled


@pytest.fixture
def history(candidates, labelled):
    entries = [
        {"kind": "start", "budget": 5},
        {"kind": "query", "purpose": "holdout", "indices": [3]},
        {"kind": "label", "index": 3, **content(labelled[3])},
        {"kind": "query", "purpose": "first", "indices": [5, 0]},
        {"kind": "label", "index": 0, **content(labelled[0])},
        {"kind": "label", "index": 5, **content(labelled[5])},
        {"kind": "query", "purpose": "chosen", "indices": [1, 4], "check": CHECK},
        {"kind": "failure", "index": 4, "reason": "no convergence"},
    ]
    return History(tuple(entries), candidates, None)


def test_what_the_entries_say(history):
    assert history.spent == 4
    assert history.failures == {4: "no convergence"}
    assert history.open == [1]
    assert history.remaining == [2]
    assert history.finished is None
    assert history.budget == 5
    assert len(history.before(2).entries) == 6 and history.before(2).checks == []
    assert history.checks == [CHECK]
    assert "3 labels and 1 failures of 5, 1 batches chosen" in str(history)
    assert "mean 0.25 eV/Å" in str(history)


def test_labels_are_in_the_order_of_the_query(history, labelled):
    (first,) = history.batches
    assert torch.equal(first.forces, labelled[[5, 0]].forces)
    assert torch.equal(first.energies, labelled[[5, 0]].energies)
    assert torch.equal(history.holdout.structures.positions, labelled[3].structures.positions)


def test_labels_keep_their_errors_and_gaps(candidates):
    one = Labelled(candidates[0], torch.tensor([1.5]).double(), energy_errors=torch.tensor([0.1], dtype=torch.float64))
    kept = content(one)
    assert kept["forces"] is None and kept["energy_errors"] == [0.1]
    history = History(
        (
            {"kind": "start", "budget": 1},
            {"kind": "query", "purpose": "first", "indices": [0]},
            {"kind": "label", "index": 0, **kept},
        ),
        candidates,
        None,
    )
    (batch,) = history.batches
    assert batch.forces is None and float(batch.energy_errors) == 0.1


def test_open_structures_are_recognised(history, labelled):
    found = history.recognised(labelled[1])
    assert list(found) == [1] and found[1]["energies"] == labelled.energies[1:2].tolist()
    rounded = Labelled.from_ase(labelled[1].to_ase())
    rounded.structures.positions.mul_(1e8).round_().div_(1e8)
    assert list(history.recognised(rounded)) == [1]
    with pytest.raises(DataError, match="open"):
        history.recognised(labelled[2])
    with pytest.raises(DataError, match="each once"):
        history.recognised(labelled[[1, 1]])


def test_force_errors_by_hand(labelled):
    variance = torch.ones_like(labelled.forces)
    shifted = Gaussian(labelled.forces + 0.25, variance, unit="eV/Å")
    energy = Gaussian(labelled.energies, torch.ones_like(labelled.energies), unit="eV")
    errors = force_errors(Prediction(energy, shifted, labelled.structures.pointer), labelled)
    torch.testing.assert_close(errors, torch.full((6,), 0.25, dtype=torch.float64))
    with pytest.raises(DataError, match="forces"):
        force_errors(
            Prediction(energy, shifted, labelled.structures.pointer), replace(labelled, forces=None, has_forces=None)
        )


def test_forecast_by_the_checks(history):
    checks = [{"kind": "query", "check": {"labels": n, "mean": 2.0 / n}} for n in (10, 20, 40)]
    longer = History(tuple(checks), history.pool, None)
    assert longer.forecast(0.01).labels == pytest.approx(200)
