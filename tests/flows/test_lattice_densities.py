import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.lattice_densities import crystal_stiffness, harmonic, harmonic_crystal, phi4


def test_harmonic_against_gaussian_closed_form(normal):
    root = normal(4, 4)
    stiffness = root @ root.mT + torch.eye(4, dtype=torch.float64)
    stiffness = (stiffness + stiffness.mT) / 2
    density = harmonic(stiffness, temperature=1.7)
    law = torch.distributions.MultivariateNormal(torch.zeros(4).double(), precision_matrix=stiffness / 1.7)
    x = normal(6, 4)
    log_density = -density.reduced_energy(x) - density.known().log_partition
    torch.testing.assert_close(log_density, law.log_prob(x), rtol=1e-10, atol=1e-10)
    assert density.known().mean_energy == 2.0
    _, gradient = density.reduced_gradient(x)
    torch.testing.assert_close(gradient, x @ stiffness / 1.7)


def test_crystal_energy_is_the_sum_of_its_springs(normal):
    x = normal(2, 81)
    u = harmonic_crystal(side=3, coupling=0.7, pinning=0.3).reduced_energy(x)
    field = x.view(2, 3, 3, 3, 3)
    bonds = sum((field.roll(1, axis) - field).square().sum((1, 2, 3, 4)) for axis in (1, 2, 3))
    torch.testing.assert_close(u, 0.35 * bonds + 0.15 * x.square().sum(1))


def test_crystal_spectrum_is_that_of_plane_waves():
    side = 3
    values = torch.linalg.eigvalsh(crystal_stiffness(side=side, coupling=1.0, pinning=0.2))
    wave = 2 - 2 * torch.cos(2 * math.pi * torch.arange(side, dtype=torch.float64) / side)
    want = 0.2 + (wave[:, None, None] + wave[:, None] + wave).flatten().repeat_interleave(3)
    torch.testing.assert_close(values, want.sort().values, rtol=1e-10, atol=1e-10)


def test_phi4_energy_gradient_and_symmetry(normal):
    density = phi4(side=4, mass=-4.0, coupling=0.5)
    x = normal(3, 16)
    field, total = x.view(3, 4, 4), torch.zeros(3, dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            here = field[:, i, j]
            for there in (field[:, (i + 1) % 4, j], field[:, i, (j + 1) % 4]):
                total += (there - here).square() / 2
            total += -2 * here.square() + 0.5 * here**4
    torch.testing.assert_close(density.reduced_energy(x), total)
    images = x[0][density.symmetry] * density.signs
    assert len(torch.unique(images, dim=0)) == 32
    torch.testing.assert_close(density.reduced_energy(images), total[:1].expand(32))
    assert torch.autograd.gradcheck(density.energy, (x.requires_grad_(),))


@pytest.mark.parametrize("side, mass", [(2, -1.0), (3, -1.0), (2, -4.0)])
def test_phi4_partition_function_by_importance_sampling(side, mass, source):
    density = phi4(side=side, mass=mass)
    size, width = 40_000, 0.65
    x = width * torch.randn(size, side**2, generator=source, dtype=torch.float64)
    log_q = -(x / width).square().sum(1) / 2 - side**2 * (math.log(width) + 0.5 * math.log(2 * math.pi))
    log_w = -density.reduced_energy(x) - log_q
    value = log_w.logsumexp(0) - math.log(size)
    weights = (log_w - value).exp()
    known = density.known()
    assert abs(float(value) - known.log_partition) < 4 * float(weights.std()) / size**0.5
    mean = (weights * density.reduced_energy(x)).mean()
    error = (weights * (density.reduced_energy(x) - mean)).std() / size**0.5
    assert abs(float(mean) - known.mean_energy) < 4 * float(error)


def test_phi4_two_sites_by_two_has_the_limit_of_independent_sites():
    """At high temperature and strong coupling the bonds vanish; the integral of a site is one of a line."""
    from scipy.integrate import quad

    density = phi4(side=2, mass=0.0, coupling=1e4)
    site, _ = quad(lambda f: math.exp(-1e4 * f**4 - 2 * f * f), -1, 1)
    assert density.known().log_partition == pytest.approx(4 * math.log(site), abs=1e-3)


def test_phi4_says_nothing_where_the_matrix_is_not_resolved():
    assert phi4(side=4, mass=-1.0, coupling=0.05).known() is None
    assert phi4(side=8).known() is None


def test_bad_input():
    with pytest.raises(DataError, match="positive definite"):
        harmonic(-torch.eye(2))
    with pytest.raises(ShapeError, match="symmetric"):
        harmonic(torch.ones(2, 3))
    with pytest.raises(DataError, match="side"):
        phi4(side=1)
    with pytest.raises(DataError, match="pinning"):
        harmonic_crystal(pinning=0.0)
