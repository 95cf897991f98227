import math

import pytest
import torch
from ase import Atoms

from bayesmol.acquisition import greedy_log_determinant, select
from bayesmol.applicability import Domain
from bayesmol.data import Structures
from bayesmol.errors import DataError


class LinearForces:
    """Forces that are linear in 6 random functions of the positions, with a standard normal prior of the weights."""

    noise_force = 0.1

    def force_factor(self, structures, rank=512, seed=0):
        mixing = torch.randn(3, 6, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        phases = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
        rows = torch.sin((structures.positions @ mixing).unsqueeze(1) + phases[:, None]).reshape(-1, 6)
        return list(rows.split((3 * structures.pointer.diff()).tolist()))

    def strangeness(self, structures):
        parts = structures.positions.split(structures.pointer.diff().tolist())
        return torch.stack([part.square().sum() for part in parts])


def molecules(count, seed=0, spread=1.0):
    source = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        atoms = int(torch.randint(2, 4, (), generator=source))
        grid = 3.0 * torch.arange(atoms).unsqueeze(1) * torch.tensor([[1.0, 0.0, 0.0]])
        positions = grid + spread * torch.rand(atoms, 3, generator=source)
        made.append(Atoms("H" * atoms, positions.numpy()))
    return made


def test_selection_is_the_greedy_batch_of_the_pool():
    pool, model = molecules(30), LinearForces()
    selection = select(model, pool, 8, seed=0)
    structures = Structures.from_ase(pool)
    indices, gains = greedy_log_determinant(model.force_factor(structures), model.noise_force, 8)
    assert selection.indices.tolist() == indices and len(selection) == 8
    assert selection.gains.tolist() == pytest.approx(gains)
    assert len(selection.skipped) == 0
    chosen = structures[selection.indices]
    assert torch.equal(selection.structures.positions, chosen.positions)
    again = select(model, structures, 8, seed=0)
    assert torch.equal(again.indices, selection.indices)
    assert torch.equal(again.random_indices, selection.random_indices)


def test_baseline_is_a_random_batch_without_repetition():
    pool, model = molecules(30), LinearForces()
    batches = [select(model, pool, 8, seed=seed).random_indices for seed in range(60)]
    assert all(len(set(batch.tolist())) == 8 for batch in batches)
    counts = torch.cat(batches).bincount(minlength=30)
    # each of 30 is expected 16 times with standard deviation 3.4
    assert int(counts.max()) < 33 and int(counts.min()) > 2


def test_greedy_gain_beats_the_random_batch():
    pool, model = molecules(40, seed=4), LinearForces()
    selection = select(model, pool, 5, seed=1)
    factors = model.force_factor(Structures.from_ase(pool))
    stacked = torch.cat([factors[i] for i in selection.random_indices])
    random = 0.5 * float(torch.logdet(torch.eye(len(stacked)) + stacked @ stacked.T / 0.01))
    assert float(selection.gains.sum()) > random


def test_a_duplicate_is_not_chosen_while_something_is_left_to_learn():
    pool = molecules(6, seed=2)
    first = select(LinearForces(), pool, 1).indices.item()
    selection = select(LinearForces(), [*pool, pool[first]], 2)
    assert set(selection.indices.tolist()) != {first, 6}
    copies = select(LinearForces(), [pool[first]] * 2, 2)
    rows = 3 * len(pool[first])
    assert float(copies.gains[1]) <= 0.5 * min(rows, 6) * math.log(2) + 1e-9 < float(copies.gains[0])


def test_domain_skips_and_reports_candidates_outside():
    model = LinearForces()
    domain = Domain(level=0.1).calibrate(model.strangeness(Structures.from_ase(molecules(100, seed=9))))
    far = Atoms("H2", [[0.0, 0, 0], [900.0, 0, 0]])
    pool = [far, *molecules(10), far]
    selection = select(model, pool, 4, domain=domain)
    assert {0, 11} <= set(selection.skipped.tolist())
    taken = set(selection.indices.tolist()) | set(selection.random_indices.tolist())
    assert taken.isdisjoint(selection.skipped.tolist())
    left = 12 - len(selection.skipped)
    with pytest.raises(DataError, match=rf"1 to {left} \(pool of 12, {12 - left} outside the domain\), got 12"):
        select(model, pool, 12, domain=domain)


@pytest.mark.parametrize("size", [0, 4, -1])
def test_size_must_fit_the_pool(size):
    with pytest.raises(DataError, match=rf"1 to 3 \(pool of 3, 0 outside the domain\), got {size}"):
        select(LinearForces(), molecules(3), size)
