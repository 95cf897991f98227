"""Groups of internal coordinates of one molecule, and its graph."""

import ase.build
import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.transferable_context import Molecule, stacked


def frames(name, count=6, noise=0.03, seed=0):
    atoms = ase.build.molecule(name)
    equilibrium = torch.from_numpy(atoms.positions).flatten()
    source = torch.Generator().manual_seed(seed)
    rows = equilibrium + noise * torch.randn(count, len(equilibrium), generator=source, dtype=torch.float64)
    return torch.from_numpy(atoms.numbers).long(), equilibrium, rows


@pytest.mark.parametrize("name", ["H2O", "NH3", "CH4", "CH3OH", "CH3CHO", "C3H8", "HCN", "CH3CN"])
def test_groups_are_the_internal_coordinates(name):
    species, equilibrium, rows = frames(name)
    molecule = Molecule.of(species, equilibrium)
    y, _ = molecule.internal(rows)
    values, volume = molecule.groups(y)
    assert values.shape == (6, len(species) - 1, 3)
    assert int(molecule.known.sum()) == y.shape[1] == 3 * len(species) - 6
    back, undone = molecule.columns(values)
    torch.testing.assert_close(back, y)
    torch.testing.assert_close(undone, -volume)
    known = molecule.known.flatten()
    jacobian = torch.autograd.functional.jacobian
    slope = torch.stack([jacobian(lambda q: molecule.groups(q[None])[0].flatten()[known], row) for row in y])
    torch.testing.assert_close(torch.linalg.slogdet(slope)[1], volume)


def test_mirror_images_have_the_same_groups():
    species, equilibrium, rows = frames("CH3CH2Cl", noise=0.0, count=1)
    mirror = (equilibrium.unflatten(0, (-1, 3)) * torch.tensor([-1.0, 1.0, 1.0])).flatten()
    one, other = Molecule.of(species, equilibrium), Molecule.of(species, mirror)
    values, reflected = (m.groups(m.internal(q)[0])[0] for m, q in ((one, rows), (other, mirror[None])))
    handed = (one.matrix.handedness != 0).nonzero()[:, 0] + 2
    handed = handed[one.roles[handed] == 0]
    assert len(handed) == 2
    torch.testing.assert_close(values[:, :, :2], reflected[:, :, :2])
    torch.testing.assert_close(values[:, handed, 2], reflected[:, handed, 2])
    assert bool((values[:, handed, 2] > 0).all())


def test_roles_of_a_rotor_and_environments():
    species, equilibrium, _ = frames("CH3OH")
    molecule = Molecule.of(species, equilibrium)
    assert sorted(molecule.roles.tolist()) == [0, 0, 1, 2, 3]
    assert set(molecule.environments) == {(6, (1, 1, 1, 8)), (8, (1, 6)), (1, (6,)), (1, (8,))}


def test_a_stack_is_filled_up():
    contexts = stacked([Molecule.of(*frames(name)[:2]) for name in ("H2O", "CH3OH")])
    assert contexts.elements.shape == (2, 6)
    assert contexts.elements[0].tolist()[3:] == [0, 0, 0]
    assert contexts.known.sum((1, 2)).tolist() == [3, 12]
    assert int(contexts.ends.max()) == 6
    assert contexts.bonded.sum((1, 2)).tolist() == [4, 10]
    assert float(contexts.relations[0, 2:].abs().sum()) == 0


def test_bad_input():
    with pytest.raises(DataError, match="three atoms"):
        Molecule.of(torch.tensor([1, 1]), torch.zeros(6, dtype=torch.float64))
    with pytest.raises(ShapeError, match="9 finite numbers"):
        Molecule.of(torch.tensor([8, 1, 1]), torch.full((9,), torch.nan))


@pytest.mark.parametrize("name", ["HCN", "CH3CN", "CH3OH", "CH3CHO"])
def test_the_equilibrium_is_in_the_centre_of_its_coordinates(name):
    """What the kernel predicts is the difference from it: all bonds, angles off a line, torsions beside a neighbour."""
    species, equilibrium, _ = frames(name)
    molecule = Molecule.of(species, equilibrium)
    centre = molecule.context(len(species)).centre
    own = (molecule.roles == 0).nonzero()[:, 0]
    values = molecule.groups(molecule.internal(equilibrium[None])[0])[0][0].float()
    torch.testing.assert_close(centre[own, 0], values[own, 0])
    torch.testing.assert_close(
        centre[own, 1], torch.where(molecule.known[own, 1], values[own, 1], 0.0).clamp(-3.1, 3.1)
    )
    for first in (molecule.roles == 1).nonzero()[:, 0].tolist():
        atoms = molecule.matrix.atoms[molecule.context(len(species)).ends[first : first + 3, :2]]
        ends = equilibrium.unflatten(0, (-1, 3))[atoms]
        lengths = (ends[:, 0] - ends[:, 1]).norm(dim=1)
        torch.testing.assert_close(centre[first : first + 3, 0], lengths.log().mean().float().expand(3))
