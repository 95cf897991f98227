"""Tests of the planted modes and of the chaotic systems."""

import numpy as np
import pytest
import torch

from bayesmol.data.exact_modes import PlantedModes, lorenz, skew_tent, two_modes
from bayesmol.errors import DataError, ShapeError


def one_mode(exponent):
    modes = torch.tensor([[1.0 + 1j], [0.5], [-2j]], dtype=torch.complex128)
    return PlantedModes(torch.tensor([exponent], dtype=torch.complex128), modes, 0.1)


def test_clean_snapshots_obey_the_linear_map():
    toy = two_modes()
    clean = toy.clean(129)
    assert clean.shape == (129, 65)
    left = torch.linalg.pinv(toy.modes)
    parts = clean @ left.mT
    torch.testing.assert_close(parts[1:], parts[:-1] * toy.eigenvalues)
    torch.testing.assert_close(parts @ toy.modes.mT, clean)
    torch.testing.assert_close(toy.eigenvalues.angle() / toy.time_step, torch.tensor([2.3, 2.8]).double())


def test_noise_has_its_standard_deviation_in_both_parts():
    toy = two_modes()
    rest = toy.snapshots(129, noise=0.3, seed=0) - toy.clean(129)
    for part in (rest.real, rest.imag):
        assert float(part.std()) == pytest.approx(0.3, rel=5 / (2 * 129 * 65) ** 0.5)
    assert torch.equal(toy.snapshots(9, noise=0.3, seed=1), toy.snapshots(9, noise=0.3, seed=1))
    assert torch.equal(toy.snapshots(9, noise=0.0, seed=1), toy.clean(9))


def test_standard_error_of_one_wave_has_a_closed_form():
    system, frames, noise = one_mode(2j), 50, 0.2
    times = 0.1 * torch.arange(frames).double()
    power = system.modes.abs().square().sum() * (times - times.mean()).square().sum()
    torch.testing.assert_close(system.standard_errors(frames, noise=noise), noise / power[None].sqrt())


def test_standard_errors_are_those_of_a_linearised_fit():
    # The Jacobian of all parameters, the modes included, by brute force.
    exponents = torch.tensor([-0.05 + 2.0j, 2.6j], dtype=torch.complex128)
    modes = torch.tensor([[1.0, 0.3j], [0.5, 1.0], [0.2j, -1.0]], dtype=torch.complex128)
    system, frames, noise = PlantedModes(exponents, modes, 0.2), 12, 0.1
    theta = torch.cat([torch.view_as_real(exponents).flatten(), torch.view_as_real(modes).flatten()])

    def real(parameters):
        omega = torch.view_as_complex(parameters[:4].reshape(2, 2))
        mode = torch.view_as_complex(parameters[4:].reshape(3, 2, 2))
        return torch.view_as_real(PlantedModes(omega, mode, 0.2).clean(frames)).flatten()

    jacobian = torch.autograd.functional.jacobian(real, theta)
    errors = noise * torch.linalg.inv(jacobian.mT @ jacobian).diagonal().sqrt()
    got = system.standard_errors(frames, noise=noise)
    torch.testing.assert_close(got, errors[[1, 3]])
    torch.testing.assert_close(got, errors[[0, 2]])


def test_skew_tent_is_uniform_with_geometric_correlations():
    path = torch.stack(skew_tent(60, peak=0.3, trajectories=4000, seed=0).parts)[:, :, 0]
    late = path[:, 50:] - 0.5
    assert float(late.square().mean()) == pytest.approx(1 / 12, rel=0.03)
    for lag in (1, 2, 3):
        got = float((late[:, 0] * late[:, lag]).mean())
        assert got == pytest.approx((2 * 0.3 - 1) ** lag / 12, abs=5 / 12 / 4000**0.5)


def test_lorenz_solves_its_equations_on_the_attractor():
    from scipy.integrate import solve_ivp

    path = lorenz(40, time_step=0.05, seed=0).parts[0].numpy()

    def velocity(_, p):
        return [10 * (p[1] - p[0]), p[0] * (28 - p[2]) - p[1], p[0] * p[1] - 8 / 3 * p[2]]

    exact = solve_ivp(velocity, (0, 0.5), path[0], t_eval=np.arange(11) * 0.05, rtol=1e-10, atol=1e-10).y.T
    np.testing.assert_allclose(path[:11], exact, atol=2e-4)
    assert np.abs(path[:, 0]).max() < 25 and path[:, 2].min() > 0 and path[:, 2].max() < 55


def test_bad_input():
    with pytest.raises(ShapeError, match="modes"):
        PlantedModes(torch.ones(2, dtype=torch.complex128), torch.ones(3, 1, dtype=torch.complex128), 1.0)
    with pytest.raises(DataError, match="peak"):
        skew_tent(5, peak=0.5, seed=0)
