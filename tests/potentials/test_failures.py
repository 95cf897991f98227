"""What counts as a failure."""

import math

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from bayesmol.data import Structures
from bayesmol.errors import DataError
from bayesmol.potentials.failures import Failure, Watch
from bayesmol.potentials.molecular_dynamics import moved


def reasons(watch, start, frame, finite=None):
    finite = torch.ones(len(start), dtype=torch.bool) if finite is None else finite
    return {name for name, mask in watch.start(start).verdicts(frame, finite).items() if bool(mask.any())}


def changed(atoms, first, second, factor):
    atoms = atoms.copy()
    atoms.set_distance(first, second, factor * atoms.get_distance(first, second), fix=0)
    return Structures.from_ase(atoms)


def test_bonds():
    water = molecule("H2O")
    start = Structures.from_ase(water)
    assert reasons(Watch(), start, start) == set()
    assert reasons(Watch(), start, changed(water, 0, 1, 1.9)) == set()
    assert any("longer than 2" in reason for reason in reasons(Watch(), start, changed(water, 0, 1, 2.1)))
    assert any("shorter than 0.5" in reason for reason in reasons(Watch(), start, changed(water, 0, 1, 0.45)))
    assert reasons(Watch(longest=math.inf), start, changed(water, 0, 1, 9.0)) == set()


def test_atoms_that_are_not_bonded_may_not_touch():
    start = Structures.from_ase(Atoms("Ne2", positions=[[0, 0, 0], [4, 0, 0]]))
    near = Structures.from_ase(Atoms("Ne2", positions=[[0, 0, 0], [0.5, 0, 0]]))
    (reason,) = reasons(Watch(), start, near)
    assert "closer than 0.5" in reason
    assert reasons(Watch(contact=0.0), start, near) == set()


def test_the_replica_is_named():
    water = molecule("H2O")
    start = Structures.from_ase([water, water])
    frame = Structures.concatenate([start[0], changed(water, 0, 1, 3.0)])
    finite = torch.tensor([False, True])
    masks = [mask.tolist() for mask in Watch().start(start).verdicts(frame, finite).values()]
    assert masks[:2] == [[True, False], [False, True]]


def test_bonds_go_through_the_walls_of_a_cell():
    crystal = Structures.from_ase(bulk("Cu"))
    assert len(Watch().start(crystal).lengths) == 12
    assert reasons(Watch(), crystal, moved(crystal, crystal.positions + 5.0)) == set()


def test_text_and_bad_input():
    assert str(Failure(3, 20, 10.0, "a bond broke")) == "replica 3 failed by step 20 (10 fs): a bond broke"
    for options in ({"longest": 1.0}, {"shortest": 1.0}, {"contact": -0.1}):
        with pytest.raises(DataError):
            Watch(**options)
