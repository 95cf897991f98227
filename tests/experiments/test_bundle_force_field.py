"""The script makes the force fields that ship."""

from importlib.resources import files
from pathlib import Path

from bayesmol.flows.force_field import ForceField

SOURCE = Path(__file__).parents[1] / "flows" / "alanine-dipeptide"


def test_the_files_are_those_that_ship(study, tmp_path):
    paths = study("bundle_force_field").write(SOURCE, "alanine-dipeptide", tmp_path)
    assert [path.name for path in paths] == ["alanine-dipeptide_obc1.npz", "alanine-dipeptide_obc2.npz"]
    for path in paths:
        shipped = ForceField.read(str(files("bayesmol.data") / "files" / "force_fields" / path.name))
        found = ForceField.read(path)
        assert found.coulomb == shipped.coulomb and found.solvent.numbers() == shipped.solvent.numbers()
        for name, value in found._tensors().items():
            assert value.equal(shipped._tensors()[name]), name
