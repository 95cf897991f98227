"""The fitted neural potential: predictive distributions, joint covariances, draws and updates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NoReturn

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.potentials.guards import frame_keys, guarded_strangeness, unknown_variance
from bayesmol.potentials.neural_energy import NeuralEnergy
from bayesmol.potentials.neural_member import Member, Moments, moments
from bayesmol.potentials.neural_scales import Scales
from bayesmol.potentials.surface import Surface
from bayesmol.progress import progress

_ATOMS = 2048  # of the structures that are predicted together


@dataclass(frozen=True, eq=False)
class NetworkPotential:
    """Posterior over neural potentials; made by :meth:`bayesmol.potentials.NeuralPotential.fit`.

    Attributes
    ----------
    members
        Networks, each with a Gaussian last layer; together a mixture.
    scales
        Factors of the epistemic variances, and the noise of labels about the potential.
    guards
        Shortest trained distance of each pair of elements, trained compositions, fingerprints of training frames.
    provenance
        Configuration, posterior, fingerprint and number of the training structures.
    """

    members: tuple[Member, ...]
    scales: Scales
    guards: dict[str, Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> NeuralEnergy:
        """The first network: species, cutoff and references are those of all."""
        return self.members[0].energy

    @cached_property
    def noise_force(self) -> float:
        """Standard deviation of a force label about the potential, in eV/Å: root mean square over the elements."""
        return float(self.scales.force_noise.mean().sqrt())

    @cached_property
    def noise_energy(self) -> float:
        """Standard deviation of the energy label of one atom, in eV; it grows with the root of the atoms."""
        return self.scales.energy_noise**0.5

    def predict(self, structures: Any, *, covariance: bool = False, atomic: bool = False) -> Prediction:
        """Predictive distributions of energies (eV), forces (eV/Å) and, for crystals, stresses (eV/Å³).

        Parameters
        ----------
        covariance
            Also the full covariance of the forces of each structure.
        atomic
            Also the energies of the atoms.

        Raises
        ------
        DataError
            If a structure holds an element that was not trained.
        """
        batch = self._placed(structures)
        stress = bool(batch.pbc.all())
        found: dict[str, list[Any]] = {"energy": [], "forces": [], "stress": [], "atomic": []}
        with progress("predicting", len(batch)) as advance:
            for part in chunks(batch):
                own = moments(self.members, part, virial=stress)
                found["energy"].append(self._energy(own["energy"], part))
                found["forces"].append(self._forces(own["forces"], part, covariance))
                found["atomic"].append(self._atomic(own["atomic"]))
                if stress:
                    found["stress"].append(self._stress(own["virial"], part))
                advance(len(part))
        return Prediction(
            energy=_joined(found["energy"], "eV"),
            forces=_joined(found["forces"], "eV/Å", covariance),
            pointer=batch.pointer,
            stress=_joined(found["stress"], "eV/Å³") if stress else None,
            atomic_energies=_joined(found["atomic"], "eV") if atomic else None,
            provenance={"model": "NeuralPotential", **self.provenance},
        )

    def _placed(self, structures: Any) -> Structures:
        return Structures.coerce(structures).to(device=self.model.references.device, dtype=torch.float64)

    def _energy(self, own: Moments, part: Structures) -> tuple[Tensor, ...]:
        known = self.scales.energy * own.variance
        known = known + unknown_variance(self.model.network.composition(part), self.guards)
        return own.mean, known + self.scales.energy_noise * part.counts, known

    def _forces(self, own: Moments, part: Structures, covariance: bool) -> tuple[Any, ...]:
        known = self.scales.force * own.variance
        noise = self.scales.force_noise.to(known)[self.model.network.kinds(part)].repeat_interleave(3)
        triple = tuple(value.reshape(-1, 3) for value in (own.mean, known + noise, known))
        if not covariance:
            return triple
        sizes = (3 * part.counts).tolist()
        rows = zip(own.factor.split(sizes), noise.split(sizes), strict=True)
        return (*triple, [self.scales.force * row @ row.T + torch.diag(part) for row, part in rows])

    def _stress(self, own: Moments, part: Structures) -> tuple[Tensor, ...]:
        volume = part.cell.det().abs()[:, None, None]
        known = self.scales.energy * own.variance.reshape(-1, 3, 3) / volume.square()
        noise = self.scales.energy_noise * part.counts[:, None, None] / volume.square()
        return own.mean.reshape(-1, 3, 3) / volume, known + noise, known

    def _atomic(self, own: Moments) -> tuple[Tensor, ...]:
        known = self.scales.energy * own.variance
        return own.mean, known + self.scales.energy_noise, known

    def surface(self, structures: Any, *, virial: bool = False) -> Surface:
        """Mean energies, forces and virials without their uncertainty: one forward and one backward pass."""
        batch = self._placed(structures)
        certain = tuple(Member(member.energy, member.root[:, :0]) for member in self.members)
        parts = [moments(certain, part, virial=virial) for part in chunks(batch)]
        energies, forces = (torch.cat([part[name].mean for part in parts]) for name in ("energy", "forces"))
        virials = torch.cat([part["virial"].mean for part in parts]).reshape(-1, 3, 3) if virial else None
        return Surface(energies, forces.reshape(-1, 3), virials)

    def strangeness(self, structures: Any, prediction: Prediction | None = None) -> Float[Tensor, " structures"]:
        """Epistemic standard deviation of the energy for the root of the number of atoms, in eV: higher is stranger.

        Infinite if two atoms are closer than 0.8 times any trained distance of their elements, an element or a
        composition was never trained. A ``prediction`` of these structures, where there is one, saves the work.
        """

        def variance(inside: Structures) -> Tensor:
            return self.scales.energy * self._energy_moments(inside).variance

        batch, species = self._placed(structures), self.model.network.species
        return guarded_strangeness(batch, species, self.guards, variance, prediction)

    def _energy_moments(self, batch: Structures) -> Moments:
        parts = [moments(self.members, part, forces=False)["energy"] for part in chunks(batch)]
        return Moments(torch.cat([part.mean for part in parts]), torch.cat([part.factor for part in parts]))

    def features(self, structures: Any) -> Float[Tensor, "structures rank"]:
        """Energies along the columns of a root of the posterior's covariance, in eV: their scalar products are the
        epistemic covariance of the energies."""
        return self.scales.energy**0.5 * self._energy_moments(self._placed(structures)).factor

    def force_factor(
        self, structures: Any, rank: int | None = None, seed: int | torch.Generator = 0
    ) -> list[Float[Tensor, "rows rank"]]:
        """Matrices W of each structure, (3 atoms, rank) in eV/Å, with Cov(F_s, F_t) = W_s W_tᵀ exactly.

        ``rank`` and ``seed`` are those of other potentials; here the rank is that of the posterior.
        """
        found = []
        for part in chunks(self._placed(structures)):
            factor = self.scales.force**0.5 * moments(self.members, part)["forces"].factor
            found += factor.split((3 * part.counts).tolist())
        return found

    def deviation_gradient(self, structures: Any) -> tuple[Float[Tensor, " structures"], Float[Tensor, "atoms 3"]]:
        r"""Epistemic standard deviation of each energy in eV, and its gradient in eV/Å, zero where the deviation is.

        .. math:: \nabla_R\, \sigma_E = -\mathrm{Cov}(E, F) / \sigma_E
        """
        deviations, gradients = [], []
        for part in chunks(self._placed(structures)):
            own = moments(self.members, part)
            deviation = (self.scales.energy * own["energy"].variance).sqrt()
            owner = part.structure_index.repeat_interleave(3)
            slope = -self.scales.energy * (own["energy"].factor[owner] * own["forces"].factor).sum(1)
            gradients.append(torch.where(deviation[owner] > 0, slope / deviation[owner], 0.0).view(-1, 3))
            deviations.append(deviation)
        return torch.cat(deviations), torch.cat(gradients)

    def draws(self, size: int, *, seed: int | torch.Generator) -> list[NetworkPotential]:
        """Potentials drawn from the posterior before its scales, each a function without epistemic uncertainty.

        Energies and forces have factors of their own, which no single function can follow.
        """
        source = generator(seed)
        chosen = torch.randint(len(self.members), (size,), generator=source).tolist()
        return [replace(self, members=(self.members[index].drawn(source),)) for index in chosen]

    def update(self, labelled: Labelled) -> NetworkPotential:
        """Posterior of the last layer after more labelled structures; the features and the scales stay.

        Raises
        ------
        DataError
            If there are several networks, or the last layer has no uncertainty.
        """
        from bayesmol.potentials.neural_updates import updated

        return updated(self, labelled)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> NetworkPotential:
        """The same potential on another device, or with networks of another floating-point type."""
        from bayesmol.potentials.neural_updates import moved

        return moved(self, device, dtype)

    def trained(self, structures: Any) -> Bool[Tensor, " structures"]:
        """Whether the potential was fitted, validated or updated with exactly these structures."""
        keys = frame_keys(Structures.coerce(structures))
        return torch.isin(keys, self.guards["frames"].to(keys.device))

    def calculator(self, **options: Any) -> Any:
        """ASE calculator of this potential; options as for :class:`~bayesmol.potentials.Calculator`."""
        from bayesmol.potentials.calculator import Calculator

        return Calculator(self, **{"device": self.model.references.device, **options})

    def leave_one_out(self) -> NoReturn:
        """Not to be had: each left-out structure would take a training of its own.

        Raises
        ------
        DataError
            Always.
        """
        got = "None, and a network has no left-out predictions"
        raise DataError(expected("calibration", "labelled structures for a network", got, "keep some frames apart"))

    @property
    def training(self) -> Labelled:
        """As :meth:`leave_one_out`."""
        self.leave_one_out()

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header (JSON) and arrays that :meth:`from_state` reads back."""
        from bayesmol.potentials.neural_state import state

        return state(self)

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> NetworkPotential:
        """Potential from :meth:`state`."""
        from bayesmol.potentials.neural_state import from_state

        return from_state(header, arrays)


def chunks(structures: Structures) -> Iterator[Structures]:
    """Consecutive structures with a bounded number of atoms together."""
    start = 0
    while start < len(structures):
        reach = structures.pointer - structures.pointer[start] <= _ATOMS
        stop = max(start + 1, int(reach.nonzero()[-1]))
        yield structures[start:stop]
        start = stop


def _joined(parts: list[tuple[Any, ...]], unit: str, covariance: bool = False) -> Gaussian:
    mean, variance, epistemic = (torch.cat([part[index] for part in parts]) for index in range(3))
    blocks = tuple(block for part in parts for block in part[3]) if covariance else None
    return Gaussian(mean, variance, unit=unit, epistemic_variance=epistemic, covariance=blocks)
