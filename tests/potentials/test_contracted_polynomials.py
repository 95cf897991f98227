"""Contracted polynomials against the sum of the invariants one by one."""

import pytest
import torch

from bayesmol.potentials.contracted_polynomials import BLOCK, Cubic, Quartic
from bayesmol.representation.couplings import couplings
from bayesmol.representation.polynomials import products


@pytest.mark.parametrize(("kind", "degree"), [(Cubic, 4), (Cubic, 1), (Quartic, 3), (Quartic, 1)])
def test_gradient_is_that_of_the_weighted_invariants(kind, degree, normal):
    own = couplings(degree, 4).only(kind.order)
    density, weights = normal(3 * 4, (degree + 1) ** 2, 5), normal(3, 2, 4, len(own.invariants))
    polynomial = kind.of(own, weights)
    values, gradient = products(density.transpose(1, 2), own)
    for element in range(2):
        each = weights[:, element].flatten(0, 1)
        want = torch.einsum("knmp,kp->kmn", gradient, each)
        got = polynomial.gradient(density, element)
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12 * float(want.abs().max()))
        energy = torch.einsum("knp,kp->kn", values, each)
        torch.testing.assert_close((density * got).sum(1) / kind.order, energy, rtol=0, atol=1e-10)


def test_blocks_do_not_matter(normal, monkeypatch):
    own = couplings(2, 4).only(4)
    polynomial = Quartic.of(own, normal(1, 1, 6, len(own.invariants)))
    density = normal(6, 9, 4)
    whole = polynomial.gradient(density, 0)
    monkeypatch.setitem(BLOCK, "cpu", 1)
    torch.testing.assert_close(polynomial.gradient(density, 0), whole, rtol=0, atol=1e-13)
