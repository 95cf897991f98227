import math

import numpy as np
import pytest
import torch

from bayesmol.calibration.full import FullConformal
from bayesmol.calibration.regressors import GaussianProcess, Ridge
from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.testing import assert_calibrated


def kernel(a, b):
    return torch.exp(-0.5 * torch.cdist(a, b) ** 2)


def residuals(spec, inputs, truth):
    """Absolute residuals of a fit to all rows, by the normal equations."""
    if isinstance(spec, GaussianProcess):
        matrix = spec.kernel(inputs, inputs) + spec.noise * torch.eye(len(truth)).double()
        return (spec.noise * torch.linalg.solve(matrix, truth)).abs()
    centre, level = inputs.mean(0) * spec.intercept, truth.mean() * spec.intercept
    rows = inputs - centre
    weights = torch.linalg.solve(
        rows.T @ rows + spec.penalty * torch.eye(rows.shape[1]).double(), rows.T @ (truth - level)
    )
    return (truth - level - rows @ weights).abs()


def belongs(spec, inputs, truth, point, value, level):
    """Whether a candidate label is in the set, by refitting with it."""
    rows, labels = torch.cat([inputs, point[None]]), torch.cat([truth, truth.new_tensor([value])])
    found = residuals(spec, rows, labels)
    return int((found[:-1] < found[-1]).sum()) < math.ceil((len(truth) + 1) * level - 1e-9)


def check(spec, inputs, truth, points, level, grid):
    """Set against refits on a grid and on both sides of each end; returns how many pieces each point has."""
    rule = FullConformal().fit(spec, inputs, truth)
    interval, pieces = rule.interval(points, level), rule.pieces(points, level)
    for j, piece in enumerate(pieces):
        torch.testing.assert_close(piece[0, 0], interval.lower[j], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(piece[-1, 1], interval.upper[j], rtol=1e-12, atol=1e-12)
        ends = piece[piece.isfinite()]
        for end in ends.tolist():
            step = 1e-8 * max(1.0, abs(end))
            sides = [belongs(spec, inputs, truth, points[j], end + side, level) for side in (-step, step)]
            assert sorted(sides) == [False, True], "an end has the set on one side only"
        middle = float(rule.predict(points)[j])
        reach = 1.5 * float((ends - middle).abs().amax()) if len(ends) else 100.0
        for value in np.linspace(middle - reach, middle + reach, grid):
            inside = bool(((piece[:, 0] <= value) & (value <= piece[:, 1])).any())
            assert inside == belongs(spec, inputs, truth, points[j], value, level)
    return [len(piece) for piece in pieces]


@pytest.mark.parametrize(
    "spec",
    [Ridge(1.0), Ridge(0.1, intercept=False), Ridge(0.0), GaussianProcess(kernel, 0.1), GaussianProcess(kernel, 0.01)],
    ids=["ridge", "no-intercept", "least-squares", "process", "sharp-process"],
)
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_equals_refitting(normal, spec, level):
    inputs = normal(50, 3)
    truth = inputs[:, 0] + torch.sin(2 * inputs[:, 1]) + 0.3 * normal(50)
    points = torch.cat([normal(2, 3), 6 * normal(2, 3)])
    check(spec, inputs, truth, points, level, grid=40)


def test_unions_equal_refitting(normal):
    # Few rows, one far out, and new points far out: the new label can pull the fit away from other labels.
    found = []
    for _ in range(8):
        inputs, truth = normal(8, 2), normal(8) * torch.tensor([1.0, 1, 1, 1, 9, 9, 9, 9]).double()
        inputs[0] *= 6
        for level in (0.3, 0.7):
            found += check(Ridge(0.05), inputs, truth, 4 * normal(3, 2), level, grid=60)
    assert max(found) >= 3 and found.count(1) > 20


def test_a_process_with_a_linear_kernel_is_ridge(normal):
    inputs, truth, points = normal(40, 3), normal(40), normal(9, 3)
    ridge = FullConformal().fit(Ridge(0.7, intercept=False), inputs, truth)
    process = FullConformal().fit(GaussianProcess(lambda a, b: a @ b.T, 0.7), inputs, truth)
    torch.testing.assert_close(ridge.predict(points), process.predict(points), rtol=1e-9, atol=1e-9)
    for level in (0.3, 0.9):
        first, second = ridge.interval(points, level), process.interval(points, level)
        torch.testing.assert_close(first.lower, second.lower, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(first.upper, second.upper, rtol=1e-8, atol=1e-8)


def test_many_points_are_cut_into_parts(normal, monkeypatch):
    inputs, truth, points = normal(30, 2), normal(30), 5 * normal(40, 2)
    rule = FullConformal().fit(Ridge(), inputs, truth)
    whole = rule.interval(points, 0.8)
    monkeypatch.setattr("bayesmol.calibration.full.ENTRIES", 100)
    torch.testing.assert_close(rule.interval(points, 0.8).upper, whole.upper)
    torch.testing.assert_close(rule.interval(points, 0.8).lower, whole.lower)


def test_coverage_is_exact(normal):
    # 19 rows at level 0.9: rank 18 of 20, so 0.9 exactly, whatever the noise; one new label a data set
    hits, trials = 0, 1000
    for _ in range(trials):
        inputs, noise = normal(20, 2), normal(20) ** 3
        truth = inputs.sum(1) + noise
        rule = FullConformal().fit(Ridge(), inputs[:19], truth[:19])
        hits += int(rule.interval(inputs[19:], 0.9).contains(truth[19:]).sum())
    assert_calibrated(hits, trials, 0.9, confidence=0.999)


def test_labels_without_residual(normal):
    # A perfect linear law: only its value is as good as the others, and a constant leaves no residual either.
    inputs, points = normal(20, 2), normal(3, 2)
    interval = FullConformal().fit(Ridge(0.0), inputs, torch.zeros(20).double()).interval(points, 0.9)
    assert torch.equal(interval.lower, torch.zeros(3).double()) and torch.equal(interval.upper, interval.lower)


def test_small_samples_and_sentences(normal):
    inputs, truth, points = normal(8, 1), normal(8), normal(3, 1)
    rule = FullConformal().fit(Ridge(), inputs, truth, unit="eV")
    interval = rule.interval(points, 0.9)
    assert bool(interval.width.isinf().all()) and interval.unit == "eV"
    assert "needs n ≥ 9" in interval.guarantee and "got 8" in interval.guarantee
    assert rule.pieces(points, 0.9)[0].tolist() == [[-math.inf, math.inf]]
    assert "≥ 0.8 if" in rule.interval(points, 0.8).guarantee
    assert rule.interval(points.float(), 0.8).lower.dtype == torch.float32


def test_bad_input(normal):
    inputs, truth = normal(10, 2), normal(10)
    with pytest.raises(DataError, match="Ridge or a GaussianProcess"):
        FullConformal().fit(object(), inputs, truth)
    with pytest.raises(ShapeError, match="inputs, truth"):
        FullConformal().fit(Ridge(), inputs, truth[:4])
    with pytest.raises(DataError, match="finite"):
        FullConformal().fit(Ridge(), inputs, truth * math.inf)
    with pytest.raises(ConvergenceError, match="full rank"):
        FullConformal().fit(Ridge(0.0), normal(10, 12), truth)
    with pytest.raises(DataError, match="level"):
        FullConformal().fit(Ridge(), inputs, truth).interval(inputs, 1.0)
