"""The pools of ethanol: what is broken, what is shared, what is kept."""

import pytest
import torch

import bayesmol as bm
from bayesmol.inference.random import numpy_generator


@pytest.fixture
def making(study):
    return study("active_learning_pools")


def heavy_lengths(structures):
    """C–C, C–O and O–H bonds of ethanol in the order of the atoms C C O H…: smallest distances, in Å."""
    found = []
    for frame in structures.to_ase():
        distances = frame.get_all_distances()
        symbols = frame.get_chemical_symbols()
        oxygen, carbons = symbols.index("O"), [k for k, s in enumerate(symbols) if s == "C"]
        hydrogens = [k for k, s in enumerate(symbols) if s == "H"]
        carbon = distances[oxygen, carbons].min()
        found.append([distances[carbons[0], carbons[1]], carbon, distances[oxygen, hydrogens].min()])
    return torch.tensor(found)


def test_one_bond_of_each_is_stretched(making):
    whole = bm.data.load("rmd17/ethanol")[:40].structures
    broken = making.broken(whole, numpy_generator(0))
    ratio = heavy_lengths(broken) / heavy_lengths(whole)
    stretched = ratio > 1.1
    # A hydrogen of a carbon may come nearer to an oxygen than its own that has gone.
    assert (stretched.sum(1) >= 1).all() and (stretched.sum(0) > 0).all()
    assert ratio.max() < 2.2 + 1e-6
    assert torch.equal(broken.species, whole.species) and torch.equal(broken.pointer, whole.pointer)


def test_fragments_move_as_a_whole(making):
    whole = bm.data.load("rmd17/ethanol")[:10].structures
    moved = (making.broken(whole, numpy_generator(1)).positions - whole.positions).reshape(10, 9, 3)
    lengths = moved.norm(dim=2)
    assert ((lengths > 0).sum(1) <= 4).all() and ((lengths > 0).sum(1) >= 1).all()
    assert all(len(one[one > 0].round(decimals=9).unique()) == 1 for one in lengths)


@pytest.mark.parametrize("task", ["targeted", "global"])
def test_pool_and_test_are_apart_and_reproducible(making, tmp_path, task):
    sizes = making.Pools(pool=50, test=10, share=0.1)
    pool, test = making.pools(sizes, task, 3, tmp_path)
    again, _ = making.pools(sizes, task, 3, tmp_path)
    assert pool.fingerprint == again.fingerprint and len(pool) <= 50 and len(test) <= 10
    assert len(pool) + len(test) >= 58, "tight binding labels nearly all of these"
    frames = set(map(str, pool.structures.positions.tolist()))
    assert not frames & set(map(str, test.structures.positions.tolist()))
    assert bool(pool.has_forces.all()) and pool.source.name.startswith("GFN2-xTB")
    other, _ = making.pools(sizes, task, 4, tmp_path)
    assert other.fingerprint != pool.fingerprint
