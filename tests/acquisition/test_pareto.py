import itertools

import pytest
import torch

from bayesmol.acquisition import pareto
from bayesmol.acquisition.pareto import hypervolume, non_dominated, pareto_select, shell_error, shells
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Gaussian


def brute(points):
    """Whether nobody else is at least as good and somewhere better, larger being better."""
    found = []
    for own in points.tolist():
        others = [o for o in points.tolist() if all(a >= b for a, b in zip(o, own, strict=True)) and o != own]
        found.append(not others)
    return torch.tensor(found)


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_front_is_that_of_all_pairs(normal, objectives, monkeypatch):
    points = normal(60, objectives)
    points[7] = points[int(points[:, 0].argmax())]
    found = non_dominated(points, goals="maximise")
    assert torch.equal(found, brute(points))
    assert torch.equal(non_dominated(-points, goals="minimise"), found)
    signs = torch.tensor([1.0, -1.0, 1.0][:objectives]).double()
    mixed = ["maximise", "minimise", "maximise"][:objectives]
    assert torch.equal(non_dominated(points * signs, goals=mixed), found)
    monkeypatch.setattr(pareto, "_MEMORY", 1)
    assert torch.equal(non_dominated(points, goals="maximise"), found)


def test_shells_peel_the_points(normal):
    points = normal(80, 2)
    found, left = shells(points, goals="minimise"), torch.arange(80)
    for number in range(int(found.max()) + 1):
        front = brute(-points[left])
        assert set(left[front].tolist()) == set((found == number).nonzero()[:, 0].tolist())
        left = left[~front]
    assert len(left) == 0
    line = torch.arange(5.0).double()[:, None].expand(5, 2)
    assert shells(line, goals="maximise").tolist() == [4, 3, 2, 1, 0]


def test_shell_error_looks_only_near_the_front(normal):
    truth = normal(50, 2)
    shell = shells(truth, goals="maximise")
    predicted = truth + torch.tensor([0.1, -0.2]).double()
    predicted[shell > 1] += 100.0
    near = shell_error(predicted, truth, goals="maximise", last=1)
    assert near.tolist() == pytest.approx([0.1, 0.2], rel=1e-6)
    everything = shell_error(predicted, truth, goals="maximise", last=int(shell.max()))
    torch.testing.assert_close(everything, (predicted - truth).square().mean(0).sqrt())
    with pytest.raises(ShapeError, match="predicted"):
        shell_error(predicted[1:], truth, goals="maximise")
    with pytest.raises(DataError, match="last"):
        shell_error(predicted, truth, goals="maximise", last=-1)


def test_hypervolume_by_inclusion_and_exclusion(normal):
    points, reference = normal(6, 2), torch.tensor([-0.5, -0.7]).double()
    want = 0.0
    for size in range(1, 7):
        for subset in itertools.combinations(range(6), size):
            corner = (points[list(subset)].amin(0) - reference).clamp_min(0)
            want += (-1) ** (size + 1) * float(corner.prod())
    assert hypervolume(points, reference, goals="maximise") == pytest.approx(want)
    assert hypervolume(-points, -reference, goals="minimise") == pytest.approx(want)
    assert hypervolume(points, torch.full((2,), 9.0).double(), goals="maximise") == 0.0
    flat = torch.cat([points, torch.ones(6, 1).double()], 1)
    deep = torch.cat([reference, torch.zeros(1).double()])
    assert hypervolume(flat, deep, goals="maximise") == pytest.approx(want)


@pytest.mark.slow
def test_selection_advances_the_front_without_repeating_itself():
    cost = Gaussian(torch.tensor([0.2, 0.2, 0.6, 0.5]).double(), torch.full((4,), 1e-6).double(), unit="eV")
    yields = Gaussian(torch.tensor([0.8, 0.8, 0.95, 0.1]).double(), torch.full((4,), 1e-6).double(), unit="")
    observed, reference = torch.tensor([[0.5, 0.5]]).double(), torch.tensor([1.0, 0.0]).double()
    goals = ["minimise", "maximise"]
    chosen, gains = pareto_select([cost, yields], observed, reference, 2, goals=goals, seed=0)
    assert chosen[0] in (0, 1) and chosen[1] == 2
    before = hypervolume(observed, reference, goals=goals)
    after = hypervolume(torch.tensor([[0.5, 0.5], [0.2, 0.8]]).double(), reference, goals=goals)
    assert float(gains[0].exp()) == pytest.approx(after - before, rel=0.02)
    with pytest.raises(DataError, match="size"):
        pareto_select([cost, yields], observed, reference, 5, goals=goals)
    with pytest.raises(ShapeError, match="2 posteriors"):
        pareto_select([cost], observed, reference, 1, goals=goals)


def test_bad_input(normal):
    with pytest.raises(DataError, match="goals"):
        non_dominated(normal(3, 2), goals=["minimise"])
    with pytest.raises(DataError, match="goals"):
        non_dominated(normal(3, 2), goals="up")
    with pytest.raises(DataError, match="NaN"):
        non_dominated(normal(3, 2) * float("nan"), goals="minimise")
    with pytest.raises(ShapeError, match="reference"):
        hypervolume(normal(3, 2), normal(3), goals="minimise")
    with pytest.raises(ShapeError, match="points"):
        non_dominated(normal(3), goals="minimise")
