"""Structures and labels of one molecule in the coordinates of the gradient kernel, and back."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.data import Labelled, Structures
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.potentials.gradient_kernel import GradientKernel
from bayesmol.representation.distances import internal_basis, inverse_distances, jacobian

__all__ = ["CONSTANT", "Frames", "encoded", "prediction", "shift_of"]

CONSTANT = 100.0  # prior standard deviation of the constant of the energy about the training mean, in eV


@dataclass(frozen=True)
class Frames:
    """Training data in the coordinates of the kernel; where ``observed`` is false the label is absent.

    Attributes
    ----------
    rows
        Input of the kernel, the Jacobian in the internal directions.
    basis
        Internal directions, Cartesian.
    energies, forces, energy_errors, force_errors
        Labels and their standard errors, in eV and eV/Å.
    observed
        Which outputs of the kernel have a label: the energy, then the internal forces.
    """

    rows: Float[Tensor, "structures features"]
    basis: Float[Tensor, "structures coordinates internal"]
    energies: Float[Tensor, " structures"]
    forces: Float[Tensor, "structures coordinates"]
    energy_errors: Float[Tensor, " structures"]
    force_errors: Float[Tensor, "structures coordinates"]
    observed: Bool[Tensor, "structures outputs"]

    @classmethod
    def of(cls, labelled: Labelled, order: Int[Tensor, "structures atoms"]) -> "Frames":
        """Frames of labels of one molecule, the atoms of each structure brought to ``order``; energies from their mean.

        The shift is for the sake of rounding only: the broad prior of a constant in the kernel undoes it.
        """
        rows, basis = encoded(labelled.structures, order)
        shape = basis.shape[:2]
        zero = basis.new_zeros(len(rows))
        has_energies = torch.full_like(labelled.has_forces, labelled.energies is not None)
        energies = zero if labelled.energies is None else labelled.energies.to(zero) - shift_of(labelled).to(zero)
        errors = zero if labelled.energy_errors is None else labelled.energy_errors.to(zero)
        vectors = (labelled.forces, labelled.force_errors)
        forces = [basis.new_zeros(shape) if v is None else v.to(zero).reshape(shape) for v in vectors]
        internal = labelled.has_forces[:, None].expand(-1, basis.shape[2])
        observed = torch.cat([has_energies[:, None], internal], dim=1)
        return cls(rows, basis, energies, forces[0], errors, forces[1], observed)

    def __getitem__(self, index: Tensor | slice) -> "Frames":
        return Frames(*(getattr(self, f.name)[index] for f in fields(self)))

    def targets(
        self, energy_noise: Tensor, force_noise: Tensor
    ) -> tuple[Float[Tensor, "structures outputs"], Float[Tensor, "structures outputs outputs"]]:
        r"""Energies and internal forces with their noise covariance, one block a structure.

        The internal force :math:`z = R\, U^\top D^{-1} F` with :math:`R = (U^\top D^{-1} U)^{-1}` and the variances
        :math:`D` of the labels is a sufficient statistic: nothing is lost, and net force and torque, which are known
        to vanish, cannot pull the noise to zero. Absent labels become zeros with unit variance and no covariance.

        Parameters
        ----------
        energy_noise, force_noise
            Variances added to those of the labels, in eV² and (eV/Å)².
        """
        precision = 1.0 / (force_noise + self.force_errors.square())
        weighted = self.basis * precision.unsqueeze(-1)
        covariance = torch.linalg.inv(self.basis.mT @ weighted)
        internal = torch.einsum("sij,skj,sk->si", covariance, weighted, self.forces)
        energy = energy_noise + self.energy_errors.square()
        noise = torch.nn.functional.pad(covariance, (1, 0, 1, 0))
        noise = noise + torch.nn.functional.pad(energy[:, None, None], (0, noise.shape[2] - 1, 0, noise.shape[1] - 1))
        absent = torch.diag_embed((~self.observed).to(noise))
        both = self.observed[:, :, None] & self.observed[:, None]
        values = torch.cat([self.energies[:, None], internal], dim=1)
        return torch.where(self.observed, values, 0.0), torch.where(both, noise, 0.0) + absent


def encoded(
    structures: Structures, order: Int[Tensor, "structures atoms"]
) -> tuple[Float[Tensor, "structures features"], Float[Tensor, "structures coordinates internal"]]:
    """Kernel rows of structures with atoms brought to ``order``, and internal directions for the order given."""
    positions = structures.positions.double().view(*order.shape, 3)
    positions = positions.gather(1, order[..., None].expand(-1, -1, 3))
    slope = jacobian(positions)
    basis = internal_basis(slope)
    rows = GradientKernel.rows(inverse_distances(positions), slope @ basis)
    back = order.argsort(1)[..., None, None].expand(-1, -1, 3, basis.shape[2])
    return rows, basis.unflatten(1, (-1, 3)).gather(1, back).flatten(1, 2)


def shift_of(labelled: Labelled) -> Float[Tensor, ""]:
    """Mean training energy in eV, zero without energies."""
    if labelled.energies is None:
        return labelled.structures.positions.new_zeros((), dtype=torch.float64)
    return labelled.energies.double().mean()


def prediction(
    structures: Structures,
    mean: Float[Tensor, "structures outputs"],
    blocks: Float[Tensor, "structures outputs outputs"],
    basis: Float[Tensor, "structures coordinates internal"],
    noise: tuple[Float[Tensor, " structures"], Float[Tensor, "structures coordinates"]],
    *,
    energies: Float[Tensor, "structures structures"] | None = None,
) -> Prediction:
    """Prediction from moments in internal coordinates and the variances of the noise of energies and forces.

    With ``energies``, the joint covariance of the energies, the forces have a covariance too. Rounding can leave a
    variance a few times 1e-16 of the prior below zero where a label is known; zero is meant and taken.
    """
    dtype = structures.positions.dtype
    epistemic = basis @ blocks[:, 1:, 1:] @ basis.mT
    variances = epistemic.diagonal(dim1=1, dim2=2).clamp_min(0.0)
    forces = torch.einsum("sij,sj->si", basis, mean[:, 1:])
    known = blocks[:, 0, 0].clamp_min(0.0)
    full = None if energies is None else _with_diagonal(energies, known + noise[0]).to(dtype)
    tiles = None if energies is None else tuple(_with_diagonal(epistemic, variances + noise[1]).to(dtype))
    energy = Gaussian(
        mean[:, 0].to(dtype),
        (known + noise[0]).to(dtype),
        unit="eV",
        covariance=full,
        epistemic_variance=known.to(dtype),
    )
    force = Gaussian(
        forces.reshape(-1, 3).to(dtype),
        (variances + noise[1]).reshape(-1, 3).to(dtype),
        unit="eV/Å",
        covariance=tiles,
        epistemic_variance=variances.reshape(-1, 3).to(dtype),
    )
    return Prediction(energy, force, structures.pointer, provenance={"model": "GradientGP"})


def _with_diagonal(matrix: Tensor, diagonal: Tensor) -> Tensor:
    symmetric = (matrix + matrix.mT) / 2
    return symmetric - torch.diag_embed(symmetric.diagonal(dim1=-2, dim2=-1)) + torch.diag_embed(diagonal)
