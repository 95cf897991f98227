"""Integrators on systems with closed forms."""

import math

import pytest
import torch

from bayesmol.data import Structures
from bayesmol.errors import DataError
from bayesmol.potentials.integrators import (
    Langevin,
    VelocityVerlet,
    kinetic_energies,
    masses,
    thermal_velocities,
    units,
)


def atoms(species, replicas=1):
    """Atoms 3 Å apart on a line, in several replicas."""
    from ase import Atoms

    one = Atoms(numbers=species, positions=[[3.0 * i, 0, 0] for i in range(len(species))])
    return Structures.from_ase([one] * replicas)


def test_masses_and_kinetic_energy_are_those_of_ase(normal):
    from ase import units as ase_units

    structures = atoms([1, 6, 29], 2)
    velocities = normal(6, 3) * 1e-2
    frames = structures.to_ase()
    energies = kinetic_energies(structures, velocities)
    for frame, own, energy in zip(frames, velocities.split(3), energies.tolist(), strict=True):
        frame.set_velocities(own.numpy() / ase_units.fs)
        assert frame.get_kinetic_energy() == pytest.approx(energy, rel=1e-12)
    assert masses(structures).flatten().tolist()[:3] == frames[0].get_masses().tolist()


@pytest.mark.parametrize("resting", [True, False])
def test_thermal_velocities(resting):
    """Kinetic energies follow a gamma distribution with half the degrees of freedom as shape."""
    structures = atoms([1, 8], 2000)
    velocities = thermal_velocities(structures, 300, resting=resting, seed=0)
    momentum = (masses(structures) * velocities).view(-1, 2, 3).sum(1)
    assert bool(momentum.abs().amax() < 1e-12) == resting
    freedom = 3 if resting else 6
    reduced = kinetic_energies(structures, velocities) / (units()[1] * 300)
    error = math.sqrt(freedom / 2 / 2000)
    assert float(reduced.mean()) == pytest.approx(freedom / 2, abs=4 * error)
    assert float(reduced.var()) == pytest.approx(freedom / 2, rel=0.25)
    assert torch.equal(velocities, thermal_velocities(structures, 300, resting=resting, seed=0))


def harmonic_step(integrator, stiffness, structures, positions, velocities, move):
    kick = 0.5 * integrator.timestep * units()[0] / masses(structures)
    positions, velocities = move(positions, velocities - kick * stiffness * positions)
    return positions, velocities - kick * stiffness * positions


def test_phase_space_volume_is_kept(source):
    """The matrix of a step of an oscillator has determinant 1; with friction the volume shrinks by exp(-γt)."""
    structures = atoms([1])
    for integrator, want in (
        (VelocityVerlet(1.5), 1.0),
        (Langevin(300, 1.5, 0.0), 1.0),
        (Langevin(300, 1.5, 0.1), math.exp(-0.15)),
    ):
        columns = []
        for start in ([1.0, 0.0], [0.0, 0.05], [0.0, 0.0]):
            source.manual_seed(0)
            ends = torch.tensor(start, dtype=torch.float64)[:, None, None].expand(2, 1, 3)
            found = harmonic_step(integrator, 30.0, structures, *ends, integrator.mover(structures, source))
            columns.append(torch.stack([part[0, 0] for part in found]))
        matrix = torch.stack([columns[0] - columns[2], (columns[1] - columns[2]) / 0.05], 1)
        assert float(matrix.det()) == pytest.approx(want, abs=1e-12)


def test_positions_of_an_oscillator_have_the_exact_variance_at_a_large_step(source):
    """BAOAB: the position variance is kT/k whatever the step; the velocity variance is not kT/m."""
    structures, stiffness, temperature = atoms([1], 4000), 30.0, 300.0
    integrator = Langevin(temperature, 5.0, 0.1)  # ωt = 2.7 of at most 2 · 1.41
    frequency = math.sqrt(stiffness * units()[0] / float(masses(structures)[0]))
    integrator = Langevin(temperature, 1.5 / frequency, 0.1)
    positions, velocities = torch.zeros(4000, 3).double(), thermal_velocities(structures, 300, resting=False, seed=1)
    move, squares, kinetic = integrator.mover(structures, source), [], []
    for step in range(400):
        positions, velocities = harmonic_step(integrator, stiffness, structures, positions, velocities, move)
        if step >= 100 and step % 30 == 0:
            squares.append(positions.square().mean())
            kinetic.append(kinetic_energies(structures, velocities).mean())
    want = units()[1] * temperature / stiffness
    draws = 4000 * 3 * len(squares)
    assert float(torch.stack(squares).mean()) == pytest.approx(want, rel=4 * math.sqrt(2 / draws))
    assert float(torch.stack(kinetic).mean()) < 0.6 * 1.5 * units()[1] * temperature


def test_free_particles_reach_the_temperature(source):
    structures = atoms([1, 29], 2000)
    integrator = Langevin(500, 2.0, 0.05)
    move = integrator.mover(structures, source)
    positions = velocities = torch.zeros_like(structures.positions)
    for _ in range(200):
        positions, velocities = move(positions, velocities)
    per_atom = (masses(structures) * velocities.square()).mean(1) / units()[0] / units()[1]
    for own in per_atom.view(-1, 2).T:
        assert float(own.mean()) == pytest.approx(500, rel=4 * math.sqrt(2 / 3 / 2000))


@pytest.mark.parametrize(
    "make",
    [
        lambda: VelocityVerlet(0),
        lambda: Langevin(0),
        lambda: Langevin(300, -1.0),
        lambda: Langevin(300, friction=-0.1),
        lambda: thermal_velocities(atoms([1]), math.inf, seed=0),
    ],
)
def test_bad_input(make):
    with pytest.raises(DataError):
        make()
