"""Boltzmann densities of energies that are not formulas: of learned potentials, and of any calculator."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.flows.density import BoltzmannDensity, Surfaces
from bayesmol.flows.learned_surfaces import energy_surfaces, mean_surface
from bayesmol.posterior import Gaussian, Prediction

__all__ = ["from_calculator", "from_potential"]

_TOGETHER = 2**14  # atoms that a potential is asked about at once
_OVERLAP = 0.2  # Å; nuclei as near as this are in no training set, and many energies are not finite there

Evaluate = Callable[[Tensor, bool], tuple[Tensor, Tensor | None]]


def from_potential(
    model: Any, structure: Any, temperature: float, *, limit: float = float("inf"), name: str = "learned"
) -> BoltzmannDensity:
    r"""Boltzmann density of the mean energy of a fitted potential, with its posterior as ``surfaces``.

    The energy is :math:`+\infty` outside the domain of the potential: where a number is not finite, nuclei are nearer
    than 0.2 Å, or the strangeness is infinite or above ``limit``. No potential knows its energy there; what it says
    might be a deep hole, into which every sampler falls. So the density is that of the molecule *within the domain*,
    and populations are shares of it. Rows just inside it can still be wrong: their error bar is :func:`surface_error`.

    A potential that is flat at large distances has no normalisable density in a vacuum. Chains and flows started at
    the molecule do not feel this as long as it does not dissociate; where it does, give a ``limit``.

    Parameters
    ----------
    model
        A fitted or certified potential of this package, on the device of the rows; works with whatever has
        ``surface`` or ``predict``.
    structure
        The molecule, without periodic directions; its geometry is where chains start.
    temperature
        In K.
    limit
        Largest strangeness, as ``model.strangeness`` measures it; a finite one costs the variances at every call.

    Raises
    ------
    DataError
        If there is not one molecule without cell, or it lies outside the domain.
    """
    frame = _molecule(structure)
    energies = _Learned(model, frame, limit)
    start = _centred(frame.positions.double()).reshape(1, -1)
    if not bool(energies.inside(start).all()):
        raise DataError(expected("structure", "a molecule in the domain of the potential", "one outside", "train it"))

    def surfaces(x: Tensor, draws: int, seed: int | torch.Generator) -> Tensor:
        return energies.surfaces(x, draws, seed)

    return _density(lambda x: _Forces.apply(x, energies.evaluate), frame, start, temperature, surfaces, name)


def from_calculator(atoms: Any, temperature: float, *, name: str = "calculator") -> BoltzmannDensity:
    r"""Boltzmann density of a molecule with an ASE calculator attached; gradients are minus its forces.

    Rows go through the calculator one after the other, in this process: n rows cost n calculations, and a flow that
    is trained on energies asks for some :math:`10^5` to :math:`10^8`. For anything slower than a force field, label a
    few hundred frames, fit a potential, and take :func:`from_potential`. The energy is :math:`+\infty` where nuclei
    are nearer than 0.2 Å; errors of the calculator are raised.

    Parameters
    ----------
    atoms
        :class:`ase.Atoms` with a calculator, without periodic directions.
    temperature
        In K.

    Raises
    ------
    DataError
        If there is no calculator, or the molecule is periodic.
    """
    if getattr(atoms, "calc", None) is None:
        raise DataError(expected("atoms", "ase.Atoms with a calculator", "none", "set atoms.calc"))
    frame, own = _molecule(atoms), atoms.copy()
    own.calc = atoms.calc

    def evaluate(x: Float[Tensor, "points dimension"], gradient: bool) -> tuple[Tensor, Tensor | None]:
        positions = x.double().unflatten(1, (-1, 3))
        energies = torch.full((len(x),), torch.inf, dtype=torch.float64)
        slopes = torch.zeros(positions.shape, dtype=torch.float64) if gradient else None
        for row in (~_overlapping(positions)).nonzero()[:, 0].tolist():
            own.positions = positions[row].cpu().numpy()
            energies[row] = float(own.get_potential_energy())
            if slopes is not None:
                slopes[row] = -torch.from_numpy(own.get_forces().copy())
        return energies.to(x), None if slopes is None else slopes.flatten(1).to(x)

    start = _centred(frame.positions.double()).reshape(1, -1)
    return _density(lambda x: _Forces.apply(x, evaluate), frame, start, temperature, None, name)


@dataclass(frozen=True, eq=False)
class _Learned:
    """Energies of one molecule by a potential, infinite outside its domain."""

    model: Any
    frame: Structures
    limit: float

    def batch(self, x: Float[Tensor, "points dimension"]) -> Structures:
        """One structure for each row; rows were checked before, so no search for overlaps is needed."""
        like = self.frame.to(x.device)[torch.zeros(len(x), dtype=torch.long, device=x.device)]
        moved = copy.copy(like)
        object.__setattr__(moved, "positions", x.detach().double().reshape(-1, 3))
        return moved

    def portions(self, x: Tensor) -> list[Tensor]:
        """Rows that fit together into memory."""
        return list(x.split(max(1, 3 * _TOGETHER // x.shape[1])))

    def inside(self, x: Float[Tensor, "points dimension"]) -> Bool[Tensor, " points"]:
        """Which rows lie in the domain of the potential."""
        found = ~_overlapping(x.detach().double().unflatten(1, (-1, 3)))
        strangeness = getattr(self.model, "strangeness", None)
        if strangeness is None or not bool(found.any()):
            return found
        scores = []
        for part in self.portions(x[found]):
            batch = self.batch(part)
            # Whether a strangeness is infinite does not depend on variances: they are spared where it is all we ask.
            spared = _certain(batch) if self.limit == float("inf") else None
            scores.append(strangeness(batch, spared))
        score = torch.cat(scores).to(x.device)
        found[found.clone()] = torch.isfinite(score) & (score <= self.limit)
        return found

    def evaluate(self, x: Float[Tensor, "points dimension"], gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Energies in eV and their gradients in eV/Å, zero outside."""
        inside = self.inside(x)
        energies = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        slopes = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
        if bool(inside.any()):
            parts = [mean_surface(self.model, self.batch(part)) for part in self.portions(x[inside])]
            energies[inside] = torch.cat([part[0] for part in parts]).to(energies)
            slopes[inside] = -torch.cat([part[1] for part in parts]).reshape(-1, x.shape[1]).to(slopes)
        return energies.to(x.dtype), slopes.to(x.dtype) if gradient else None

    def surfaces(self, x: Tensor, draws: int, seed: int | torch.Generator) -> Float[Tensor, "draws points"]:
        """Joint draws of the energies of all rows from the posterior, in eV, infinite outside the domain."""
        inside = self.inside(x)
        found = torch.full((draws, len(x)), torch.inf, dtype=torch.float64, device=x.device)
        if bool(inside.any()):
            parts = [self.batch(part) for part in self.portions(x[inside])]
            found[:, inside] = energy_surfaces(self.model, parts, draws, seed=seed).to(found)
        return found


class _Forces(torch.autograd.Function):
    """Energies of rows whose gradients come from a model of forces."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, evaluate: Evaluate) -> Tensor:
        energies, gradient = evaluate(x.detach(), ctx.needs_input_grad[0])
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return energies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return change[:, None] * gradient, None


def _density(
    energy: Callable[[Tensor], Tensor],
    frame: Structures,
    start: Tensor,
    temperature: float,
    surfaces: Surfaces | None,
    name: str,
) -> BoltzmannDensity:
    atoms = len(frame.species)
    return BoltzmannDensity(
        energy,
        3 * atoms,
        temperature,
        unit="eV",
        shape=(atoms, 3),
        space=3,
        start=start,
        species=frame.species,
        surfaces=surfaces,
        name=name,
    )


def _molecule(structure: Any) -> Structures:
    """One structure without cell, from whatever holds it."""
    frame = Structures.coerce(structure)
    if len(frame) != 1 or bool(frame.pbc.any()):
        got = f"{len(frame)} structures" if len(frame) != 1 else "a periodic one"
        raise DataError(expected("structure", "one molecule without periodic directions", got))
    return frame.to(dtype=torch.float64)


def _centred(positions: Float[Tensor, "atoms 3"]) -> Float[Tensor, "atoms 3"]:
    return positions - positions.mean(0)


def _overlapping(positions: Float[Tensor, "points atoms 3"]) -> Bool[Tensor, " points"]:
    """Whether two nuclei are too near, or a position is not finite."""
    finite = positions.isfinite().flatten(1).all(1)
    first, second = torch.triu_indices(positions.shape[1], positions.shape[1], 1, device=positions.device)
    distances = (positions[:, first] - positions[:, second]).norm(dim=2)
    return ~finite | (distances < _OVERLAP).any(1)


def _certain(batch: Structures) -> Prediction:
    """A prediction that says nothing."""
    energy = torch.zeros(len(batch), dtype=torch.float64, device=batch.positions.device)
    parts = []
    for mean, unit in ((energy, "eV"), (torch.zeros_like(batch.positions), "eV/Å")):
        one = torch.ones_like(mean)
        parts.append(Gaussian(mean, one, unit=unit, epistemic_variance=one))
    return Prediction(energy=parts[0], forces=parts[1], pointer=batch.pointer)
