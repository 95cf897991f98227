"""A committee of existing potentials: their mean, their spread, and how much of the error the spread explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.posterior import Gaussian, Mixture, Prediction
from bayesmol.potentials.foundation import Foundation
from bayesmol.potentials.foundation_rows import ENERGY, FORCE, VIRIAL, truncated
from bayesmol.potentials.guards import REACH, frame_keys, guarded_strangeness, guards, unknown_variance
from bayesmol.potentials.surface import Surface, surface
from bayesmol.representation.radial import element_counts

__all__ = ["Committee", "CommitteePotential"]


@dataclass(frozen=True, eq=False)
class Committee(Foundation):
    """Several potentials of the same quantity.

    Attributes
    ----------
    members
        Foundations or fitted potentials, two or more.
    """

    members: tuple[Any, ...]

    @classmethod
    def of(cls, members: Sequence[Any]) -> Committee:
        """Committee of foundations, fitted potentials, ASE calculators and references.

        Raises
        ------
        DataError
            If there are fewer than two, or one is none of these.
        """
        if len(members) < 2:
            raise DataError(expected("members", "two or more potentials", len(members)))
        known = ("surface", "predict")
        found = [m if any(hasattr(m, name) for name in known) else Foundation.from_calculator(m) for m in members]
        return cls(tuple(found))

    @property
    def identity(self) -> dict[str, Any]:
        """Identities of the members."""
        names = [getattr(member, "identity", {"kind": type(member).__name__}) for member in self.members]
        return {"kind": "committee", "members": names}

    def surface(self, structures: Any, *, virial: bool = False) -> Surface:
        """Mean of the members."""
        energies, forces, virials = self.surfaces(Structures.coerce(structures), virial)
        return Surface(energies.mean(0), forces.mean(0), None if virials is None else virials.mean(0))

    def surfaces(self, structures: Structures, virial: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Energies (members, structures), forces (members, atoms, 3) and virials of all members."""
        found = [surface(member, structures, virial=virial) for member in self.members]
        virials = torch.stack([part.needed_virials.double() for part in found]) if virial else None
        return (
            torch.stack([part.energies.double() for part in found]),
            torch.stack([part.forces.double() for part in found]),
            virials,
        )

    def fit(self, train: Labelled) -> CommitteePotential:
        """References of each member, and the scales of spread and noise, from labels that no member was fitted to.

        Every member gets energies of the elements of its own by least squares, because potentials of different
        origin count from different zeros.

        Raises
        ------
        DataError
            If there are fewer than five structures, or energies or forces are missing.
        """
        from bayesmol.potentials.foundation_fit import two_scales

        data = train.to(dtype=torch.float64)
        if len(data) < 5 or data.energies is None or not bool(data.has_forces.any()):
            raise DataError(expected("train", "five or more structures with energies and forces", f"{data}"))
        species = tuple(sorted(set(data.structures.species.tolist())))
        energies, forces, _ = self.surfaces(data.structures, False)
        composition, counts = element_counts(data.structures, species), data.structures.counts.double()
        references = (torch.linalg.pinv(composition) @ (data.energies - energies).T).T
        energies = energies + references @ composition.T
        seen = data.has_forces[data.structures.structure_index]
        residual = (data.given("forces") - forces.mean(0))[seen].flatten()
        pairs = {
            ENERGY: (data.energies - energies.mean(0), energies.var(0), counts),
            FORCE: (residual, forces.var(0)[seen].flatten(), torch.ones_like(residual)),
        }
        scales = {kind: two_scales(*parts) for kind, parts in pairs.items()}
        scales[VIRIAL] = scales[ENERGY]
        widths, floors = (torch.tensor(column).double() for column in zip(*(scales[k] for k in range(3)), strict=True))
        limits = guards(data.structures, species, REACH)
        return CommitteePotential(self, species, references, widths, floors, limits, data)


@dataclass(frozen=True, eq=False)
class CommitteePotential:
    r"""A committee whose spread has been compared with labels; made by :meth:`Committee.fit`.

    A label is a mixture over the members, :math:`\tfrac1M \sum_m \mathcal N(\bar y + \sqrt a\,(y_m - \bar y), s\,n)`,
    with the width a and the noise s of energies and of forces by
    :func:`~bayesmol.potentials.foundation_fit.two_scales`.

    Attributes
    ----------
    committee, species, references
        Members, trained elements, and for each member the energies of the elements that are added, in eV.
    widths, floors
        Of energies, virials and forces: factor of the variance of the members, and variance of the noise.
    guards, training
        Limits of what was trained, and the labels.
    """

    committee: Committee
    species: tuple[int, ...]
    references: Float[Tensor, "members species"]
    widths: Float[Tensor, 3]
    floors: Float[Tensor, 3]
    guards: dict[str, Tensor]
    training: Labelled

    @property
    def noise_force(self) -> float:
        """Standard deviation of a force label about the model, in eV/Å."""
        return float(self.floors[FORCE].sqrt())

    @property
    def noise_energy(self) -> float:
        """Standard deviation of the energy label of one atom about the model, in eV."""
        return float(self.floors[ENERGY].sqrt())

    @property
    def provenance(self) -> dict[str, Any]:
        """Number and fingerprint of the labels, and the members."""
        members = self.committee.identity["members"]
        return {"structures": len(self.training), "training_hash": self.training.fingerprint, "members": members}

    def predict(self, structures: Any, *, covariance: bool = False) -> Prediction:
        """Predictive distributions of energies (eV), forces (eV/Å) and, for crystals, stresses (eV/Å³).

        Parameters
        ----------
        covariance
            Forces as a Gaussian with the covariance of the members in each structure, not as a mixture.

        Raises
        ------
        DataError
            If a structure holds an element that was not trained.
        """
        batch = Structures.coerce(structures).to(dtype=torch.float64)
        composition, stress = element_counts(batch, self.species), bool(batch.pbc.all())
        energies, forces, virials = self.committee.surfaces(batch, stress)
        energies = self._spread(energies + self.references @ composition.T, ENERGY)
        forces, counts = self._spread(forces, FORCE), batch.counts.double()
        noise = self.floors[ENERGY] * counts + unknown_variance(composition, self.guards)
        parts: dict[str, Any] = {"energy": _mixture(energies, noise, "eV")}
        flat = self.floors[FORCE].expand(forces.shape[1:])
        parts["forces"] = self._joint(forces, batch) if covariance else _mixture(forces, flat, "eV/Å")
        if virials is not None:
            volume = batch.cell.det().abs()[:, None, None]
            extent = self.floors[VIRIAL] * counts[:, None, None] / volume**2
            parts["stress"] = _mixture(self._spread(virials, VIRIAL) / volume, extent.expand(-1, 3, 3), "eV/Å³")
        return Prediction(pointer=batch.pointer, provenance={**self.provenance, "model": "committee"}, **parts)

    def surface(self, structures: Any, *, virial: bool = False) -> Surface:
        """The mean alone."""
        batch = Structures.coerce(structures).to(dtype=torch.float64)
        found = self.committee.surface(batch, virial=virial)
        return replace(found, energies=found.energies + element_counts(batch, self.species) @ self.references.mean(0))

    def strangeness(self, structures: Any, prediction: Prediction | None = None) -> Float[Tensor, " structures"]:
        """Spread of the energies of the members for the root of the number of atoms, in eV: higher is stranger.

        Infinite if two atoms are closer than 0.8 times any trained distance of their elements, an element or a
        composition was never trained.
        """

        def variance(inside: Structures) -> Tensor:
            energies = self.committee.surfaces(inside, False)[0]
            energies = energies + self.references @ element_counts(inside, self.species).T
            return self._spread(energies, ENERGY).var(0, correction=0)

        batch = Structures.coerce(structures).to(dtype=torch.float64)
        return guarded_strangeness(batch, self.species, self.guards, variance, prediction)

    def force_factor(self, structures: Any, rank: int = 512, seed: int | torch.Generator = 0) -> list[Tensor]:
        """Matrices W of each structure, (3 atoms, members) in eV/Å: the scaled deviations of the members."""
        batch = Structures.coerce(structures).to(dtype=torch.float64)
        forces = self._spread(self.committee.surfaces(batch, False)[1], FORCE)
        factor = truncated(((forces - forces.mean(0)) / len(forces) ** 0.5).flatten(1).T, rank)
        return list(factor.split((3 * batch.counts).tolist()))

    def trained(self, structures: Any) -> Bool[Tensor, " structures"]:
        """Whether the scales were learned from exactly these structures."""
        keys = frame_keys(Structures.coerce(structures).to(dtype=torch.float64))
        return torch.isin(keys, self.guards["frames"].to(keys.device))

    def calculator(self, **options: Any) -> Any:
        """ASE calculator of this potential; options as for :class:`~bayesmol.potentials.Calculator`."""
        from bayesmol.potentials.calculator import Calculator

        return Calculator(self, **options)

    def _spread(self, values: Tensor, kind: int) -> Tensor:
        """Members moved such that their variance (with M, not M − 1) is that of a member times the width."""
        factor = (self.widths[kind] * len(values) / (len(values) - 1)).sqrt()
        return values.mean(0) + factor * (values - values.mean(0))

    def _joint(self, forces: Tensor, batch: Structures) -> Gaussian:
        centred = (forces - forces.mean(0)).flatten(1) / len(forces) ** 0.5
        noise, blocks = self.floors[FORCE], []
        for part in centred.split((3 * batch.counts).tolist(), 1):
            blocks.append(part.T @ part + noise * torch.eye(part.shape[1]).to(part))
        variance = torch.cat([block.diagonal() for block in blocks]).reshape(-1, 3)
        mean, known = forces.mean(0), variance - noise
        return Gaussian(mean, variance, unit="eV/Å", covariance=tuple(blocks), epistemic_variance=known)


def _mixture(means: Tensor, noise: Tensor, unit: str) -> Mixture:
    return Mixture(means, noise.expand(means.shape), unit=unit)
