"""Rows of the linear model: directions, kinds, masks and extents."""

from dataclasses import replace

import pytest
import torch

import bayesmol as bm
from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError
from bayesmol.potentials.foundation import Foundation
from bayesmol.potentials.foundation_rows import ENERGY, FORCE, VIRIAL, layer_rows, leading, truncated, with_scale


def energies(positions, species, pointer, cell):
    owner = torch.arange(len(pointer) - 1).repeat_interleave(pointer.diff())
    return positions.new_zeros(len(pointer) - 1).index_add(0, owner, positions.square().sum(1))


def features(positions, species, pointer, cell):
    return torch.stack([positions[:, 0], 1e-9 * positions[:, 1], 3.0 * species], 1)


@pytest.fixture
def foundation():
    return Foundation.from_torch(energies, features=features)


@pytest.fixture
def crystals(normal):
    cell, pbc = 4 * torch.eye(3).double().expand(3, 3, 3), torch.ones(3, 3, dtype=torch.bool)
    positions = torch.tensor([[0.0, 0, 0], [2, 2, 2], [0, 0, 0.1], [2, 2, 1.9], [1.0, 1, 1]]).double()
    structures = Structures(positions, torch.tensor([3, 3, 3, 8, 8]), torch.tensor([0, 2, 4, 5]), cell, pbc)
    stresses = normal(3, 3, 3)
    has = torch.tensor([True, False, True])
    labels = {"forces": normal(5, 3), "stresses": stresses + stresses.mT, "has_forces": has, "has_stresses": ~has}
    return Labelled(structures, normal(3), **labels, energy_errors=normal(3).abs())


def test_directions_vary_within_an_element_and_beyond_rounding(foundation):
    heads = leading(foundation, bm.data.load("rmd17/ethanol")[:8].structures, 3)
    assert heads.shape == (3, 1), "the second feature is rounding, the third tells only the element"
    assert heads[0].abs() > 0 and float(heads[2].abs()) < 1e-9
    with pytest.raises(DataError, match="features differ"):
        constant = Foundation.from_torch(energies, features=lambda p, s, *_: torch.ones(len(p), 2).double())
        leading(constant, bm.data.load("rmd17/ethanol")[:2].structures, 2)


def test_rows_have_their_kinds_masks_and_targets(foundation, crystals):
    surface, design = foundation.layer(crystals.structures, torch.eye(3).double(), virial=True)
    rows = layer_rows(crystals, surface, with_scale(surface, design), (3, 8), torch.tensor([1.0, 2.0]).double())
    counted = {kind: int((rows.kind == kind).sum()) for kind in (ENERGY, FORCE, VIRIAL)}
    assert counted == {ENERGY: 3, FORCE: 9, VIRIAL: 6}
    assert rows.group.tolist() == [0, 1, 2] + [0] * 6 + [2] * 3 + [1] * 6
    want = crystals.energies - surface.energies - torch.tensor([2.0, 3.0, 2.0])
    torch.testing.assert_close(rows.targets[:3], want)
    assert rows.composition[:3].tolist() == [[2, 0], [1, 1], [0, 1]] and not bool(rows.composition[3:].any())
    torch.testing.assert_close(rows.errors[:3], crystals.energy_errors)
    assert rows.extent.tolist() == [2, 2, 1] + [1] * 9 + [2] * 6
    torch.testing.assert_close(rows.design[:, 0][:3], surface.energies)
    stress = (crystals.stresses[1] * 64 - surface.virials[1])[torch.ones(3, 3).triu().bool()]
    torch.testing.assert_close(rows.targets[12:], stress)


def test_a_truncation_is_the_best_of_its_rank(normal):
    factor = normal(9, 4)
    assert truncated(factor, 4) is factor
    best = torch.linalg.svd(factor, full_matrices=False)
    found = truncated(factor, 2)
    want = best.U[:, :2] * best.S[:2] ** 2 @ best.U[:, :2].T
    torch.testing.assert_close(found @ found.T, want)


def test_forces_without_labels_give_no_rows(foundation, crystals):
    only = replace(crystals, forces=None, has_forces=None, stresses=None, has_stresses=None)
    surface, design = foundation.layer(only.structures, torch.eye(3).double())
    rows = layer_rows(only, surface, with_scale(surface, design), (3, 8), torch.zeros(2).double())
    assert rows.kind.tolist() == [ENERGY] * 3
