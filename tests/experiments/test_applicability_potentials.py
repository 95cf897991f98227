"""The study of domains on potentials measures what it says."""

import io

import pytest
import torch

import bayesmol as bm
from bayesmol.applicability import Verdict
from bayesmol.report import Study


class Stub:
    """A potential that finds long bonds strange."""

    def __init__(self, strangeness):
        self.strangeness = strangeness

    def __call__(self, **settings):
        return self

    def fit(self, labelled, *, seed):
        return self


@pytest.fixture
def potentials(study):
    return study("applicability_potentials")


@pytest.fixture
def sets(potentials):
    frames = bm.data.load("rmd17/ethanol")
    probes = {"h-removal": bm.data.load("ethanol/h-removal")}
    return potentials.Sets(frames[:120], frames[120:240], frames[1000:1100], probes)


def test_the_bond_that_breaks(potentials, sets):
    scan = sets.probes["h-removal"].structures
    distance, gone = potentials.bond(scan), potentials.stretched(scan, sets.train.structures)
    assert float(distance.max()) > 5 and 40 < int(gone.sum()) < 60
    assert float(distance[~gone].max()) < float(distance[gone].min())
    positions = sets.train.structures.positions.reshape(-1, 9, 3)
    assert float(distance[~gone].max()) <= float(torch.cdist(positions[:, [2]], positions[:, 3:]).amin(2).max())


def test_the_strangest_atom_breaks_ties_by_its_score(potentials):
    p_value, score = torch.full((9,), 0.5).double(), torch.zeros(9).double()
    p_value[[2, 8]] = 0.1
    score[[2, 8, 0]] = torch.tensor([3.0, 4.0, 9.0]).double()
    assert potentials.strangest(Verdict(score, p_value, p_value > 0)).tolist() == [8]


def test_study(potentials, sets, monkeypatch):
    monkeypatch.setattr(potentials, "SCORES", ("leverage",))
    monkeypatch.setattr(potentials, "BayesianACE", Stub(potentials.bond))
    found = Study("applicability", "potentials")
    plots = potentials.removal(found, sets, 0.05)
    potentials.molecule(found, "ethanol", sets, 0.05, 20, 0)
    assert set(plots) == {"removal_leverage", "removal_leverage_species"}
    plots["removal_leverage"].savefig(io.BytesIO())
    value = {name: figure.value for name, figure in found.figures.items()}
    for key in ("leverage", "leverage_species"):
        assert value[f"ethanol_{key}_h_removal_auroc"] > 0.9 and value[f"ethanol_{key}_false_alarms"] < 0.2
        assert value[f"attribution_{key}_leaving"] <= value[f"attribution_{key}_bond"] <= 1
    assert value["ethanol_guards_h_removal_flagged"] > 0.7
    # Hydrogen 8 is on the oxygen in the frames of rMD17, too: what the stub says is the length of this bond.
    assert value["ethanol_strangeness_h_removal_auroc"] == 1.0
