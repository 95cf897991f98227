import math

import pytest
import torch
from ase import Atoms

from bayesmol.acquisition import greedy_log_determinant, select
from bayesmol.applicability import Domain
from bayesmol.calibration.rules import needed
from bayesmol.data import Structures
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.testing import assert_calibrated


class LinearForces:
    """Forces that are linear in 6 random functions of the positions, with a standard normal prior of the weights."""

    noise_force = 0.1

    def force_factor(self, structures, rank=512, seed=0):
        mixing = torch.randn(3, 6, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        phases = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
        rows = torch.sin((structures.positions @ mixing).unsqueeze(1) + phases[:, None]).reshape(-1, 6)
        return list(rows.split((3 * structures.pointer.diff()).tolist()))

    def predict(self, structures, covariance=False):
        rows = torch.cat(self.force_factor(structures)).reshape(-1, 3, 6)
        forces = Gaussian(torch.zeros_like(structures.positions), rows.square().sum(2), unit="eV/Å")
        energy = Gaussian(torch.zeros(len(structures)), torch.ones(len(structures)), unit="eV")
        return Prediction(energy=energy, forces=forces, pointer=structures.pointer)

    def features(self, structures):
        return torch.stack(
            [
                part.sum(0)
                for part in torch.cat(self.force_factor(structures)).split((3 * structures.pointer.diff()).tolist())
            ]
        )

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


@pytest.mark.parametrize("batch", ["logdet", "lcmd", "k-centre", "top"])
@pytest.mark.parametrize("function", ["force_variance", "max_force_deviation"])
def test_every_rule_and_function_gives_a_batch_with_its_random_part(batch, function):
    pool, model = molecules(40), LinearForces()
    selection = select(model, pool, 8, function=function, batch=batch, random_fraction=0.2, seed=3)
    assert len(set(selection.indices.tolist())) == 8 == len(selection.structures)
    assert selection.drawn.tolist() == [True] * 2 + [False] * 6
    assert selection.probabilities.tolist() == [2 / 40] * 2 + [0.0] * 6
    again = select(model, pool, 8, function=function, batch=batch, random_fraction=0.2, seed=3)
    assert torch.equal(again.indices, selection.indices) and torch.equal(again.gains, selection.gains)
    other = select(model, pool, 8, batch="top", random_fraction=0.2, seed=3)
    assert torch.equal(other.indices[:2], selection.indices[:2]), "the draw does not depend on the rule"
    assert torch.equal(other.random_indices, selection.random_indices)


def test_top_is_the_largest_values_with_all_their_copies():
    pool, model = molecules(12), LinearForces()
    values = model.predict(Structures.from_ase(pool)).forces.variance.sum(1)
    parts = values.split([len(atoms) for atoms in pool])
    best = max(range(12), key=lambda i: float(parts[i].mean()))
    copies = [*pool, pool[best], pool[best]]
    assert set(select(model, copies, 3, batch="top").indices.tolist()) == {best, 12, 13}
    assert set(select(model, copies, 3, batch="k-centre").indices.tolist()) != {best, 12, 13}


def test_the_draw_is_uniform_over_the_candidates():
    pool, model = molecules(20), LinearForces()
    drawn = [select(model, pool, 5, batch="top", random_fraction=0.4, seed=seed) for seed in range(100)]
    counts = torch.cat([one.indices[one.drawn] for one in drawn]).bincount(minlength=20)
    # each of 20 is expected 10 times with standard deviation 3
    assert int(counts.sum()) == 200 and int(counts.max()) < 23 and int(counts.min()) > 0


def test_calibration_on_the_drawn_covers_and_on_the_chosen_does_not():
    """The model is sure where it is wrong: what it chooses has the smallest errors, intervals from it are too short."""
    level, source = 0.8, torch.Generator().manual_seed(5)
    pool = Structures.from_ase([Atoms("H", [[x, 0.0, 0.0]]) for x in range(60)])

    class Wrong(LinearForces):
        def predict(self, structures, covariance=False):
            spread = (1 + structures.positions[:, :1]).expand(-1, 3)
            forces = Gaussian(torch.zeros_like(structures.positions), spread, unit="eV/Å")
            energy = Gaussian(torch.zeros(len(structures)), torch.ones(len(structures)), unit="eV")
            return Prediction(energy=energy, forces=forces, pointer=structures.pointer)

    hits = {"drawn": 0, "chosen": 0}
    rank = math.ceil(level * (needed(level) + 4 + 1))
    for seed in range(400):
        errors = torch.rand(60, generator=source) * torch.arange(60, 0, -1) ** 2
        size = 2 * (needed(level) + 4)
        taken = select(Wrong(), pool, size, batch="top", random_fraction=0.5, seed=seed)
        left = torch.ones(60, dtype=torch.bool)
        left[taken.indices[taken.drawn]] = False
        rows = left.nonzero()[:, 0]
        new = rows[int(torch.randint(len(rows), (), generator=source))]
        for name, part in (("drawn", taken.drawn), ("chosen", ~taken.drawn)):
            radius = errors[taken.indices[part]].sort().values[rank - 1]
            hits[name] += int(errors[new] <= radius)
    assert_calibrated(hits["drawn"], 400, rank / (needed(level) + 5))
    assert hits["chosen"] < 0.5 * 400


def test_costs_decide_and_a_budget_holds():
    pool, model = molecules(30), LinearForces()
    costs = torch.ones(30, dtype=torch.float64)
    plain = select(model, pool, 6)
    assert torch.equal(select(model, pool, 6, costs=costs).indices, plain.indices)
    costs[plain.indices[0]] = 1e6
    for batch in ("logdet", "lcmd", "k-centre", "top"):
        cheap = select(model, pool, 6, batch=batch, costs=costs)
        assert int(plain.indices[0]) not in cheap.indices.tolist()
    limited = select(model, pool, 10, costs=1 + torch.arange(30.0), budget=25.0)
    assert 0 < len(limited) < 10 and float((1 + limited.indices).sum()) <= 25
    with pytest.raises(DataError, match="budget"):
        select(model, pool, 6, costs=torch.full((30,), 2.0), budget=1.0)
    with pytest.raises(DataError, match="costs"):
        select(model, pool, 6, budget=1.0)
    with pytest.raises(ShapeError, match=r"shape \(30,\)"):
        select(model, pool, 6, costs=torch.ones(3))
    with pytest.raises(DataError, match="above zero"):
        select(model, pool, 6, costs=torch.zeros(30))


def test_distances_are_kept_from_what_is_labelled():
    pool, model = molecules(30), LinearForces()
    first = select(model, pool, 1, function=None, batch="k-centre").indices.item()
    again = select(model, pool, 1, function=None, batch="k-centre", training=[pool[first]]).indices.item()
    assert again != first


def test_bad_options():
    model, pool = LinearForces(), molecules(5)
    with pytest.raises(DataError, match="batch"):
        select(model, pool, 2, batch="best")
    with pytest.raises(DataError, match="function"):
        select(model, pool, 2, function="nonsense", batch="top")
    with pytest.raises(DataError, match="function"):
        select(model, pool, 2, function=None, batch="top")
    with pytest.raises(DataError, match="random_fraction"):
        select(model, pool, 2, random_fraction=1.5)
