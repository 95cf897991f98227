"""Training, validation and calibration frames follow each other."""

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError


@pytest.fixture
def parts(study):
    return study("potentials_learn").parts


FRAMES = bm.data.load("rmd17/ethanol/train")


def test_parts_follow_each_other(parts):
    fitting, validation, calibration = parts(FRAMES, 50, None)
    assert validation is None and len(calibration) == 250
    assert torch.equal(fitting.energies, FRAMES.energies[:50])
    assert torch.equal(calibration.energies, FRAMES.energies[50:300])
    fitting, validation, calibration = parts(FRAMES, 50, 30, 20)
    assert torch.equal(validation.energies, FRAMES.energies[50:70])
    assert torch.equal(calibration.energies, FRAMES.energies[70:100])


def test_what_is_not_there_is_none(parts):
    assert parts(FRAMES, None, None)[1:] == (None, None) and parts(FRAMES, 50, 0)[2] is None
    assert len(parts(FRAMES, 900, None)[2]) == 100 and len(parts(FRAMES, None, None, 40)[0]) == 960
    with pytest.raises(DataError, match="at most 1000 frames"):
        parts(FRAMES, 900, 200)


def test_data_sets_are_joined(study):
    together = study("potentials_learn").together
    assert together([], "cpu", "float64") is None
    found = together(["ethanol/h-removal", "methanol/test"], "cpu", "float32")
    assert len(found) == 60 + 145 and found.structures.positions.dtype == torch.float32
