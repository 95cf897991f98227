"""Fitted Gaussian process through inducing structures: predictions, updates, and what a file holds of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.errors import ApplicabilityError, FormatError, expected
from bayesmol.inference.streaming import Stream
from bayesmol.posterior import Prediction
from bayesmol.potentials.gradient_frames import CONSTANT, Frames, prediction, shift_of
from bayesmol.potentials.gradient_kernel import GradientKernel
from bayesmol.potentials.gradient_posterior import GradientGPPotential
from bayesmol.potentials.gradient_solver import pivoted_root
from bayesmol.potentials.guards import frame_keys
from bayesmol.representation.distances import pair_permutations

__all__ = ["InducingGPPotential"]

_NUMBERS = 16_000_000  # in the covariance of a portion of the labels with the inducing ones, 128 MB
_NEGLIGIBLE = 1e-13  # of the largest eigenvalue of the correlation of the inducing energies and forces


@dataclass(frozen=True, eq=False)
class InducingGPPotential:
    """Gaussian process conditioned on a stream of labels; immutable. Made by :meth:`InducingGP.fit`.

    Attributes
    ----------
    scales
        Process with its hyper-parameters, whose training structures are the inducing ones.
    root
        Makes white features of covariances with the inducing energies and forces.
    stream
        All that the labels say about the features, and about the constant of the energy.
    seen
        Keys of the inducing structures and of all labels.
    """

    scales: GradientGPPotential
    root: Float[Tensor, "inducing features"]
    stream: Stream
    seen: Int[Tensor, " seen"]

    @classmethod
    def prior(cls, scales: GradientGPPotential) -> InducingGPPotential:
        """The process before any label."""
        rows = scales._frames.rows
        covariance = scales.amplitude * _kernel(scales)(rows, rows).to_dense()
        scale = covariance.diagonal().rsqrt()
        values, vectors = torch.linalg.eigh(scale[:, None] * covariance * scale)
        kept = values > _NEGLIGIBLE * values[-1]
        root = scale[:, None] * (vectors[:, kept] / values[kept].sqrt())
        stream = Stream.empty(root.shape[1] + 1, device=root.device)
        return cls(scales, root, stream, frame_keys(scales.training.structures))

    @property
    def training(self) -> Labelled:
        """The inducing structures."""
        return self.scales.training

    @property
    def noise_energy(self) -> float:
        """Standard deviation of the noise of an energy, in eV."""
        return self.scales.noise_energy

    @property
    def noise_force(self) -> float:
        """Standard deviation of the noise of a force component, in eV/Å."""
        return self.scales.noise_force

    def predict(self, structures: Any, *, covariance: bool = False) -> Prediction:
        """Energies (eV) and forces (eV/Å) of structures of the same molecule.

        Parameters
        ----------
        covariance
            Give the energies their joint covariance, and the forces one block for each structure.

        Raises
        ------
        DataError
            If a structure is another molecule, periodic, or its atoms cannot be recognised.
        """
        batch = Structures.coerce(structures)
        rows, basis = self.scales._encoded(batch)
        parts = [
            self.conditional(rows[part]) for part in torch.arange(len(rows), device=rows.device).split(self.portion)
        ]
        mean, blocks = (torch.cat(columns) for columns in zip(*parts, strict=True))
        energies = self._between(rows, rows)[:, 0, :, 0] if covariance else None
        mean[:, 0] += shift_of(self.training)
        variances = self.noise_energy**2, self.noise_force**2
        noise = torch.full_like(mean[:, 0], variances[0]), torch.full_like(basis[:, :, 0], variances[1])
        found = prediction(batch, mean, blocks, basis, noise, energies=energies)
        return replace(found, provenance={"model": "InducingGP"})

    @property
    def portion(self) -> int:
        """Number of structures whose features fit into the memory of one portion."""
        return max(1, _NUMBERS // (self.root.shape[0] * self.scales._frames.observed.shape[1]))

    def frames(self, labelled: Labelled) -> Frames:
        """Labels of the same molecule in the coordinates of the kernel, energies from those of the inducing set."""
        found = Frames.of(labelled, self.scales._orders(labelled.structures)[1])
        moved = shift_of(labelled).to(found.energies) - shift_of(self.training).to(found.energies)
        return replace(found, energies=found.energies + moved)

    def white(self, rows: Float[Tensor, "structures columns"]) -> Float[Tensor, "structures outputs features"]:
        """Features of the energy and the internal forces of kernel rows, with unit prior; the last is the constant."""
        cross = self.scales.amplitude * self._kernel(self.scales._frames.rows, rows).to_dense()
        found = (cross.mT @ self.root).unflatten(0, (len(rows), -1))
        constant = torch.zeros_like(found[..., :1])
        constant[:, 0] = CONSTANT
        return torch.cat([found, constant], 2)

    def left_over(self, rows: Tensor, white: Tensor) -> Float[Tensor, "structures outputs outputs"]:
        """Prior covariance of each structure given the inducing ones, never below zero."""
        known = white[..., :-1]
        rest = self.scales.amplitude * self._kernel.blocks(rows, rows) - known @ known.mT
        values, vectors = torch.linalg.eigh((rest + rest.mT) / 2)
        return (vectors * values.clamp_min(0.0)[:, None]) @ vectors.mT

    def conditional(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and covariance of the energy and the internal forces of each structure given the labels."""
        white, posterior = self.white(rows), self.stream.posterior
        half = posterior.spread_transposed(white.flatten(0, 1).mT).mT.view(white.shape)
        return white @ posterior.mean, half @ half.mT + self.left_over(rows, white)

    def _between(self, rows: Tensor, others: Tensor) -> Float[Tensor, "rows outputs others outputs"]:
        """Covariance of all outputs of some structures with all of others given the labels."""
        first, second = self.white(rows), self.white(others)
        known = self.stream.posterior.covariance(first.flatten(0, 1), second.flatten(0, 1))
        prior = self.scales.amplitude * self._kernel(rows, others).to_dense()
        explained = first[..., :-1].flatten(0, 1) @ second[..., :-1].flatten(0, 1).mT
        return (prior - explained + known).view(*first.shape[:2], *second.shape[:2])

    def strangeness(self, structures: Any, prediction: Prediction | None = None) -> Float[Tensor, " structures"]:
        """As of :class:`~bayesmol.potentials.GradientGPPotential`: largest standard deviation of the mean force on an
        atom, per direction, in eV/Å."""
        return self.scales.strangeness(structures, prediction or self.predict(structures))

    def features(self, structures: Any) -> Float[Tensor, "structures features"]:
        """Features in which the energy is linear with a unit prior, but for what the inducing structures leave over."""
        return self.white(self.scales._encoded(Structures.coerce(structures))[0])[:, 0]

    def force_factor(
        self, structures: Any, rank: int = 512, seed: int | torch.Generator = 0
    ) -> list[Float[Tensor, "components rank"]]:
        r"""Matrices :math:`W_s` with :math:`\mathrm{Cov}(F_s, F_t) \approx W_s W_t^\top`, in eV/Å, by pivoted Cholesky.

        Deterministic; ``seed`` is accepted because other potentials draw directions.
        """
        rows, basis = self.scales._encoded(Structures.coerce(structures))
        blocks = self.conditional(rows)[1][:, 1:, 1:]
        root = pivoted_root(blocks, lambda pivot: self._between(rows, rows[pivot : pivot + 1])[:, 1:, 0, 1:], rank)
        return list(torch.unbind(basis @ root))

    def leave_one_out(self) -> Prediction:
        """Not given: a stream does not keep its labels.

        Raises
        ------
        ApplicabilityError
            Always.
        """
        remedy = "certify with calibration structures"
        raise ApplicabilityError(expected("training labels", "labels that are kept", "a stream", remedy))

    def trained(self, structures: Any) -> Bool[Tensor, " structures"]:
        """Whether the potential has learned exactly these structures, or their scales come from them."""
        keys = frame_keys(Structures.coerce(structures))
        return torch.isin(keys, self.seen.to(keys.device))

    def update(self, labelled: Labelled) -> InducingGPPotential:
        """Potential after more labels with the same scales and inducing structures: as if all had come at once."""
        from bayesmol.potentials.inducing import learned

        return learned(self, labelled)

    def calculator(self, **options: Any) -> Any:
        """ASE calculator of this potential; options as for :class:`~bayesmol.potentials.Calculator`."""
        from bayesmol.potentials.calculator import Calculator

        return Calculator(self, **{"device": self.root.device, **options})

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """JSON header and arrays from which :meth:`from_state` makes the same potential."""
        header, arrays = self.scales.state()
        own = {"gram": self.stream.gram, "moment": self.stream.moment, "root": self.root, "seen": self.seen}
        return {"scales": header}, arrays | {f"inducing.{name}": value for name, value in own.items()}

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> InducingGPPotential:
        """Potential from :meth:`state`; raises :class:`FormatError` if an entry is missing."""
        try:
            own = {name: arrays[f"inducing.{name}"] for name in ("gram", "moment", "root", "seen")}
            scales = GradientGPPotential.from_state(header["scales"], arrays)
        except KeyError as error:
            raise FormatError(expected("state", f"the entry {error}", "none", "save it again")) from error
        return cls(scales, own["root"], Stream(own["gram"], own["moment"]), own["seen"])

    @cached_property
    def _kernel(self) -> GradientKernel:
        return _kernel(self.scales)


def _kernel(scales: GradientGPPotential) -> GradientKernel:
    """The kernel without the constant of the energy, which is a feature of its own."""
    kernel = GradientKernel(pair_permutations(scales.permutations), scales.kinds)
    kernel.lengthscale = scales.length_scales
    return kernel.requires_grad_(False).to(scales.kinds.device)
