"""The fitted Bayesian ACE: predictive distributions, joint covariances, draws and updates."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.inference.conjugate import LinearPosterior
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.potentials.ace_rows import ENERGY, FORCE, VIRIAL, Model
from bayesmol.potentials.guards import frame_keys, guarded_strangeness, merged, unknown_variance
from bayesmol.potentials.surface import Surface
from bayesmol.progress import progress
from bayesmol.representation.design import Design

if TYPE_CHECKING:
    from bayesmol.potentials.ace_surface import ACESurface


Own = TypeVar("Own", bound="ACEPotential")  # Self, which beartype does not know in a method


@dataclass(frozen=True)
class ACEPotential:
    """Posterior over potentials; made by :meth:`bayesmol.potentials.BayesianACE.fit`.

    Attributes
    ----------
    model
        Representation and scales.
    posterior
        Distribution of the whitened weights.
    guards
        Shortest trained distance of each pair of elements, and an orthonormal basis of the trained compositions.
    training
        Those training structures on which the mixing was not learned: their left-out predictions are honest.
    left_out
        Moments of these predictions, and the left-out strangeness of more structures.
    inflation
        Factors of the variances of energies and of stresses; see :func:`bayesmol.potentials.ace_scales.inflation`.
    provenance
        Fingerprint, source and number of the training structures.
    """

    model: Model
    posterior: LinearPosterior
    guards: dict[str, Tensor]
    training: Labelled
    left_out: dict[str, Tensor]
    inflation: Float[Tensor, 2]
    provenance: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def noise_force(self) -> float:
        """Standard deviation of a force label about the model, in eV/Å: root mean square over the elements."""
        return float(torch.exp(2 * self.model.log_noise[FORCE:]).mean().sqrt())

    @cached_property
    def noise_energy(self) -> float:
        """Standard deviation of the energy label of one atom about the model, in eV; it grows with the root of the
        atoms."""
        return float(self.inflation[ENERGY].sqrt() * self.model.log_noise[ENERGY].exp())

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
        batch = Structures.coerce(structures).to(dtype=torch.float64)
        stress = bool(batch.pbc.all())
        parts: list[dict[str, Any]] = []
        with progress("predicting", len(batch)) as advance:
            for chunk in self.model.representation.chunks(batch):
                parts.append(self._moments(batch[chunk], stress, covariance, atomic))
                advance(len(parts[-1]["energy"][0]))
        names = [name for name in parts[0] if name != "blocks"]
        found = {name: tuple(map(torch.cat, zip(*(part[name] for part in parts), strict=True))) for name in names}
        blocks = tuple(block for part in parts for block in part["blocks"]) if covariance else None
        return Prediction(
            energy=_gaussian(found["energy"], "eV"),
            forces=_gaussian(found["forces"], "eV/Å", blocks),
            pointer=batch.pointer,
            stress=_gaussian(found["stress"], "eV/Å³") if stress else None,
            atomic_energies=_gaussian(found["atomic"], "eV") if atomic else None,
            provenance={"model": "BayesianACE", **self.provenance},
        )

    def _moments(self, batch: Structures, stress: bool, covariance: bool, atomic: bool) -> dict[str, Any]:
        """Mean, variance and epistemic variance of each quantity of a few structures."""
        environment = self.model.representation.environments(batch)
        design = self.model.representation.design(environment, virial=stress)
        base = self.model.baseline(batch)
        composition = self.model.representation.composition(batch)
        noise = self.inflation * torch.exp(2 * self.model.log_noise[:FORCE])
        energy = self._functional(self.model.whitened(design.energy, composition), ENERGY)
        energy = (energy[0] + base[0], energy[1] + unknown_variance(composition, self.guards))
        white = self.model.whitened(design.forces)
        found: dict[str, Any] = {"energy": _noisy(energy, noise[ENERGY] * batch.counts)}
        spread = self.model.force_noise(batch)
        if covariance:
            found["blocks"] = self._blocks(white, batch, spread.expand(-1, 3).reshape(-1))
        force = self._functional(white)
        found["forces"] = _noisy((force[0].reshape(-1, 3) + base[1], force[1].reshape(-1, 3)), spread)
        if stress:
            volume = batch.cell.det().abs()[:, None, None]
            virial = self._functional(self.model.whitened(design.virial), VIRIAL)
            mean, variance = (part.reshape(-1, 3, 3) for part in virial)
            extent = noise[VIRIAL] * batch.counts[:, None, None] / volume.square()
            found["stress"] = _noisy(((mean + base[2]) / volume, variance / volume.square()), extent)
        if atomic:
            found["atomic"] = self._atomic(design, batch, noise[ENERGY])
        return found

    def _functional(self, white: Tensor, kind: int = FORCE) -> tuple[Tensor, Tensor]:
        """Mean and variance of rows of one kind; energies and virials are inflated."""
        variance = self.posterior.variance(white)
        return white @ self.posterior.mean, variance if kind == FORCE else self.inflation[kind] * variance

    def _blocks(self, white: Tensor, batch: Structures, noise: Tensor) -> list[Tensor]:
        sizes = (3 * batch.counts).tolist()
        parts = zip(white.split(sizes), noise.split(sizes), strict=True)
        return [self.posterior.covariance(part) + torch.diag(own) for part, own in parts]

    def _atomic(self, design: Design, batch: Structures, noise: Tensor) -> tuple[Tensor, ...]:
        """Energies of the atoms: each has the columns of its own element."""
        own, kinds = design.atomic.shape[1], len(self.model.references)
        spread = design.atomic.new_zeros(len(design.atomic), kinds, own)
        spread[torch.arange(len(spread), device=spread.device), design.species] = design.atomic
        composition = torch.nn.functional.one_hot(design.species, kinds).to(design.atomic)
        mean, variance = self._functional(self.model.whitened(spread.flatten(1), composition), ENERGY)
        return _noisy((mean + self.model.references[design.species], variance), noise)

    def energy_difference(self, first: Any, second: Any) -> Gaussian:
        """Distribution of E(first) − E(second) in eV, structure by structure, with the correlation of the two.

        It is the band of the mean: label noise is not in it.
        """
        pairs = [self._energy_rows(Structures.coerce(item)) for item in (first, second)]
        if len(pairs[0][0]) != len(pairs[1][0]):
            raise DataError(expected("second", f"{len(pairs[0][0])} structures", len(pairs[1][0])))
        mean, variance = self._functional(pairs[0][0] - pairs[1][0], ENERGY)
        extra = unknown_variance(pairs[0][2] - pairs[1][2], self.guards)
        return Gaussian(mean + pairs[0][1] - pairs[1][1], variance + extra, unit="eV")

    def _energy_rows(self, structures: Structures) -> tuple[Tensor, Tensor, Tensor]:
        """Whitened energy rows, baseline energies and compositions."""
        batch = structures.to(dtype=torch.float64)
        rows = [
            self.model.representation.design(self.model.representation.environments(batch[chunk]), forces=False).energy
            for chunk in self.model.representation.chunks(batch)
        ]
        composition = self.model.representation.composition(batch)
        return self.model.whitened(torch.cat(rows), composition), self.model.baseline(batch)[0], composition

    def strangeness(self, structures: Any, prediction: Prediction | None = None) -> Float[Tensor, " structures"]:
        """Epistemic standard deviation of the energy for the root of the number of atoms, in eV: higher is stranger.

        Infinite if two atoms are closer than 0.8 times any trained distance of their elements, an element or a
        composition was never trained. A ``prediction`` of these structures, where there is one, saves the work.
        """
        batch = Structures.coerce(structures).to(dtype=torch.float64)

        def variance(inside: Structures) -> Tensor:
            return self._functional(self._energy_rows(inside)[0], ENERGY)[1]

        return guarded_strangeness(batch, self.model.representation.species, self.guards, variance, prediction)

    def force_factor(self, structures: Any, rank: int = 512, seed: int | torch.Generator = 0) -> list[Tensor]:
        """Matrices W of each structure, (3 atoms, rank) in eV/Å, with Cov(F_s, F_t) ≈ W_s W_tᵀ; see
        :func:`bayesmol.potentials.ace_factor.force_factor`."""
        from bayesmol.potentials.ace_factor import force_factor

        return force_factor(self, structures, rank, seed)

    def surface(self, structures: Any, *, virial: bool = False) -> Surface:
        """Mean energies, forces and virials without their uncertainty, several times faster than :meth:`predict`."""
        return self._mean.surface(Structures.coerce(structures), virial=virial)

    @cached_property
    def _mean(self) -> ACESurface:
        from bayesmol.potentials.ace_surface import ACESurface

        return ACESurface.of(self)

    def draws(self: Own, size: int, *, seed: int | torch.Generator) -> list[Own]:
        """Potentials drawn from the posterior, each a function without epistemic uncertainty."""
        weights = self.posterior.sample(size, seed=seed)
        certain = torch.eye(weights.shape[1], dtype=weights.dtype, device=weights.device)
        return [replace(self, posterior=LinearPosterior(weight, None, certain)) for weight in weights]

    def update(self: Own, labelled: Labelled) -> Own:
        """Posterior after more labelled structures with the same hyper-parameters, in O(rows · weights²).

        Equal to a fit of all data with these hyper-parameters; the left-out predictions stay those of the first fit.
        """
        from bayesmol.potentials.ace_updates import updated_posterior

        data = labelled.to(dtype=torch.float64)
        limits = merged(self.guards, self.model.guards(data.structures))
        return replace(self, posterior=updated_posterior(self, data), guards=limits)

    def features(self, structures: Any) -> Float[Tensor, "structures weights"]:
        """Features in which the energy is linear with a unit prior: what distances between structures are made of."""
        return self._energy_rows(Structures.coerce(structures))[0]

    def deviation_gradient(self, structures: Any) -> tuple[Float[Tensor, " structures"], Float[Tensor, "atoms 3"]]:
        """Epistemic standard deviation of each energy (eV) and its gradient (eV/Å)."""
        from bayesmol.potentials.ace_updates import deviation_gradient

        return deviation_gradient(self, structures)

    def calculator(self, **options: Any) -> Any:
        """ASE calculator of this potential; options as for :class:`~bayesmol.potentials.Calculator`."""
        from bayesmol.potentials.calculator import Calculator

        return Calculator(self, **{"device": self.posterior.mean.device, **options})

    def leave_one_out(self) -> Prediction:
        """Predictions of :attr:`training`, each from all other structures.

        Raises
        ------
        DataError
            If energies or the forces of some structure are missing.
        """
        if "energy_mean" not in self.left_out:
            raise DataError(expected("training labels", "energies", "none", "certify with calibration structures"))
        mean = torch.zeros_like(self.training.structures.positions)
        variance = torch.full_like(mean, 1e12)
        if "force_residual" in self.left_out:
            labelled = self.training.has_forces[self.training.structures.structure_index]
            mean[labelled] = self.training.given("forces")[labelled] - self.left_out["force_residual"]
            variance[labelled] = self.left_out["force_variance"]
        force = Gaussian(mean, variance, unit="eV/Å")
        energy = Gaussian(self.left_out["energy_mean"], self.left_out["energy_variance"], unit="eV")
        return Prediction(energy=energy, forces=force, pointer=self.training.structures.pointer)

    def trained(self, structures: Any) -> Bool[Tensor, " structures"]:
        """Whether the potential was fitted or updated with exactly these structures."""
        keys = frame_keys(Structures.coerce(structures))
        return torch.isin(keys, self.guards["frames"].to(keys.device))

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header (JSON) and arrays that :meth:`from_state` reads back."""
        from bayesmol.potentials.ace_state import state

        return state(self)

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> ACEPotential:
        """Potential from :meth:`state`."""
        from bayesmol.potentials.ace_state import from_state

        return from_state(header, arrays)

    def left_out_strangeness(self) -> Float[Tensor, " structures"]:
        """Strangeness of fitted structures under the posterior of all others, in eV."""
        if "strangeness" not in self.left_out:
            raise DataError(expected("training labels", "energies", "none", "certify with calibration structures"))
        return self.left_out["strangeness"]


def _gaussian(moments: tuple[Tensor, ...], unit: str, covariance: tuple[Tensor, ...] | None = None) -> Gaussian:
    mean, variance, epistemic = moments
    return Gaussian(mean, variance, unit=unit, epistemic_variance=epistemic, covariance=covariance)


def _noisy(moments: tuple[Tensor, Tensor], noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, predictive and epistemic variance."""
    return moments[0], moments[1] + noise, moments[1]
