import ase
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from bayesmol.data import Labelled
from bayesmol.errors import DataError

DOUBLE = torch.float64


def copper() -> ase.Atoms:
    atoms = bulk("Cu", cubic=True) * (1, 1, 2)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    atoms.get_potential_energy()
    return atoms


def test_stress_is_the_derivative_of_the_energy_with_strain() -> None:
    atoms = copper()
    stress, step = Labelled.from_ase(atoms).stresses[0], 1e-4
    for i, j in ((0, 0), (0, 1), (1, 2)):
        energies = []
        for sign in (1, -1):
            strain = torch.eye(3, dtype=DOUBLE)
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            moved = atoms.copy()
            moved.set_cell(atoms.cell @ strain.numpy(), scale_atoms=True)
            moved.calc = EMT()
            energies.append(moved.get_potential_energy())
        numeric = (energies[0] - energies[1]) / (2 * step * atoms.get_volume())
        assert stress[i, j].item() == pytest.approx(numeric, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("energy", "force"), [("energy", "forces"), ("REF_energy", "REF_forces"), ("dft_energy", "dft_force")]
)
def test_labels_are_found_under_other_names(energy: str, force: str) -> None:
    atoms = molecule("H2O")
    atoms.info[energy], atoms.arrays[force] = -3.0, atoms.positions * 2
    atoms.info["energy_err"] = 0.25
    data = Labelled.from_ase(atoms)
    assert data.energies.tolist() == [-3.0] and data.energy_errors.tolist() == [0.25]
    assert torch.equal(data.forces, 2 * data.structures.positions)


def test_frames_with_and_without_forces() -> None:
    some, none = molecule("H2O"), molecule("H2")
    some.info["energy"] = none.info["energy"] = 1.0
    some.arrays["forces"] = some.positions
    assert Labelled.from_ase([none, some]).has_forces.tolist() == [False, True]
    assert Labelled.from_ase([none]).forces is None
    del none.info["energy"]
    with pytest.raises(DataError, match="none in frame 1"):
        Labelled.from_ase([some, none])


def test_virial_stands_in_for_stress() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.info["energy"], atoms.info["virial"] = 0.0, (torch.eye(3) * 2).numpy()
    stress = Labelled.from_ase(atoms).stresses[0]
    assert torch.allclose(stress, -2 * torch.eye(3, dtype=DOUBLE) / atoms.get_volume())


@pytest.mark.parametrize(
    ("place", "key", "value", "message"),
    [
        ("info", "energy", float("nan"), "energies"),
        ("info", "energy", "low", "energy"),
        ("info", "stress", [1.0, 2.0], "6 or 9"),
        ("arrays", "forces", torch.zeros(3, 2).numpy(), "forces"),
        ("arrays", "forces", torch.full((3, 3), float("nan")).numpy(), "forces"),
    ],
)
def test_bad_labels(place: str, key: str, value: object, message: str) -> None:
    atoms = molecule("H2O")
    atoms.info["energy"] = 0.0
    getattr(atoms, place)[key] = value
    with pytest.raises(DataError, match=message):
        Labelled.from_ase(atoms)


def test_the_calculator_comes_first() -> None:
    atoms = copper()
    energy = atoms.get_potential_energy()
    atoms.info["energy"] = 7.0
    assert Labelled.from_ase(atoms).energies.tolist() == [energy]


def test_voigt_order() -> None:
    atoms = bulk("Cu", cubic=True)
    atoms.info["energy"], atoms.info["stress"] = 0.0, [1, 2, 3, 4, 5, 6]
    assert Labelled.from_ase(atoms).stresses[0].tolist() == [[1, 6, 5], [6, 2, 4], [5, 4, 3]]
