"""The specification: what it refuses, the symmetry it finds, and kinds of pairs."""

from dataclasses import replace

import pytest
import torch
from ase.build import molecule

from bayesmol.data import Labelled, Structures, load
from bayesmol.errors import DataError
from bayesmol.potentials.gradient_gp import GradientGP

SPEC = GradientGP(length_scale=3.0, energy_noise=2e-3, force_noise=0.02)


def labelled(count, normal, name="CH3OH"):
    """Frames of a molecule with arbitrary labels."""
    frames = [molecule(name) for _ in range(count)]
    for frame in frames:
        frame.positions += 0.05 * normal(len(frame), 3).numpy()
    structures = Structures.from_ase(frames)
    return Labelled(structures, energies=normal(count), forces=normal(*structures.positions.shape))


@pytest.fixture
def data(normal):
    return labelled(14, normal).split(8, 6)


def test_symmetry_of_ethanol_is_found():
    train = load("rmd17/ethanol")[:12]
    model = GradientGP(learning_rows=200).fit(train)
    group = set(map(tuple, model.permutations.tolist()))
    assert len(group) == 6
    assert {tuple(p[q].tolist()) for p in model.permutations for q in model.permutations} == group
    assert model.length_scales.tolist() == pytest.approx([10.0]) and int(model.kinds.max()) == 0


def test_learned_length_scales_have_one_for_each_kind(data):
    model = GradientGP(length_scale="learned", force_noise=0.1).fit(data[0])
    # C-H, O-H and C-O with one bond; H-H, C-H and O-H with two; H-H with three.
    assert len(model.length_scales) == 7 == int(model.kinds.max()) + 1
    assert bool((model.length_scales > 0).all())


def test_training_atoms_may_come_in_different_orders(data):
    train, test = data
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    positions = train.structures.positions.view(8, 6, 3).clone()
    species, forces = train.structures.species.view(8, 6).clone(), train.forces.view(8, 6, 3).clone()
    for array in (positions, species, forces):
        array[4:] = array[4:, order]
    mixed = replace(train.structures, positions=positions.reshape(-1, 3), species=species.reshape(-1))
    mixed = Labelled(mixed, energies=train.energies, forces=forces.reshape(-1, 3))
    first, second = SPEC.fit(train).predict(test), SPEC.fit(mixed).predict(test)
    scale = float(first.forces.mean.abs().max())
    assert float((first.forces.mean - second.forces.mean).abs().max()) < 1e-2 * scale


def test_the_seed_chooses_the_learning_frames(normal):
    spec = GradientGP(learning_rows=10)
    labels = labelled(25, normal)
    first, again, other = (spec.fit(labels, seed=s).amplitude for s in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length_scale": "long"}, "learned"),
        ({"length_scale": -1.0}, "positive"),
        ({"force_noise": 0.0}, "positive"),
        ({"learning_rows": 0}, "positive"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(DataError, match=message):
        GradientGP(**options)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ([[0, 1, 2, 3, 4, 5], [0, 1, 3, 4, 2, 5]], "closed"),
        ([[1, 0, 2, 3, 4, 5]], "like atoms"),
        ([[0, 1, 2]], "orders of 6 atoms"),
        ([[0, 0, 2, 3, 4, 5]], "orders of 6 atoms"),
    ],
)
def test_bad_permutations(group, message, data):
    if message == "closed":
        hydrogens = (data[0].structures.species[:6] == 1).nonzero().flatten()[:3]
        group = [list(range(6)), list(range(6))]
        group[1][int(hydrogens[0])], group[1][int(hydrogens[1])] = int(hydrogens[1]), int(hydrogens[2])
        group[1][int(hydrogens[2])] = int(hydrogens[0])
    with pytest.raises(DataError, match=message):
        replace(SPEC, permutations=torch.tensor(group)).fit(data[0])


def test_bad_data(data, normal):
    train, _ = data
    water = labelled(2, normal, "H2O")
    with pytest.raises(DataError, match="one molecule"):
        SPEC.fit(Labelled.concatenate([train, water]))
    with pytest.raises(DataError, match="at least two structures"):
        SPEC.fit(train[:1])
    with pytest.raises(DataError, match="energies or forces"):
        SPEC.fit(Labelled(train.structures))
    cell = 20 * torch.eye(3).double().expand(8, 3, 3)
    periodic = replace(train.structures, cell=cell, pbc=torch.ones(8, 3).bool())
    with pytest.raises(DataError, match="periodic"):
        SPEC.fit(replace(train, structures=periodic))
    atom = Structures(
        train.structures.positions[:2], torch.tensor([1, 1]), torch.arange(3), cell[:2], torch.zeros(2, 3).bool()
    )
    with pytest.raises(DataError, match="two atoms"):
        SPEC.fit(Labelled(atom, energies=torch.zeros(2).double()))
