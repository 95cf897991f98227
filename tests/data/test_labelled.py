import ase
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

from bayesmol.data import Labelled, Source, Structures
from bayesmol.errors import DataError, ShapeError

DOUBLE = torch.float64


def frames(size: int = 12, forces: bool = True) -> Labelled:
    structures = Structures.from_ase([molecule("H2O") if k % 2 else ase.Atoms("H") for k in range(size)])
    energies = torch.arange(size, dtype=DOUBLE)
    owner = structures.structure_index.to(DOUBLE)
    return Labelled(structures, energies, owner[:, None].expand(-1, 3).clone() if forces else None)


def copper() -> ase.Atoms:
    atoms = bulk("Cu", cubic=True) * (1, 1, 2)
    atoms.rattle(0.1, seed=1)
    atoms.calc = EMT()
    atoms.get_potential_energy()
    return atoms


def numbers(data: Labelled) -> list[int]:
    return data.energies.long().tolist()


def test_selection_carries_the_forces_of_its_atoms() -> None:
    part = frames()[[5, 2]]
    assert numbers(part) == [5, 2]
    assert part.forces[:, 0].tolist() == [5, 5, 5, 2]
    assert part.has_forces.all() and not part.has_stresses.any()


def test_split_is_consecutive_disjoint_and_checks_the_number() -> None:
    first, second = frames().split(3, 4)
    assert (numbers(first), numbers(second)) == ([0, 1, 2], [3, 4, 5, 6])
    with pytest.raises(DataError, match=r"at most 12 frames in all, got \(8, 5\): 13"):
        frames().split(8, 5)
    for sizes in ((), (0, 3), (-1,), (2.5,)):
        with pytest.raises(DataError, match="positive"):
            frames().split(*sizes)


def test_random_split_follows_the_seed_and_leaves_the_global_state() -> None:
    state = torch.get_rng_state()
    a, b = (frames().split(6, 6, seed=s) for s in (1, 1))
    assert numbers(a[0]) == numbers(b[0]) != numbers(frames().split(6, 6, seed=2)[0])
    assert sorted(numbers(a[0]) + numbers(a[1])) == list(range(12))
    assert torch.equal(state, torch.get_rng_state())
    assert numbers(frames().shuffle(seed=torch.Generator().manual_seed(3))) == numbers(frames().shuffle(seed=3))


def test_blocks_stay_together() -> None:
    for seed in range(20):
        parts = frames().split(4, 8, seed=seed, block=4)
        blocks = [{n // 4 for n in numbers(part)} for part in parts]
        assert blocks[0].isdisjoint(blocks[1])
    labels = torch.tensor([7, 7, 1, 1, 1, 7, 3, 3, 3, 3, 3, 3])
    assert numbers(frames().split(3, 3, block=labels)[0]) == [0, 1, 5]
    assert numbers(frames().split(3, 3, block=labels)[1]) == [2, 3, 4]
    with pytest.raises(DataError, match="whole blocks"):
        frames().split(5, 7, block=4)
    with pytest.raises(ShapeError):
        frames().split(5, block=labels[:3])
    with pytest.raises(DataError, match="at least 1"):
        frames().split(5, block=0)


def test_concatenate_masks_what_is_missing() -> None:
    joined = Labelled.concatenate([frames(3), frames(2, forces=False)])
    assert joined.has_forces.tolist() == [True, True, True, False, False]
    assert joined.forces.shape == joined.structures.positions.shape
    assert not joined.forces[-3:].any()
    assert joined[3:].has_forces.tolist() == [False, False]
    without = Labelled(frames(2).structures)
    assert Labelled.concatenate([without, without]).energies is None
    with pytest.raises(DataError, match="mixture"):
        Labelled.concatenate([frames(2), without])


def test_concatenate_keeps_errors_and_a_common_source() -> None:
    source = Source("a", "MIT", "b", "c")
    one = Labelled(frames(2).structures, torch.ones(2), energy_errors=torch.tensor([0.1, 0.2]), source=source)
    assert Labelled.concatenate([one, one]).source == source
    joined = Labelled.concatenate([one, Labelled(frames(2).structures, torch.ones(2))])
    assert joined.source is None
    assert torch.allclose(joined.energy_errors.double(), torch.tensor([0.1, 0.2, 0, 0], dtype=DOUBLE), atol=1e-7)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ({"energies": torch.zeros(3)}, ShapeError, "energies"),
        ({"energies": torch.tensor([0.0, float("nan")])}, DataError, "row 1"),
        ({"forces": torch.zeros(4, 2)}, ShapeError, "forces"),
        ({"forces": torch.full((4, 3), float("inf"))}, DataError, "has_forces"),
        ({"stresses": torch.zeros(2, 6)}, ShapeError, "stresses"),
        ({"energy_errors": torch.zeros(2)}, DataError, "no labels"),
        ({"energies": torch.zeros(2), "energy_errors": -torch.ones(2)}, DataError, "non-negative"),
        ({"has_forces": torch.ones(2, dtype=torch.bool)}, DataError, "has_forces"),
        ({"has_forces": torch.ones(3, dtype=torch.bool)}, ShapeError, "has_forces"),
    ],
)
def test_bad_labels(labels: dict[str, torch.Tensor], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Labelled(frames(2).structures, **labels)


def test_a_label_that_is_needed_is_there_or_named() -> None:
    data = frames(forces=False)
    assert torch.equal(data.given("energies"), data.energies)
    with pytest.raises(DataError, match="forces, got none"):
        data.given("forces")


def test_fingerprint_sees_every_array_and_nothing_else() -> None:
    data = frames(4)
    assert data.fingerprint == frames(4).fingerprint and len(data.fingerprint) == 64
    forces = data.forces.clone()
    forces[-1, -1] += 1e-12
    others = [
        Labelled(data.structures, data.energies, forces),
        Labelled(data.structures, data.energies),
        data[[1, 0, 2, 3]],
        Labelled(data.structures, data.energies, data.forces, energy_errors=torch.zeros(4)),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 5


def test_ase_round_trip_with_stress_and_errors() -> None:
    data = Labelled.from_ase([copper(), copper()])
    atoms = copper()
    assert torch.allclose(data.stresses[0], torch.from_numpy(atoms.get_stress(voigt=False)))
    errors = {
        "energy_errors": torch.ones(2, dtype=DOUBLE),
        "force_errors": data.forces.abs(),
        "stress_errors": data.stresses.abs(),
    }
    full = Labelled(data.structures, data.energies, data.forces, data.stresses, **errors)
    assert Labelled.from_ase(full.to_ase()).fingerprint == full.fingerprint


def test_to_moves_everything() -> None:
    data = Labelled.from_ase(copper()).to(dtype=torch.float32)
    assert {data.energies.dtype, data.forces.dtype, data.structures.cell.dtype} == {torch.float32}
    assert data.has_forces.dtype == torch.bool
