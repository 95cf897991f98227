"""Without the optional libraries: each part that needs one names its extra, and everything else works."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk, molecule

import bayesmol as bm
from bayesmol.data.reference import PySCF, TBLite
from bayesmol.errors import DependencyError

from .processes import answer

OPTIONAL = ("botorch", "chgnet", "dask", "deeptime", "distributed", "mdtraj", "openmm", "pyscf", "tblite")


class Absent:
    """Finds nothing: what is not installed cannot be imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.split(".")[0] in OPTIONAL:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def without(function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function`` returns in a process of a machine that has none of the optional libraries."""
    return answer(_without, function, *arguments)


def _without(function: Callable[..., Any], *arguments: Any) -> Any:
    assert not [name for name in OPTIONAL if name in sys.modules], "nothing has imported them before"
    sys.meta_path.insert(0, Absent())
    finder = importlib.metadata.MetadataPathFinder
    find = finder.find_distributions
    finder.find_distributions = lambda *context: (d for d in find(*context) if d.name not in OPTIONAL)
    return function(*arguments)


def tight_binding():
    TBLite().label(molecule("H2O"))


def quantum_chemistry():
    PySCF().label(molecule("H2O"))


def force_field():
    bm.flows.from_openmm("<System/>", 300)


def amber():
    bm.flows.read_amber("system.prmtop", solvent="obc2")


def orbitals():
    bm.wavefunctions.PauliNet().build(bm.wavefunctions.Molecule.named("He"), seed=0)


def trajectory():
    bm.data.read_trajectories("run.xtc", topology="protein.pdb")


def bayesian_optimisation():
    importlib.import_module("bayesmol.acquisition.botorch")


def foundation():
    from bayesmol.data import Structures
    from bayesmol.potentials.foundation_chgnet import CHGNetFoundation

    CHGNetFoundation().evaluated(Structures.from_ase(bulk("Si")))


def deeptime_model():
    bm.dynamics.from_deeptime(None)


PARTS = [
    (tight_binding, "tblite", "reference"),
    (quantum_chemistry, "pyscf", "reference"),
    (orbitals, "pyscf", "quantum"),
]
PARTS += [(force_field, "openmm", "reference"), (amber, "openmm", "reference"), (trajectory, "mdtraj", "md")]
PARTS += [(bayesian_optimisation, "botorch", "acquisition"), (foundation, "chgnet", "foundation")]
PARTS += [(deeptime_model, "deeptime", "deeptime")]


def refusals() -> dict[str, str]:
    """What each part says."""
    found = {}
    for part, _, _ in PARTS:
        try:
            part()
            found[part.__name__] = "nothing"
        except DependencyError as error:
            found[part.__name__] = str(error)
    return found


def test_each_part_names_the_extra_that_it_needs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("run.xtc", "protein.pdb", "system.prmtop"):
        Path(name).write_bytes(b"content")
    said = without(refusals)
    for part, library, extra in PARTS:
        assert f"{library}: expected the library to be installed, got none" in said[part.__name__], said
        assert f"pip install 'bayesmol[{extra}]'" in said[part.__name__], said


def imported() -> list[str]:
    """Modules of the package that cannot be imported."""
    found = []
    for module in pkgutil.walk_packages(bm.__path__, "bayesmol."):
        try:
            importlib.import_module(module.name)
        except DependencyError:
            found.append(module.name)
    return found


def test_all_modules_but_one_are_imported_without_optional_libraries():
    assert without(imported) == ["bayesmol.acquisition.botorch"]


def story(folder: Path) -> list[str]:
    """Labels, a potential, a certificate, predictions, a choice, and the command line."""
    from typer.testing import CliRunner

    from bayesmol.cli import app

    from ..acquisition.conftest import TINY

    data = bm.data.load("rmd17/ethanol")
    bm.save(bm.certify(TINY.fit(data[:10], seed=0), data[10:210]), folder / "model.bm")
    predict = ["predict", str(folder / "model.bm"), "rmd17/ethanol@:3", "--out", str(folder / "out.extxyz")]
    choose = ["acquire", "rmd17/ethanol@210:230", "--model", str(folder / "model.bm"), "-n", "2"]
    done = [CliRunner().invoke(app, [*one]) for one in (predict, [*choose, "--out", str(folder / "chosen.extxyz")])]
    return [one.output for one in done if one.exit_code] + [str(len(bm.data.read(folder / "chosen.extxyz")))]


def test_a_potential_is_made_and_used_without_optional_libraries(tmp_path):
    assert without(story, tmp_path) == ["2"]


def test_a_cut_data_set_is_named(tmp_path, monkeypatch):
    """An installation of this package that was interrupted."""
    from bayesmol.data import bundled

    folder = Path(bundled.__file__).with_name("files")
    for name in ("sets.json", "rmd17_ethanol.npz"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "rmd17_ethanol.npz").write_bytes((folder / "rmd17_ethanol.npz").read_bytes()[:-1000])
    monkeypatch.setattr(bundled, "_folder", lambda: tmp_path)
    with pytest.raises(bm.errors.DataError, match=r"rmd17_ethanol\.npz.*fetch it again"):
        bm.data.load("rmd17/ethanol")
