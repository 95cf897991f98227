"""A foundation with a Bayesian correction on its features: predictive distributions, draws, updates."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.inference.conjugate import LinearPosterior
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.potentials.foundation import Foundation, LayeredFoundation
from bayesmol.potentials.foundation_rows import (
    ENERGY,
    FORCE,
    OFFSET,
    VIRIAL,
    LayerModel,
    layer_rows,
    truncated,
    with_scale,
)
from bayesmol.potentials.foundation_state import remembered
from bayesmol.potentials.guards import REACH, frame_keys, guarded_strangeness, guards, merged, unknown_variance
from bayesmol.potentials.surface import Surface
from bayesmol.progress import progress
from bayesmol.representation.design import Design
from bayesmol.representation.radial import element_counts

__all__ = ["FoundationPotential"]

_TOGETHER = 16  # structures


@dataclass(frozen=True, eq=False)
class FoundationPotential:
    """Posterior over corrections; made by :meth:`bayesmol.potentials.Foundation.with_last_layer`.

    Attributes
    ----------
    foundation
        The mean of the prior.
    model, posterior
        Scales, and the distribution of the whitened weights before its factor ``model.widths``.
    guards
        Shortest trained distances, trained compositions and frames.
    training, left_out
        Labels, and their left-out predictions.
    probes
        What the foundation says of the first structures, by which it is recognised.
    provenance
        Fingerprint, source and number of the training structures.
    """

    foundation: Foundation
    model: LayerModel
    posterior: LinearPosterior
    guards: dict[str, Tensor]
    training: Labelled
    left_out: dict[str, Tensor]
    probes: dict[str, Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def noise_force(self) -> float:
        """Standard deviation of a force label about the model, in eV/Å."""
        return float(self.model.floors[FORCE].sqrt())

    @property
    def noise_energy(self) -> float:
        """Standard deviation of the energy label of one atom about the model, in eV."""
        return float(self.model.floors[ENERGY].sqrt())

    @property
    def probe(self) -> tuple[Structures, Surface]:
        """Structures, and what the foundation says of them."""
        return remembered(self.probes)

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
        batch = self._placed(structures)
        stress, parts = bool(batch.pbc.all()), []
        with progress("predicting", len(batch)) as advance:
            for chunk in torch.arange(len(batch)).split(_TOGETHER):
                parts.append(self._moments(batch[chunk], stress, covariance))
                advance(len(chunk))
        names = ("energy", "forces", "stress") if stress else ("energy", "forces")
        found = {name: tuple(map(torch.cat, zip(*(part[name] for part in parts), strict=True))) for name in names}
        blocks = tuple(block for part in parts for block in part["blocks"]) if covariance else None
        return Prediction(
            energy=_gaussian(found["energy"], "eV"),
            forces=_gaussian(found["forces"], "eV/Å", blocks),
            pointer=batch.pointer,
            stress=_gaussian(found["stress"], "eV/Å³") if stress else None,
            provenance={
                **self.provenance,
                "model": "foundation with a last layer",
                "foundation": self.foundation.identity,
            },
        )

    def _moments(self, batch: Structures, stress: bool, covariance: bool) -> dict[str, Any]:
        """Mean, variance and epistemic variance of each quantity of a few structures."""
        base, design, composition = self._rows(batch, virial=stress)
        offset = composition @ self.model.references
        white = {
            "energy": self.model.whitened(design.energy, composition),
            "forces": self.model.whitened(design.given("forces")),
        }
        energy = self._functional(white["energy"], ENERGY)
        energy = (energy[0] + base.energies + offset, energy[1] + unknown_variance(composition, self.guards))
        force = tuple(part.reshape(-1, 3) for part in self._functional(white["forces"], FORCE))
        floors = self.model.floors
        found: dict[str, Any] = {
            "energy": _noisy(energy, floors[ENERGY] * batch.counts),
            "forces": _noisy((force[0] + base.forces, force[1]), floors[FORCE]),
        }
        if covariance:
            own = white["forces"].split((3 * batch.counts).tolist())
            known = [self.model.widths[FORCE] * self.posterior.covariance(part) for part in own]
            found["blocks"] = [block + floors[FORCE] * torch.eye(len(block)).to(block) for block in known]
        if stress:
            volume = batch.cell.det().abs()[:, None, None]
            mean, variance = self._functional(self.model.whitened(design.given("virial")), VIRIAL)
            mean, variance = mean.reshape(-1, 3, 3) + base.needed_virials, variance.reshape(-1, 3, 3)
            noise = floors[VIRIAL] * batch.counts[:, None, None]
            found["stress"] = _noisy((mean / volume, variance / volume**2), noise / volume**2)
        return found

    def _functional(self, white: Tensor, kind: int) -> tuple[Tensor, Tensor]:
        return white @ self.posterior.mean, self.model.widths[kind] * self.posterior.variance(white)

    def _placed(self, structures: Any) -> Structures:
        return Structures.coerce(structures).to(self.posterior.mean.device, torch.float64)

    def _rows(
        self, batch: Structures, *, forces: bool = True, virial: bool = False
    ) -> tuple[Surface, Design, Float[Tensor, "structures species"]]:
        """What the foundation says, raw columns, and compositions."""
        composition = element_counts(batch, self.model.species)
        base, design = cast(LayeredFoundation, self.foundation).layer(
            batch, self.model.heads, forces=forces, virial=virial
        )
        return base, with_scale(base, design), composition

    def surface(self, structures: Any, *, virial: bool = False) -> Surface:
        """The mean alone: two backward passes, whatever the number of columns."""
        batch, columns = self._placed(structures), len(self.model.scales)
        weights = (self.model.scales * self.posterior.mean[:columns])[:, None]
        offset = element_counts(batch, self.model.species) @ (
            self.model.references + OFFSET * self.posterior.mean[columns:]
        )
        base, design = cast(LayeredFoundation, self.foundation).layer(
            batch, self.model.heads @ weights[1:], virial=virial
        )
        stiff = 1 + weights[0]
        virials = stiff * base.needed_virials + design.given("virial").reshape(-1, 3, 3) if virial else None
        energies = stiff * base.energies + design.energy[:, 0] + offset
        return Surface(energies, stiff * base.forces + design.given("forces").reshape(-1, 3), virials)

    def strangeness(self, structures: Any, prediction: Prediction | None = None) -> Float[Tensor, " structures"]:
        """Epistemic standard deviation of the energy for the root of the number of atoms, in eV: higher is stranger.

        Infinite if two atoms are closer than 0.8 times any trained distance of their elements, an element or a
        composition was never trained. A ``prediction`` of these structures, where there is one, saves the work.
        """

        def variance(inside: Structures) -> Tensor:
            return self._functional(self.features(inside), ENERGY)[1]

        return guarded_strangeness(self._placed(structures), self.model.species, self.guards, variance, prediction)

    def features(self, structures: Any) -> Float[Tensor, "structures weights"]:
        """Features in which the correction is linear with a unit prior; no backward pass is needed."""
        _, design, composition = self._rows(self._placed(structures), forces=False)
        return self.model.whitened(design.energy, composition)

    def force_factor(self, structures: Any, rank: int = 512, seed: int | torch.Generator = 0) -> list[Tensor]:
        """Matrices W of each structure, (3 atoms, columns) in eV/Å, with Cov(F_s, F_t) = W_s W_tᵀ.

        Exact if ``rank`` reaches the number of weights, which is small; else the best of that rank, without chance.
        """
        batch = self._placed(structures)
        white = self.model.whitened(self._rows(batch)[1].given("forces"))
        root = self.posterior.spread(torch.eye(white.shape[1]).to(white))
        factor = truncated(self.model.widths[FORCE].sqrt() * white @ root, rank)
        return list(factor.split((3 * batch.counts).tolist()))

    def draws(self, size: int, *, seed: int | torch.Generator) -> list[FoundationPotential]:
        """Potentials drawn from the posterior of the forces, each a function without epistemic uncertainty."""
        mean = self.posterior.mean
        weights = mean + self.model.widths[FORCE].sqrt() * (self.posterior.sample(size, seed=seed) - mean)
        certain = torch.eye(len(mean)).to(mean)
        return [replace(self, posterior=LinearPosterior(weight, None, certain)) for weight in weights]

    def update(self, labelled: Labelled) -> FoundationPotential:
        """Posterior after more labelled structures with the same scales; equal to a fit of all data with these."""
        data = labelled.to(self.posterior.mean.device, torch.float64)
        virial = data.stresses is not None and bool(data.has_stresses.any())
        base, design, _ = self._rows(data.structures, virial=virial)
        rows = layer_rows(data, base, design, self.model.species, self.model.references)
        noise = self.model.levels[rows.kind] * rows.extent + rows.errors.square()
        posterior = self.posterior.updated(self.model.whitened(rows.design, rows.composition), rows.targets, noise)
        limits = merged(self.guards, guards(data.structures, self.model.species, REACH))
        return replace(self, posterior=posterior, guards=limits)

    def trained(self, structures: Any) -> Bool[Tensor, " structures"]:
        """Whether the potential was fitted or updated with exactly these structures."""
        keys = frame_keys(Structures.coerce(structures).to(dtype=torch.float64))
        return torch.isin(keys, self.guards["frames"].to(keys.device))

    def leave_one_out(self) -> Prediction:
        """Predictions of :attr:`training`, each from all other structures.

        Raises
        ------
        DataError
            If energies are missing.
        """
        if "energy_mean" not in self.left_out:
            raise DataError(expected("training labels", "energies", "none", "certify with calibration structures"))
        mean = torch.zeros_like(self.training.structures.positions)
        variance = torch.full_like(mean, 1e12)
        if "force_residual" in self.left_out:
            labelled = self.training.has_forces[self.training.structures.structure_index]
            mean[labelled] = self.training.given("forces")[labelled] - self.left_out["force_residual"]
            variance[labelled] = self.left_out["force_variance"]
        energy = Gaussian(self.left_out["energy_mean"], self.left_out["energy_variance"], unit="eV")
        forces = Gaussian(mean, variance, unit="eV/Å")
        return Prediction(energy=energy, forces=forces, pointer=self.training.structures.pointer)

    def left_out_strangeness(self) -> Float[Tensor, " structures"]:
        """Strangeness of the training structures under the posterior of all others, in eV."""
        if "strangeness" not in self.left_out:
            raise DataError(expected("training labels", "energies", "none", "certify with calibration structures"))
        return self.left_out["strangeness"]

    def calculator(self, **options: Any) -> Any:
        """ASE calculator of this potential; options as for :class:`~bayesmol.potentials.Calculator`."""
        from bayesmol.potentials.calculator import Calculator

        return Calculator(self, **{"device": self.posterior.mean.device, **options})

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header (JSON) and arrays that :meth:`from_state` reads back; the foundation only by its identity."""
        from bayesmol.potentials.foundation_saved import state

        return state(self)

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> FoundationPotential:
        """Potential from :meth:`state`; a foundation that no file can hold must be attached before it predicts."""
        from bayesmol.potentials.foundation_saved import from_state

        return from_state(header, arrays)


def _gaussian(moments: tuple[Tensor, ...], unit: str, covariance: tuple[Tensor, ...] | None = None) -> Gaussian:
    mean, variance, epistemic = moments
    return Gaussian(mean, variance, unit=unit, epistemic_variance=epistemic, covariance=covariance)


def _noisy(moments: tuple[Tensor, Tensor], noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, predictive and epistemic variance."""
    return moments[0], moments[1] + noise, moments[1]
