"""Weighted draws of a fitted generator, the verdict they carry, and files."""

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.autoregressive import Autoregressive
from bayesmol.flows.coordinates import Cartesian, Composed
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.fitted import FittedGenerator, checked_rows
from bayesmol.flows.training import Training
from bayesmol.flows.whitened import whitening

ARCHITECTURE = Autoregressive(width=8, bins=4)
TRAINING = Training(3, 10, "a test", loss=((3, 0.5),))


def quadratic(x):
    return x.square().sum(1) / 2


def fitted(density=None, shift=0.0):
    """The base itself, whitened by a sample of two normal numbers about ``shift``."""
    density = density or BoltzmannDensity(quadratic, 2, name="normal")
    rows = shift + torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)).double()
    plain = Cartesian(2)
    system = Composed([plain, whitening(rows, plain.circular)])
    flow = ARCHITECTURE.build(system.circular, seed=5).double().requires_grad_(False)
    return FittedGenerator(density, system, (flow,), (TRAINING,), ARCHITECTURE, (5,), reference=rows[:400])


def test_a_right_flow_is_green_and_right():
    generator = fitted()
    draws = generator.sample(20_000, seed=0)
    assert draws.verdict == ("green", ())
    value = draws.log_partition
    assert abs(float(value.value) - 1.8378770664) < 4 * float(value.standard_error)
    assert generator.trust is generator.trust


def test_a_flow_elsewhere_gives_no_number():
    draws = fitted(shift=6.0).sample(2000, seed=0)
    assert draws.verdict[0] == "red"
    estimate = draws.expectation()
    assert torch.isnan(estimate.value).all()
    assert torch.isinf(estimate.interval(0.95).width).all()
    assert "not known" in str(estimate)


def test_draws_in_chunks_are_reproducible():
    one, two = (fitted().weighted(9000, seed=3) for _ in range(2))
    assert torch.equal(one[0], two[0])
    torch.testing.assert_close(one[1], -quadratic(one[0]) - fitted().log_prob(one[0]))


def test_files_hold_all_but_a_python_energy(tmp_path):
    generator = fitted()
    bm.save(generator, tmp_path / "normal.bm")
    loaded = bm.load(tmp_path / "normal.bm")
    assert loaded.trainings == generator.trainings
    torch.testing.assert_close(loaded.reference, generator.reference)
    with pytest.raises(DataError, match="on\\(density\\)"):
        loaded.weighted(10, seed=0)
    again = loaded.on(generator.density)
    assert torch.equal(again.weighted(100, seed=1)[1], generator.weighted(100, seed=1)[1])


def test_another_density_is_judged_anew():
    generator = fitted()
    hot = generator.at(1.1)
    assert hot.reference is None
    assert hot.density.temperature == 1.1
    with pytest.raises(ShapeError, match="density"):
        generator.on(BoltzmannDensity(quadratic, 3))


def test_rows_are_checked_and_centred():
    density = BoltzmannDensity(quadratic, 6, shape=(2, 3), space=3)
    rows = checked_rows(torch.rand(4, 2, 3), density)
    torch.testing.assert_close(rows.unflatten(1, (2, 3)).mean(1), torch.zeros(4, 3, dtype=torch.float64))
    with pytest.raises(ShapeError, match="samples"):
        checked_rows(torch.rand(4, 5), density)
    with pytest.raises(DataError, match="finite"):
        checked_rows(torch.full((4, 6), torch.inf), density)
