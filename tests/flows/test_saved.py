"""Generators as numbers and arrays, and back."""

import pytest
import torch

from bayesmol.errors import DataError, FormatError
from bayesmol.flows.autoregressive import Autoregressive
from bayesmol.flows.continuous import Continuous
from bayesmol.flows.coordinates import Composed, MeanFree, Planar
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.mixed_couplings import MixedCouplings
from bayesmol.flows.molecular_coordinates import Internal, TorsionOnly, molecular
from bayesmol.flows.molecule import alanine_dipeptide
from bayesmol.flows.particle_densities import dw4
from bayesmol.flows.saved import (
    architecture_from_state,
    architecture_state,
    coordinates_from_state,
    coordinates_state,
    density_from_state,
    density_state,
)


@pytest.mark.parametrize("architecture", [Autoregressive(order=(1, 0)), Couplings(kind="affine"), MixedCouplings(3)])
def test_architectures(architecture):
    assert architecture_from_state(architecture_state(architecture)) == architecture


def test_molecules_come_back_with_their_energy():
    density = alanine_dipeptide(310.0)
    header, arrays = density_state(density)
    again = density_from_state(header, arrays)
    x = density.start + 0.02 * torch.randn(3, 66, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(again.reduced_energy(x), density.reduced_energy(x))
    assert again.temperature == 310.0
    assert again.shape == (22, 3)


def test_internal_coordinates():
    density = alanine_dipeptide()
    x = density.start + 0.02 * torch.randn(50, 66, generator=torch.Generator().manual_seed(0)).double()
    system = molecular(density, x, seed=0)
    again = coordinates_from_state(*coordinates_state(system))
    for one, other in zip(system(x), again(x), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("part", [MeanFree(4, 2), Planar(4, 2.5)])
def test_coordinates_of_particles(part):
    system, x = Composed([part]), dw4().start[:3].double() + 0.1
    for one, other in zip(system(x), coordinates_from_state(*coordinates_state(system))(x), strict=True):
        assert torch.equal(one, other)


def test_python_energies_are_not_saved():
    header, arrays = density_state(dw4())
    again = density_from_state(header, arrays)
    assert torch.equal(again.symmetry, dw4().symmetry)
    with pytest.raises(DataError, match="no code"):
        again.reduced_energy(torch.zeros(1, 8))


def test_what_has_no_form_is_refused():
    with pytest.raises(DataError, match="architecture"):
        architecture_state(Continuous())
    density = alanine_dipeptide()
    internal = molecular(density, density.start + 0.02 * torch.randn(50, 66).double(), seed=0).parts[0]
    assert isinstance(internal, Internal)
    with pytest.raises(DataError, match="coordinates"):
        coordinates_state(Composed([TorsionOnly(internal, density.start)]))
    with pytest.raises(FormatError, match="architecture"):
        architecture_from_state({"kind": "Exec", "settings": {}})
    with pytest.raises(FormatError, match="coordinates"):
        coordinates_from_state({"parts": [{"kind": "Exec"}]}, {})
