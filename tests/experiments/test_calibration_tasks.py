"""Tasks are frozen: one fingerprint, features that obey the symmetries, tables read from wheels as they are."""

import gzip
import zipfile
from dataclasses import replace

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError

INSTALLED = [
    "diabetes",
    "atomisation",
    "ethanol_energy",
    "ethanol_force",
    "acetylacetone_energy",
    "acetylacetone_force",
]


@pytest.fixture
def tasks(study):
    return study("calibration_tasks")


@pytest.mark.parametrize("name", INSTALLED)
def test_installed_tasks_are_what_they_were(tasks, name):
    task = tasks.load(name)  # raises if the fingerprint is another
    rows, features = task.inputs.shape
    assert task.targets.shape == task.groups.shape == (rows,) and len(task.names) == features == len(set(task.names))
    assert rows <= tasks.ROWS and bool(task.inputs.isfinite().all() & task.targets.isfinite().all())
    assert bool((task.inputs != task.inputs[0]).any(0).all()), "each feature varies"
    assert task.groups.unique().tolist() == list(range(int(task.groups.max()) + 1))
    assert task.licence and task.citation


def test_there_are_enough_tasks_with_sources(tasks):
    assert len(tasks.names()) >= 8 and set(INSTALLED) <= set(tasks.names()) == set(tasks._SOURCES)
    for source in tasks._SOURCES.values():
        assert len(source["fingerprint"]) == 64 and source["licence"] and source["citation"]


def test_changed_data_are_refused(tasks, monkeypatch):
    inputs, targets, groups, columns = tasks.COLUMNS["diabetes"](None)
    targets[7] += 1e-9
    monkeypatch.setitem(tasks.COLUMNS, "diabetes", lambda tables: (inputs, targets, groups, columns))
    with pytest.raises(DataError, match="fingerprint of diabetes"):
        tasks.load("diabetes")
    with pytest.raises(DataError, match="--tasks"):
        tasks.load("nonsense")


def test_missing_tables_are_noted(tasks, tmp_path):
    for folder in (None, tmp_path):
        found, notes = tasks.available(["steel", "diabetes", "melting"], folder)
        assert [task.name for task in found] == ["diabetes"]
        assert [note.split(":")[0] for note in notes] == ["task steel is skipped", "task melting is skipped"]
        assert "madml-2.6.7" in notes[0] and "chemicals-1.5.2" in notes[1]


def wheel(folder, name, files):
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)


def test_materials_tables(tasks, tmp_path):
    lines = ["a,b,same,group,mat,E_regression", "1,2,3,g,[Ag][Co],0.5", "4,5,3,g,[Ag][Fe],1.5", "7,8,3,g,[Al][Co],2.5"]
    wheel(tmp_path, "madml-2.6.7", {"madml/data/diffusion.csv": "\n".join(lines)})
    task = tasks.frozen("diffusion", tmp_path)
    assert task.names == ("a", "b") and task.inputs.tolist() == [[1, 2], [4, 5], [7, 8]]
    assert task.targets.tolist() == [0.5, 1.5, 2.5] and task.groups.tolist() == [0, 1, 0], "a solute is a group"
    with pytest.raises(DataError, match="fingerprint"):
        tasks.load("diffusion", tmp_path)


def test_chemical_tables(tasks, tmp_path):
    known = [
        ("64-17-5", "C2H6O", "CCO"),
        ("115-10-6", "C2H6O", "COC"),
        ("64-19-7", "C2H4O2", "CC(=O)O"),
        ("127-09-3", "C2H3NaO2", "CC(=O)[O-].[Na+]"),
    ]
    identifiers = "\n".join(f"1\t{cas}\t{formula}\t1.0\t{smiles}\tx\ty" for cas, formula, smiles in known)
    table = "CAS\tlogP\n" + "\n".join(f"{cas}\t{k}" for k, (cas, *_) in enumerate(known)) + "\n0-0-0\t9\n64-17-5\t\n"
    folder = "chemicals/Identifiers/chemical identifiers pubchem"
    files = {f"{folder} large.tsv": identifiers, f"{folder} small.tsv": identifiers[:0]}
    wheel(
        tmp_path,
        "chemicals-1.5.2",
        files | {"chemicals/Environment/Syrres logP data.csv.gz": gzip.compress(table.encode())},
    )
    task = tasks.frozen("partition", tmp_path)
    assert task.targets.tolist() == [0, 1, 2], "no salt, no stranger, no empty value"
    assert task.groups.tolist() == [1, 1, 0], "isomers are a group"
    column = dict(zip(task.names, task.inputs.T.tolist(), strict=True))
    assert column["H"] == [6, 6, 4] and column["O"] == [1, 1, 2]
    assert column["carbonyl"] == [0, 0, 1] and column["hydroxyl"] == [1, 0, 1] and column["branches"] == [0, 0, 1]


@pytest.mark.parametrize("name", ["ethanol_energy", "ethanol_force"])
def test_molecular_features_obey_the_symmetries(tasks, monkeypatch, source, name):
    frames = bm.data.load("rmd17/ethanol")[:20]
    before = tasks.COLUMNS[name]
    monkeypatch.setattr(tasks, "_frames", lambda _: frames)
    inputs, targets, groups, _ = before(None)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=source, dtype=torch.float64))
    structures = frames.structures
    order = torch.tensor([0, 1, 2, 5, 3, 4, 8, 6, 7])  # hydrogens exchanged
    rows = (torch.arange(20)[:, None] * 9 + order).flatten()
    turned = replace(structures, positions=(structures.positions @ turn.T)[rows])
    moved = replace(frames, structures=turned, forces=(frames.forces @ turn.T)[rows])
    monkeypatch.setattr(tasks, "_frames", lambda _: moved)
    again, forces, owners, _ = before(None)
    first, second = (torch.as_tensor(part) for part in (inputs, again))
    if name == "ethanol_force":  # a row an atom: hydrogen by hydrogen, in another order
        place = torch.tensor([5, 3, 4, 8, 6, 7]) - 3
        rows = (place[:, None] * 20 + torch.arange(20)).flatten()
        first, targets, groups = first[rows], torch.as_tensor(targets)[rows], torch.as_tensor(groups)[rows]
        assert torch.equal(torch.as_tensor(groups), torch.as_tensor(owners))
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(torch.as_tensor(targets), torch.as_tensor(forces), rtol=1e-9, atol=1e-9)


def test_a_stretched_bond_is_pulled_back(tasks):
    task = tasks.load("ethanol_force")
    carbon = task.inputs[:, task.names.index("bonded_element")] == 0.6
    bond = 1 / task.inputs[carbon, task.names.index("inverse_distance_6_0")]
    assert 1.0 < float(bond.mean()) < 1.2, "a C-H bond in Å"
    pairs = torch.stack([bond, task.targets[carbon]])
    assert float(torch.corrcoef(pairs)[0, 1]) < -0.9
