"""Calculators and references as foundations: their own numbers, failures, what a file can bring back."""

import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

from bayesmol.data import Structures
from bayesmol.data.reference import TBLite
from bayesmol.errors import DataError, FormatError
from bayesmol.potentials.foundation import Foundation
from bayesmol.potentials.foundation_state import restored
from bayesmol.potentials.residual_base import AbsentFoundation, CalculatorFoundation, ReferenceFoundation


def test_a_calculator_gives_its_own_numbers():
    atoms = [bulk("Cu", cubic=True) * (2, 1, 1), bulk("Al", cubic=True)]
    for frame in atoms:
        frame.rattle(0.05, seed=1)
    found = Foundation.from_calculator(EMT()).surface(atoms, virial=True)
    for s, frame in enumerate(atoms):
        frame.calc = EMT()
        assert float(found.energies[s]) == pytest.approx(frame.get_potential_energy(), abs=1e-10)
        want = frame.get_stress(voigt=False) * frame.get_volume()
        torch.testing.assert_close(found.virials[s], torch.from_numpy(want))
    torch.testing.assert_close(found.forces[8:], torch.from_numpy(atoms[1].get_forces()))
    assert Foundation.from_calculator(EMT()).identity["name"] == "ase.calculators.emt.EMT"


def test_a_failing_calculator_names_the_structure():
    with pytest.raises(DataError, match="structure 0"):
        Foundation.from_calculator(EMT()).surface(molecule("H2O"), virial=True)
    with pytest.raises(DataError, match="ASE calculator"):
        CalculatorFoundation("EMT")


def test_parameters_are_remembered_as_text():
    identity = Foundation.from_calculator(LennardJones(epsilon=0.5)).identity
    assert identity["parameters"]["epsilon"] == "0.5"


def test_an_absent_foundation_says_what_to_attach():
    absent = restored({"kind": "calculator", "name": "ase.calculators.emt.EMT"})
    assert isinstance(absent, AbsentFoundation)
    with pytest.raises(FormatError, match="from_calculator"):
        absent.surface(Structures.from_ase(molecule("H2O")))
    with pytest.raises(FormatError, match="from_torch"):
        _ = AbsentFoundation({"kind": "torch", "name": "my.Net"}).layer


def test_a_reference_is_brought_back_by_its_settings():
    origin = Foundation.from_calculator(TBLite(accuracy=1.0))
    assert isinstance(origin, ReferenceFoundation)
    again = restored(origin.identity)
    assert again.reference == TBLite(accuracy=1.0)
    found = again.surface(molecule("H2O"))
    label = TBLite(accuracy=1.0).label(molecule("H2O")).labelled
    assert torch.equal(found.energies, label.energies) and torch.equal(found.forces, label.forces)
    with pytest.raises(DataError, match="structure 0"):
        Foundation.from_calculator(TBLite(multiplicity=2)).surface(molecule("H2O"))
    with pytest.raises(FormatError, match="TBLite"):
        ReferenceFoundation.from_identity({"settings": {"reference": "os"}})
