"""Invariant products: their number, their symmetry and their independence."""

import pytest
import torch
from sphericart.torch import SphericalHarmonics

from bayesmol.errors import DataError
from bayesmol.representation.couplings import block, couplings
from bayesmol.representation.polynomials import products


def densities(points, weights, degree):
    """Density projections (draws, lm) of weighted points (draws, points, 3), from the library of harmonics itself."""
    harmonics = SphericalHarmonics(degree).compute(points.reshape(-1, 3)).reshape(*points.shape[:2], -1)
    return (weights.unsqueeze(-1) * harmonics).sum(1)


def rotation(normal):
    matrix, _ = torch.linalg.qr(normal(3, 3))
    return matrix * torch.linalg.det(matrix).sign()


@pytest.mark.parametrize(
    ("degree", "numbers"), [(0, [1, 1, 1, 1]), (1, [1, 2, 2, 3]), (2, [1, 3, 5, 9]), (3, [1, 4, 8, 23])]
)
def test_numbers_of_invariants_by_order(degree, numbers):
    """Known dimensions: rotation- and inversion-invariant polynomials of one density."""
    orders = couplings(degree, 4).orders
    assert [int((orders == order).sum()) for order in (1, 2, 3, 4)] == numbers
    assert torch.equal(orders, orders.sort().values)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["rotation", "inversion"])
@pytest.mark.parametrize("degree", [2, 3])
def test_values_are_invariant(normal, degree, sign):
    points, weights = normal(6, 5, 3), normal(6, 5)
    listed = couplings(degree, 4)
    before, _ = products(densities(points, weights, degree), listed)
    for _ in range(3):
        turned = sign * points @ rotation(normal).mT
        after, _ = products(densities(turned, weights, degree), listed)
        torch.testing.assert_close(after, before, rtol=1e-10, atol=1e-10)
    assert (
        densities(sign * points @ rotation(normal).mT, weights, degree) - densities(points, weights, degree)
    ).norm() > 1


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_invariants_are_linearly_independent_and_not_zero(normal, degree):
    values, _ = products(normal(600, (degree + 1) ** 2), couplings(degree, 4))
    singular = torch.linalg.svdvals(values / values.norm(dim=0))
    assert len(singular) == values.shape[1] and float(singular[-1]) > 1e-3


def test_each_order_is_homogeneous(normal):
    """Doubling the density multiplies an invariant of order n by 2ⁿ."""
    listed, density = couplings(3, 4), normal(4, 16)
    once, twice = products(density, listed)[0], products(2 * density, listed)[0]
    torch.testing.assert_close(twice, once * 2.0**listed.orders, rtol=1e-12, atol=1e-12)


def test_order_two_is_the_power_spectrum(normal):
    density = normal(5, 16)
    values, _ = products(density, couplings(3, 4).only(2))
    for degree in range(4):
        power = density[:, block(degree)].square().sum(1)
        torch.testing.assert_close(values[:, degree].abs(), power / (2 * degree + 1) ** 0.5)


@pytest.mark.parametrize("orders", [(1, 2), (3,), (4,), (2, 4)])
def test_only_selects_the_same_values(normal, orders):
    listed, density = couplings(3, 4), normal(4, 16)
    part = listed.only(*orders)
    chosen = torch.isin(listed.orders, torch.tensor(orders))
    assert torch.equal(part.orders, listed.orders[chosen]) and part.degree == 3
    whole, gradient = products(density, listed)
    values, slopes = products(density, part)
    torch.testing.assert_close(values, whole[:, chosen], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(slopes, gradient[..., chosen], rtol=1e-13, atol=1e-13)
    assert part.only(1 if 1 in orders else orders[0]).orders.unique().numel() == 1


def test_lower_correlation_is_a_prefix():
    assert couplings(2, 3).invariants == couplings(2, 4).only(1, 2, 3).invariants


@pytest.mark.parametrize(("degree", "correlation"), [(-1, 3), (7, 3), (2, 0), (2, 5)])
def test_bad_degree_or_correlation(degree, correlation):
    with pytest.raises(DataError, match="degree"):
        couplings(degree, correlation)
