import itertools
import math

import pytest
import torch

from bayesmol.calibration.transport import assignment_distance, sinkhorn_distance
from bayesmol.errors import ConvergenceError, DataError, ShapeError


def test_assignment_by_brute_force(normal):
    first, second = normal(6, 2), normal(6, 2)
    best = min(float((first - second[list(p)]).square().sum(1).mean()) for p in itertools.permutations(range(6)))
    assert float(assignment_distance(first, second)) == pytest.approx(math.sqrt(best))


def test_shifts_are_the_distance(normal):
    rows, shift = normal(60, 3), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    assert float(assignment_distance(rows, rows + shift)) == pytest.approx(float(shift.norm()))
    found = sinkhorn_distance(rows, rows + shift, regularisation=1.0)
    assert float(found) == pytest.approx(float(shift.norm()), rel=1e-4)
    assert float(sinkhorn_distance(rows, rows.flip(0), regularisation=1.0)) == pytest.approx(0, abs=1e-2)


def test_sinkhorn_tends_to_the_exact_distance(normal):
    first, second = normal(40, 2), 1.5 * normal(40, 2) + 1
    exact = float(assignment_distance(first, second))
    assert float(sinkhorn_distance(first, second, regularisation=0.2)) == pytest.approx(exact, rel=0.02)


def test_weights_are_copies(normal):
    first, second = normal(8, 2), normal(9, 2)
    weights = torch.tensor([2.0, 1, 1, 1, 0, 1, 1, 1])
    copies = first[[0, 0, 1, 2, 3, 5, 6, 7]]
    found = sinkhorn_distance(first, second, regularisation=0.5, weights=weights)
    torch.testing.assert_close(found, sinkhorn_distance(copies, second, regularisation=0.5), rtol=1e-4, atol=1e-6)


def test_along_the_circle(normal):
    rows = torch.stack([3 + 0.1 * normal(30), normal(30)], 1)
    turned = torch.stack([(rows[:, 0] + 0.2 + math.pi).remainder(2 * math.pi) - math.pi, rows[:, 1]], 1)
    periodic = torch.tensor([True, False])
    assert float(assignment_distance(rows, turned, periodic=periodic)) == pytest.approx(0.2)
    assert float(assignment_distance(rows, turned)) > 1
    assert float(sinkhorn_distance(rows, turned, regularisation=0.5, periodic=periodic)) == pytest.approx(0.2, rel=1e-2)


def test_bad_input(normal):
    with pytest.raises(ShapeError, match="sinkhorn_distance"):
        assignment_distance(normal(4, 2), normal(5, 2))
    with pytest.raises(DataError, match="pairs"):
        assignment_distance(torch.zeros(9000, 1), torch.zeros(9000, 1))
    with pytest.raises(DataError, match="finite"):
        assignment_distance(normal(4, 2) * math.nan, normal(4, 2))
    with pytest.raises(ShapeError, match="features"):
        sinkhorn_distance(normal(4, 2), normal(4, 3), regularisation=1.0)
    with pytest.raises(DataError, match="regularisation"):
        sinkhorn_distance(normal(4, 2), normal(4, 2), regularisation=0.0)
    with pytest.raises(ConvergenceError, match="raise regularisation"):
        sinkhorn_distance(normal(20, 2), normal(20, 2), regularisation=1e-3, iterations=20)
