"""The fitted curve of a diatomic molecule: energies and forces, constants of spectroscopy, drawn potentials."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from ase import units
from ase.data import atomic_masses
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import ConvergenceError, DataError, FormatError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Draws, Gaussian, Prediction
from bayesmol.potentials.guards import epistemic
from bayesmol.potentials.surface import Surface
from bayesmol.potentials.tabulated_splines import spline_coefficients, spline_weights
from bayesmol.typing import Species

__all__ = ["DiatomicCurve", "DiatomicPotential"]

_LOST = 0.01  # share of draws without a minimum, above which constants have no distribution


@dataclass(frozen=True, eq=False)
class DiatomicCurve:
    """A curve, or several, as cubic splines between the shortest and the longest distance.

    Attributes
    ----------
    species
        Atomic numbers of the two atoms, ascending.
    start, step
        First distance and distance of the knots, in Å.
    coefficients
        Of the spline, in eV.
    """

    species: Species
    start: float
    step: float
    coefficients: Float[Tensor, "... coefficients"]

    @classmethod
    def of(cls, species: Species, grid: Float[Tensor, " knots"], curves: Float[Tensor, "... knots"]) -> DiatomicCurve:
        """Through energies at evenly spaced distances."""
        step, values = float(grid[1] - grid[0]), curves.reshape(-1, len(grid)).mT
        fourth = values.new_tensor([-25.0, 48.0, -36.0, 16.0, -3.0]) / (12 * step)
        ends = torch.stack([fourth @ values[:5], -fourth @ values[-5:].flip(0)])
        found = spline_coefficients(values, ends, step).mT.reshape(*curves.shape[:-1], -1)
        return cls(species, float(grid[0]), step, found)

    def __getitem__(self, index: int) -> DiatomicCurve:
        """One of several curves."""
        return DiatomicCurve(self.species, self.start, self.step, self.coefficients[index])

    def at(
        self, distances: Float[Tensor, " points"]
    ) -> tuple[Float[Tensor, "... points"], Float[Tensor, "... points"]]:
        """Energies in eV and slopes in eV/Å at distances within the range."""
        knots = self.coefficients.shape[-1] - 3
        places = (distances - self.start).clamp(0, knots * self.step * (1 - 1e-12))
        first, weights, slopes = spline_weights(places, self.step)
        near = self.coefficients.to(distances)[..., first[:, None] + torch.arange(4, device=distances.device)]
        return (weights * near).sum(-1), (slopes * near).sum(-1)

    def surface(self, structures: Structures) -> Surface:
        """Energies and forces of molecules of these two atoms within the range.

        Raises
        ------
        DataError
            If a structure is no such molecule.
        """
        apart, distances = self.apart(structures)
        energies, slopes = self.at(distances)
        pull = (slopes / distances)[:, None] * apart
        return Surface(energies, torch.stack([pull, -pull], 1).flatten(0, 1))

    def apart(self, structures: Structures) -> tuple[Float[Tensor, "structures 3"], Float[Tensor, " structures"]]:
        """Vectors from the first atom to the second, and their lengths, in Å."""
        if not bool((structures.counts == 2).all()) or bool(structures.pbc.any()):
            raise DataError(expected("structures", "molecules of two atoms without periodic directions", "others"))
        if not bool((structures.species.view(-1, 2).sort(1).values.cpu() == self.species.cpu()).all()):
            raise DataError(expected("structures", f"atoms {self.species.tolist()}", "others"))
        places = structures.positions.double().view(-1, 2, 3)
        apart = places[:, 1] - places[:, 0]
        return apart, apart.norm(dim=1)


@dataclass(frozen=True, eq=False)
class DiatomicPotential:
    """Draws of the potential curve of a diatomic; made by :meth:`bayesmol.potentials.DiatomicGP.fit`.

    Attributes
    ----------
    mean_curve
        Mean of the posterior.
    grid
        Distances in Å, evenly spaced.
    curves
        Draws in eV at these.
    provenance
        Model and data.
    """

    mean_curve: DiatomicCurve
    grid: Float[Tensor, " knots"]
    curves: Float[Tensor, "draws knots"]
    provenance: dict[str, Any]

    @classmethod
    def of(cls, species: Species, grid: Tensor, curves: Tensor, provenance: dict[str, Any]) -> DiatomicPotential:
        """From draws on a grid."""
        return cls(DiatomicCurve.of(species, grid, curves.mean(0)), grid, curves, provenance)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header and arrays of a file."""
        arrays = {"grid": self.grid, "curves": self.curves}
        return {"species": self.mean_curve.species.tolist(), "provenance": self.provenance}, arrays

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> DiatomicPotential:
        """Potential from what :meth:`state` gave.

        Raises
        ------
        FormatError
            If curves and distances do not belong together.
        """
        grid, curves = arrays["grid"], arrays["curves"]
        if grid.ndim != 1 or curves.ndim != 2 or curves.shape[1] != len(grid) or len(header["species"]) != 2:
            got = f"{tuple(curves.shape)} and {tuple(grid.shape)}"
            raise FormatError(expected("curves", "(draws, knots) with one distance a knot", got))
        return cls.of(torch.tensor(header["species"]), grid, curves, header["provenance"])

    def curve(self) -> Draws:
        """Energies at ``grid``, in eV."""
        return Draws(self.curves[None], unit="eV")

    def draws(self, count: int, *, seed: int | torch.Generator) -> list[DiatomicCurve]:
        """Different curves from the posterior, each a potential.

        Raises
        ------
        DataError
            If there are fewer.
        """
        if count > len(self.curves):
            raise DataError(expected("draws", f"at most {len(self.curves)}", count, "fit with more draws"))
        return [self._splines[int(k)] for k in torch.randperm(len(self.curves), generator=generator(seed))[:count]]

    def surface(self, structures: Structures) -> Surface:
        """Mean energies and forces."""
        return self.mean_curve.surface(structures)

    def strangeness(self, structures: Any, prediction: Prediction | None = None) -> Float[Tensor, " structures"]:
        """Standard deviation of the energy in eV; infinite beyond the labelled distances.

        A ``prediction`` of these structures, where there is one, saves the work.
        """
        distances = self.mean_curve.apart(Structures.coerce(structures))[1]
        inside = (distances >= self.grid[0]) & (distances <= self.grid[-1])
        spread = self._splines.at(distances)[0].std(0) if prediction is None else epistemic(prediction.energy).stddev
        return torch.where(inside, spread, torch.inf)

    def predict(self, structures: Any, *, covariance: bool = False) -> Prediction:
        """Energies and forces; the distributions are those of the curve, a label has its own error beside.

        Raises
        ------
        DataError
            If a structure is no molecule of these two atoms, or its distance is beyond the labelled ones.
        """
        structures = Structures.coerce(structures)
        apart, distances = self.mean_curve.apart(structures)
        if bool(torch.isinf(self.strangeness(structures)).any()):
            span = f"distances from {float(self.grid[0]):.3f} to {float(self.grid[-1]):.3f} Å"
            raise DataError(expected("structures", span, "others", "add labels there"))
        energies, slopes = self._splines.at(distances)
        joint = torch.cov(energies.mT).reshape(len(distances), len(distances)) if covariance else None
        variance = energies.var(0) if joint is None else joint.diagonal()
        energy = Gaussian(energies.mean(0), variance, unit="eV", covariance=joint, epistemic_variance=variance)
        direction = torch.stack([apart, -apart], 1) / distances[:, None, None]
        force, spread = direction * slopes.mean(0)[:, None, None], direction.square() * slopes.var(0)[:, None, None]
        forces = Gaussian(force.flatten(0, 1), spread.flatten(0, 1), unit="eV/Å")
        return Prediction(energy, forces, structures.pointer, provenance=self.provenance)

    def bond_length(self) -> Draws:
        """Distance of least energy, in Å.

        Raises
        ------
        ConvergenceError
            If more than 1 % of the curves have no minimum between the labels.
        """
        return self._draws(self._minimum()[0], "Å")

    def least_energy(self) -> Draws:
        """Energy at the bond length, in eV."""
        return self._draws(self._minimum()[1], "eV")

    def frequency(self, masses: tuple[float, float] | None = None) -> Draws:
        r"""Harmonic wave number :math:`\omega_e = \frac{1}{2 \pi c} \sqrt{E''(r_e) / \mu}`, in 1/cm.

        Parameters
        ----------
        masses
            In u; by default the standard ones, which are averages over isotopes.
        """
        first, second = masses or tuple(atomic_masses[self.mean_curve.species.tolist()])
        omega = (self._minimum()[2] * (first + second) / (first * second)).sqrt()  # in ASE's unit of time
        return self._draws(omega * units._hbar * units.J * units.s / units.invcm, "1/cm")

    def _draws(self, values: Tensor, unit: str) -> Draws:
        kept = torch.isfinite(values)
        if float((~kept).double().mean()) > _LOST:
            got = f"none in {100 * float((~kept).double().mean()):.0f} % of the draws"
            raise ConvergenceError(expected("curve", "a minimum between the labels", got, "add labels around it"))
        return Draws(values[kept][None], unit=unit)

    def _minimum(self) -> tuple[Tensor, Tensor, Tensor]:
        """Place, energy and curvature of the minimum of each draw, NaN without one: a quartic through five knots."""
        grid, curves = self.grid, self.curves
        step = float(grid[1] - grid[0])
        lowest = curves[:, 2:-2].argmin(1) + 2
        nodes = torch.arange(-2, 3, device=curves.device)
        c = torch.linalg.solve(torch.vander(nodes.double(), 5, increasing=True), _near(curves, lowest, nodes).mT).mT
        x = torch.zeros_like(c[:, 0])
        for _ in range(8):
            slope = c[:, 1] + 2 * c[:, 2] * x + 3 * c[:, 3] * x**2 + 4 * c[:, 4] * x**3
            x = x - slope / (2 * c[:, 2] + 6 * c[:, 3] * x + 12 * c[:, 4] * x**2)
        curvature = (2 * c[:, 2] + 6 * c[:, 3] * x + 12 * c[:, 4] * x**2) / step**2
        energy = (c * torch.stack([x**k for k in range(5)], 1)).sum(1)
        found = (x.abs() < 2) & (curvature > 0)
        parts = (grid[lowest] + x * step, energy, curvature)
        place, depth, stiffness = (torch.where(found, part, torch.nan) for part in parts)
        return place, depth, stiffness

    @cached_property
    def _splines(self) -> DiatomicCurve:
        """All draws."""
        return DiatomicCurve.of(self.mean_curve.species, self.grid, self.curves)


def _near(curves: Tensor, lowest: Tensor, nodes: Tensor) -> Float[Tensor, "draws 5"]:
    return curves.gather(1, lowest[:, None] + nodes)
