"""A saved Bayesian ACE is the same one."""

import json

import pytest
import torch

from bayesmol.errors import FormatError
from bayesmol.potentials.ace_posterior import ACEPotential


def copied(potential):
    header, arrays = potential.state()
    return ACEPotential.from_state(json.loads(json.dumps(header)), {k: v.clone() for k, v in arrays.items()})


@pytest.fixture(scope="module")
def restored(potential):
    return copied(potential)


def test_predictions_survive_bit_by_bit(potential, restored, ethanol):
    before, after = potential.predict(ethanol[2]), restored.predict(ethanol[2])
    for name in ("energy", "forces"):
        assert torch.equal(getattr(before, name).mean, getattr(after, name).mean)
        assert torch.equal(getattr(before, name).variance, getattr(after, name).variance)
    assert torch.equal(potential.strangeness(ethanol[2]), restored.strangeness(ethanol[2]))
    assert before.provenance == after.provenance


def test_the_rest_survives(potential, restored):
    assert potential.training.fingerprint == restored.training.fingerprint
    assert potential.training.source == restored.training.source
    assert potential.noise_force == restored.noise_force and potential.noise_energy == restored.noise_energy
    assert torch.equal(potential.leave_one_out().forces.mean, restored.leave_one_out().forces.mean)
    assert torch.equal(potential.left_out_strangeness(), restored.left_out_strangeness())
    first, second = (item.draws(1, seed=0)[0].posterior.mean for item in (potential, restored))
    assert torch.equal(first, second)


def test_a_restored_potential_can_be_updated(potential, restored, ethanol):
    first, second = (item.update(ethanol[1][:2]) for item in (potential, restored))
    assert torch.equal(first.posterior.mean, second.posterior.mean)
    again = copied(first)
    assert torch.equal(again.predict(ethanol[2]).energy.variance, first.predict(ethanol[2]).energy.variance)


def test_units_are_written(potential):
    assert potential.state()[0]["units"] == {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³", "distance": "Å"}


@pytest.mark.parametrize("name", ["mixing.2", "log_noise", "posterior.factor", "training.structures.positions"])
def test_missing_arrays(potential, name):
    header, arrays = potential.state()
    with pytest.raises(FormatError, match="all parts"):
        ACEPotential.from_state(header, {key: value for key, value in arrays.items() if key != name})


@pytest.mark.parametrize("name", ["species", "basis", "source", "provenance"])
def test_missing_header(potential, name):
    header, arrays = potential.state()
    with pytest.raises(FormatError, match="all parts"):
        ACEPotential.from_state({key: value for key, value in header.items() if key != name}, arrays)
