"""Radial functions: derivatives, envelopes and bad input."""

import pytest
import torch
from numpy.polynomial import chebyshev

import bayesmol as bm
from bayesmol.errors import DataError
from bayesmol.representation.radial import RadialBasis, covalent_radii, element_counts, smoothstep, species_index

CONTACT = 1.4


def at(basis, distances, contact=CONTACT):
    return basis(distances, torch.full_like(distances, contact))


@pytest.mark.parametrize("basis", [RadialBasis(), RadialBasis(5.5, 12, 1.5, (0.3, 0.9)), RadialBasis(size=2)])
def test_derivatives_by_finite_differences(basis):
    distances = torch.linspace(0.55, basis.cutoff + 0.2, 97, dtype=torch.float64)
    step = 1e-5
    numeric = (at(basis, distances + step)[0] - at(basis, distances - step)[0]) / (2 * step)
    torch.testing.assert_close(at(basis, distances)[1], numeric, rtol=1e-7, atol=1e-7)


def test_derivatives_where_the_stretch_ends():
    """Below 0.5 Å the argument stays at 1; the inner envelope of hydrogen still changes there."""
    distances = torch.linspace(0.26, 0.49, 13, dtype=torch.float64)
    basis, step = RadialBasis(), 1e-6
    values, slopes = at(basis, distances, 0.62)
    numeric = (at(basis, distances + step, 0.62)[0] - at(basis, distances - step, 0.62)[0]) / (2 * step)
    torch.testing.assert_close(slopes, numeric, rtol=1e-7, atol=1e-7)
    assert float(values.abs().max()) > 0.1


def test_vanishes_at_the_cutoff_and_below_contact():
    basis = RadialBasis()
    edge = torch.tensor([4.0, 4.5, 0.1, basis.inner[0] * CONTACT], dtype=torch.float64)
    values, slopes = at(basis, edge)
    assert float(values.abs().max()) < 1e-15 and float(slopes.abs().max()) < 1e-14
    near, _ = at(basis, torch.tensor([3.999, basis.inner[0] * CONTACT + 1e-3], dtype=torch.float64))
    assert bool((near.abs().max(1).values > 0).all()) and float(near.abs().max()) < 1e-5


def test_is_a_chebyshev_polynomial_between_the_envelopes():
    basis = RadialBasis(cutoff=4.0, size=6)
    distances = torch.linspace(CONTACT * 0.75, 3.9, 20, dtype=torch.float64)
    values = at(basis, distances)[0] / (1 - distances**2 / 16).square()[:, None]
    torch.testing.assert_close(values[:, 0], torch.ones(20, dtype=torch.float64))
    expected = torch.from_numpy(chebyshev.chebvander(values[:, 1].numpy(), 5))
    torch.testing.assert_close(values, expected)
    assert bool((values[:, 1].diff() < 0).all()) and -1 < float(values[-1, 1]) < float(values[0, 1]) < 1


def test_smoothstep():
    ends = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    values, slopes = smoothstep(ends)
    assert values.tolist() == [0, 0, 0.5, 1, 1] and slopes.tolist() == [0, 0, 1.875, 0, 0]
    inside = torch.linspace(0.01, 0.99, 21, dtype=torch.float64, requires_grad=True)
    values, slopes = smoothstep(inside)
    (found,) = torch.autograd.grad(values.sum(), inside, create_graph=True)
    torch.testing.assert_close(slopes, found)
    assert bool((values.diff() > 0).all())
    curvature = (smoothstep(torch.tensor([1e-6, 1 - 1e-6], dtype=torch.float64))[1]) / 1e-6
    assert float(curvature.abs().max()) < 1e-4


def test_covalent_radii():
    torch.testing.assert_close(covalent_radii(torch.tensor([1, 6, 8])), torch.tensor([0.31, 0.76, 0.66]).double())


def test_species_index():
    assert species_index(torch.tensor([8, 1, 6, 1]), (1, 6, 8)).tolist() == [2, 0, 1, 0]
    with pytest.raises(DataError, match=r"\[7, 9\]"):
        species_index(torch.tensor([9, 1, 7, 9]), (1, 6, 8))


def test_elements_are_counted():
    structures = bm.data.load("rmd17/ethanol")[:2].structures
    assert element_counts(structures, (1, 6, 8)).tolist() == [[6, 2, 1]] * 2
    assert element_counts(structures, (1, 6, 7, 8))[0].tolist() == [6, 2, 0, 1]
    with pytest.raises(DataError, match="elements"):
        element_counts(structures, (1, 6))


@pytest.mark.parametrize("bad", [{"cutoff": 0.0}, {"cutoff": -1.0}, {"scale": 0.0}, {"size": 1}, {"inner": (0.7, 0.4)}])
def test_bad_basis(bad):
    with pytest.raises(DataError, match=r"radial basis|inner"):
        RadialBasis(**bad)
