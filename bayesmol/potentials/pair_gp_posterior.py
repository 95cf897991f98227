"""The fitted pair potential: that of a Bayesian linear model, and its pair functions with their covariance."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, FormatError, expected
from bayesmol.inference.conjugate import LinearPosterior
from bayesmol.posterior import Gaussian
from bayesmol.potentials.ace_posterior import ACEPotential
from bayesmol.potentials.ace_rows import Model
from bayesmol.potentials.ace_state import restored, stored, under
from bayesmol.potentials.pair_gp_kernel import PairKernel, PairRepresentation, parameters
from bayesmol.potentials.surface import Surface

_MODEL = ("log_prior", "log_noise", "references")


@dataclass(frozen=True)
class PairGPPotential(ACEPotential):
    """Posterior over pair potentials; made by :meth:`bayesmol.potentials.PairGP.fit`.

    Predictions, updates, draws and left-out predictions are those of a Bayesian linear model on
    :class:`~bayesmol.potentials.pair_gp_kernel.PairRepresentation`.
    """

    def functions(self, distances: Float[Tensor, " distances"], first: int, second: int) -> Gaussian:
        """Posterior of the pair function of two elements (atomic numbers) at distances in Å, in eV, with covariance.

        The repulsion of the prior is not in it.

        Raises
        ------
        DataError
            If an element was not trained.
        """
        rows = self.pair_rows(distances.to(self.posterior.mean), first, second)
        covariance = self.posterior.covariance(rows)
        covariance = (covariance + covariance.mT) / 2
        variance = covariance.diagonal().clamp_min(0.0)
        covariance = covariance - torch.diag(covariance.diagonal()) + torch.diag(variance)
        return Gaussian(rows @ self.posterior.mean, variance, unit="eV", covariance=covariance)

    def pair_rows(
        self, distances: Float[Tensor, " distances"], first: int, second: int
    ) -> Float[Tensor, "distances weights"]:
        """Whitened rows of the pair function of two elements at some distances."""
        species = self.model.representation.species
        for number in (first, second):
            if number not in species:
                raise DataError(expected("element", f"one of {species} (atomic numbers)", number))
        a, b, kinds = species.index(first), species.index(second), len(species)
        values = self.model.representation.basis(distances)[0]
        rows = values.new_zeros(len(values), kinds**2, values.shape[1])
        for column in (a * kinds + b, b * kinds + a):
            rows[:, column] += 0.5 * values
        return self.model.whitened(rows.flatten(1))

    def surface(self, structures: Any, *, virial: bool = False) -> Surface:
        """Mean energies, forces and virials without their uncertainty."""
        batch, representation = Structures.coerce(structures).to(dtype=torch.float64), self.model.representation
        found: dict[str, list[Tensor]] = {"energy": [], "forces": [], "virial": []}
        for chunk in representation.chunks(batch):
            design = representation.design(representation.environments(batch[chunk]), virial=virial)
            composition = representation.composition(batch[chunk])
            rows = {"energy": self.model.whitened(design.energy, composition)}
            rows["forces"] = self.model.whitened(design.forces)
            rows |= {"virial": self.model.whitened(design.virial)} if virial else {}
            for name, white in rows.items():
                found[name].append(white @ self.posterior.mean)
        energies, forces, virials = self.model.baseline(batch)
        strain = virials + torch.cat(found["virial"]).view(-1, 3, 3) if virial else None
        return Surface(energies + torch.cat(found["energy"]), forces + torch.cat(found["forces"]).view(-1, 3), strain)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header (JSON) and arrays that :meth:`from_state` reads back."""
        source = self.training.source
        header = {
            "species": list(self.model.representation.species),
            "kernel": parameters(self.model.representation.basis),
            "provenance": self.provenance,
            "source": None if source is None else {f.name: getattr(source, f.name) for f in fields(source)},
        }
        arrays = {name: getattr(self.model, name) for name in _MODEL}
        arrays |= {"inflation": self.inflation}
        arrays |= {"posterior.mean": self.posterior.mean, "posterior.factor": self.posterior.factor}
        arrays |= {} if self.posterior.root is None else {"posterior.root": self.posterior.root}
        arrays |= {f"guards.{name}": value for name, value in self.guards.items()}
        arrays |= {f"left_out.{name}": value for name, value in self.left_out.items()}
        return header, arrays | stored(self.training)

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> PairGPPotential:
        """Potential from :meth:`state`; raises :class:`FormatError` if a part is missing."""
        try:
            representation = PairRepresentation(tuple(header["species"]), PairKernel(**header["kernel"]))
            model = Model(representation, **{name: arrays[name] for name in _MODEL})
            parts = arrays["posterior.mean"], arrays.get("posterior.root"), arrays["posterior.factor"]
            training = restored(header, under(arrays, "training"))
            guards, left_out = under(arrays, "guards"), under(arrays, "left_out")
            posterior = LinearPosterior(*parts)
            return cls(model, posterior, guards, training, left_out, arrays["inflation"], header["provenance"])
        except (KeyError, TypeError) as error:
            raise FormatError(
                expected("state", "all parts of a pair potential", repr(error), "save it again")
            ) from error
