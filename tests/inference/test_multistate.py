"""MBAR: closed forms, Bennett's ratio with two states, pymbar, coverage, states without draws or overlap."""

import importlib.util
import json
import math
import subprocess
import sys

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.bridge import free_energy_difference
from bayesmol.inference.multistate import multistate
from bayesmol.testing import assert_calibrated

STIFF = torch.tensor([1.0, 2.0, 4.0, 7.0]).double()
PLACE = torch.tensor([0.0, 0.5, 1.0, 1.2]).double()
EXACT = (STIFF / STIFF[0]).log() / 2
COUNTS = torch.tensor([300.0, 500.0, 200.0, 400.0])
ORACLE = """
import json, sys
sys.modules["jax"] = None  # it would take seconds to import
import numpy
from pymbar import MBAR
del sys.modules["jax"]
reduced, counts, observable = map(numpy.array, json.load(sys.stdin))
found = MBAR(reduced, counts.astype(int))
free, means = found.compute_free_energy_differences(), found.compute_expectations(observable)
overlap = found.compute_overlap()["matrix"]
print(json.dumps([v.tolist() for v in (free["Delta_f"], free["dDelta_f"], means["mu"], means["sigma"], overlap)]))
"""


def springs(source, counts=COUNTS):
    """Draws of four springs and the energy of each spring at all of them."""
    parts = [torch.randn(int(n), generator=source, dtype=torch.float64) for n in counts]
    x = torch.cat([c + part / k.sqrt() for part, k, c in zip(parts, STIFF, PLACE, strict=True)])
    return x, STIFF.unsqueeze(1) * (x - PLACE.unsqueeze(1)).square() / 2


def test_springs(source):
    x, reduced = springs(source, 20 * COUNTS)
    found = multistate(reduced, 20 * COUNTS)
    assert bool(((found.free_energies.value - EXACT).abs() < 2.5 * found.free_energies.standard_error + 1e-12).all())
    for state in range(4):
        mean = found.expectation(x, reduced[state])
        assert abs(float(mean.value - PLACE[state])) < 3 * float(mean.standard_error)
    torch.testing.assert_close(found.overlap.sum(1), torch.ones(4).double())


@pytest.mark.skipif(importlib.util.find_spec("pymbar") is None, reason="pymbar is not installed")
def test_as_pymbar(source):
    x, reduced = springs(source)
    found = multistate(reduced, COUNTS)
    given = json.dumps([reduced.tolist(), COUNTS.tolist(), x.tolist()])
    command = [sys.executable, "-W", "ignore", "-c", ORACLE]
    result = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    free, errors, means, spreads, overlap = (
        torch.tensor(v).double() for v in json.loads(result.stdout.split("\n")[-2])
    )
    close = {"rtol": 1e-6, "atol": 1e-6, "check_dtype": False}
    torch.testing.assert_close(found.free_energies.value, free[0], **close)
    torch.testing.assert_close(found.free_energies.standard_error, errors[0], **close)
    torch.testing.assert_close(found.free_energy_difference(1, 3).standard_error, errors[1, 3], **close)
    torch.testing.assert_close(found.overlap, overlap, **close)
    mine = [found.expectation(x, energy) for energy in reduced]
    torch.testing.assert_close(torch.stack([m.value for m in mine]), means, **close)
    torch.testing.assert_close(torch.stack([m.standard_error for m in mine]), spreads, **close)


@pytest.mark.parametrize("effective", [None, (100.0, 250.0)])
def test_two_states_are_bennetts_ratio(source, effective):
    _, reduced = springs(source)
    reduced = reduced[:2, :800]
    worth = None if effective is None else torch.tensor(effective)
    found = multistate(reduced, COUNTS[:2], effective=worth).free_energy_difference(0, 1)
    work = reduced[1] - reduced[0]
    want = free_energy_difference(work[:300], -work[300:], effective=effective)
    assert float(found.value) == pytest.approx(float(want.value), abs=1e-8)
    # The two asymptotic variances have the same limit.
    assert float(found.standard_error) == pytest.approx(float(want.standard_error), rel=5e-3)


def test_a_state_without_draws_and_one_that_is_none_of_them(source):
    x, reduced = springs(source)
    counts = torch.tensor([*COUNTS.tolist(), 0.0])
    extra = 3.0 * (x - 0.7).square() / 2
    found = multistate(torch.cat([reduced, extra.unsqueeze(0)]), counts)
    alone = multistate(reduced, COUNTS)
    torch.testing.assert_close(found.values[:4], alone.values, rtol=0, atol=1e-8)
    last = found.free_energies
    assert abs(float(last.value[4]) - math.log(3) / 2) < 3 * float(last.standard_error[4])
    mean = found.expectation(x, extra)
    assert abs(float(mean.value) - 0.7) < 3 * float(mean.standard_error)


def test_constants_and_an_offset_of_one_state_move_only_its_free_energy(source):
    _, reduced = springs(source)
    moved = multistate(reduced + torch.tensor([0.0, 500.0, -300.0, 0.0]).double().unsqueeze(1), COUNTS)
    want = multistate(reduced, COUNTS).values + torch.tensor([0.0, 500.0, -300.0, 0.0])
    torch.testing.assert_close(moved.values, want, rtol=0, atol=1e-6)


def test_infinite_energies(source):
    """A state that is the right half of the first: half of its partition function."""
    x = torch.randn(4000, generator=source, dtype=torch.float64)
    x[2000:] = x[2000:].abs()
    reduced = torch.stack([x.square() / 2, torch.where(x >= 0, x.square() / 2, math.inf)])
    found = multistate(reduced, torch.tensor([2000.0, 2000.0])).free_energies
    assert abs(float(found.value[1]) - math.log(2)) < 3 * float(found.standard_error[1])


def test_without_overlap(source):
    y = torch.cat([torch.randn(700, generator=source), torch.randn(700, generator=source) + 100]).double()
    far = torch.stack([y.square() / 2, (y - 100).square() / 2])
    with pytest.raises(ConvergenceError, match="states"):
        multistate(far, torch.tensor([700.0, 700.0]))


def test_bad_input(source):
    x, reduced = springs(source)
    with pytest.raises(ShapeError, match="add up"):
        multistate(reduced, COUNTS + 1)
    with pytest.raises(ShapeError, match="counts"):
        multistate(reduced, COUNTS[:3])
    with pytest.raises(DataError, match="own state"):
        multistate(torch.where(torch.arange(1400) == 0, math.inf, reduced), COUNTS)
    with pytest.raises(DataError, match="effective"):
        multistate(reduced, COUNTS, effective=COUNTS + 1)
    with pytest.raises(ShapeError, match="observable"):
        multistate(reduced, COUNTS).expectation(x[:5], reduced[0])


@pytest.mark.slow
def test_intervals_cover(source):
    trials, hits, means = 600, 0, 0
    for _ in range(trials):
        x, reduced = springs(source)
        found = multistate(reduced, COUNTS)
        last = found.free_energy_difference(1, 3)
        hits += bool(abs(float(last.value - EXACT[3] + EXACT[1])) < 1.96 * float(last.standard_error))
        mean = found.expectation(x, reduced[2])
        means += bool(abs(float(mean.value - PLACE[2])) < 1.96 * float(mean.standard_error))
    assert_calibrated(hits, trials, 0.95)
    assert_calibrated(means, trials, 0.95)
