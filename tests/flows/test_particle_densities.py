import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.particle_densities import dw4, lennard_jones


def rotation(space, normal):
    return torch.linalg.qr(normal(space, space)).Q


@pytest.mark.parametrize("density", [dw4(), lennard_jones(particles=5)], ids=lambda d: d.name)
def test_energies_do_not_feel_translation_rotation_or_exchange(density, normal):
    x = 2 * normal(5, *density.shape)
    u = density.reduced_energy(x.flatten(1))
    moved = x @ rotation(density.space, normal).mT + normal(1, 1, density.space)
    torch.testing.assert_close(density.reduced_energy(moved.flatten(1)), u, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(density.reduced_energy(x.flip(1).flatten(1)), u, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("density", [dw4(), lennard_jones(particles=5)], ids=lambda d: d.name)
def test_gradients_are_those_of_finite_differences(density, normal):
    x = density.start[:1] + 0.1 * normal(3, density.dimension)
    _, gradient = density.reduced_gradient(x)
    for column in range(density.dimension):
        step = torch.zeros_like(x)
        step[:, column] = 1e-6
        slope = (density.reduced_energy(x + step) - density.reduced_energy(x - step)) / 2e-6
        torch.testing.assert_close(gradient[:, column], slope, rtol=1e-4, atol=1e-4)


def test_symmetry_of_dw4_is_a_group_of_48_that_leaves_the_energy(normal):
    density = dw4()
    assert density.symmetry.shape == density.signs.shape == (48, 8)
    x = 2 * normal(1, 8)
    images = x[0][density.symmetry] * density.signs
    assert len(torch.unique(images, dim=0)) == 48
    u = density.reduced_energy(images)
    torch.testing.assert_close(u, density.reduced_energy(x).expand(48), rtol=1e-12, atol=1e-10)
    twice = images[5][density.symmetry[29]] * density.signs[29]
    assert float((images - twice).abs().sum(1).min()) < 1e-12


def test_dw4_closed_form():
    x = torch.tensor([[0.0, 0, 3, 0, 0, 4, 3, 4]], dtype=torch.float64)
    pair = lambda d: 0.9 * (d - 4) ** 4 - 4 * (d - 4) ** 2  # noqa: E731
    assert float(dw4().reduced_energy(x)) == pytest.approx(2 * pair(3) + 2 * pair(4) + 2 * pair(5))
    assert float(dw4().reduced_gradient(dw4().start)[1].abs().max()) < 0.1


def log_partition_by_importance(density, seed, size=250_000):
    """Log Z of centred DW4: relative positions by independent pair distances, weights for the other three pairs."""
    grid = torch.linspace(0.5, 8.5, 4001, dtype=torch.float64)
    away = (grid - 4).square()
    table = (-(0.9 * away.square() - 4 * away) + grid.log()).softmax(0)
    source = torch.Generator().manual_seed(seed)
    picked = torch.multinomial(table, 3 * size, replacement=True, generator=source)
    radius = (grid[picked] + 0.002 * (torch.rand(3 * size, generator=source) - 0.5)).view(size, 3)
    angle = 2 * math.pi * torch.rand(size, 3, generator=source, dtype=torch.float64)
    legs = radius[..., None] * torch.stack([angle.cos(), angle.sin()], -1)
    x = torch.cat([torch.zeros(size, 1, 2, dtype=torch.float64), legs], 1)
    log_q = (table[picked].view(size, 3) / 0.002).log() - radius.log() - math.log(2 * math.pi)
    log_w = -density.reduced_energy(x.flatten(1)) - log_q.sum(1)
    value = log_w.logsumexp(0) - math.log(size)
    return float(value) - math.log(4), float((log_w - value).exp().std() / size**0.5)


def test_dw4_partition_function_by_an_independent_method():
    density, known = dw4(), dw4().known()
    value, error = log_partition_by_importance(density, 0)
    assert error < 0.03 and abs(value - known.log_partition) < 4 * error
    assert known.log_partition == pytest.approx(29.66723223, abs=1e-7)
    # Without the angle of the whole, and over relative positions, it is the number of the literature.
    assert known.log_partition + math.log(4) - math.log(2 * math.pi) == pytest.approx(29.21, abs=0.01)


def test_lennard_jones_pair_has_each_pair_twice():
    density = lennard_jones(particles=2, trap=0.5)
    x = torch.tensor([[0.0, 0, 0, 1.2, 0, 0]], dtype=torch.float64)
    want = 2 * (1.2**-12 - 2 * 1.2**-6) + 0.25 * 2 * 0.6**2
    assert float(density.reduced_energy(x)) == pytest.approx(want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_particles_that_meet_have_finite_energies_and_gradients(dtype):
    density = lennard_jones(particles=13)
    for x in (torch.zeros(1, 39, dtype=dtype), 1e-12 * torch.arange(39, dtype=dtype)[None]):
        energy, gradient = density.reduced_gradient(x)
        assert bool(torch.isfinite(energy).all() & torch.isfinite(gradient).all()) and float(energy) > 1e8
    energy, gradient = dw4().reduced_gradient(torch.zeros(1, 8, dtype=dtype))
    assert bool(torch.isfinite(energy).all()) and float(gradient.abs().max()) == 0


def test_continuation_is_smooth():
    density = lennard_jones(particles=2)
    r = torch.tensor([0.2 - 1e-7, 0.2 + 1e-7], dtype=torch.float64)
    x = torch.cat([torch.zeros(2, 3).double(), r[:, None], torch.zeros(2, 2).double()], 1)
    energy, gradient = density.reduced_gradient(x)
    assert float(energy[0] / energy[1]) == pytest.approx(1, abs=1e-4)
    assert float(gradient[0, 3] / gradient[1, 3]) == pytest.approx(1, abs=1e-4)


def test_starts_are_low_and_centred():
    for particles in (7, 13, 55):
        density = lennard_jones(particles=particles)
        assert float(density.start.view(-1, 3).mean(0).abs().max()) < 1e-9
        assert float(density.reduced_energy(density.start)) < -3.5 * particles
    with pytest.raises(DataError, match="at least 2"):
        lennard_jones(particles=1)
