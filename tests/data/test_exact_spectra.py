"""Tests of the exact spectra: closed forms, known numbers, identities."""

import math

import pytest
import torch

from bayesmol.data import exact_spectra
from bayesmol.data.exact import Landscape, double_well, prinz, quadruple_well
from bayesmol.data.exact_chains import hermite_eigenfunctions
from bayesmol.data.exact_spectra import euler_chain, generator_spectrum
from bayesmol.errors import DataError, ShapeError


def parabola(diffusion=1.0):
    return Landscape(lambda points: points[:, 0] ** 2 / 2, (-8.0,), (8.0,), diffusion=diffusion)


def relaxations(matrix, lag, count=3):
    values = torch.linalg.eigvals(matrix).real.sort(descending=True).values
    return -lag / values[1 : count + 1].log()


@pytest.fixture(scope="module")
def states():
    """Borders of 30 states: 28 equal ones from −1 to 1 and the two outer ones."""
    return torch.linspace(-1, 1, 29, dtype=torch.float64)


@pytest.fixture(scope="module")
def chain(states):
    return euler_chain(prinz(), breaks=[states])


def test_generator_of_a_parabola_has_whole_rates_and_hermite_functions():
    spectrum = generator_spectrum(parabola(2.0), 4, cells=2000)
    torch.testing.assert_close(spectrum.rates, torch.tensor([0.0, 2.0, 4.0, 6.0]).double(), rtol=1e-4, atol=1e-9)
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)
    want = hermite_eigenfunctions(x, 3)
    got = spectrum.eigenfunctions(x[:, None])
    signs = (got * want).sum(0).sign()
    torch.testing.assert_close(got * signs, want, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(spectrum.eigenvalues(0.5), torch.exp(-0.5 * spectrum.rates))


def test_generator_has_the_known_timescales():
    slow = generator_spectrum(prinz(), 4).timescales
    torch.testing.assert_close(slow, torch.tensor([0.8340, 0.12677, 0.06510]).double(), rtol=1e-4, atol=0)
    assert float(generator_spectrum(double_well(), 2).rates[1]) == pytest.approx(0.05552, abs=5e-6)


def test_generator_in_the_plane_adds_the_rates_of_its_axes():
    plane = generator_spectrum(quadruple_well(), 4, cells=60)
    lines = []
    for depth, tilt, end in ((3, 0.4, 2.05), (2, 0.2, 2.2)):
        line = Landscape(lambda p, d=depth, t=tilt: d * (p[:, 0] ** 2 - 1) ** 2 + t * p[:, 0], (-end,), (end,))
        lines.append(generator_spectrum(line, 4, cells=60).rates)
    want = (lines[0][:, None] + lines[1]).flatten().sort().values[:4]
    torch.testing.assert_close(plane.rates, want, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(plane.density.sum(), torch.tensor(1.0).double())
    inside = plane.eigenfunctions(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]).double())
    assert inside.shape == (2, 4) and float((inside[:, 0] - 1).abs().max()) < 1e-6


def test_chain_in_a_parabola_is_autoregressive():
    # One step is x' = (1 − h) x + sqrt(2 h) e, whose eigenvalues are the powers of 1 − h.
    h, steps = 0.05, 3
    exact = euler_chain(parabola(), step=h, steps=steps)
    want = (1 - h) ** (steps * torch.arange(5).double())
    torch.testing.assert_close(exact.eigenvalues(5).real, want, rtol=1e-8, atol=0)
    x, variance = exact.points[:, 0], 2 * h / (1 - (1 - h) ** 2)
    assert float((exact.stationary * x**2).sum()) == pytest.approx(variance, rel=1e-9)
    at = torch.linspace(-2, 2, 7, dtype=torch.float64)
    got = exact.eigenfunctions(at[:, None], 4)
    want = hermite_eigenfunctions(at, 3, variance)
    torch.testing.assert_close(got * (got * want).sum(0).sign(), want, rtol=1e-4, atol=1e-4)


def test_chain_has_the_known_timescales(chain):
    torch.testing.assert_close(
        chain.timescales() * 5e-3, torch.tensor([0.8371, 0.1267, 0.0650]).double(), rtol=0, atol=5.1e-5
    )
    torch.testing.assert_close(chain.timescales(), torch.tensor([167.42, 25.34, 13.01]).double(), rtol=0, atol=5.1e-3)
    coarse = euler_chain(prinz(), step=1e-3, steps=1).timescales() * 1e-3
    torch.testing.assert_close(coarse, torch.tensor([0.8444, 0.1255, 0.0643]).double(), rtol=0, atol=5.1e-5)


def test_chain_is_converged():
    few = euler_chain(prinz(), step=1e-3, steps=1, resolution=3.0).timescales()
    many = euler_chain(prinz(), step=1e-3, steps=1, resolution=4.5).timescales()
    torch.testing.assert_close(few, many, rtol=1e-7, atol=0)


def test_projection_has_the_known_timescales(chain, states):
    matrix = chain.transition_matrix(torch.bucketize(chain.points[:, 0], states), 5)
    torch.testing.assert_close(matrix.sum(1), torch.ones(30).double(), rtol=0, atol=1e-12)
    got = relaxations(matrix, 5)
    # An independent grid calculation, whose borders were not recorded, gave 164.54, 24.92, 12.79.
    torch.testing.assert_close(got, torch.tensor([164.54, 24.92, 12.79]).double(), rtol=3e-4, atol=0)
    torch.testing.assert_close(got, torch.tensor([164.517, 24.9134, 12.7886]).double(), rtol=0, atol=6e-4)
    assert bool((got < chain.timescales()).all())


def test_projection_keeps_the_stationary_law_and_does_not_depend_on_the_quadrature(chain, states):
    labels = torch.bucketize(chain.points[:, 0], states)
    matrix = chain.transition_matrix(labels, 3)
    law = torch.zeros(30).double().index_add_(0, labels, chain.stationary)
    torch.testing.assert_close(law @ matrix, law, rtol=0, atol=1e-13)
    line, borders = double_well(), torch.tensor([-0.5, 0.0, 0.5]).double()
    got = []
    for resolution in (3.0, 4.5):
        exact = euler_chain(line, step=2e-3, steps=5, breaks=[borders], resolution=resolution)
        got.append(exact.transition_matrix(torch.bucketize(exact.points[:, 0], borders), 4))
    torch.testing.assert_close(got[0], got[1], rtol=1e-7, atol=1e-10)


def test_projection_onto_eigenfunctions_is_diagonal(chain):
    functions = chain.eigenfunctions(chain.points, 3)
    matrix = chain.koopman_matrix(functions, 10)
    torch.testing.assert_close(matrix, torch.diag(chain.eigenvalues(3).real ** 10), rtol=0, atol=1e-6)
    instant, _ = chain.moments(functions, 1)
    torch.testing.assert_close(instant.diagonal(), torch.ones(3).double(), rtol=0, atol=1e-10)


def test_linear_functions_of_a_parabola_have_one_exact_eigenvalue():
    exact = euler_chain(parabola(), step=0.05, steps=2)
    matrix = exact.koopman_matrix(exact.points, 5)
    assert float(matrix) == pytest.approx(0.95**10, rel=1e-9)


def test_chain_in_the_plane_is_the_product_of_its_axes():
    def energy(points):
        return points.square().sum(1) / 2

    plane = euler_chain(Landscape(energy, (-4.0, -4.0), (4.0, 4.0)), step=0.3, steps=1, resolution=2.0)
    line = euler_chain(Landscape(energy, (-4.0,), (4.0,)), step=0.3, steps=1, resolution=2.0)
    torch.testing.assert_close(plane.operator, torch.kron(line.operator, line.operator), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(plane.stationary, torch.kron(line.stationary, line.stationary), rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(plane.points[:, 1], line.points[:, 0].repeat(len(line.points)))


def test_many_points_give_the_same_slowest_processes(monkeypatch):
    few = euler_chain(parabola(), step=0.05, steps=3)
    monkeypatch.setattr(exact_spectra, "_DENSE", 50)
    some = euler_chain(parabola(), step=0.05, steps=3)
    torch.testing.assert_close(some.eigenvalues(4).real, few.eigenvalues(4).real, rtol=1e-7, atol=0)
    at = torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None]
    torch.testing.assert_close(some.eigenfunctions(at, 3), few.eigenfunctions(at, 3), rtol=1e-5, atol=1e-5)
    with pytest.raises(DataError, match="1 to 12"):
        some.eigenvalues(40)


def test_bad_input(chain):
    with pytest.raises(ShapeError, match="features"):
        chain.moments(torch.ones(3, 1).double(), 1)
    with pytest.raises(ShapeError, match="states"):
        chain.transition_matrix(torch.zeros(3, dtype=torch.long), 1)
    with pytest.raises(DataError, match="empty state"):
        chain.transition_matrix(2 * torch.ones(len(chain.points), dtype=torch.long), 1)
    with pytest.raises(DataError, match="longer step"):
        euler_chain(quadruple_well(), step=1e-4)
    assert math.isfinite(float(chain.stationary.sum()))
