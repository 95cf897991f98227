"""Integrators of the equations of motion of many replicas side by side: velocity Verlet and BAOAB Langevin dynamics.

Positions are in Å, velocities in Å/fs, forces in eV/Å, masses in dalton, temperatures in K, times in fs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator

__all__ = ["Langevin", "VelocityVerlet", "kinetic_energies", "masses", "thermal_velocities"]

Mover = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@cache
def units() -> tuple[float, float]:
    """What turns eV/(Å Da) into Å/fs², and Boltzmann's constant in eV/K."""
    from ase import units

    return units.fs**2, units.kB


def masses(structures: Structures) -> Float[Tensor, "atoms 1"]:
    """Standard atomic masses, as tabulated by ASE, in dalton."""
    from ase.data import atomic_masses

    table = torch.as_tensor(atomic_masses, dtype=structures.positions.dtype)
    return table[structures.species.cpu()].to(structures.positions.device)[:, None]


def kinetic_energies(structures: Structures, velocities: Float[Tensor, "atoms 3"]) -> Float[Tensor, " structures"]:
    """Kinetic energy of each replica in eV."""
    energy = 0.5 / units()[0] * (masses(structures) * velocities.square()).sum(1)
    return energy.new_zeros(len(structures)).index_add(0, structures.structure_index, energy)


def thermal_velocities(
    structures: Structures, temperature: float, *, resting: bool = True, seed: int | torch.Generator
) -> Float[Tensor, "atoms 3"]:
    r"""Velocities of the Maxwell–Boltzmann distribution, :math:`v \sim \mathcal N(0, k_B T / m)`, in Å/fs.

    Parameters
    ----------
    resting
        Whether the centre of mass of each replica is at rest; 3 (atoms − 1) degrees of freedom are left then.

    Raises
    ------
    DataError
        If the temperature is not a positive number.
    """
    mass, deviation = masses(structures), _thermal_speed(structures, temperature)
    source = generator(seed, mass.device)
    velocities = deviation * torch.randn(
        structures.positions.shape, generator=source, dtype=mass.dtype, device=mass.device
    )
    if not resting:
        return velocities
    owner = structures.structure_index
    momentum = mass.new_zeros(len(structures), 3).index_add(0, owner, mass * velocities)
    total = mass.new_zeros(len(structures), 1).index_add(0, owner, mass)
    return velocities - (momentum / total)[owner]


def _thermal_speed(structures: Structures, temperature: float) -> Float[Tensor, "atoms 1"]:
    """Standard deviation of a component of the velocity of each atom."""
    if not 0 < temperature < math.inf:
        raise DataError(expected("temperature", "a positive number of K", temperature))
    factor, boltzmann = units()
    return (factor * boltzmann * temperature / masses(structures)).sqrt()


@dataclass(frozen=True)
class VelocityVerlet:
    """Newton's equations at constant energy; symplectic, and the energy error falls with the square of the step.

    Attributes
    ----------
    timestep
        In fs.

    References
    ----------
    Swope, Andersen, Berens, Wilson, J. Chem. Phys. 76, 637 (1982).
    """

    timestep: float = 0.5

    def __post_init__(self) -> None:
        _check_step(self.timestep)

    def mover(self, structures: Structures, source: torch.Generator) -> Mover:
        """What happens to positions and velocities between two half kicks by the forces."""
        return lambda positions, velocities: (positions + self.timestep * velocities, velocities)


@dataclass(frozen=True)
class Langevin:
    r"""Dynamics at constant temperature by the splitting BAOAB.

    Kick, drift, :math:`v \leftarrow e^{-\gamma t} v + \sqrt{1 - e^{-2 \gamma t}} \sqrt{k_B T / m}\, \xi`, drift, kick:
    the positions of a harmonic oscillator have the exact variance whatever the step.

    Attributes
    ----------
    temperature
        In K.
    timestep
        In fs.
    friction
        In 1/fs.

    References
    ----------
    Leimkuhler, Matthews, Appl. Math. Res. Express 2013, 34 (2013).
    """

    temperature: float
    timestep: float = 0.5
    friction: float = 0.01

    def __post_init__(self) -> None:
        _check_step(self.timestep)
        if not 0 < self.temperature < math.inf or not 0 <= self.friction < math.inf:
            got = f"temperature={self.temperature}, friction={self.friction}"
            raise DataError(expected("temperature, friction", "temperature > 0 K, friction >= 0 1/fs", got))

    def mover(self, structures: Structures, source: torch.Generator) -> Mover:
        """What happens to positions and velocities between two half kicks by the forces."""
        half, keep = self.timestep / 2, math.exp(-self.friction * self.timestep)
        spread = math.sqrt(1 - keep**2) * _thermal_speed(structures, self.temperature)

        def move(positions: Tensor, velocities: Tensor) -> tuple[Tensor, Tensor]:
            noise = torch.randn(positions.shape, generator=source, dtype=positions.dtype, device=positions.device)
            changed = keep * velocities + spread * noise
            return positions + half * (velocities + changed), changed

        return move


def _check_step(timestep: float) -> None:
    if not 0 < timestep < math.inf:
        raise DataError(expected("timestep", "a positive number of fs", timestep))
