"""Torsions and distances: against a library, invariances, chemistry that needs no names, and bad input."""

import math

import pytest
import torch

from bayesmol.data.trajectory_formats import Topology
from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.molecule import alanine_dipeptide
from bayesmol.representation.torsions import HeavyDistances, Torsions, heavy_distances, torsions

PHI, PSI = (4, 6, 8, 14), (6, 8, 14, 16)


@pytest.fixture(scope="module")
def alanine():
    density = alanine_dipeptide()
    return Topology(density.species, density.start.reshape(-1, 3))


def turned(x, seed=0):
    """Positions of each frame turned and moved."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(len(x), 3, 3, generator=generator, dtype=x.dtype))
    q = q * torch.linalg.det(q).sign()[:, None, None]
    return x @ q + torch.randn(len(x), 1, 3, generator=generator, dtype=x.dtype)


def chain(*angles):
    """Heavy atoms with bonds of 1.5 Å along x, z … that turn by given torsions."""
    x = [torch.tensor(p, dtype=torch.float64) for p in ([0.0, 1.5, 0.0], [0.0, 0.0, 0.0], [1.5, 0.0, 0.0])]
    for angle in angles:
        e = (x[-1] - x[-2]) / (x[-1] - x[-2]).norm()
        m = x[-3] - x[-2]
        m = (m - (m @ e) * e) / (m - (m @ e) * e).norm()
        x.append(x[-1] + 1.5 * (math.cos(angle) * m + math.sin(angle) * torch.linalg.cross(e, m)))
    return torch.stack(x)


def test_backbone_of_alanine_dipeptide(alanine):
    assert torsions.quadruples(alanine) == (PHI, PSI)
    assert torsions.names(alanine)[:2] == ["cos φ(4, 6, 8, 14)", "sin φ(4, 6, 8, 14)"]
    assert torsions.names(alanine)[3] == "sin ψ(6, 8, 14, 16)"


def test_bonds_of_the_topology_come_first(alanine):
    from bayesmol.representation.zmatrix import bonds

    edges = bonds(alanine.species, alanine.reference)
    named = Topology(alanine.species, torch.zeros(22, 3, dtype=torch.float64), edges.flip(0))
    assert torsions.quadruples(named) == (PHI, PSI)
    without = edges[~(edges == torch.tensor([8, 14])).all(1)]
    assert PHI not in torsions.quadruples(Topology(alanine.species, alanine.reference, without))


def test_backbone_does_not_need_an_order(alanine):
    order = torch.randperm(22, generator=torch.Generator().manual_seed(1))
    shuffled = Topology(alanine.species[order], alanine.reference[order])
    values = torsions(alanine.reference[order][None], shuffled)
    torch.testing.assert_close(values, torsions(alanine.reference[None], alanine))


def test_a_side_chain_amide_is_no_backbone():
    # asparagine with caps: C(=O) N CA C(=O) N and CB CG(=O) ND
    species = torch.tensor([6, 8, 7, 6, 6, 8, 7, 6, 6, 8, 7])
    edges = torch.tensor([[0, 1], [0, 2], [2, 3], [3, 4], [4, 5], [4, 6], [3, 7], [7, 8], [8, 9], [8, 10]])
    topology = Topology(species, torch.zeros(11, 3, dtype=torch.float64), edges)
    assert torsions.quadruples(topology) == ((0, 2, 3, 4), (2, 3, 4, 6))


@pytest.mark.parametrize("angle", [-3.0, -1.2, 0.3, math.pi / 2, 3.1])
def test_a_known_angle_of_heavy_atoms(angle):
    x = chain(angle)
    topology = Topology(torch.full((4,), 6), x, torch.tensor([[0, 1], [1, 2], [2, 3]]))
    assert torsions.quadruples(topology) == ((0, 1, 2, 3),)
    values = torsions(x[None], topology)[0]
    assert torch.atan2(values[1], values[0]).abs().item() == pytest.approx(abs(angle), abs=1e-12)
    assert torsions.names(topology) == ["cos torsion(0, 1, 2, 3)", "sin torsion(0, 1, 2, 3)"]


def test_against_mdtraj(alanine):
    mdtraj = pytest.importorskip("mdtraj")
    noise = 0.1 * torch.randn(20, 22, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = alanine.reference + noise
    theirs = mdtraj.compute_dihedrals(mdtraj.Trajectory((x / 10).numpy(), None), [PHI, PSI])
    expected = torch.stack([torch.from_numpy(theirs).cos(), torch.from_numpy(theirs).sin()], 2).flatten(1)
    torch.testing.assert_close(torsions(x, alanine), expected.double(), rtol=0, atol=1e-5)
    pairs = heavy_distances.pairs(alanine)
    theirs = 10 * mdtraj.compute_distances(mdtraj.Trajectory((x / 10).numpy(), None), pairs)
    torch.testing.assert_close(heavy_distances(x, alanine), torch.from_numpy(theirs).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("features", [torsions, heavy_distances, Torsions(((0, 1, 2, 4),)), HeavyDistances(1)])
def test_moving_and_turning_changes_nothing(alanine, features):
    noise = 0.1 * torch.randn(9, 22, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    x = alanine.reference + noise
    torch.testing.assert_close(features(turned(x), alanine), features(x, alanine))
    assert features(x, alanine).shape == (9, len(features.names(alanine)))
    assert len(set(features.names(alanine))) == len(features.names(alanine))


def test_a_mirror_turns_the_sine(alanine):
    x = alanine.reference[None]
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    mirror = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(torsions(x * mirror, alanine), signs * torsions(x, alanine))


def test_pairs_that_are_far_enough(alanine):
    heavy = int((alanine.species > 1).sum())
    assert len(HeavyDistances(1).pairs(alanine)) == heavy * (heavy - 1) // 2
    assert (4, 5) not in HeavyDistances(2).pairs(alanine) and (1, 5) in HeavyDistances(2).pairs(alanine)
    assert len(HeavyDistances(2).pairs(alanine)) == heavy * (heavy - 1) // 2 - (heavy - 1)  # a tree of bonds
    assert (4, 8) not in heavy_distances.pairs(alanine) and (4, 14) in heavy_distances.pairs(alanine)


def test_many_frames_are_taken_in_parts(alanine, monkeypatch):
    x = alanine.reference.expand(7, -1, -1)
    whole = torsions(x, alanine)
    monkeypatch.setitem(Torsions.__call__.__globals__, "_BATCH", 4)
    torch.testing.assert_close(torsions(x, alanine), whole)


def test_bad_input(alanine):
    x = alanine.reference[None]
    with pytest.raises(ShapeError, match="22"):
        torsions(x[:, :5], alanine)
    with pytest.raises(ShapeError, match="positions"):
        heavy_distances(x[0], alanine)
    broken = x.clone()
    broken[:, 14:] += 20
    with pytest.raises(DataError, match="between atoms 8 and 14"):
        torsions(broken, alanine)
    with pytest.raises(DataError, match="between atoms 8 and 14"):
        heavy_distances(broken, alanine)
    water = Topology(torch.tensor([8, 1, 1]), torch.tensor([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]).double())
    with pytest.raises(DataError, match="four heavy atoms"):
        torsions(water.reference[None], water)
    with pytest.raises(DataError, match="bonds apart"):
        heavy_distances(water.reference[None], water)
    with pytest.raises(DataError, match="indices below 22"):
        Torsions(((0, 1, 2, 22),))(x, alanine)
    with pytest.raises(DataError, match="bonds_apart"):
        HeavyDistances(0)(x, alanine)
    with pytest.raises(ShapeError, match="reference"):
        Topology(alanine.species, alanine.reference[:3])
