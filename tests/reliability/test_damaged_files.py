"""Damaged files of every kind that no other test damages: read, or refused in words, never an error of a library.

The others: data/test_io.py, data/test_trajectory_files.py, test_persistence.py.
"""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from ase import Atoms
from typer.testing import CliRunner

import bayesmol as bm
from bayesmol.acquisition.ledger import Ledger
from bayesmol.checkpoints import read_checkpoint, write_checkpoint
from bayesmol.cli import app
from bayesmol.configuration import EXAMPLE, campaign_from_toml
from bayesmol.data.label_cache import Cached, _result
from bayesmol.data.trajectory_files import read_trajectories
from bayesmol.errors import BayesmolError
from bayesmol.flows.force_field import ForceField
from bayesmol.flows.force_field_openmm import read_amber, read_openmm

from ..data.test_label_cache import Counted, batch
from ..test_sampling import water

Reader = Callable[[Path], object]
MANY = pytest.mark.parametrize("count", [50, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])


def checkpoint(folder: Path) -> tuple[Path, Reader]:
    path, purpose = folder / "state", {"molecule": "He"}
    write_checkpoint(path, purpose, {"steps": 3}, {"weights": np.arange(12.0), "random": np.arange(5, dtype=np.uint8)})
    return path, lambda damaged: read_checkpoint(damaged, purpose)


def ledger(folder: Path) -> tuple[Path, Reader]:
    with Ledger(folder / "ledger.jsonl") as written:
        for number in range(4):
            written.append("query", chosen=[number, 2], gain=0.1 * number)

    def read(path: Path) -> object:
        with Ledger(path) as found:
            return found.entries

    return folder / "ledger.jsonl", read


def label(folder: Path) -> tuple[Path, Reader]:
    Cached(Counted(), folder / "labels").label(batch(6))
    (path,) = (folder / "labels").rglob("*.json")
    return path, lambda damaged: _result(damaged.read_text(encoding="utf-8", errors="replace"), path.stem)


def configuration(folder: Path) -> tuple[Path, Reader]:
    bm.data.write(folder / "candidates.extxyz", [Atoms("He")] * 75)
    (folder / "campaign.toml").write_text(EXAMPLE.replace("budget = 200", "budget = 75"), encoding="utf-8")
    return folder / "campaign.toml", campaign_from_toml


def force_field(folder: Path) -> tuple[Path, Reader]:
    water().write(folder / "water.npz")
    return folder / "water.npz", ForceField.read


def openmm_system(folder: Path) -> tuple[Path, Reader]:
    openmm = pytest.importorskip("openmm")
    system, bonds = openmm.System(), openmm.HarmonicBondForce()
    for mass in (16.0, 1.0, 1.0):
        system.addParticle(mass)
    for hydrogen in (1, 2):
        bonds.addBond(0, hydrogen, 0.096, 4e5)
    system.addForce(bonds)
    (folder / "system.xml").write_text(openmm.XmlSerializer.serialize(system), encoding="utf-8")
    return folder / "system.xml", lambda damaged: read_openmm(damaged, positions=np.eye(3))


def amber(folder: Path) -> tuple[Path, Reader]:
    pytest.importorskip("openmm")
    whole = Path(__file__).parents[1] / "flows" / "alanine-dipeptide.prmtop"
    (folder / "whole.prmtop").write_bytes(whole.read_bytes())
    return folder / "whole.prmtop", read_amber


def deepmd(folder: Path) -> tuple[Path, Reader]:
    """Damage goes into each of the files in turn."""
    home, whole, source = folder / "deepmd", {}, Random(0)
    (home / "set.000").mkdir(parents=True)
    whole["type_map.raw"], whole["type.raw"] = b"O H\n", b"0 1 1\n"
    for name, width in (("coord", 9), ("box", 9), ("energy", 1), ("force", 9), ("virial", 9)):
        values = np.random.default_rng(0).normal(size=(4, width)) + (10 * np.eye(3).ravel() if name == "box" else 0)
        np.save(home / "set.000" / name, values)
        whole[f"set.000/{name}.npy"] = (home / "set.000" / f"{name}.npy").read_bytes()
    joined = b"\n--\n".join(f"{name}\n".encode() + content for name, content in whole.items())
    (folder / "joined").write_bytes(joined)

    def read(path: Path) -> object:
        for name, content in whole.items():
            (home / name).write_bytes(content)
        name, _, content = source.choice(path.read_bytes().split(b"\n--\n")).partition(b"\n")
        if name.decode(errors="replace") in whole:
            (home / name.decode()).write_bytes(content)
        return bm.data.read(home)

    return folder / "joined", read


def mlearn(folder: Path) -> tuple[Path, Reader]:
    site = {"species": [{"element": "Si", "occu": 1}], "xyz": [0.1, 0.2, 0.3]}
    structure = {"sites": [site], "lattice": {"matrix": (5 * np.eye(3)).tolist()}}
    outputs = {"energy": -1.0, "forces": [[0.1, 0.2, 0.3]], "virial_stress": [1, 2, 3, 4, 5, 6]}
    (folder / "set.json").write_text(json.dumps([{"structure": structure, "outputs": outputs}] * 3), encoding="utf-8")
    return folder / "set.json", bm.data.read


def table(suffix: str, head: str, joint: str) -> Callable[[Path], tuple[Path, Reader]]:
    def made(folder: Path) -> tuple[Path, Reader]:
        rows = np.random.default_rng(0).normal(size=(30, 3))
        rows[:, 0] = np.arange(30)
        text = head + "".join(joint.join(map(repr, row)) + "\n" for row in rows.tolist())
        (folder / f"run{suffix}").write_text(text, encoding="utf-8")
        return folder / f"run{suffix}", read_trajectories

    made.__name__ = suffix[1:]
    return made


def npy(folder: Path) -> tuple[Path, Reader]:
    np.save(folder / "run.npy", np.random.default_rng(0).normal(size=(30, 3)))
    return folder / "run.npy", read_trajectories


def npz(folder: Path) -> tuple[Path, Reader]:
    np.savez(folder / "run.npz", features=np.random.default_rng(0).normal(size=(30, 3)), time_step_ps=np.array(0.5))
    return folder / "run.npz", read_trajectories


KINDS = [checkpoint, ledger, label, configuration, force_field, openmm_system, amber, deepmd, mlearn, npy, npz]
KINDS += [table(".csv", "a,b,c\n", ","), table(".colvar", "#! FIELDS time x y\n", " "), table(".txt", "", " ")]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@MANY
def test_it_is_read_or_refused_in_words(kind, count, tmp_path, damaged):
    valid, read = kind(tmp_path)
    content = valid.read_bytes()
    read(valid)
    path, refused = tmp_path / f"damaged{valid.suffix}", 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for other in damaged(content, count):
            path.write_bytes(other)
            try:
                read(path)
            except BayesmolError as error:
                refused += 1
                assert len(str(error)) > 20
    assert refused > count / 20
    assert valid.read_bytes() == content


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model and a few frames."""
    folder = tmp_path_factory.mktemp("commands")
    bm.data.write(folder / "whole.xyz", bm.data.load("rmd17/ethanol")[100:103])
    assert called(f"fit rmd17/ethanol --model gradient-gp --train-size 5 --out {folder}/model.bm").exit_code == 0
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(folder, monkeypatch):
    """A name without a folder is of a file there."""
    monkeypatch.chdir(folder)


def called(line: str):
    return CliRunner().invoke(app, shlex.split(line), env={"COLUMNS": "200", "TERM": "dumb"})


def answered(line: str, folder: Path) -> bool:
    """Whether the command did what was asked; else it ended in words with code 2, and left no file."""
    names = sorted(path.name for path in folder.iterdir())
    found = called(line)
    assert found.exit_code in (0, 2), (line, found.exception, found.output)
    assert "Traceback" not in found.output
    if found.exit_code:
        assert found.stderr.strip(), line
        assert sorted(path.name for path in folder.iterdir()) == names, line
    return found.exit_code == 0


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_commands_answer_damaged_frames_in_words(count, folder, damaged):
    refused = 0
    for content in damaged((folder / "whole.xyz").read_bytes(), count):
        (folder / "damaged.xyz").write_bytes(content)
        refused += not answered(f"predict {folder}/model.bm {folder}/damaged.xyz --out {folder}/p.xyz --force", folder)
        (folder / "p.xyz").unlink(missing_ok=True)
    assert refused > count / 10


WORDS = "predict evaluate acquire {model} {frames} rmd17/ethanol@:3 rmd17/ethanol@9: @ --level --out {out}".split()
WORDS += "--force --json --seed --device --inside -n --size --model --help".split()
WORDS += "0.9 -1 nan inf 1e400 cpu 2 - -- = ' /".split()
WORDS += ["", "\u2028", "\x00", "\udcff"]


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_no_words_after_the_command_bring_it_down(count, folder):
    source = Random(0)
    places = {"model": folder / "model.bm", "frames": folder / "whole.xyz", "out": folder / "made.xyz"}
    starts = ["predict {model} {frames} --out {out}", "evaluate {model} {frames}", "acquire {frames} --model {model}"]
    for _ in range(count):
        words = source.choice(starts).split()
        for _ in range(source.randrange(1, 4)):
            place = source.randrange(1, len(words) + 1)
            words[place : place + source.randrange(2)] = [source.choice(WORDS)]
        answered(shlex.join(words).replace("'{", "{").replace("}'", "}").format(**places), folder)
        (folder / "made.xyz").unlink(missing_ok=True)
