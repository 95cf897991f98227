"""Basis functions against their definitions, and against the exact eigenfunctions that they contain."""

import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.representation.basis import Fourier, Identity, Indicators, Monomials

ALL = [Identity(), Monomials(3), Fourier(2), Indicators(centres=torch.eye(3, dtype=torch.float64))]


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: type(spec).__name__)
def test_says_how_many_functions_and_whether_one_combines_to_the_constant(normal, spec):
    x = normal(200, 3)
    basis = spec.fit(x, seed=0)
    values = basis(x)
    assert values.shape == (200, basis.functions)
    ones = torch.ones(200, 1, dtype=torch.float64)
    rest = (ones - values @ torch.linalg.pinv(values) @ ones).norm()
    assert basis.constant == bool(rest < 1e-8)


@pytest.mark.parametrize("spec", ALL, ids=lambda spec: type(spec).__name__)
def test_refuses_other_features(normal, spec):
    basis = spec.fit(normal(20, 3), seed=0)
    with pytest.raises(ShapeError, match="3"):
        basis(normal(20, 2))
    with pytest.raises(ShapeError):
        basis(normal(20))


def test_monomials_span_all_products_up_to_the_degree(normal):
    x = 5 + 2 * normal(300, 2)
    basis = Monomials(3).fit(x)
    raw = torch.stack([x[:, 0] ** i * x[:, 1] ** j for i in range(4) for j in range(4 - i)], 1)
    values = basis(x)
    assert basis.functions == 10 and torch.equal(values[:, 0], torch.ones(300, dtype=torch.float64))
    assert int(torch.linalg.matrix_rank(values)) == 10
    rest = raw - values @ torch.linalg.lstsq(values, raw).solution
    assert float(rest.abs().max() / raw.abs().max()) < 1e-12


def test_monomials_hold_the_hermite_functions_of_an_autoregression(normal):
    """E[He_k(x') | x] = ρᵏ He_k(x): the moments of pairs give ρ, ρ², ρ³."""
    rho, x, z = 0.9, normal(100_000, 1), normal(100_000, 1)
    later = rho * x + math.sqrt(1 - rho**2) * z
    basis = Monomials(3).fit(x)
    early, late = basis(x), basis(later)
    values = torch.linalg.eigvals(torch.linalg.solve(early.mT @ early, early.mT @ late)).real.sort(descending=True)
    torch.testing.assert_close(values.values, rho ** torch.arange(4.0, dtype=torch.float64), rtol=0.02, atol=0)


def test_a_constant_feature_is_no_division_by_zero(normal):
    x = torch.cat([normal(50, 1), torch.full((50, 1), 7.0, dtype=torch.float64)], 1)
    assert bool(torch.isfinite(Monomials(2).fit(x)(x)).all())


def test_fourier_is_periodic_and_ordered(normal):
    x = normal(40, 2)
    basis = Fourier(2).fit(x)
    torch.testing.assert_close(basis(x + 2 * math.pi), basis(x))
    wanted = torch.cat([x.cos(), x.sin(), (2 * x).cos(), (2 * x).sin()], 1)
    torch.testing.assert_close(basis(x), wanted)


def test_indicators_by_centres_and_by_edges_are_one_partition():
    x = torch.linspace(-3, 3, 101, dtype=torch.float64)[:, None]
    by_edges = Indicators(edges=torch.tensor([-1.0, 1.0], dtype=torch.float64)).fit(x)
    by_centres = Indicators(centres=torch.tensor([[-2.0], [0.0], [2.0]], dtype=torch.float64)).fit(x)
    inside = (x[:, 0].abs() - 1).abs() > 1e-9  # on an edge both are right
    assert torch.equal(by_edges(x)[inside], by_centres(x)[inside])
    assert torch.equal(by_edges(x).sum(1), torch.ones(101, dtype=torch.float64))
    assert by_edges.states(x)[0] == 0 and by_edges.states(x)[-1] == 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Monomials(0),
        lambda: Fourier(0),
        lambda: Indicators(),
        lambda: Indicators(centres=torch.eye(2), edges=torch.arange(3.0)),
        lambda: Indicators(edges=torch.tensor([1.0, 0.0])),
    ],
)
def test_refuses_what_makes_no_basis(wrong):
    with pytest.raises(DataError):
        wrong()
