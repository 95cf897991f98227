"""Boltzmann densities: an energy and a temperature, as the target of flows and samplers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.units import thermal_energy

__all__ = ["BoltzmannDensity", "Exact"]

Energy = Callable[[Float[Tensor, "points dimension"]], Float[Tensor, " points"]]
Surfaces = Callable[[Tensor, int, int | torch.Generator], Tensor]  # rows, draws, seed


@dataclass(frozen=True)
class Exact:
    """What is known of a density without sampling.

    Attributes
    ----------
    log_partition
        :math:`\\log \\int e^{-u(x)}\\,dx`, over the coordinates without their symmetries of translation and rotation.
    populations
        Probability of each state, in the order of the labels of ``states``; empty if there are none.
    mean_energy
        :math:`\\langle u \\rangle`; ``None`` if unknown.
    """

    log_partition: float
    populations: tuple[float, ...] = ()
    mean_energy: float | None = None


@dataclass(frozen=True, eq=False)
class BoltzmannDensity:
    r"""The density :math:`p(x) \propto e^{-u(x)}`, :math:`u = U / k_B T`, of configurations of one system.

    Configurations are rows of ``dimension`` numbers; for molecules these are the positions in Å, atom by atom.

    Attributes
    ----------
    energy
        :math:`U` of each row, in ``unit``; it follows device and type of its argument and is differentiable where a
        gradient is asked for. It may be :math:`+\infty`.
    temperature
        In K if ``unit`` is eV; otherwise in units of the energy, with :math:`k_B = 1`.
    shape
        Shape of one configuration for those who read draws, ``(atoms, 3)`` for molecules.
    space
        Dimension of the space in which particles move, if the energy does not change when all are moved or turned
        together; 0 if it is no such system. Configurations then have their centre at zero.
    start
        Configurations to start chains from, one row each; for a molecule its geometry.
    species
        Atomic numbers of a molecule.
    states
        Label of the state (0, 1, …) of each row, for populations and free-energy differences.
    symmetry
        Index of the coordinate that takes each place, one row for each element of a finite group that leaves the
        energy as it is; with ``signs`` of the same shape where coordinates change sign.
    exact
        What is known, as a function of the temperature.
    surfaces
        Draws of the energy from the posterior of a learned potential: ``surfaces(rows, draws, seed)`` has the axes
        ``(draws, points)``, in ``unit``.
    """

    energy: Energy
    dimension: int
    temperature: float = 1.0
    unit: str = ""
    shape: tuple[int, ...] = ()
    space: int = 0
    start: Float[Tensor, "starts dimension"] | None = None
    species: Int[Tensor, " atoms"] | None = None
    states: Callable[[Float[Tensor, "points dimension"]], Int[Tensor, " points"]] | None = None
    symmetry: Int[Tensor, "elements dimension"] | None = None
    signs: Float[Tensor, "elements dimension"] | None = None
    exact: Callable[[float], Exact | None] | None = None
    surfaces: Surfaces | None = None
    name: str = "density"

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise DataError(expected("temperature", "a positive number", self.temperature))
        if self.unit not in ("", "eV"):
            raise DataError(expected("unit", "'eV', or '' for units of the energy itself", repr(self.unit)))
        if self.shape and torch.Size(self.shape).numel() != self.dimension:
            raise ShapeError(expected("shape", f"{self.dimension} numbers", self.shape))

    @cached_property
    def kt(self) -> float:
        """Thermal energy :math:`k_B T`, in ``unit``."""
        return thermal_energy(self.temperature) if self.unit == "eV" else self.temperature

    @property
    def degrees_of_freedom(self) -> int:
        r"""Dimension of the space in which :math:`\langle x \cdot \nabla u \rangle` is this number (virial theorem)."""
        return self.dimension - self.space

    def reduced_energy(self, x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        """Energy of each row in units of the thermal energy; :math:`+\\infty` where there is no density.

        Raises
        ------
        ShapeError, DataError
            If rows have another dimension, or an energy is NaN.
        """
        if x.ndim != 2 or x.shape[1] != self.dimension:
            raise ShapeError(expected("x", f"(points, {self.dimension})", tuple(x.shape)))
        reduced = self.energy(x) / self.kt
        if bool(torch.isnan(reduced).any()):
            raise DataError(expected("energy", "a number or +∞ for each row", "NaN", "check the energy function"))
        return reduced

    def reduced_gradient(self, x: Tensor) -> tuple[Float[Tensor, " points"], Float[Tensor, "points dimension"]]:
        """Reduced energy of each row and its gradient."""
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            energy = self.reduced_energy(leaf)
            (gradient,) = torch.autograd.grad(energy.sum(), leaf)
        return energy.detach(), gradient

    def at(self, temperature: float) -> BoltzmannDensity:
        """The same energy at another temperature."""
        return replace(self, temperature=temperature)

    @classmethod
    def from_openmm(cls, system: Any, temperature: float, **options: Any) -> BoltzmannDensity:
        """Density of the molecule of an OpenMM system, see :func:`bayesmol.flows.molecule.from_openmm`."""
        from bayesmol.flows.molecule import from_openmm

        return from_openmm(system, temperature, **options)

    @classmethod
    def from_potential(cls, model: Any, structure: Any, temperature: float, **options: Any) -> BoltzmannDensity:
        """Density on a learned surface, see :func:`bayesmol.flows.learned.from_potential`."""
        from bayesmol.flows.learned import from_potential

        return from_potential(model, structure, temperature, **options)

    @classmethod
    def from_calculator(cls, atoms: Any, temperature: float, **options: Any) -> BoltzmannDensity:
        """Density by an ASE calculator, see :func:`bayesmol.flows.learned.from_calculator`."""
        from bayesmol.flows.learned import from_calculator

        return from_calculator(atoms, temperature, **options)

    def known(self) -> Exact | None:
        """What is known without sampling at this temperature."""
        return None if self.exact is None else self.exact(self.temperature)
