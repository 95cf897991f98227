"""Molecular dynamics against ASE, closed forms and its own laws."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase import units as ase_units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.verlet import VelocityVerlet as AseVerlet
from scipy.signal import lfilter

from bayesmol.data import Structures
from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.potentials.ace_surface import ACESurface
from bayesmol.potentials.failures import Watch
from bayesmol.potentials.integrators import Langevin, VelocityVerlet, masses, thermal_velocities
from bayesmol.potentials.molecular_dynamics import drift, moved, simulate
from bayesmol.potentials.surface import Surface
from bayesmol.testing import assert_calibrated


class Wells:
    """Every atom in its own well k x² / 2 + q x⁴, about the place where it began."""

    def __init__(self, structures, stiffness=20.0, quartic=40.0):
        self.centre, self.stiffness, self.quartic = structures.positions, stiffness, quartic

    def surface(self, structures, *, virial=False):
        away = structures.positions - self.centre
        energy = (self.stiffness * away.square() / 2 + self.quartic * away**4).sum(1)
        energies = energy.new_zeros(len(structures)).index_add(0, structures.structure_index, energy)
        return Surface(energies, -self.stiffness * away - 4 * self.quartic * away**3)


class Ase(Calculator):
    """A surface as a calculator of ASE."""

    implemented_properties = ("energy", "forces")

    def __init__(self, surface):
        super().__init__()
        self.surface = surface

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        found = self.surface.surface(Structures.from_ase(atoms))
        self.results = {"energy": float(found.energies), "forces": found.forces.numpy()}


@pytest.fixture(scope="module")
def surface(potential):
    return ACESurface.of(potential)


@pytest.fixture(scope="module")
def apart():
    """Two atoms far from each other, in three replicas."""
    return Structures.from_ase([Atoms("HO", positions=[[0, 0, 0], [5, 0, 0]])] * 3)


def test_trajectories_are_those_of_ase(surface, ethanol):
    """100 steps at constant energy, one of two replicas that run side by side."""
    structures = ethanol[2].structures[:2]
    velocities = thermal_velocities(structures, 300, seed=0)
    run = simulate(surface, structures, velocities, VelocityVerlet(0.5), 100, interval=50)
    assert run.failures == ()
    assert run.times.tolist() == [0.0, 25.0, 50.0]
    atoms = structures.to_ase()[1]
    atoms.calc = Ase(surface)
    atoms.set_velocities(velocities[9:].numpy() / ase_units.fs)
    AseVerlet(atoms, 0.5 * ase_units.fs).run(100)
    np.testing.assert_allclose(run.structures.positions[9:], atoms.positions, rtol=0, atol=1e-8)
    np.testing.assert_allclose(run.velocities[9:] / ase_units.fs, atoms.get_velocities(), rtol=0, atol=1e-8)
    total = atoms.get_potential_energy() + atoms.get_kinetic_energy()
    assert float(run.total[-1, 1]) == pytest.approx(total, abs=1e-8)


def test_momentum_and_direction_of_time(surface, ethanol):
    structures = ethanol[2].structures[:1]
    velocities = thermal_velocities(structures, 300, seed=1)
    forth = simulate(surface, structures, velocities, VelocityVerlet(0.5), 30)
    momentum = (masses(structures) * forth.velocities).sum(0)
    assert float(momentum.abs().max()) < 1e-12
    back = simulate(surface, forth.structures, -forth.velocities, VelocityVerlet(0.5), 30)
    torch.testing.assert_close(back.structures.positions, structures.positions, rtol=0, atol=1e-9)
    torch.testing.assert_close(-back.velocities, velocities, rtol=0, atol=1e-9)


def test_energy_error_falls_with_the_square_of_the_step(apart):
    steps, errors = [1.0, 0.5, 0.25], []
    velocities = thermal_velocities(apart, 600, seed=2)
    for step in steps:
        run = simulate(Wells(apart), apart, velocities, VelocityVerlet(step), round(60 / step), interval=1)
        errors.append(float((run.total - run.total[0]).abs().amax(0).mean()))
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(2.0, abs=0.1)


def test_a_run_goes_on_where_it_ended(apart):
    velocities, wells = thermal_velocities(apart, 300, seed=0), Wells(apart)
    whole = simulate(wells, apart, velocities, Langevin(300), 40, seed=torch.Generator().manual_seed(5))
    source = torch.Generator().manual_seed(5)
    first = simulate(wells, apart, velocities, Langevin(300), 20, seed=source)
    second = simulate(wells, first.structures, first.velocities, Langevin(300), 20, seed=source)
    torch.testing.assert_close(second.structures.positions, whole.structures.positions, rtol=0, atol=1e-12)
    torch.testing.assert_close(second.potential[1:], whole.potential[3:], rtol=0, atol=1e-12)


def test_temperature(apart):
    many = Structures.concatenate([apart] * 100)
    velocities = thermal_velocities(many, 300, seed=0)
    run = simulate(Wells(many), many, velocities, Langevin(300, 1.0, 0.05), 400, interval=100)
    assert run.temperatures().shape == (5, 300)
    assert float(run.temperatures()[2:].mean()) == pytest.approx(300, rel=4 * math.sqrt(2 / 6 / 900))
    resting = run.temperatures(resting=True)
    torch.testing.assert_close(resting, 2 * run.temperatures())


class Trap(Wells):
    """Wells until an atom of the second replica has moved, then nonsense for that replica."""

    def __init__(self, structures, force):
        super().__init__(structures)
        self.force, self.calls = force, 0

    def surface(self, structures, *, virial=False):
        found, self.calls = super().surface(structures), self.calls + 1
        if self.calls > 30:
            found.forces[2:4] = self.force
        return found


@pytest.mark.parametrize("force", [math.nan, 1e6])
def test_a_failed_replica_stops_and_the_others_go_on(apart, force):
    velocities = thermal_velocities(apart, 300, seed=0)
    bad = torch.full((2, 3), force, dtype=torch.float64) * torch.tensor([[1.0], [-1.0]])
    run = simulate(Trap(apart, bad), apart, velocities, VelocityVerlet(0.5), 60, interval=10)
    well = simulate(Wells(apart), apart, velocities, VelocityVerlet(0.5), 60, interval=10)
    if math.isnan(force):
        (failure,) = run.failures
        assert (failure.replica, failure.step, failure.time) == (1, 30, 15.0)
        assert "finite" in failure.reason
        assert run.survivors.tolist() == [True, False, True]
        assert bool(run.structures.positions.isfinite().all())
        assert bool(run.velocities.isfinite().all())
        torch.testing.assert_close(run.structures.positions[2:4], well.positions[2, 2:4])
        assert len(run.trajectory(1)) == 3
        assert len(run.trajectory(0)) == 7
    for rows in (slice(0, 2), slice(4, 6)):
        torch.testing.assert_close(run.positions[:, rows], well.positions[:, rows])


def test_a_torn_bond_is_a_failure(surface, ethanol):
    structures = ethanol[2].structures[:2]
    velocities = thermal_velocities(structures, 300, seed=0)
    velocities[9 + int((structures[1].species == 1).nonzero()[0])] += 0.5  # 50 km/s
    run = simulate(surface, structures, velocities, VelocityVerlet(0.25), 40, interval=5)
    assert [failure.replica for failure in run.failures] == [1]
    assert "bond" in run.failures[0].reason or "closer" in run.failures[0].reason


def test_bonds_of_an_earlier_frame():
    """A bond that is half torn when a run goes on is judged by the length that it had at first."""
    water = Structures.from_ase(Atoms("OH", positions=[[0, 0, 0], [0.96, 0, 0]]))
    far = moved(water, 2.2 * water.positions)
    still = torch.zeros_like(far.positions)
    assert simulate(Wells(far), far, still, VelocityVerlet(), 5).failures == ()
    with pytest.raises(DataError, match="longer than 2"):
        simulate(Wells(far), far, still, VelocityVerlet(), 5, watch=Watch().start(water))


def test_the_observer_sees_all_and_may_stop(apart):
    seen = []

    def gate(structures):
        seen.append(structures.positions)
        return torch.tensor([len(seen) > 3, False, False])

    run = simulate(Wells(apart), apart, thermal_velocities(apart, 300, seed=0), Langevin(300), 50, observer=gate)
    assert len(seen) == 6
    assert [(failure.replica, failure.step) for failure in run.failures] == [(0, 30)]
    assert "observer" in run.failures[0].reason
    counted = simulate(
        Wells(apart), apart, thermal_velocities(apart, 300, seed=0), Langevin(300), 50, observer=lambda s: None
    )
    assert counted.failures == ()


def test_drift_has_a_true_interval(source):
    """Straight lines with noise that is correlated over some frames."""
    times, hits, slope = torch.arange(2000.0).double() * 10, 0, 3e-7
    for _ in range(200):
        white = torch.randn(2000, 2, generator=source, dtype=torch.float64).numpy()
        noise = torch.from_numpy(lfilter([1], [1, -0.8], white, axis=0))
        found = drift(times, 1e-3 * noise + slope * times[:, None])
        hits += int(found.interval(0.9).contains(torch.tensor(slope * 1e5).double()))
    assert_calibrated(hits, 200, 0.9)


def test_drift_of_a_short_or_slow_series(apart):
    times = torch.arange(64.0).double()
    with pytest.raises(DataError, match="16 or more"):
        drift(times[:8], times[:8, None])
    with pytest.raises(ConvergenceError):
        drift(times, torch.sin(times / 20)[:, None])
    run = simulate(Wells(apart), apart, thermal_velocities(apart, 300, seed=0), VelocityVerlet(0.1), 400, interval=2)
    assert abs(float(run.drift(40.0).value)) < 1e-3
    gone = replace(run, potential=torch.full_like(run.potential, math.nan))
    with pytest.raises(DataError, match="did not fail"):
        gone.drift()


def test_bad_input(apart):
    still = torch.zeros_like(apart.positions)
    wells = Wells(apart)
    with pytest.raises(DataError, match="steps"):
        simulate(wells, apart, still, VelocityVerlet(), 0)
    with pytest.raises(ShapeError, match="velocities"):
        simulate(wells, apart, still[:2], VelocityVerlet(), 10)
    crushed = moved(apart, apart.positions * 0.09)
    with pytest.raises(DataError, match="starts within the limits"):
        simulate(wells, crushed, still, VelocityVerlet(), 10)
