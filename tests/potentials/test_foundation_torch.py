"""Any torch module as a foundation: derivatives, identity, bad layers and shapes."""

import pytest
import torch
from torch import nn

from bayesmol.data import Structures
from bayesmol.errors import DataError, ShapeError
from bayesmol.potentials.foundation_torch import TorchFoundation, weights_hash


class Springs(nn.Module):
    """Atoms tied to the origin, in a cell whose volume costs energy."""

    def __init__(self, stiffness=2.0):
        super().__init__()
        self.last = nn.Linear(2, 1, bias=False).double()
        self.last.weight.data = torch.tensor([[stiffness, 1.0]], dtype=torch.float64)

    def forward(self, positions, species, pointer, cell):
        owner = torch.arange(len(pointer) - 1).repeat_interleave(pointer.diff())
        features = torch.stack([positions.square().sum(1) / 2, cell.det()[owner] / pointer.diff()[owner]], 1)
        return features.new_zeros(len(pointer) - 1).index_add(0, owner, self.last(features)[:, 0])


@pytest.fixture
def crystals(normal):
    cell = 3 * torch.eye(3).double().expand(2, 3, 3) + 0.1 * normal(2, 3, 3)
    positions = torch.tensor([[0.1, 0, 0], [1.5, 1.4, 1.5], [0, 0.2, 0], [1, 1, 1], [2, 2, 2.0]]).double()
    species, pbc = torch.tensor([3, 3, 3, 3, 14]), torch.ones(2, 3, dtype=torch.bool)
    return Structures(positions, species, torch.tensor([0, 2, 5]), cell, pbc)


def test_energies_forces_and_virials_are_exact(crystals):
    found, design = TorchFoundation(Springs(), "last").layer(crystals, torch.eye(2).double(), virial=True)
    volume, owner = crystals.cell.det(), crystals.structure_index
    squares = torch.zeros(2).double().index_add(0, owner, crystals.positions.square().sum(1))
    torch.testing.assert_close(found.energies, squares + volume)
    torch.testing.assert_close(found.forces, -2 * crystals.positions)
    outer = crystals.positions[:, :, None] * crystals.positions[:, None]
    work = torch.zeros(2, 3, 3).double().index_add(0, owner, 2 * outer)
    torch.testing.assert_close(found.virials, work + volume[:, None, None] * torch.eye(3))
    torch.testing.assert_close(design.energy, torch.stack([squares / 2, volume], 1))
    torch.testing.assert_close(design.forces[:, 0].reshape(-1, 3), -crystals.positions)
    torch.testing.assert_close(design.virial @ torch.tensor([2.0, 1.0]).double(), found.virials.flatten())


def test_a_function_of_features_is_the_named_layer(crystals):
    module = Springs()

    def features(positions, species, pointer, cell):
        seen = []
        handle = module.last.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))
        module(positions, species, pointer, cell)
        handle.remove()
        return seen[0]

    heads = torch.tensor([[1.0, 0.5], [0.0, 2.0]]).double()
    one, two = (TorchFoundation(module, given).layer(crystals, heads)[1] for given in ("last", features))
    assert torch.equal(one.energy, two.energy) and torch.equal(one.forces, two.forces)


def test_weights_are_the_identity():
    assert weights_hash(Springs()) == weights_hash(Springs()) != weights_hash(Springs(2.5))
    identity = TorchFoundation(Springs(), "last").identity
    assert identity["kind"] == "torch" and identity["name"].endswith("Springs") and len(identity["sha256"]) == 64


def test_bad_layers_and_shapes_are_named(crystals):
    with pytest.raises(DataError, match=r"linear layers \['last'\]"):
        TorchFoundation(Springs(), "first")
    with pytest.raises(ShapeError, match="features"):
        TorchFoundation(Springs(), lambda *_: torch.zeros(4, 2)).surface(crystals)
    with pytest.raises(ShapeError, match="energies"):
        TorchFoundation(lambda *_: torch.zeros(3), lambda p, *_: p).surface(crystals)
