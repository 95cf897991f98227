from dataclasses import replace

import pytest
import torch

from bayesmol.data import Structures
from bayesmol.errors import DataError
from bayesmol.potentials.network import contracted
from bayesmol.potentials.network_equivariant import Equivariant


def turned(structures, improper=False, seed=0):
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))
    turn = turn * turn.det().sign() * (-1 if improper else 1)
    return replace(structures, positions=structures.positions @ turn.T), turn


@pytest.fixture(scope="module")
def network():
    return Equivariant(channels=6, width=5, degree=3, hidden=2, radial=8).network((1, 6, 8), seed=0).double()


@pytest.mark.parametrize("improper", [False, True])
def test_features_are_invariant_and_forces_turn(network, ethanol, improper):
    structures = ethanol[0].structures[:3]
    again, turn = turned(structures, improper)
    one, two = (contracted(network, network.environments(s), None) for s in (structures, again))
    torch.testing.assert_close(two.atomic, one.atomic, atol=1e-12, rtol=1e-10)
    force, moved = (part.forces.unflatten(0, (-1, 3)) for part in (one, two))
    torch.testing.assert_close(moved, torch.einsum("xy,nyc->nxc", turn, force), atol=1e-11, rtol=1e-9)


def test_float32_is_equivariant_to_its_precision(ethanol):
    network = Equivariant(channels=8, width=4).network((1, 6, 8), seed=1)
    head = torch.randn(4, 1, generator=torch.Generator().manual_seed(0))
    structures = ethanol[0].structures[:4]
    reference = contracted(network, network.environments(structures), head).forces.reshape(-1, 3)
    for seed in range(5):
        again, turn = turned(structures, bool(seed % 2), seed)
        found = contracted(network, network.environments(again), head).forces.reshape(-1, 3)
        assert (found - reference @ turn.T.float()).abs().max() <= 2e-6 * reference.abs().max()


def test_exchange_of_like_atoms(network, ethanol):
    structures = ethanol[0].structures[:1]
    order = torch.arange(9)
    like = (structures.species == 1).nonzero()[:, 0]
    order[like] = like.flip(0)
    again = replace(structures, positions=structures.positions[order])
    one, two = (network(network.environments(s)) for s in (structures, again))
    torch.testing.assert_close(two, one[order], atol=1e-12, rtol=1e-10)


def test_far_copies_do_not_feel_each_other(network, ethanol):
    one = ethanol[0].structures[:1]
    two = Structures(
        torch.cat([one.positions, one.positions + 50.0]),
        one.species.repeat(2),
        torch.tensor([0, 18]),
        one.cell,
        one.pbc,
    )
    found = [network(network.environments(s)).sum(0) for s in (one, two)]
    torch.testing.assert_close(found[1], 2 * found[0], atol=1e-11, rtol=1e-10)


def test_an_atom_alone_has_features_and_no_force(network):
    alone = Structures(
        torch.zeros(1, 3).double(),
        torch.tensor([8]),
        torch.tensor([0, 1]),
        torch.zeros(1, 3, 3).double(),
        torch.zeros(1, 3).bool(),
    )
    found = contracted(network, network.environments(alone), None)
    assert bool(found.atomic.isfinite().all()) and bool((found.forces == 0).all())


def test_same_seed_same_weights():
    state = torch.get_rng_state()
    one, two, other = (Equivariant(channels=4).network((1, 8), seed=seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.embedding, other.embedding)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("bad", [{"channels": 0}, {"degree": 4}, {"hidden": 3, "degree": 2}, {"layers": 0}])
def test_bad_configurations(bad):
    with pytest.raises(DataError, match="configuration"):
        Equivariant(**bad)


TETRIS = {  # four cubes each; energies are the same for mirror images, so the two chiral pieces are one class
    "chiral": [(0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 1, 0)],
    "square": [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)],
    "line": [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3)],
    "corner": [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)],
    "L": [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0)],
    "T": [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 1)],
    "zigzag": [(0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 0)],
}


def test_tetris_shapes_are_told_apart_however_they_are_turned():
    pieces = torch.tensor(list(TETRIS.values()), dtype=torch.float64) * 2.0
    shapes = len(pieces)
    structures = Structures(
        pieces.reshape(-1, 3),
        torch.full((4 * shapes,), 6),
        torch.arange(0, 4 * shapes + 1, 4),
        torch.zeros(shapes, 3, 3).double(),
        torch.zeros(shapes, 3).bool(),
    )
    network = Equivariant(channels=8, width=16).network((6,), seed=0)
    heads = torch.zeros(16, shapes, requires_grad=True)
    optimiser = torch.optim.Adam([*network.parameters(), heads], lr=0.01)
    environment = network.environments(structures)

    def logits(own):
        return torch.zeros(shapes, 16).index_add(0, own.structure, network(own)) @ heads

    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(logits(environment), torch.arange(shapes))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for seed in range(5):
        again, _ = turned(structures, seed=seed)
        assert torch.equal(logits(network.environments(again)).argmax(1), torch.arange(shapes))
