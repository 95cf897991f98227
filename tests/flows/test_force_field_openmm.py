"""The force field is that of OpenMM, in solvent and in vacuum, and what it cannot be is refused.

alanine-dipeptide.prmtop and .crd are those of openmmtools (MIT, see bayesmol/data/files/force_fields/LICENSES.md).
"""

from pathlib import Path

import openmm
import pytest
import torch
from openmm import app

from bayesmol.errors import DataError
from bayesmol.flows.force_field_openmm import read_amber, read_openmm
from bayesmol.flows.molecule import bundled
from bayesmol.units import convert

FILES = Path(__file__).with_name("alanine-dipeptide")
KJ = convert(1.0, "eV", "kJ/mol")


@pytest.fixture(scope="module")
def prmtop():
    return app.AmberPrmtopFile(str(FILES.with_suffix(".prmtop")))


def system_of(prmtop, solvent):
    return prmtop.createSystem(implicitSolvent=solvent and getattr(app, solvent.upper()))


def context_of(system, integrator=None):
    platform = openmm.Platform.getPlatformByName("Reference")
    return openmm.Context(system, integrator or openmm.VerletIntegrator(0.001), platform)


@pytest.fixture(scope="module")
def frames(prmtop):
    """Positions in Å, ten of molecular dynamics at 300 K and ten at 1000 K."""
    found = []
    for temperature in (300, 1000):
        integrator = openmm.LangevinMiddleIntegrator(temperature, 10, 0.001)
        integrator.setRandomNumberSeed(1)
        context = context_of(system_of(prmtop, "obc2"), integrator)
        context.setPositions(app.AmberInpcrdFile(str(FILES.with_suffix(".crd"))).positions)
        for _ in range(10):
            integrator.step(100)
            found.append(torch.tensor(context.getState(getPositions=True).getPositions(asNumpy=True)._value * 10))
    return torch.stack(found)


def oracle(system, frames):
    """Energies in kJ/mol and forces in kJ/mol/nm."""
    context, energies, forces = context_of(system), [], []
    for frame in frames:
        context.setPositions(frame.numpy() / 10)
        state = context.getState(getEnergy=True, getForces=True)
        energies.append(state.getPotentialEnergy()._value)
        forces.append(torch.tensor(state.getForces(asNumpy=True)._value))
    return torch.tensor(energies, dtype=torch.float64), torch.stack(forces)


@pytest.mark.parametrize("solvent", ["obc1", "obc2", None])
def test_energies_and_forces_are_those_of_openmm(prmtop, frames, solvent):
    field = read_amber(FILES.with_suffix(".prmtop"), FILES.with_suffix(".crd"), solvent=solvent)
    energies, forces = oracle(system_of(prmtop, solvent), frames)
    found, gradient = field.energy_and_gradient(frames.flatten(1))
    torch.testing.assert_close(found * KJ, energies, rtol=0, atol=1e-5)
    torch.testing.assert_close(-gradient.view_as(forces) * 10 * KJ, forces, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [0.55, 0.75])
def test_atoms_that_overlap_have_the_energy_of_openmm(prmtop, frames, scale):
    """Where the sphere of an atom is inside another's the solvent is that of OpenMM too."""
    close = frames[:4] * scale
    energies, forces = oracle(system_of(prmtop, "obc1"), close)
    found, gradient = bundled("alanine-dipeptide/obc1").energy_and_gradient(close.flatten(1))
    torch.testing.assert_close(found * KJ, energies, rtol=1e-9, atol=1e-5)
    torch.testing.assert_close(-gradient.view_as(forces) * 10 * KJ, forces, rtol=1e-8, atol=1e-4)


@pytest.mark.parametrize("solvent", ["obc1", "obc2"])
def test_the_file_that_ships_is_that_of_amber(solvent):
    read = read_amber(FILES.with_suffix(".prmtop"), FILES.with_suffix(".crd"), solvent=solvent)
    shipped = bundled(f"alanine-dipeptide/{solvent}")
    for name, value in read._tensors().items():
        torch.testing.assert_close(shipped._tensors()[name], value, rtol=1e-12, atol=0)
    assert shipped.solvent.numbers() == pytest.approx(read.solvent.numbers(), rel=1e-12)
    assert shipped.coulomb == pytest.approx(14.399645, rel=1e-6)


def test_xml_and_a_file_of_it_are_the_system(prmtop, tmp_path):
    system = system_of(prmtop, "obc2")
    text = openmm.XmlSerializer.serialize(system)
    (tmp_path / "system.xml").write_text(text, encoding="utf-8")
    first = read_openmm(system, topology=prmtop.topology)
    for other in (read_openmm(text), read_openmm(tmp_path / "system.xml")):
        assert torch.equal(first.species, other.species), "elements from masses"
        assert torch.equal(first.torsion_constants, other.torsion_constants)
    assert first.positions is None


def test_positions_may_have_a_unit(prmtop):
    system, geometry = system_of(prmtop, None), app.AmberInpcrdFile(str(FILES.with_suffix(".crd"))).positions
    found = read_openmm(system, positions=geometry).positions
    torch.testing.assert_close(found, bundled("alanine-dipeptide/obc1").positions)
    torch.testing.assert_close(read_openmm(system, positions=found.tolist()).positions, found)


def test_a_system_without_forces_is_an_ideal_gas():
    system = openmm.System()
    for _ in range(3):
        system.addParticle(39.95)
    field = read_openmm(system)
    assert field.species.tolist() == [18] * 3
    assert field.energy(torch.rand(4, 9)).tolist() == [0.0] * 4


def test_a_torsion_of_any_phase_has_the_sign_of_openmm():
    system, force = openmm.System(), openmm.PeriodicTorsionForce()
    for _ in range(4):
        system.addParticle(12.0)
    for n, phase in ((1, 0.7), (2, -1.1), (5, 2.0)):
        force.addTorsion(0, 1, 2, 3, n, phase, 3.0 * n)
    force.addTorsion(3, 2, 1, 0, 3, 0.4, 2.0)
    system.addForce(force)
    rows = torch.randn(8, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    energies, forces = oracle(system, rows)
    found, gradient = read_openmm(system).energy_and_gradient(rows.flatten(1))
    torch.testing.assert_close(found * KJ, energies, rtol=0, atol=1e-9)
    torch.testing.assert_close(-gradient.view_as(forces) * 10 * KJ, forces, rtol=1e-7, atol=1e-7)


def unknown_force(system):
    system.addForce(openmm.CustomExternalForce("x"))


def constraint(system):
    system.addConstraint(0, 1, 0.1)


def cutoff(system):
    force = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    force.setNonbondedMethod(force.CutoffNonPeriodic)


def virtual_site(system):
    system.addParticle(0.0)
    system.setVirtualSite(system.getNumParticles() - 1, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5))


def offset(system):
    force = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    force.addGlobalParameter("scale", 1.0)


def twice(system):
    system.addForce(openmm.HarmonicBondForce())


@pytest.mark.parametrize("spoil", [unknown_force, constraint, cutoff, virtual_site, offset, twice])
def test_what_the_force_field_cannot_be_is_refused(prmtop, spoil):
    system = system_of(prmtop, None)
    read_openmm(system)
    spoil(system)
    with pytest.raises(DataError, match="expected"):
        read_openmm(system)


def test_other_bad_input_is_refused(prmtop):
    with pytest.raises(DataError, match="solvent"):
        read_amber(FILES.with_suffix(".prmtop"), solvent="tip3p")
    with pytest.raises(DataError, match="XML"):
        read_openmm("<nothing/>")
    with pytest.raises(DataError, match="System"):
        read_openmm(3)
