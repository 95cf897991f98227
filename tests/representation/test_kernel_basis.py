"""Kernel bases against the Gaussian kernel that they stand for."""

import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.representation.kernel_basis import Nystroem, RandomFourier, median_distance


def gaussian(x, y, bandwidth):
    return torch.exp(torch.cdist(x, y).square() / (-2 * bandwidth**2))


def test_nystroem_gives_the_kernel_exactly_where_its_points_are(normal):
    x = normal(60, 2)
    basis = Nystroem(60, 1.5).fit(x, seed=0)
    values = basis(x)
    assert basis.constant and torch.equal(values[:, 0], torch.ones(60, dtype=torch.float64))
    torch.testing.assert_close(values[:, 1:] @ values[:, 1:].mT, gaussian(x, x, 1.5), rtol=0, atol=1e-9)


def test_nystroem_functions_are_a_projection_elsewhere(normal):
    basis, x = Nystroem(30, 1.0).fit(normal(500, 2), seed=1), normal(200, 2)
    values = basis(x)[:, 1:]
    missing = gaussian(x, x, 1.0) - values @ values.mT
    assert float(torch.linalg.eigvalsh(missing).min()) > -1e-9


def test_infinite_bandwidth_is_the_linear_kernel_and_the_limit(normal):
    x, more = normal(80, 3), normal(20, 3)
    linear = Nystroem(80, math.inf).fit(x, seed=0)
    assert linear.functions == 4  # the constant and as many as features
    centred = more - x.mean(0)
    values = linear(more)[:, 1:]
    torch.testing.assert_close(values @ values.mT, centred @ centred.mT)
    wide = gaussian(more, more, 1e4)
    centring = torch.eye(20, dtype=torch.float64) - 1 / 20
    torch.testing.assert_close(
        1e8 * centring @ wide @ centring, centring @ more @ more.mT @ centring, rtol=0, atol=1e-5
    )


def test_equal_frames_lower_the_rank_and_do_no_harm(normal):
    x = normal(10, 2).repeat(3, 1)
    basis = Nystroem(30, 1.0).fit(x, seed=0)
    assert basis.functions == 11 and bool(torch.isfinite(basis(x)).all())


def test_random_waves_tend_to_the_kernel(normal):
    x = normal(50, 2)
    basis = RandomFourier(20_000, 1.3).fit(x, seed=0)
    values = basis(x)
    assert basis.functions == 20_001 and basis.constant
    torch.testing.assert_close(values[:, 1:] @ values[:, 1:].mT, gaussian(x, x, 1.3), rtol=0, atol=0.05)


@pytest.mark.parametrize("spec", [Nystroem(20), RandomFourier(20)])
def test_same_seed_same_functions_and_bandwidth_follows_the_unit(normal, spec):
    x = normal(300, 2)
    torch.testing.assert_close(spec.fit(x, seed=3)(x), spec.fit(x, seed=3)(x), rtol=0, atol=0)
    assert not torch.equal(spec.fit(x, seed=3)(x), spec.fit(x, seed=4)(x))
    torch.testing.assert_close(spec.fit(10 * x, seed=3)(10 * x), spec.fit(x, seed=3)(x), rtol=1e-6, atol=1e-6)


def test_median_distance(normal):
    x = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    assert median_distance(x, seed=0) == 2.0
    assert median_distance(normal(5000, 1), seed=0) == pytest.approx(0.9539, rel=0.05)  # √2 · 0.6745
    with pytest.raises(DataError, match="bandwidth"):
        median_distance(torch.ones(9, 2), seed=0)


def test_refuses_what_makes_no_kernel():
    for wrong in (
        lambda: Nystroem(0),
        lambda: Nystroem(5, -1.0),
        lambda: RandomFourier(0),
        lambda: RandomFourier(5, 0.0),
    ):
        with pytest.raises(DataError):
            wrong()
