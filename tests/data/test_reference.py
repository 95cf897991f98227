"""The programs: published energies, forces against finite differences, units, failures, silence."""

import ase
import numpy as np
import openmm
import pytest
import torch

from bayesmol import optional
from bayesmol.data import Structures, load
from bayesmol.data.reference import OpenMM, PySCF, TBLite
from bayesmol.errors import DataError, DependencyError
from bayesmol.units import convert

BOHR = convert(1.0, "bohr", "Å")
WATER = ase.Atoms("OH2", [(0, 0, 0.1173), (0, 0.7572, -0.4692), (0, -0.7572, -0.4692)])


def bent_water():
    frame = WATER.copy()
    frame.positions += np.random.default_rng(3).normal(0, 0.05, (3, 3))
    return frame


def difference(spec, frame, atom=1, axis=2, step=2e-3):
    """Force by central differences of the energy, in eV/Å."""
    moved = [frame.copy(), frame.copy()]
    moved[0].positions[atom, axis] += step
    moved[1].positions[atom, axis] -= step
    energies = spec.label(moved).labelled.energies
    return float(energies[1] - energies[0]) / (2 * step)


def chain():
    """Two springs and a charge in OpenMM's own units (nm, kJ/mol)."""
    system = openmm.System()
    for mass in (15.999, 1.008, 1.008):
        system.addParticle(mass)
    bonds = openmm.HarmonicBondForce()
    bonds.addBond(0, 1, 0.09, 4e5)
    bonds.addBond(0, 2, 0.1, 3e5)
    system.addForce(bonds)
    return system


@pytest.mark.parametrize(
    ("spec", "tolerance"),
    [
        (TBLite(), 2e-5),
        (TBLite("GFN1-xTB"), 2e-5),
        (TBLite(charge=1, multiplicity=2), 2e-5),
        (PySCF("HF", "sto-3g"), 1e-4),
        (PySCF("HF", "sto-3g", charge=1, multiplicity=2), 1e-4),
        (PySCF("PBE", "sto-3g"), 2e-3),  # the grid of the functional moves with the atoms
        (PySCF("MP2", "sto-3g"), 1e-4),
        (PySCF("CCSD", "sto-3g"), 1e-4),
        (PySCF("CCSD(T)", "sto-3g"), 1e-4),
        (OpenMM(chain()), 1e-6),
    ],
    ids=lambda value: f"{value.settings}"[14:70] if hasattr(value, "settings") else "",
)
def test_forces_are_the_gradient_of_the_energy(spec, tolerance, capfd):
    frame = bent_water()
    labels = spec.label(frame)
    assert labels.failures == {}
    force = float(labels.labelled.forces[1, 2])
    assert abs(force) > 0.1 and abs(force - difference(spec, frame)) < tolerance + 1e-5 * abs(force)
    assert torch.allclose(labels.labelled.forces.sum(0), torch.zeros(3).double(), atol=2e-3)
    assert labels.labelled.energy_errors is None and labels.labelled.force_errors is None
    assert capfd.readouterr().out == ""


def test_energies_are_the_published_ones():
    water = PySCF("CCSD(T)", "cc-pvdz", forces=False).label(WATER).labelled
    assert water.forces is None
    assert float(convert(water.energies[0], "eV", "Ha")) == pytest.approx(-76.243158, abs=2e-6)


@pytest.mark.slow
def test_two_electrons_are_exact_with_singles_and_doubles():
    hydrogen = ase.Atoms("H2", [(0, 0, 0), (0, 0, 1.4011 * BOHR)])
    energy = PySCF("CCSD", "cc-pvqz", forces=False).label(hydrogen).labelled.energies[0]
    assert float(convert(energy, "eV", "Ha")) == pytest.approx(-1.173796, abs=1e-6)


def test_tight_binding_is_that_of_its_own_calculator():
    from tblite.ase import TBLite as Calculator

    frames = load("rmd17/ethanol").structures[:2].to_ase()
    labelled = TBLite(accuracy=1.0).label(frames).labelled
    for frame, one in zip(frames, (labelled[0], labelled[1]), strict=True):
        frame.calc = Calculator(method="GFN2-xTB", verbosity=0)
        assert float(one.energies) == pytest.approx(frame.get_potential_energy(), abs=1e-7)
        assert torch.allclose(one.forces, torch.from_numpy(frame.get_forces()), atol=1e-4)


def test_a_crystal_has_a_stress():
    from ase.build import bulk

    frame = bulk("Si") * (2, 1, 1)
    frame.rattle(0.02, seed=1)
    spec, step = TBLite("GFN1-xTB"), 1e-3
    labelled = spec.label(frame).labelled
    energies = []
    for sign in (1, -1):
        strained, strain = frame.copy(), np.eye(3)
        strain[0, 0] += sign * step
        strained.set_cell(frame.cell.array @ strain, scale_atoms=True)
        energies.append(float(spec.label(strained).labelled.energies))
    numeric = (energies[0] - energies[1]) / (2 * step * frame.get_volume())
    assert float(labelled.stresses[0, 0, 0]) == pytest.approx(numeric, rel=1e-3, abs=1e-6)


def test_labels_do_not_depend_on_what_was_labelled_before():
    frames = load("rmd17/ethanol").structures[:20]
    together = TBLite().label(frames)
    alone = TBLite().label(frames[17])
    assert torch.equal(together.labelled[17].forces, alone.labelled.forces)
    assert together.hashes[17] == alone.hashes[0]


def test_what_does_not_converge_is_recorded():
    ethanol = load("rmd17/ethanol").structures[0].to_ase()[0]
    apart = ethanol.copy()
    apart.positions *= 3
    labels = TBLite().label([ethanol, apart, ethanol])
    assert labels.succeeded.tolist() == [True, False, True] and len(labels.labelled) == 2
    assert "not converged" in labels.failures[1]
    assert "unpaired" in TBLite(multiplicity=2).label(WATER).failures[0]
    assert "spin" in PySCF("HF", "sto-3g", charge=1).label(WATER).failures[0]
    box = ase.Atoms("He", cell=[3, 3, 3], pbc=True)
    assert "molecules" in PySCF("HF", "sto-3g").label(box).failures[0]


def test_squeezed_atoms_are_absurd():
    squeezed = WATER.copy()
    squeezed.positions *= 0.15
    assert "absurd" in TBLite().label(squeezed).failures[0]


def test_a_field_that_does_not_converge_is_recorded(monkeypatch):
    import pyscf.scf

    monkeypatch.setattr(pyscf.scf.hf.SCF, "max_cycle", 1)
    failure = PySCF("HF", "sto-3g").label(bent_water()).failures[0]
    assert failure == "ConvergenceError: RHF did not converge in 1 cycles"


def test_springs_have_the_energy_of_springs():
    labelled = OpenMM(chain()).label(WATER).labelled
    length = float(np.linalg.norm(WATER.positions[1] - WATER.positions[0])) / 10
    energy = 2e5 * (length - 0.09) ** 2 + 1.5e5 * (length - 0.1) ** 2
    assert float(labelled.energies) == pytest.approx(convert(energy, "kJ/mol", "eV"), rel=1e-9)


def test_a_force_field_on_a_topology():
    from openmm import app

    topology = app.Topology()
    residue = topology.addResidue("HOH", topology.addChain())
    names = {"O": "O", "H1": "H", "H2": "H"}
    atoms = [topology.addAtom(name, app.Element.getBySymbol(kind), residue) for name, kind in names.items()]
    topology.addBond(atoms[0], atoms[1])
    topology.addBond(atoms[0], atoms[2])
    spec = OpenMM.from_forcefield(topology, "tip3p.xml", rigidWater=False)
    assert spec.numbers == (8, 1, 1)
    frame = bent_water()
    labelled = spec.label(frame).labelled
    assert float(labelled.forces[1, 2]) == pytest.approx(difference(spec, frame), abs=1e-4)


def test_a_force_field_knows_its_atoms():
    spec = OpenMM(chain())
    assert spec.numbers == (8, 1, 1)
    assert "in order" in spec.label(ase.Atoms("HOH", WATER.positions[[1, 0, 2]])).failures[0]
    assert OpenMM(spec.system).fingerprint == spec.fingerprint, "as XML it is the same"
    heavy = chain()
    heavy.setParticleMass(1, 3.0)
    with pytest.raises(DataError, match="masses"):
        OpenMM(heavy)
    assert OpenMM(heavy, (8, 1, 1)).label(WATER).failures == {}
    with pytest.raises(DataError, match="numbers: expected 3"):
        OpenMM(chain(), (8, 1))


def test_settings_are_checked():
    for make in (
        lambda: TBLite("GFN7"),
        lambda: TBLite(multiplicity=0),
        lambda: TBLite(accuracy=0.0),
        lambda: PySCF(multiplicity=0),
        lambda: PySCF("CCSD(T)", multiplicity=2),
        lambda: PySCF("B4LYP").label(WATER),
    ):
        with pytest.raises(DataError, match="expected"):
            make()


def test_settings_name_labels():
    names = {spec.fingerprint for spec in (TBLite(), TBLite(charge=1), TBLite("GFN1-xTB"), PySCF(), PySCF("HF"))}
    assert len(names) == 5
    assert TBLite().label(WATER).labelled.source.url.startswith("https://doi.org/10.1021/")
    assert "libxc" not in PySCF().source.name and "PySCF" in PySCF().source.name


def test_a_missing_program_names_the_extra(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(optional, "import_module", absent)
    for make in (lambda: TBLite().label(WATER), lambda: PySCF().label(WATER), lambda: OpenMM(chain())):
        with pytest.raises(DependencyError, match=r"bayesmol\[reference\]"):
            make()


def test_any_number_of_structures():
    frames = Structures.from_ase([WATER] * 3)
    assert len(TBLite().label(frames)) == 3
