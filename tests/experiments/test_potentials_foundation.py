"""The study of existing potentials runs, and its figures are the right ones."""

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError
from bayesmol.potentials.foundation import Foundation
from bayesmol.report import Study

CENTRES = torch.linspace(0.9, 3.5, 6, dtype=torch.float64)


def features(positions, species, pointer, cell):
    owner = torch.arange(len(pointer) - 1).repeat_interleave(pointer.diff())
    first, second = ((owner[:, None] == owner) & ~torch.eye(len(owner), dtype=torch.bool)).nonzero().T
    basis = torch.exp(-3 * ((positions[first] - positions[second]).norm(dim=1)[:, None] - CENTRES) ** 2)
    return basis.new_zeros(len(owner), 6).index_add(0, first, basis * species[second, None])


def energies(positions, species, pointer, cell):
    owner = torch.arange(len(pointer) - 1).repeat_interleave(pointer.diff())
    return positions.new_zeros(len(pointer) - 1).index_add(0, owner, features(positions, species, pointer, cell)[:, 1])


@pytest.fixture
def module(study):
    return study("potentials_foundation")


def test_a_study_of_a_foundation(module, monkeypatch):
    toy = Foundation.from_torch(energies, features=features)
    monkeypatch.setattr(module, "origins", lambda *_: toy)
    train, calibration, test = bm.data.load("rmd17/ethanol").split(30, 60, 40)
    content = Study("potentials", "foundation")
    plots = module.foundation(
        content, base="toy", train=train, calibration=calibration, test=test, rank=6, cache=None, seed=0
    )
    found = {name: figure.value for name, figure in content.figures.items()}
    assert found["force_mae"] < found["base_force_mae"]
    assert found["band_90_lower"] < 0.9 < found["band_90_upper"]
    assert 0.3 < found["width_to_constant"] < 1.7
    assert found["energy_mae_per_atom"] == pytest.approx(found["energy_mae"] / 9)
    assert {
        "force_conformal_90",
        "train_cpu_seconds",
        "false_alarm_rate",
        "force_frames_beyond_3_medians",
    } <= found.keys()
    assert set(plots) == {"frames"}


def test_bases_by_name(module, tmp_path):
    assert module.origins("GFN1-xTB", tmp_path).identity["settings"]["method"] == "GFN1-xTB"
    with pytest.raises(DataError, match="--base"):
        module.origins("AMBER")
    with pytest.raises(DataError, match="residual"):
        module.corrected(module.origins("GFN2-xTB"), bm.data.load("rmd17/ethanol")[:5], "last-layer", 4, 0)
