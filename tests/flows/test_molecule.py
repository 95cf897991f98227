"""Densities of molecules: units, geometry, and the molecule that ships, without OpenMM."""

import sys
from importlib.resources import files

import openmm
import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.molecule import alanine_dipeptide, bundled, bundled_source, from_force_field, from_openmm
from bayesmol.units import thermal_energy


@pytest.mark.parametrize("solvent", ["obc1", "obc2", None])
def test_alanine_dipeptide(solvent):
    density = alanine_dipeptide(500.0, solvent=solvent)
    assert density.shape == (22, 3) and density.space == 3 and density.dimension == 66
    assert density.unit == "eV" and density.kt == thermal_energy(500.0)
    assert sorted(density.species.unique().tolist()) == [1, 6, 7, 8]
    torch.testing.assert_close(density.start.view(22, 3).mean(0), torch.zeros(3, dtype=torch.float64))
    energy, gradient = density.reduced_gradient(density.start)
    field = bundled(f"alanine-dipeptide/{solvent or 'obc1'}")
    field = field if solvent else field.in_vacuum()
    value, slope = field.energy_and_gradient(density.start)
    torch.testing.assert_close(energy, value / density.kt)
    torch.testing.assert_close(gradient, slope / density.kt)
    torch.testing.assert_close(density.at(250.0).reduced_energy(density.start), 2 * energy)


def test_bonds_are_those_of_the_molecule():
    """One for each hydrogen, and as many as make a tree of 22 atoms."""
    field = bundled("alanine-dipeptide/obc1")
    ends = field.species[field.bonds]
    assert field.bonds.shape == (21, 2) and int((ends == 1).any(1).sum()) == 12


def test_states_and_name_are_passed_on():
    field = bundled("alanine-dipeptide/obc1")
    density = from_force_field(field, 300.0, states=lambda x: (x[:, 0] > 0).long(), name="mine")
    assert density.name == "mine" and density.states(torch.ones(2, 66)).tolist() == [1, 1]


def test_from_openmm():
    system, force = openmm.System(), openmm.HarmonicBondForce()
    for mass in (15.999, 1.008):
        system.addParticle(mass)
    force.addBond(0, 1, 0.1, 1000.0)
    system.addForce(force)
    density = from_openmm(system, 300.0, positions=[[0, 0, 0], [0, 0, 1.1]])
    assert density.species.tolist() == [8, 1]
    assert float(density.reduced_energy(density.start)) == pytest.approx(0.5 * 1000 * 0.01**2 / 2.494339, rel=1e-5)


def test_what_ships_has_licence_and_citation():
    folder = files("bayesmol.data") / "files" / "force_fields"
    text = (folder / "LICENSES.md").read_text(encoding="utf-8")
    assert text.count("Permission is hereby granted") == 1 and "Copyright" in text
    for path in folder.iterdir():
        if path.name.endswith(".npz"):
            source = bundled_source(path.name.removesuffix(".npz").replace("_", "/"))
            assert source.licence == "MIT" and source.citation and source.url.startswith("https://")


def test_unknown_names_are_refused():
    with pytest.raises(DataError, match="alanine-dipeptide/obc1"):
        bundled("water")
    with pytest.raises(DataError, match="solvent"):
        alanine_dipeptide(solvent="tip3p")
    with pytest.raises(DataError, match="temperature"):
        alanine_dipeptide(-1.0)


def test_openmm_is_needed_for_reading_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "openmm", None)
    bundled.cache_clear()
    assert alanine_dipeptide().reduced_energy(alanine_dipeptide().start).shape == (1,)
    with pytest.raises(ImportError, match="reference"):
        from_openmm("<System/>", 300)
