"""A known potential as the mean, and a Bayesian ACE for what it gets wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.errors import FormatError, expected
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.potentials.ace_posterior import ACEPotential
from bayesmol.potentials.foundation import Foundation
from bayesmol.potentials.foundation_state import matching, probe, remembered, restored, under
from bayesmol.potentials.surface import Surface, surface

__all__ = ["ResidualPotential", "difference", "fitted_residual", "shifted"]


def fitted_residual(foundation: Foundation, train: Labelled, specification: Any, *, seed: int) -> ResidualPotential:
    r"""Posterior of :math:`E = E_0 + E_\mathrm{ACE}` with the foundation :math:`E_0` as the mean.

    The foundation is asked once for each training structure. ``specification`` is a
    :class:`~bayesmol.potentials.BayesianACE`.

    References
    ----------
    Ramakrishnan et al., J. Chem. Theory Comput. 11, 2087 (2015), for learning the difference of two methods.
    """
    from bayesmol.potentials.ace import BayesianACE

    data = _whole(train.to(dtype=torch.float64))
    base = foundation.surface(data.structures, virial=data.stresses is not None)
    learned = (specification or BayesianACE()).fit(difference(data, base), seed=seed)
    own = foundation.surface(learned.training.structures) if len(learned.training) < len(data) else base
    return ResidualPotential(foundation, learned, Surface(own.energies, own.forces), probe(data.structures, base))


def _whole(data: Labelled) -> Labelled:
    """The labels without stresses, if some structure has none."""
    if data.stresses is None or bool(data.has_stresses.all()):
        return data
    return replace(data, stresses=None, stress_errors=None, has_stresses=torch.zeros_like(data.has_stresses))


def difference(labelled: Labelled, base: Surface, sign: float = -1.0) -> Labelled:
    """Labels minus what a foundation says of the same structures; with ``sign`` 1 plus it."""
    parts: dict[str, Any] = {}
    if labelled.energies is not None:
        parts["energies"] = labelled.energies + sign * base.energies
    if labelled.forces is not None:
        seen = labelled.has_forces[labelled.structures.structure_index][:, None]
        parts["forces"] = torch.where(seen, labelled.forces + sign * base.forces, 0.0)
    if labelled.stresses is not None and base.virials is not None:
        volume = labelled.structures.cell.det().abs()[:, None, None]
        parts["stresses"] = labelled.stresses + sign * base.virials / volume
    return replace(labelled, **parts)


def shifted(prediction: Prediction, base: Surface, volume: Tensor) -> Prediction:
    """The same distributions about other means."""
    stress = prediction.stress
    if stress is not None:
        stress = _moved(stress, base.needed_virials / volume[:, None, None])
    energy, forces = _moved(prediction.energy, base.energies), _moved(prediction.forces, base.forces)
    return replace(prediction, energy=energy, forces=forces, stress=stress)


def _moved(posterior: Any, shift: Tensor) -> Gaussian:
    known = posterior.epistemic
    return Gaussian(
        posterior.mean + shift,
        posterior.variance,
        unit=posterior.unit,
        covariance=posterior.covariance,
        epistemic_variance=None if known is None else known.variance,
        rule=posterior.rule,
    )


@dataclass(frozen=True, eq=False)
class ResidualPotential:
    """A foundation and the posterior of its error; made by :meth:`Foundation.with_residual`.

    Attributes
    ----------
    foundation
        The mean.
    residual
        Distribution of what is to be added to it.
    known
        What the foundation says of the structures of ``residual.training``.
    probes
        What it says of the first training structures, by which it is recognised.
    """

    foundation: Foundation
    residual: ACEPotential
    known: Surface
    probes: dict[str, Tensor]

    @property
    def noise_force(self) -> float:
        """Standard deviation of a force label about the model, in eV/Å."""
        return self.residual.noise_force

    @property
    def noise_energy(self) -> float:
        """Standard deviation of the energy label of one atom about the model, in eV."""
        return self.residual.noise_energy

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the labels come from, and the identity of the foundation."""
        return {**self.residual.provenance, "foundation": self.foundation.identity}

    @property
    def training(self) -> Labelled:
        """Those training structures whose left-out predictions are honest, with their labels."""
        return difference(self.residual.training, self.known, 1.0)

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
        """
        batch = Structures.coerce(structures).to(dtype=torch.float64)
        found = self.residual.predict(batch, covariance=covariance)
        base = self.foundation.surface(batch, virial=found.stress is not None)
        provenance = {**found.provenance, "model": "foundation with a Bayesian ACE residual"}
        return replace(shifted(found, base, batch.cell.det().abs()), provenance=provenance)

    def surface(self, structures: Any, *, virial: bool = False) -> Surface:
        """The mean alone."""
        batch = Structures.coerce(structures).to(dtype=torch.float64)
        base, own = self.foundation.surface(batch, virial=virial), surface(self.residual, batch, virial=virial)
        virials = base.needed_virials + own.needed_virials if virial else None
        return Surface(base.energies + own.energies, base.forces + own.forces, virials)

    def strangeness(self, structures: Any, prediction: Prediction | None = None) -> Float[Tensor, " structures"]:
        """Epistemic deviation of the energy by the root of the number of atoms, as of the residual."""
        return self.residual.strangeness(structures, prediction)

    def features(self, structures: Any) -> Float[Tensor, "structures weights"]:
        """Features in which the residual is linear with a unit prior."""
        return self.residual.features(structures)

    def force_factor(self, structures: Any, rank: int = 512, seed: int | torch.Generator = 0) -> list[Tensor]:
        """Factors of the joint covariance of forces, all of it the residual's."""
        return self.residual.force_factor(structures, rank, seed)

    def deviation_gradient(self, structures: Any) -> tuple[Tensor, Tensor]:
        """Epistemic standard deviation of each energy (eV) and its gradient (eV/Å)."""
        return self.residual.deviation_gradient(structures)

    def trained(self, structures: Any) -> Bool[Tensor, " structures"]:
        """Whether the residual was fitted or updated with exactly these structures."""
        return self.residual.trained(structures)

    def draws(self, size: int, *, seed: int | torch.Generator) -> list[ResidualPotential]:
        """Potentials drawn from the posterior, each a function without epistemic uncertainty."""
        return [replace(self, residual=draw) for draw in self.residual.draws(size, seed=seed)]

    def update(self, labelled: Labelled) -> ResidualPotential:
        """Posterior after more labelled structures with the same hyper-parameters."""
        data = _whole(labelled.to(dtype=torch.float64))
        base = self.foundation.surface(data.structures, virial=data.stresses is not None)
        return replace(self, residual=self.residual.update(difference(data, base)))

    def leave_one_out(self) -> Prediction:
        """Predictions of :attr:`training`, each from all other structures."""
        return shifted(self.residual.leave_one_out(), self.known, self.known.energies)

    def left_out_strangeness(self) -> Float[Tensor, " structures"]:
        """Strangeness of fitted structures under the posterior of all others, in eV."""
        return self.residual.left_out_strangeness()

    def calculator(self, **options: Any) -> Any:
        """ASE calculator of this potential; options as for :class:`~bayesmol.potentials.Calculator`."""
        from bayesmol.potentials.calculator import Calculator

        return Calculator(self, **{"device": self.residual.posterior.mean.device, **options})

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header (JSON) and arrays that :meth:`from_state` reads back."""
        header, arrays = self.residual.state()
        arrays = {f"residual.{name}": value for name, value in arrays.items()}
        arrays |= {"known.energies": self.known.energies, "known.forces": self.known.forces}
        arrays |= {f"probe.{name}": value for name, value in self.probes.items()}
        return {"foundation": self.foundation.identity, "residual": header}, arrays

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> ResidualPotential:
        """Potential from :meth:`state`; a foundation that no file can hold must be attached before it predicts.

        Raises
        ------
        FormatError
            If a part is missing, or the foundation that is there is another.
        """
        try:
            foundation = restored(header["foundation"])
            residual = ACEPotential.from_state(header["residual"], under(arrays, "residual"))
            probes, known = under(arrays, "probe"), Surface(**under(arrays, "known"))
        except (KeyError, TypeError) as error:
            raise FormatError(expected("state", "all parts of a residual potential", repr(error))) from error
        found = cls(foundation, residual, known, probes)
        if header["foundation"]["kind"] == "reference":
            matching(header["foundation"], foundation, found.probe)
        return found
