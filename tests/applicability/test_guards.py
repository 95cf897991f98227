import math

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import covalent_radii

from bayesmol.applicability.domain import Domain
from bayesmol.applicability.guards import Guards
from bayesmol.data import Structures, load
from bayesmol.errors import DataError


@pytest.fixture(scope="module")
def ethanol():
    return load("rmd17/ethanol").structures


@pytest.fixture(scope="module")
def guards(ethanol):
    return Guards().fit(ethanol[:200])


def moved(name, atom, vector):
    atoms = molecule(name)
    atoms.positions[atom] += vector
    return atoms


def test_frames_like_those_of_training_pass(guards, ethanol):
    assert float((guards(ethanol[1000:]) != 0).double().mean()) <= 0.002
    assert guards.fragments == 1
    bonds = dict(
        zip(guards.species.tolist(), zip(guards.fewest.tolist(), guards.most.tolist(), strict=True), strict=True)
    )
    assert bonds == {1: (1, 1), 6: (4, 4), 8: (2, 2)}


def test_each_limit_by_an_example(guards):
    ethanol = molecule("CH3CH2OH")
    hydrogen = next(i for i in range(9) if ethanol.numbers[i] == 1)
    water = ethanol.copy() + Atoms("O", [[9.0, 0.0, 0.0]])
    overlap = ethanol.copy()
    overlap.positions[hydrogen] = overlap.positions[hydrogen + 1] + [0.0, 0.0, 0.3]
    batch = Structures.coerce([ethanol, water, overlap, Atoms("CO", [[0, 0, 0], [1.0, 0, 0]]), Atoms("N", [[0, 0, 0]])])
    broken = guards.broken(batch)
    assert {name: flags.tolist() for name, flags in broken.items()} == {
        "element": [False, False, False, False, True],
        "distance": [False, False, True, True, False],
        "coordination": [False, True, True, True, False],
        "fragments": [False, True, broken["fragments"].tolist()[2], False, False],
    }
    assert guards(batch).tolist() == [0, math.inf, math.inf, math.inf, math.inf]


def test_removed_hydrogens_are_flagged_once_the_bond_is_gone(guards):
    removal = load("ethanol/h-removal")
    flags = guards(removal.structures).isinf()
    order = removal.energies.argsort()
    assert not bool(flags[order[:3]].any()) and bool(flags[order[-20:]].all())


def test_limits_in_units_of_covalent_radii(ethanol):
    fitted = Guards(closest=None, covalent=0.5, bonds=False).fit(ethanol[:20])
    radii = torch.from_numpy(covalent_radii)
    assert fitted.species.tolist() == [1, 6, 8]
    assert torch.allclose(fitted.limits[0, 1], 0.5 * (radii[1] + radii[6]))
    h2 = [Atoms("H2", [[0, 0, 0], [length, 0, 0]]) for length in (0.74, 0.32, 0.30)]
    assert fitted(h2).tolist() == [0, 0, math.inf]
    assert set(fitted.broken(h2)) == {"element", "distance"}


def test_shortest_trained_distances_by_brute_force(ethanol):
    part = ethanol[:10]
    fitted = Guards(closest=0.9).fit(part)
    for a, first in enumerate((1, 6, 8)):
        for b, second in enumerate((1, 6, 8)):
            least = math.inf
            for atoms in part.to_ase():
                distances = torch.from_numpy(atoms.get_all_distances())
                distances.fill_diagonal_(math.inf)
                chosen = distances[atoms.numbers == first][:, atoms.numbers == second]
                least = min(least, float(chosen.min()))
            expected = 0.9 * least if least < 5 else 0.6 * float(covalent_radii[first] + covalent_radii[second])
            assert float(fitted.limits[a, b]) == pytest.approx(expected)


def test_images_bond_in_a_crystal():
    silicon = bulk("Si")
    fitted = Guards().fit([silicon, silicon.repeat(2)])
    assert fitted.fewest.tolist() == fitted.most.tolist() == [4] and fitted.fragments == 1
    stretched = silicon.copy()
    stretched.set_cell(1.5 * silicon.cell, scale_atoms=True)
    assert fitted([silicon, stretched]).tolist() == [0, math.inf]


def test_the_order_of_the_batch_does_not_matter(guards, ethanol):
    removal = load("ethanol/h-removal").structures
    both = Structures.concatenate([removal, ethanol[:5]])
    order = torch.randperm(len(both), generator=torch.Generator().manual_seed(0))
    assert torch.equal(guards(both[order]), guards(both)[order])
    assert torch.equal(guards(both), torch.cat([guards(both[i]) for i in range(len(both))]))


def test_guard_and_domain_together(guards, ethanol):
    scores = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    domain = Domain(level=0.1).calibrate(scores, guard=guards(ethanol[:200]))
    verdict = domain.assess(torch.zeros(2), guard=guards([molecule("CH3CH2OH"), moved("CH3CH2OH", 8, [5.0, 0, 0])]))
    assert verdict.inside.tolist() == [True, False]


def test_bad_input(ethanol):
    with pytest.raises(DataError, match="closest"):
        Guards(closest=0.0)
    with pytest.raises(DataError, match="less than bonded"):
        Guards(covalent=1.4)
