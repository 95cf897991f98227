"""The calculator gives ASE what the model says, and no writer of ASE stumbles over the uncertainty."""

import ase.db
import ase.io
import numpy as np
import pytest
import torch
from ase import units
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.verlet import VelocityVerlet
from ase.stress import full_3x3_to_voigt_6_stress

import bayesmol as bm
from bayesmol.errors import ApplicabilityError, DataError
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.potentials.calculator import Calculator
from bayesmol.potentials.gradient_gp import GradientGP


class Fake:
    """Harmonic model about the origin with a stress; inside as long as no atom is farther than ``reach`` in Å."""

    def __init__(self, reach=None, stress=True, p_value=True):
        self.reach, self.stress, self.p_value, self.calls = reach, stress, p_value, 0

    def predict(self, structures):
        self.calls += 1
        r = structures.positions
        variance = torch.linspace(0.01, 0.02, r.numel(), dtype=r.dtype).view_as(r)
        tensor = torch.tensor([[[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]]], dtype=r.dtype)
        inside = None if self.reach is None else (r.norm(dim=1).max() <= self.reach).view(1)
        return Prediction(
            Gaussian(r.square().sum().view(1) / 2, torch.full_like(r[:1, 0], 0.04), unit="eV"),
            Gaussian(-r, variance, unit="eV/Å"),
            structures.pointer,
            stress=Gaussian(tensor, tensor.square(), unit="eV/Å³") if self.stress else None,
            inside=inside,
            p_value=torch.full((1,), 0.25, dtype=r.dtype) if inside is not None and self.p_value else None,
        )


@pytest.fixture(scope="module")
def data():
    return bm.data.load("rmd17/ethanol")[:10]


@pytest.fixture(scope="module")
def model(data):
    return GradientGP(length_scale=3.0, energy_noise=2e-3, force_noise=0.02).fit(data[:8], seed=0)


@pytest.fixture
def ethanol(data):
    return data[8].structures.to_ase()[0]


@pytest.fixture
def crystal():
    atoms = bulk("Si", "diamond", a=5.4)
    atoms.rattle(0.1, seed=1)
    return atoms


def test_results_are_those_of_the_model(model, data, ethanol):
    there = model.predict(data[8])
    ethanol.calc = calculator = Calculator(model, level=0.8)
    assert ethanol.get_potential_energy() == float(there.energy.mean)
    assert ethanol.get_potential_energy(force_consistent=True) == float(there.energy.mean)
    np.testing.assert_array_equal(ethanol.get_forces(), there.forces.mean.numpy())
    found, force = calculator.uncertainty, there.forces.interval(0.8)
    assert found["energy_stddev"] == float(there.energy.stddev)
    np.testing.assert_array_equal(found["forces_stddev"], there.forces.stddev.numpy())
    energy = there.energy.interval(0.8)
    np.testing.assert_array_equal(found["energy_interval"], [float(energy.lower), float(energy.upper)])
    np.testing.assert_array_equal(found["forces_interval"], torch.stack([force.lower, force.upper]).numpy())
    assert found["forces_interval"].shape == (2, 9, 3)
    assert set(found) == {f"{name}_{kind}" for name in ("energy", "forces") for kind in ("stddev", "interval")}
    with pytest.raises(PropertyNotImplementedError):
        ethanol.get_stress()


def test_stress_in_voigt_order(crystal):
    crystal.calc = calculator = Calculator(Fake())
    np.testing.assert_array_equal(crystal.get_stress(), [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(crystal.get_stress(voigt=False)[0], [1, 6, 5])
    np.testing.assert_array_equal(calculator.uncertainty["stress_stddev"], [1, 2, 3, 4, 5, 6])
    lower, upper = calculator.uncertainty["stress_interval"]
    np.testing.assert_allclose((upper - lower) / 2, 1.6448536269514722 * np.arange(1, 7), rtol=1e-6)
    stress = Fake().predict(bm.data.Structures.from_ase(crystal)).stress.mean[0].numpy()
    np.testing.assert_array_equal(crystal.get_stress(), full_3x3_to_voigt_6_stress(stress))


def test_nothing_is_computed_twice_and_nothing_is_stale(crystal):
    model = Fake(reach=10.0)
    calculator = Calculator(model)
    assert calculator.uncertainty == {}
    crystal.calc = calculator
    before = crystal.get_forces()
    crystal.get_potential_energy()
    crystal.get_stress()
    crystal.set_initial_charges([0.1, -0.1])
    assert calculator.get_property_uncertainty("inside", crystal) is True
    assert calculator.get_property_uncertainty("p_value") == 0.25
    assert model.calls == 1
    crystal.positions += 0.01
    assert calculator.get_property("energy", crystal, allow_calculation=False) is None
    assert calculator.uncertainty == {}
    assert calculator.get_property_uncertainty("energy_stddev", crystal) == pytest.approx(0.2)
    assert model.calls == 2
    np.testing.assert_allclose(crystal.get_forces(), before - 0.01)
    with pytest.raises(DataError, match=r"name: expected one of \['energy_interval'.*'magmom'"):
        calculator.get_property_uncertainty("magmom", crystal)


@pytest.mark.parametrize("form", ["extxyz", "traj", "json", "vasp", "db"])
def test_writers_work(form, crystal, tmp_path):
    crystal.calc = Calculator(Fake(reach=10.0))
    energy, forces, stress = crystal.get_potential_energy(), crystal.get_forces(), crystal.get_stress()
    path = tmp_path / f"atoms.{form}"
    ase.io.write(path, [crystal] if form == "extxyz" else crystal, format=form)
    back = ase.io.read(path, format=form)
    np.testing.assert_allclose(back.positions, crystal.positions, atol=1e-6)
    if form != "vasp":
        assert back.get_potential_energy() == pytest.approx(energy)
        np.testing.assert_allclose(back.get_forces(), forces, atol=1e-6)
        np.testing.assert_allclose(back.get_stress(), stress, atol=1e-6)


def test_results_can_be_copied(crystal, tmp_path):
    crystal.calc = calculator = Calculator(Fake(reach=10.0))
    energy = crystal.get_potential_energy()
    frozen = crystal.copy()
    frozen.calc = SinglePointCalculator(frozen, **calculator.results)
    assert frozen.get_potential_energy() == energy
    np.testing.assert_array_equal(frozen.get_forces(), crystal.get_forces())
    assert calculator.export_properties()["energy"] == energy
    with ase.db.connect(tmp_path / "atoms.db") as base:
        base.write(crystal)
        assert next(base.select()).energy == energy


def test_molecule_without_stress_is_written(model, ethanol, tmp_path):
    ethanol.calc = Calculator(model)
    energy = ethanol.get_potential_energy()
    for form in ("extxyz", "traj", "json"):
        ase.io.write(tmp_path / "atoms", ethanol, format=form)
        assert ase.io.read(tmp_path / "atoms", format=form).get_potential_energy() == pytest.approx(energy)


def test_energy_is_conserved(model, ethanol):
    ethanol.calc = Calculator(model)
    rng = np.random.default_rng(0)
    ethanol.set_momenta(rng.normal(size=(9, 3)) * np.sqrt(ethanol.get_masses() * 300 * units.kB)[:, None])
    before, kinetic = ethanol.get_total_energy(), ethanol.get_kinetic_energy()
    VelocityVerlet(ethanol, timestep=0.2 * units.fs).run(10)
    assert abs(ethanol.get_kinetic_energy() - kinetic) > 0.01
    assert ethanol.get_total_energy() == pytest.approx(before, abs=1e-3)


def test_leaving_the_domain(crystal):
    quiet = Calculator(Fake(reach=1.0))
    crystal.calc = quiet
    crystal.get_forces()
    assert quiet.uncertainty["inside"] is False
    crystal.calc = Calculator(Fake(reach=1.0), on_leave="warn")
    with pytest.warns(UserWarning, match=r"atoms: expected .* domain .*\(p = 0\.25\); the error bars"):
        crystal.get_forces()
    crystal.calc = Calculator(Fake(reach=1.0, p_value=False), on_leave="raise")
    for _ in range(2):
        with pytest.raises(ApplicabilityError, match="got one outside;"):
            crystal.get_forces()
    assert crystal.calc.results == {}
    crystal.positions *= 0.1
    crystal.get_forces()
    assert crystal.calc.uncertainty["inside"] is True


def test_a_run_stops_where_it_leaves(crystal):
    crystal.calc = Calculator(Fake(reach=4.0), on_leave="raise")
    crystal.set_momenta(np.full((2, 3), 50.0))
    with pytest.raises(ApplicabilityError):
        VelocityVerlet(crystal, timestep=units.fs).run(200)
    assert 4.0 < np.linalg.norm(crystal.positions, axis=1).max() < 5.0


@pytest.mark.parametrize("answer", ["warn", "raise"])
def test_a_domain_is_needed(model, ethanol, answer):
    ethanol.calc = Calculator(model, on_leave=answer)
    with pytest.raises(DataError, match=r"on_leave: expected a model with a domain, got GradientGPPotential; certify"):
        ethanol.get_forces()


def test_bad_arguments():
    with pytest.raises(DataError, match=r"on_leave: expected None, 'warn' or 'raise', got 'stop'"):
        Calculator(Fake(), on_leave="stop")
    with pytest.raises(DataError, match="level"):
        Calculator(Fake(), level=90)
    with pytest.raises(DataError, match="model: expected a fitted model, got GradientGP"):
        Calculator(GradientGP())
    with pytest.raises(DataError, match="atoms"):
        Calculator(Fake()).calculate()


def test_a_potential_makes_its_calculator(model, data, ethanol):
    ethanol.calc = model.calculator(level=0.7, on_leave=None)
    assert isinstance(ethanol.calc, Calculator) and ethanol.calc.level == 0.7 and ethanol.calc.model is model
    np.testing.assert_array_equal(ethanol.get_forces(), model.predict(data[8]).forces.mean.numpy())
