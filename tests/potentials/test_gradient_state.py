"""The state of a Gaussian process gives back its fields; an update is a fit of all labels with the same scales."""

import json
from dataclasses import replace

import pytest
import torch
from ase.build import molecule

import bayesmol as bm
from bayesmol.data import Labelled
from bayesmol.errors import DataError, FormatError
from bayesmol.potentials.gradient_gp import GradientGP
from bayesmol.potentials.gradient_state import parts, state

SPEC = GradientGP(length_scale=3.0, energy_noise=2e-3, force_noise=0.02)


@pytest.fixture(scope="module")
def data():
    return bm.data.load("rmd17/ethanol")[:8]


@pytest.fixture(scope="module")
def model(data):
    return SPEC.fit(data[:4])


def test_fields_come_back(model, data):
    header, arrays = state(model)
    found = parts(json.loads(json.dumps(header)), arrays)
    assert found["training"].fingerprint == data[:4].fingerprint and found["training"].source == data.source
    assert found["amplitude"] == model.amplitude and torch.equal(found["order"], model.order)
    with pytest.raises(FormatError, match="amplitude"):
        parts({name: value for name, value in header.items() if name != "amplitude"}, arrays)


def test_update_is_a_fit_with_the_same_scales(model, data):
    updated = model.update(data[4:6])
    joined = Labelled.concatenate([data[:4], data[4:6]])
    want = replace(SPEC.fit(joined), amplitude=model.amplitude)
    first, second = updated.predict(data[6:]), want.predict(data[6:])
    torch.testing.assert_close(first.forces.mean, second.forces.mean, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(first.energy.variance, second.energy.variance, rtol=1e-8, atol=1e-12)
    assert len(model.training) == 4 and len(updated.training) == 6


def test_another_molecule_is_refused(model):
    water = bm.data.Structures.from_ase(molecule("H2O"))
    labelled = Labelled(water, energies=torch.zeros(1, dtype=torch.float64))
    with pytest.raises(DataError, match="the molecule"):
        model.update(labelled)
