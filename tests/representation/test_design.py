"""Design matrices: symmetries, batches and the meaning of the columns."""

from dataclasses import replace

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from bayesmol.data import Structures
from bayesmol.errors import DataError
from bayesmol.representation import design as module
from bayesmol.representation.design import Representation, channel_counts
from bayesmol.representation.radial import RadialBasis
from bayesmol.testing import assert_invariant

KNOWN = (1, 6, 8)


@pytest.fixture
def representation():
    return Representation.random(KNOWN, RadialBasis(cutoff=3.2, size=4), (3, 2, 2), (2, 2, 2), seed=1)


@pytest.fixture
def structures(normal):
    """Molecules and cells of unequal size, and a lone atom."""
    frames = [molecule("CH3CH2OH"), molecule("H2O"), Atoms("C"), bulk("C", "diamond", a=3.6), molecule("CH4")]
    for frame in frames:
        frame.positions += 0.05 * normal(len(frame), 3).numpy()
    return Structures.from_ase(frames)


def compute(representation, structures, **kinds):
    return representation.design(representation.environments(structures), **kinds)


def test_energy_rows_are_invariant(representation, structures, normal):
    weights = normal(len(representation.families))
    assert_invariant(
        lambda s: compute(representation, s, forces=False).energy @ weights, structures, rtol=1e-10, atol=1e-9
    )
    base = compute(representation, structures, forces=False).energy
    matrix, _ = torch.linalg.qr(normal(3, 3))
    moved = replace(structures, positions=structures.positions @ matrix.mT + 2.0, cell=structures.cell @ matrix.mT)
    torch.testing.assert_close(compute(representation, moved, forces=False).energy, base, rtol=1e-10, atol=1e-10)


def test_rows_follow_a_permutation(representation, structures, source):
    base = compute(representation, structures)
    first, last = structures.pointer[:2].tolist()
    order = torch.arange(len(structures.species))
    order[first:last] = torch.randperm(last - first, generator=source)
    moved = replace(structures, positions=structures.positions[order], species=structures.species[order])
    found = compute(representation, moved)
    torch.testing.assert_close(found.energy, base.energy, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        found.forces, base.forces.unflatten(0, (-1, 3))[order].flatten(0, 1), rtol=1e-9, atol=1e-10
    )
    torch.testing.assert_close(found.atomic, base.atomic[order], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sign", [1, -1])
def test_force_and_virial_rows_rotate(representation, structures, normal, sign):
    matrix, _ = torch.linalg.qr(normal(3, 3))
    matrix = sign * matrix
    base = compute(representation, structures, virial=True)
    moved = replace(structures, positions=structures.positions @ matrix.mT, cell=structures.cell @ matrix.mT)
    found = compute(representation, moved, virial=True)
    want = torch.einsum("xy,ayc->axc", matrix, base.forces.unflatten(0, (-1, 3))).flatten(0, 1)
    torch.testing.assert_close(found.forces, want, rtol=1e-9, atol=1e-10 * float(want.abs().max()))
    want = torch.einsum("xu,yv,suvc->sxyc", matrix, matrix, base.virial.unflatten(0, (-1, 3, 3))).flatten(0, 2)
    torch.testing.assert_close(found.virial, want, rtol=1e-9, atol=1e-10 * float(want.abs().max()))


def test_no_net_force_and_no_torque(representation, structures):
    rows = compute(representation, structures).forces.unflatten(0, (-1, 3))
    net = rows.new_zeros(len(structures), *rows.shape[1:]).index_add(0, structures.structure_index, rows)
    assert float(net.abs().max()) < 1e-10 * (1 + float(rows.abs().max()))
    part = slice(*structures.pointer[:2].tolist())
    arms = structures.positions[part, :, None].expand_as(rows[part])
    torque = torch.linalg.cross(arms, rows[part], dim=1).sum(0)
    assert float(torque.abs().max()) < 1e-10 * (1 + float(rows.abs().max()))


def test_a_batch_equals_its_members(representation, structures):
    batch = compute(representation, structures, virial=True)
    single = [compute(representation, structures[k], virial=True) for k in range(len(structures))]
    for name in ("energy", "forces", "virial", "atomic"):
        want = torch.cat([getattr(part, name) for part in single])
        torch.testing.assert_close(getattr(batch, name), want, rtol=1e-12, atol=1e-12)


def test_atomic_rows_add_up_to_the_energy_rows(representation, structures):
    found = compute(representation, structures, forces=False)
    assert found.forces is None and found.virial is None
    blocks = found.energy.unflatten(1, (len(KNOWN), -1))
    want = torch.zeros_like(blocks)
    for atom, (owner, kind) in enumerate(zip(structures.structure_index.tolist(), found.species.tolist(), strict=True)):
        want[owner, kind] += found.atomic[atom]
    torch.testing.assert_close(blocks, want, rtol=1e-12, atol=1e-12)


def test_forces_by_finite_differences(representation, structures, normal):
    direction, step = normal(*structures.positions.shape), 1e-5

    def energy(h):
        moved = replace(structures, positions=structures.positions + h * direction)
        return compute(representation, moved, forces=False).energy

    slope = (energy(step) - energy(-step)) / (2 * step)
    work = compute(representation, structures).forces.unflatten(0, (-1, 3)) * direction[:, :, None]
    total = torch.zeros_like(slope).index_add(0, structures.structure_index, work.sum(1))
    torch.testing.assert_close(-total, slope, rtol=1e-6, atol=1e-7 * float(slope.abs().max()))


def test_columns_are_labelled(representation, structures):
    columns = compute(representation, structures, forces=False).energy.shape[1]
    assert len(representation.families) == len(representation.orders) == columns
    sizes = [len(part.invariants) for part in representation.couplings]
    assert columns == len(KNOWN) * (3 * sizes[0] + 2 * sizes[1] + 2 * sizes[2])
    assert representation.families.unique().tolist() == list(range(len(KNOWN) * sum(sizes)))
    for family in representation.families.unique():
        assert representation.orders[representation.families == family].unique().numel() == 1
    blocks = representation.families.unflatten(0, (len(KNOWN), -1))
    assert torch.equal(blocks[1] - sum(sizes), blocks[0])


def test_orders_are_powers_of_the_mixing(representation, structures):
    base = compute(representation, structures).forces
    doubled = representation.with_mixing(tuple(2 * part for part in representation.mixing))
    want = base * 2.0**representation.orders
    torch.testing.assert_close(compute(doubled, structures).forces, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("limit", [1, 2**20, 2**40])
def test_chunks_cover_all_structures(representation, structures, monkeypatch, limit):
    monkeypatch.setattr(module, "CHUNK_BYTES", limit)
    molecules = structures[[0, 1, 4, 0, 1]]
    for some in (structures, molecules):
        chunks = list(representation.chunks(some))
        assert [k for part in chunks for k in range(part.start, part.stop)] == list(range(len(some)))
        assert len(chunks) == (len(some) if limit == 1 else 1) or limit == 2**20
    sizes = [len(list(representation.chunks(molecules)))]
    monkeypatch.setattr(module, "CHUNK_BYTES", limit * 4)
    assert len(list(representation.chunks(molecules))) <= sizes[0]


def test_composition(representation):
    structures = Structures.from_ase([molecule("CH3CH2OH"), molecule("H2O"), Atoms("C")])
    assert representation.composition(structures).tolist() == [[6, 2, 1], [2, 0, 1], [0, 1, 0]]
    with pytest.raises(DataError, match="7"):
        representation.composition(Structures.from_ase(Atoms("N")))


def test_seeds(representation):
    again = Representation.random(KNOWN, representation.basis, (3, 2, 2), (2, 2, 2), seed=1)
    other = Representation.random(KNOWN, representation.basis, (3, 2, 2), (2, 2, 2), seed=2)
    assert all(torch.equal(a, b) for a, b in zip(again.mixing, representation.mixing, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(other.mixing, representation.mixing, strict=True))
    assert representation.degrees == (2, 2, 2)


def test_channel_counts():
    counts = [channel_counts(rows, 3, (3, 3, 3)) for rows in (1, 1000, 10_000, 100_000, 10**7)]
    assert counts[0] == (32, 32, 16) and counts[-1] == (96, 96, 48)
    assert counts == sorted(counts) and all(a == b == 2 * c and c % 8 == 0 for a, b, c in counts)
    rows = 9000
    first, second, third = channel_counts(rows, 3, (3, 3, 3), most=10**6, fewest=8)
    weights = 3 * (first * 5 + second * 8 + third * 23)
    assert abs(weights / rows - 3.3) < 3 * (2 * 5 + 2 * 8 + 23) * 4 / rows + 1e-9
    with pytest.raises(DataError, match="rows"):
        channel_counts(0, 3, (3, 3, 3))


def test_rows_that_were_not_asked_for_are_named(representation, structures):
    found = compute(representation, structures, forces=True)
    assert found.given("forces") is found.forces
    with pytest.raises(DataError, match="virial"):
        found.given("virial")
