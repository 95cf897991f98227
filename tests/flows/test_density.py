"""The energy in units of the thermal energy, its gradient, and what is refused."""

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.density import BoltzmannDensity, Exact
from bayesmol.units import thermal_energy


def quartic(x):
    return x.pow(4).sum(1)


DENSITY = BoltzmannDensity(quartic, 3, temperature=2.0)


def test_reduced_energy_and_gradient():
    x = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    energy, gradient = DENSITY.reduced_gradient(x)
    torch.testing.assert_close(energy, x.pow(4).sum(1) / 2)
    torch.testing.assert_close(gradient, 2 * x.pow(3))
    assert not energy.requires_grad


def test_gradient_inside_no_grad():
    with torch.no_grad():
        _, gradient = DENSITY.reduced_gradient(torch.ones(1, 3))
    torch.testing.assert_close(gradient, torch.full((1, 3), 2.0))


def test_temperature_of_molecules_is_in_kelvin():
    density = BoltzmannDensity(quartic, 3, temperature=300.0, unit="eV")
    assert density.kt == pytest.approx(thermal_energy(300.0)) == pytest.approx(0.025852, rel=1e-4)
    hot = density.at(600.0)
    x = torch.rand(5, 3)
    torch.testing.assert_close(hot.reduced_energy(x), density.reduced_energy(x) / 2)


def test_what_is_known_follows_the_temperature():
    density = BoltzmannDensity(quartic, 3, exact=lambda t: Exact(log_partition=t))
    assert density.at(3.0).known() == Exact(3.0)
    assert DENSITY.known() is None


def test_degrees_of_freedom():
    assert BoltzmannDensity(quartic, 12, space=3).degrees_of_freedom == 9


def test_infinite_energies_are_no_error():
    density = BoltzmannDensity(lambda x: torch.where(x[:, 0] > 0, x[:, 0], torch.inf), 1)
    assert torch.isinf(density.reduced_energy(torch.tensor([[-1.0]]))).all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_temperature(temperature):
    with pytest.raises(DataError, match="temperature"):
        BoltzmannDensity(quartic, 3, temperature=temperature)


def test_bad_unit():
    with pytest.raises(DataError, match="unit"):
        BoltzmannDensity(quartic, 3, unit="kJ/mol")


def test_bad_shape():
    with pytest.raises(ShapeError, match="shape"):
        BoltzmannDensity(quartic, 3, shape=(2, 3))
    with pytest.raises(ShapeError, match="x"):
        DENSITY.reduced_energy(torch.zeros(4, 2))


def test_nan_is_refused():
    with pytest.raises(DataError, match="NaN"):
        DENSITY.reduced_energy(torch.full((1, 3), float("nan")))
