import json
from importlib.resources import files

import pytest
import torch

from bayesmol.data import bundled, load, load_trajectories, names
from bayesmol.errors import DataError
from bayesmol.representation.neighbours import neighbours


@pytest.mark.parametrize("name", names())
def test_each_set_has_labels_licence_and_citation(name: str) -> None:
    data = load(name)
    assert data.energies is not None and data.source.name == name
    assert data.source.licence in {"CC0-1.0", "MIT"}
    assert data.source.citation and data.source.url.startswith("https://")


def test_every_file_is_in_the_catalogue_and_in_the_licences() -> None:
    folder = files("bayesmol.data") / "files"
    catalogue = json.loads((folder / "sets.json").read_text(encoding="utf-8"))
    shipped = {path.name for path in folder.iterdir() if path.name.endswith(".npz")}
    assert shipped == {entry["file"] for entry in catalogue["sets"].values()}
    text = (folder / "LICENSES.md").read_text(encoding="utf-8")
    assert text.count("Permission is hereby granted") == 2 and "CC0-1.0" in text
    for source in catalogue["sources"].values():
        assert source["licence"] in text


def test_ethanol_is_ordered_for_the_split_of_the_quickstart() -> None:
    train, calibration, test = load("rmd17/ethanol").split(50, 200, 1000)
    assert test.fingerprint == load("rmd17/ethanol/test").fingerprint
    assert calibration.fingerprint == load("rmd17/ethanol/train").split(50, 200)[1].fingerprint
    assert torch.equal(train.energies, load("rmd17/ethanol/train").energies[:50])
    whole = load("rmd17/ethanol")
    assert len(whole) == 2000 and whole.energies.unique().numel() > 1990


def test_ethanol_is_in_ev() -> None:
    data = load("rmd17/ethanol/test")
    assert data.structures.composition(0) == {1: 6, 6: 2, 8: 1}
    assert data.energies.mean().item() == pytest.approx(-4209.6, abs=1.0)
    assert data.forces.square().mean().sqrt().item() == pytest.approx(1.19, abs=0.05)
    # PBE ethanol has no net force beyond the noise of its integration grid
    assert data.forces.reshape(1000, 9, 3).sum(1).abs().max() < 0.01


def test_scans_have_no_forces() -> None:
    for name in ("ethanol/h-removal", "ethanol/dimers", "acetylacetone/dihedral", "acetylacetone/h-transfer"):
        assert not load(name).has_forces.any()
    assert load("ethanol/isolated-atoms").structures.counts.tolist() == [1, 1, 1, 1]


def test_graphene_stackings() -> None:
    data = load("qmc/graphene")
    energies, errors = (x.reshape(4, 9) for x in (data.energies, data.energy_errors))
    bound = energies.min(1).values
    assert bound.argsort().tolist() == [0, 1, 2, 3]  # AB, saddle point, between, AA
    assert (bound[3] - bound[0]).item() == pytest.approx(4 * 4.5e-3, rel=0.1)
    assert errors.min() > 0 and errors.max() < 0.02
    distances = neighbours(data.structures, 1.5).vectors.norm(dim=1)
    assert torch.allclose(distances, torch.full_like(distances, 1.42028), atol=1e-4) and len(distances) == 36 * 4 * 3


def test_atoms_above_atoms_tell_the_stacking() -> None:
    data = load("qmc/graphene")
    above = []
    for frame in (0, 9, 18, 27):
        vectors = neighbours(data.structures[frame], 3.01).vectors
        above.append(int((vectors[:, 2] > 2.9).logical_and(vectors[:, :2].norm(dim=1) < 0.05).sum()))
    assert above == [1, 0, 0, 2]  # AB: one of two atoms; AA: both


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="rmd17/ethanol"):
        load("rmd17/etanol")
    catalogue = bundled._catalogue()
    nameless = {**catalogue, "sources": {**catalogue["sources"], "qmc": {"citation": "c", "url": "u"}}}
    monkeypatch.setattr(bundled, "_catalogue", lambda: nameless)
    with pytest.raises(DataError, match="licence"):
        load("qmc/graphene")


def test_trajectories_of_alanine_dipeptide() -> None:
    data = load_trajectories("alanine-dipeptide")
    assert data.unit == "ps" and len(data) == 64 and data.frames * data.time_step > 99_000
    frames = torch.cat(data.parts)
    torch.testing.assert_close(frames[:, 0].square() + frames[:, 1].square(), torch.ones(len(frames)).double())
    right = (torch.atan2(frames[:, 1], frames[:, 0]) > 0).double().mean()
    assert 0.002 < float(right) < 0.2  # the left-handed side is rare, and it is visited
    with pytest.raises(DataError, match="alanine-dipeptide"):
        load_trajectories("alanine")
