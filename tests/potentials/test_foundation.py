"""The four ways in, and chunks of bounded size."""

import torch
from ase.calculators.emt import EMT

import bayesmol as bm
from bayesmol.potentials.committee import Committee
from bayesmol.potentials.foundation import Foundation, chunks
from bayesmol.potentials.foundation_torch import TorchFoundation
from bayesmol.potentials.residual_base import CalculatorFoundation


def energies(positions, species, pointer, cell):
    owner = torch.arange(len(pointer) - 1).repeat_interleave(pointer.diff())
    return positions.new_zeros(len(pointer) - 1).index_add(0, owner, positions.square().sum(1))


def test_each_way_in_leads_to_its_kind():
    toy = Foundation.from_torch(energies, features=lambda p, *_: p)
    assert isinstance(toy, TorchFoundation)
    assert isinstance(Foundation.from_calculator(EMT()), CalculatorFoundation)
    assert isinstance(Foundation.committee([EMT(), toy]), Committee)


def test_chunks_are_whole_structures():
    structures = bm.data.load("rmd17/ethanol")[:7].structures
    assert list(chunks(structures, 20)) == [slice(0, 2), slice(2, 4), slice(4, 6), slice(6, 7)]
    assert list(chunks(structures, 1)) == [slice(k, k + 1) for k in range(7)]


def test_the_batch_changes_nothing():
    toy = Foundation.from_torch(energies, features=lambda p, *_: p)
    structures = bm.data.load("rmd17/ethanol")[:60].structures
    whole, rows = toy.layer(structures, torch.eye(3).double())
    alone, row = toy.layer(structures[40], torch.eye(3).double())
    torch.testing.assert_close(whole.forces[360:369], alone.forces)
    torch.testing.assert_close(rows.forces[1080:1107], row.forces)
    assert toy.surface(structures).virials is None


def test_derivatives_need_no_grad_mode():
    toy = Foundation.from_torch(energies, features=lambda p, *_: p)
    one = bm.data.load("rmd17/ethanol")[0].structures
    with torch.no_grad():
        torch.testing.assert_close(toy.surface(one).forces, -2 * one.positions)
