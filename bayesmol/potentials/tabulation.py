r"""Pair potentials as splines: the mean and every eigenfunction of the covariance, a table each.

The posterior of the pair functions is a Gaussian process of the distance. Its covariance has few eigenfunctions,
:math:`\mathrm{Cov}(f(r), f(r')) = \sum_k u_k(r)\, u_k(r')`, and each is a smooth function of one number. So

.. math:: \mathrm{Var}(E) = \sum_k \Big[ \sum_{\mathrm{pairs}} u_k(r_p) \Big]^2, \qquad
    \mathrm{Cov}(F_a, F_b) = \sum_k \Big[\sum_p u_k'(r_p)\, \partial_a r_p\Big]
    \Big[\sum_p u_k'(r_p)\, \partial_b r_p\Big]

need splines alone, whatever the number of labels that the potential has learned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.errors import ConvergenceError, DataError, FormatError, expected
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.potentials.ace_rows import ENERGY, FORCE, OFFSET_STDDEV, VIRIAL
from bayesmol.potentials.guards import unknown_variance
from bayesmol.potentials.pair_gp_posterior import PairGPPotential
from bayesmol.potentials.repulsion import FADE, PriorEnergy, repulsion
from bayesmol.potentials.surface import Surface
from bayesmol.potentials.tabulated_rows import PairEdges, PairTable, portions
from bayesmol.potentials.tabulated_splines import spline_coefficients

__all__ = ["TabulatedPotential", "tabulated"]
from bayesmol.representation.radial import covalent_radii

_LARGEST = 2048  # knots of a table
_SHARED = {
    "deviation_gradient",
    "features",
    "force_factor",
    "leave_one_out",
    "left_out_strangeness",
    "noise_energy",
    "noise_force",
    "trained",
    "training",
}


def tabulated(potential: PairGPPotential, *, tolerance: float = 1e-5) -> TabulatedPotential:
    """Splines of a pair potential, so fine that nothing differs by more than ``tolerance`` on its training structures.

    Parameters
    ----------
    tolerance
        Largest deviation of an energy of a structure and its standard deviation (eV), and of a force component and its
        standard deviation (eV/Å). The knots are doubled until it holds; :attr:`TabulatedPotential.deviation` is what
        was found.

    Raises
    ------
    DataError
        If the potential is not a pair potential, or the tolerance is not positive.
    ConvergenceError
        If rounding does not allow the tolerance.
    """
    if not isinstance(potential, PairGPPotential):
        raise DataError(expected("potential", "a fitted PairGP", type(potential).__name__))
    if not 0 < tolerance < float("inf"):
        raise DataError(expected("tolerance", "a positive number in eV", tolerance))
    structures = potential.training.structures
    exact, knots, deviation, before = potential.predict(structures), 128, float("inf"), float("inf")
    while knots <= _LARGEST:
        found = TabulatedPotential(potential, _table(potential, knots), tolerance, deviation)
        deviation = _deviation(exact, found.predict(structures))
        if deviation <= tolerance:
            return replace(found, deviation=deviation)
        if deviation > before / 2:
            break  # rounding, not the step
        knots, before = 2 * knots, deviation
    raise ConvergenceError(expected("tolerance", f"at least {deviation:.1g} eV", tolerance, "raise it"))


def _deviation(exact: Prediction, other: Prediction) -> float:
    """Largest difference of means and of epistemic standard deviations of energies and forces."""
    gaps = []
    for name in ("energy", "forces"):
        first, second = getattr(exact, name), getattr(other, name)
        gaps += [first.mean - second.mean, first.epistemic.stddev - second.epistemic.stddev]
    return max(float(gap.abs().max()) for gap in gaps)


def _table(potential: PairGPPotential, knots: int) -> PairTable:
    """Splines of the features of each pair of elements, contracted with the mean and a root of the covariance."""
    representation, mean = potential.model.representation, potential.posterior.mean
    kernel, kinds = representation.basis, len(representation.species)
    step = kernel.cutoff / (knots - 1)
    distances = torch.linspace(0.0, kernel.cutoff, knots, dtype=mean.dtype, device=mean.device)
    values, slopes = kernel(distances)
    features = spline_coefficients(values, slopes[[0, -1]], step)
    weights = torch.cat([mean[:, None], potential.posterior.spread(torch.eye(len(mean)).to(mean))], 1)
    functions, constants = weights[: len(mean) - kinds], OFFSET_STDDEV * weights[len(mean) - kinds :]
    functions = (functions * potential.model.scales()[:, None]).view(kinds, kinds, values.shape[1], -1)
    low, high = torch.tensor([(a, b) for b in range(kinds) for a in range(b + 1)], device=mean.device).T
    functions = 0.5 * (functions[low, high] + functions[high, low])
    splines = torch.einsum("cf,pfw->pcw", features, functions)
    constants = torch.cat([constants[:, :1] + potential.model.references[:, None], constants[:, 1:]], 1)
    return PairTable(representation.species, kernel.cutoff, *_principal(splines, constants))


def _principal(splines: Tensor, constants: Tensor, *, negligible: float = 1e-9) -> tuple[Tensor, Tensor]:
    """The first function as it is; the others turned so that they are orthogonal, without those that are rounding."""
    stacked = torch.cat([splines.flatten(0, 1), constants])
    left, sizes, _ = torch.linalg.svd(stacked[:, 1:], full_matrices=False)
    kept = sizes > negligible * sizes[0]
    found = torch.cat([stacked[:, :1], left[:, kept] * sizes[kept]], 1)
    edge = splines.shape[:2].numel()
    return found[:edge].view(*splines.shape[:2], -1).contiguous(), found[edge:].contiguous()


@dataclass(frozen=True, eq=False)
class TabulatedPotential:
    """A pair potential whose mean and variances come from splines; made by :func:`tabulated`.

    What a table does not change is that of :attr:`exact`: ``training``, ``trained``, ``noise_energy``, ``noise_force``,
    ``features``, ``force_factor``, ``deviation_gradient``, and the left-out predictions.

    Attributes
    ----------
    exact
        The potential in the form of its kernel: it learns, and remembers what was learned.
    table
        The mean, and every eigenfunction of the covariance.
    tolerance, deviation
        What was asked for, and the largest difference from ``exact`` on the training structures, in eV and eV/Å.
    """

    exact: PairGPPotential
    table: PairTable
    tolerance: float
    deviation: float

    def __getattr__(self, name: str) -> Any:
        if name in _SHARED:
            return getattr(self.exact, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the potential comes from, and how well the splines keep it."""
        return {**self.exact.provenance, "model": "PairGP, tabulated", "deviation": self.deviation}

    def predict(self, structures: Any, *, covariance: bool = False) -> Prediction:
        """Predictive distributions of energies (eV), forces (eV/Å) and, for crystals, stresses (eV/Å³).

        Parameters
        ----------
        covariance
            Also the full covariance of the forces of each structure.

        Raises
        ------
        DataError
            If a structure holds an element that was not trained.
        """
        batch = Structures.coerce(structures).to(dtype=torch.float64)
        parts = [self._moments(part, bool(batch.pbc.all()), covariance) for part in portions(batch)]
        blocks = tuple(block for part in parts for block in part.pop("blocks", ()))
        found: dict[str, Any] = {
            name: tuple(map(torch.cat, zip(*(part[name] for part in parts), strict=True))) for name in parts[0]
        }
        return Prediction(
            energy=_gaussian(found["energy"], "eV"),
            forces=_gaussian(found["forces"], "eV/Å", blocks or None),
            pointer=batch.pointer,
            stress=_gaussian(found["stress"], "eV/Å³") if "stress" in found else None,
            provenance=self.provenance,
        )

    def _moments(self, batch: Structures, stress: bool, covariance: bool) -> dict[str, Any]:
        """Mean, variance and epistemic variance of each quantity, and the covariance of the forces."""
        model, inflation, counts = self.exact.model, self.exact.inflation, batch.counts
        edges = self.table.edges(batch)
        prior = _prior(edges)
        noise = inflation * torch.exp(2 * model.log_noise[:FORCE])
        rows = self.table.energies(edges)
        known = inflation[ENERGY] * rows[:, 1:].square().sum(1)
        known = known + unknown_variance(model.representation.composition(batch), self.exact.guards)
        found: dict[str, Any] = {"energy": (rows[:, 0] + prior.energies, known + noise[ENERGY] * counts, known)}
        rows, spread = self.table.forces(edges), model.force_noise(batch).expand(-1, 3)
        known = rows[:, 1:].square().sum(1).view(-1, 3)
        found["forces"] = (rows[:, 0].view(-1, 3) + prior.forces, known + spread, known)
        if covariance:
            parts = zip(*(part.split((3 * counts).tolist()) for part in (rows[:, 1:], spread.flatten())), strict=True)
            found["blocks"] = [half @ half.mT + torch.diag(own) for half, own in parts]
        if stress:
            volume = batch.cell.det().abs()[:, None, None]
            rows = self.table.virials(edges).view(len(batch), 3, 3, -1)
            known = inflation[VIRIAL] * rows[..., 1:].square().sum(-1) / volume.square()
            extent = noise[VIRIAL] * counts[:, None, None] / volume.square()
            found["stress"] = ((rows[..., 0] + prior.virials) / volume, known + extent, known)
        return found

    def surface(self, structures: Any, *, virial: bool = False) -> Surface:
        """Mean energies, forces and virials without their uncertainty."""
        batch = Structures.coerce(structures).to(dtype=torch.float64)
        edges = self.table.edges(batch)
        prior = _prior(edges)
        energies, forces, strain = self.table.first(edges, virial=virial)
        strain = None if strain is None else strain + prior.virials
        return Surface(energies + prior.energies, forces + prior.forces, strain)

    def strangeness(self, structures: Any, prediction: Prediction | None = None) -> Float[Tensor, " structures"]:
        """As of :attr:`exact`: standard deviation of the energy for the root of the number of atoms, in eV; infinite
        for atoms too close, and for elements and compositions that were never trained."""
        batch = Structures.coerce(structures).to(dtype=torch.float64)
        known = torch.tensor(self.table.species, device=batch.species.device)
        strange = batch.structure_index[~torch.isin(batch.species, known)].unique()
        if prediction is None and not len(strange):
            prediction = self.predict(batch)
        return self.exact.strangeness(batch, prediction)

    def draws(self, size: int, *, seed: int | torch.Generator) -> list[TabulatedPotential]:
        """Potentials drawn from the posterior, each a function without epistemic uncertainty."""
        return [tabulated(draw, tolerance=self.tolerance) for draw in self.exact.draws(size, seed=seed)]

    def update(self, labelled: Labelled) -> TabulatedPotential:
        """Tables of the exact posterior after more labels."""
        return tabulated(self.exact.update(labelled), tolerance=self.tolerance)

    def calculator(self, **options: Any) -> Any:
        """ASE calculator of this potential; options as for :class:`~bayesmol.potentials.Calculator`."""
        from bayesmol.potentials.calculator import Calculator

        return Calculator(self, **{"device": self.table.splines.device, **options})

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header (JSON) and arrays that :meth:`from_state` reads back."""
        header, arrays = self.exact.state()
        own = {"tolerance": self.tolerance, "deviation": self.deviation}
        tables = {"table.splines": self.table.splines, "table.constants": self.table.constants}
        return {"exact": header, **own}, arrays | tables

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> TabulatedPotential:
        """Potential from :meth:`state`; raises :class:`FormatError` if a part is missing."""
        try:
            exact = PairGPPotential.from_state(header["exact"], arrays)
            place = exact.model.representation.species, exact.model.representation.basis.cutoff
            table = PairTable(*place, arrays["table.splines"], arrays["table.constants"])
            return cls(exact, table, header["tolerance"], header["deviation"])
        except (KeyError, TypeError) as error:
            raise FormatError(expected("state", "all parts of a table", repr(error), "save it again")) from error


def _prior(edges: PairEdges) -> PriorEnergy:
    """Repulsion of the nuclei; where no atoms are so close that they feel any, no neighbours are sought for it."""
    structures = edges.structures
    reach = FADE[1] * 2 * float(covalent_radii(structures.species).max())
    if reach > edges.cutoff or bool((edges.distances < reach).any()):
        return repulsion(structures)
    zeros = structures.positions.new_zeros
    return PriorEnergy(zeros(len(structures)), torch.zeros_like(structures.positions), zeros(len(structures), 3, 3))


def _gaussian(moments: tuple[Tensor, Tensor, Tensor], unit: str, covariance: Any = None) -> Gaussian:
    mean, variance, known = moments
    return Gaussian(mean, variance, unit=unit, epistemic_variance=known, covariance=covariance)
