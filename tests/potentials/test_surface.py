"""The mean of any model: its own method, the fast way of ACE, or the mean of predict."""

from dataclasses import replace

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError
from bayesmol.posterior import Gaussian
from bayesmol.potentials import GradientGP
from bayesmol.potentials.surface import Surface, surface, surface_function


@pytest.fixture(scope="module")
def process(ethanol):
    return GradientGP().fit(ethanol[0][:6], seed=0)


def test_any_potential_equals_predict(potential, process, ethanol):
    structures = ethanol[2].structures[:4]
    for model in (potential, process):
        want, got = model.predict(structures), surface(model, structures)
        torch.testing.assert_close(got.energies, want.energy.mean, rtol=0, atol=1e-9)
        torch.testing.assert_close(got.forces, want.forces.mean, rtol=0, atol=1e-9)


def test_a_certified_model_is_its_potential(potential, ethanol):
    certified = bm.certify(potential, bm.data.load("rmd17/ethanol")[100:250])
    atoms = ethanol[2].structures[:2].to_ase()
    want, got = surface(potential, atoms), surface(certified, atoms)
    assert torch.equal(got.energies, want.energies)
    assert torch.equal(got.forces, want.forces)


def test_its_own_method_comes_first(ethanol):
    class Flat:
        def surface(self, structures, *, virial=False):
            return Surface(torch.zeros(len(structures)), torch.zeros_like(structures.positions))

    assert surface_function(Flat())(ethanol[2].structures).energies.shape == (20,)
    assert not bool(surface(Flat(), ethanol[2].structures).forces.any())


def test_a_potential_upon_another_is_not_taken_for_it(potential, ethanol):
    """Only a certified model has the means of its ``model``; a correction of one has its own."""

    class Shifted:
        model = potential

        def predict(self, structures):
            found = potential.predict(structures)
            return replace(found, energy=Gaussian(found.energy.mean + 1, found.energy.variance, unit="eV"))

    structures = ethanol[2].structures[:2]
    shift = surface(Shifted(), structures).energies - surface(potential, structures).energies
    torch.testing.assert_close(shift, torch.ones_like(shift), rtol=0, atol=1e-9)


def test_bad_input(process, ethanol):
    with pytest.raises(DataError, match="a fitted potential"):
        surface(BaseException(), ethanol[2].structures)
    with pytest.raises(DataError, match="virial"):
        surface(process, ethanol[2].structures, virial=True)


def test_virials_that_were_not_asked_for_are_named():
    found = Surface(torch.zeros(1), torch.zeros(2, 3))
    with pytest.raises(DataError, match="virials"):
        _ = found.needed_virials
    assert replace(found, virials=torch.ones(1, 3, 3)).needed_virials.sum() == 9
