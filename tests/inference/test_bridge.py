"""Bennett's acceptance ratio: closed forms, pymbar, coverage, no overlap."""

import importlib.util
import json
import math
import subprocess
import sys

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.bridge import free_energy_difference
from bayesmol.testing import assert_calibrated

ORACLE = """
import json, sys
sys.modules["jax"] = None  # it would take seconds to import
from pymbar.other_estimators import bar
forward, reverse = json.load(sys.stdin)
import numpy
found = bar(numpy.array(forward), numpy.array(reverse))
print(json.dumps([found["Delta_f"], found["dDelta_f"]]))
"""


def springs(source, first=1.0, second=4.0, forward=500, reverse=800):
    """Work between two springs of these constants; the difference is ln(k2/k1)/2."""
    x = torch.randn(forward, generator=source, dtype=torch.float64) / first**0.5
    y = torch.randn(reverse, generator=source, dtype=torch.float64) / second**0.5
    return (second - first) * x.square() / 2, (first - second) * y.square() / 2


def test_springs(source):
    found = free_energy_difference(*springs(source, forward=20_000, reverse=10_000))
    assert abs(float(found.value) - math.log(2)) < 2 * float(found.standard_error)
    assert float(found.standard_error) < 0.01


@pytest.mark.skipif(importlib.util.find_spec("pymbar") is None, reason="pymbar is not installed")
def test_as_pymbar(source):
    works = springs(source)
    found = free_energy_difference(*works)
    given = json.dumps([work.tolist() for work in works])
    command = [sys.executable, "-W", "ignore", "-c", ORACLE]
    result = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    value, error = json.loads(result.stdout.splitlines()[-1])
    assert float(found.value) == pytest.approx(value, abs=1e-9)
    assert float(found.standard_error) == pytest.approx(error, rel=1e-6)


def test_symmetry_and_shift(source):
    forward, reverse = springs(source)
    there, back = free_energy_difference(forward, reverse), free_energy_difference(reverse, forward)
    assert float(there.value) == pytest.approx(-float(back.value), abs=1e-9)
    moved = free_energy_difference(forward + 1000.0, reverse - 1000.0)
    assert float(moved.value) == pytest.approx(float(there.value) + 1000.0, abs=1e-7)
    assert float(moved.standard_error) == pytest.approx(float(there.standard_error), rel=1e-7)


def test_infinite_work_is_a_draw_without_overlap(source):
    """Half of the draws of A have no density in B: the difference is larger by ln 2."""
    forward, reverse = springs(source, 1.0, 1.0 + 1e-9, 20_000, 20_000)
    forward[::2] = math.inf
    found = free_energy_difference(forward, reverse)
    assert abs(float(found.value) - math.log(2)) < 3 * float(found.standard_error)


def test_fewer_independent_works_widen_the_error(source):
    works = springs(source)
    plain, worth = (free_energy_difference(*works, effective=n) for n in (None, (125.0, 200.0)))
    assert float(worth.value) == pytest.approx(float(plain.value), abs=1e-9)
    assert float(worth.standard_error) == pytest.approx(2 * float(plain.standard_error), rel=1e-9)


def test_without_overlap():
    far = torch.full((100,), 200.0).double() + torch.arange(100).double() / 10
    with pytest.raises(ConvergenceError, match="intermediate"):
        free_energy_difference(far, far)
    with pytest.raises(ConvergenceError, match="intermediate"):
        free_energy_difference(torch.full((100,), math.inf).double(), far)
    with pytest.raises(ConvergenceError, match="5 in common"):
        free_energy_difference(torch.zeros(1).double(), torch.zeros(1000).double())


def test_bad_works():
    good = torch.zeros(10).double()
    with pytest.raises(ShapeError, match="reverse"):
        free_energy_difference(good, good[:0])
    with pytest.raises(DataError, match="forward"):
        free_energy_difference(good * math.nan, good)
    with pytest.raises(DataError, match="effective"):
        free_energy_difference(good, good, effective=(11.0, 10.0))


@pytest.mark.slow
def test_intervals_cover(source):
    trials, hits = 2000, 0
    for _ in range(trials):
        found = free_energy_difference(*springs(source, forward=200, reverse=300))
        hits += bool(abs(float(found.value) - math.log(2)) < 1.96 * float(found.standard_error))
    assert_calibrated(hits, trials, 0.95)
    assert 0.93 <= hits / trials <= 0.97
