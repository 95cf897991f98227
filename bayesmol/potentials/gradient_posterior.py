"""Fitted Gaussian process of the energy and the forces of one molecule."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import gpytorch
import torch
from jaxtyping import Float, Int
from linear_operator import to_linear_operator
from torch import Tensor

from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError, expected
from bayesmol.posterior import Prediction
from bayesmol.potentials.gradient_frames import CONSTANT, Frames, encoded, prediction, shift_of
from bayesmol.potentials.gradient_kernel import GradientKernel
from bayesmol.potentials.gradient_left_out import left_out
from bayesmol.potentials.gradient_solver import ConjugateGradients, Exact, noisy, pivoted_root
from bayesmol.potentials.gradient_state import parts, state
from bayesmol.potentials.guards import epistemic
from bayesmol.representation.distances import pair_permutations
from bayesmol.representation.symmetry import Topology

__all__ = ["GradientGPPotential"]

_ENTRIES = 20_000_000  # numbers in a block of the cross covariance, 160 MB


@dataclass(frozen=True, eq=False)
class GradientGPPotential:
    """Gaussian process conditioned on training data; immutable. Made by :meth:`GradientGP.fit`.

    Attributes
    ----------
    training
        The labels.
    order
        Order of the atoms of each training structure in which all are alike.
    permutations, kinds, length_scales
        Symmetry group, kind of each pair, and length scale of each kind in 1/Å.
    amplitude
        Prior variance of the energy, in eV².
    noise_energy, noise_force
        Standard deviation of the noise of a label, in eV and eV/Å.
    """

    training: Labelled
    order: Int[Tensor, "structures atoms"]
    permutations: Int[Tensor, "group atoms"]
    kinds: Int[Tensor, " pairs"]
    length_scales: Float[Tensor, " kinds"]
    amplitude: float
    noise_energy: float
    noise_force: float
    exact_rows: int
    preconditioner_rows: int

    def solved(self) -> "GradientGPPotential":
        """This potential after its equations are solved, which otherwise waits for the first prediction."""
        _ = self._weights
        return self

    def calibrated(self) -> "GradientGPPotential":
        """This potential with all variances times the mean squared normalised leave-one-structure-out residual.

        The mean stays; the labels then lie one standard deviation away on average. With more than ``exact_rows``
        equations the variances stay as they are.
        """
        if not isinstance(self._solver, Exact):
            return self.solved()
        left, training = self.leave_one_out(), self.training
        squares = []
        if training.energies is not None:
            squares.append((training.energies - left.energy.mean) / left.energy.stddev)
        if training.forces is not None:
            seen = training.has_forces[training.structures.structure_index]
            squares.append(((training.forces - left.forces.mean) / left.forces.stddev)[seen].flatten())
        scale = float(torch.cat(squares).square().mean().sqrt())
        noises = {name: getattr(self, name) * scale for name in ("noise_energy", "noise_force")}
        return replace(self, amplitude=self.amplitude * scale**2, **noises).solved()

    def predict(self, structures: Structures | Labelled | Any, *, covariance: bool = False) -> Prediction:
        """Energies and forces of structures of the same molecule.

        Parameters
        ----------
        covariance
            Give the energies their joint covariance, and the forces one block for each structure.

        Raises
        ------
        DataError
            If a structure is another molecule, periodic, or its atoms cannot be recognised.
        """
        structures = Structures.coerce(structures)
        rows, basis = self._encoded(structures)
        means, blocks, halves = [], [], []
        size = max(1, _ENTRIES // (self._frames.observed.numel() * (1 + basis.shape[2])))
        for part in torch.arange(len(rows), device=rows.device).split(size):
            mean, block, half = self._conditional(rows[part])
            means.append(mean)
            blocks.append(block)
            halves += [half[..., 0]] if covariance else []
        mean, block, energies = torch.cat(means), torch.cat(blocks), None
        if covariance:
            plain, half = rows[:, : len(self.kinds)], torch.cat(halves, dim=1)
            energies = self._prior(plain, plain) - half.mT @ half
        noise = torch.full_like(mean[:, 0], self.noise_energy**2), torch.full_like(basis[:, :, 0], self.noise_force**2)
        mean[:, 0] += shift_of(self.training)
        return prediction(structures, mean, block, basis, noise, energies=energies)

    def joint(self, structures: Structures | Labelled | Any) -> gpytorch.distributions.MultivariateNormal:
        """Joint distribution of the energy (first) and forces of each structure, without the noise of labels."""
        structures = Structures.coerce(structures)
        rows, basis = self._encoded(structures)
        mean, _, half = self._conditional(rows)
        prior = self._prior(rows, rows)
        unit = torch.ones_like(basis[:, :1, :1])
        turn = torch.block_diag(*(torch.block_diag(u, b) for u, b in zip(unit, basis, strict=True)))
        covariance = turn @ (prior - half.flatten(1).mT @ half.flatten(1)) @ turn.mT
        shift = torch.nn.functional.pad(shift_of(self.training).expand(len(rows), 1), (0, basis.shape[1])).flatten()
        operator = to_linear_operator((covariance + covariance.mT) / 2)
        return gpytorch.distributions.MultivariateNormal(turn @ mean.flatten() + shift, operator)

    def strangeness(self, structures: Any, prediction: Prediction | None = None) -> Float[Tensor, " structures"]:
        """Largest standard deviation of the mean force on an atom, per direction, in eV/Å; higher is stranger."""
        prediction = prediction or self.predict(structures)
        variance = epistemic(prediction.forces).variance.mean(1)
        return variance.view(len(prediction), -1).amax(1).sqrt()

    def force_factor(
        self, structures: Structures | Labelled | Any, rank: int = 512, seed: int | torch.Generator = 0
    ) -> list[Float[Tensor, "components rank"]]:
        r"""Matrices :math:`W_s` with :math:`\mathrm{Cov}(F_s, F_t) \approx W_s W_t^\top`, in eV/Å, without noise.

        Cholesky pivoted by whole structures: exact if ``rank`` reaches the number of forces, and never more than the
        covariance otherwise: nothing is left of any structure once those that are pivots are known, 19 of ethanol at
        rank 512, so a batch asks for as many columns as it has labels. Deterministic; ``seed`` is accepted because
        other potentials draw directions.
        """
        rows, basis = self._encoded(Structures.coerce(structures))
        _, block, half = self._conditional(rows)
        half = half[..., 1:]

        def column(pivot: int) -> Tensor:
            prior = self._prior(rows, rows[pivot : pivot + 1]).view(len(rows), *block.shape[1:])
            return prior[:, 1:, 1:] - torch.einsum("nsi,nj->sij", half, half[:, pivot])

        return list(torch.unbind(basis @ pivoted_root(block[:, 1:, 1:], column, rank)))

    def leave_one_out(self) -> Prediction:
        r"""Prediction of every training label from the other structures, its own standard error included.

        Block form of Rasmussen and Williams, section 5.4.2: with :math:`C_b = ([K^{-1}]_{bb})^{-1}`, the label minus
        the prediction is :math:`C_b [K^{-1} y]_b`, of covariance :math:`C_b`.

        Raises
        ------
        ApplicabilityError
            If there are more than ``exact_rows`` equations.
        """
        return left_out(self)

    def update(self, labelled: Labelled) -> "GradientGPPotential":
        """Potential after more labelled structures with the same hyper-parameters: the equations are solved anew.

        Raises
        ------
        DataError
            If a structure is another molecule.
        """
        order = self._orders(labelled.structures)[1]
        training = Labelled.concatenate([self.training, labelled])
        return replace(self, training=training, order=torch.cat([self.order, order])).solved()

    def deviation_gradient(
        self, structures: Structures | Labelled | Any
    ) -> tuple[Float[Tensor, " structures"], Float[Tensor, "atoms 3"]]:
        r"""Epistemic standard deviation of each energy (eV) and its gradient
        :math:`-\mathrm{Cov}(E, F) / \sigma_E` (eV/Å)."""
        rows, basis = self._encoded(Structures.coerce(structures))
        block = self._conditional(rows)[1]
        deviation = block[:, 0, 0].clamp_min(0.0).sqrt()
        slope = torch.einsum("sij,sj->si", basis, block[:, 0, 1:])
        gradient = torch.where(deviation[:, None] > 0, -slope / deviation[:, None], 0.0)
        return deviation, gradient.reshape(-1, 3)

    def calculator(self, **options: Any) -> Any:
        """ASE calculator of this potential; options as for :class:`~bayesmol.potentials.Calculator`."""
        from bayesmol.potentials.calculator import Calculator

        return Calculator(self, **{"device": self.kinds.device, **options})

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """JSON header and arrays from which :meth:`from_state` makes the same potential."""
        return state(self)

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> "GradientGPPotential":
        """Potential from :meth:`state`, solved again; raises :class:`FormatError` if an entry is missing."""
        return cls(**parts(header, arrays))

    @cached_property
    def _kernel(self) -> GradientKernel:
        kernel = GradientKernel(pair_permutations(self.permutations), self.kinds, offset=CONSTANT**2 / self.amplitude)
        kernel.lengthscale = self.length_scales
        return kernel.requires_grad_(False).to(self.kinds.device)

    @cached_property
    def _frames(self) -> Frames:
        return Frames.of(self.training, self.order)

    @cached_property
    def _topology(self) -> Topology:
        structures = self.training.structures
        positions = structures.positions.double().view(*self.order.shape, 3)
        positions = positions.gather(1, self.order[..., None].expand(-1, -1, 3))
        return Topology.of(positions, structures.species.view(self.order.shape)[0][self.order[0]])

    @cached_property
    def _labels(self) -> tuple[Tensor, Tensor]:
        variances = torch.tensor([self.noise_energy**2, self.noise_force**2], dtype=torch.float64)
        return self._frames.targets(*variances.to(self.kinds.device))

    @cached_property
    def _weights(self) -> Float[Tensor, " rows"]:
        return self._solver.solve(self._labels[0].reshape(-1, 1))[:, 0]

    @cached_property
    def _solver(self) -> Exact | ConjugateGradients:
        rows, noise, mask = self._frames.rows, self._labels[1], self._frames.observed.flatten().double()
        if len(mask) <= self.exact_rows:
            return Exact(noisy(self._prior(rows, rows), mask, noise))
        outputs = noise.shape[1]
        width = max(1, _ENTRIES // len(rows) ** 2)

        def product(vectors: Tensor) -> Tensor:
            parts = (mask[:, None] * vectors).split(width, dim=1)
            moved = torch.cat([self._kernel.product(rows, rows, part) for part in parts], dim=1)
            return self.amplitude * mask[:, None] * moved

        count = max(1, min(len(rows), self.preconditioner_rows // outputs))
        pivots = torch.linspace(0, len(rows) - 1, count, device=mask.device).round().long()
        at = (pivots[:, None] * outputs + torch.arange(outputs, device=mask.device)).flatten()
        columns = mask[:, None] * self._prior(rows, rows[pivots]) * mask[at]
        return ConjugateGradients.nystrom(product, torch.linalg.cholesky(noise), columns, columns[at])

    @cached_property
    def _exact(self) -> tuple[Exact, Tensor | slice]:
        """Solver for variances, and its rows: all, or those of as many structures as ``exact_rows`` allows.

        Labels that are left out can only raise a variance, never lower it.
        """
        if isinstance(self._solver, Exact):
            return self._solver, slice(None)
        structures, outputs = self._frames.observed.shape
        count = max(1, self.exact_rows // outputs)
        kept = torch.linspace(0, structures - 1, count, device=self.kinds.device).round().long()
        at = (kept[:, None] * outputs + torch.arange(outputs, device=kept.device)).flatten()
        frames = self._frames[kept]
        prior = self._prior(frames.rows, frames.rows)
        return Exact(noisy(prior, frames.observed.flatten().double(), self._labels[1][kept])), at

    def _prior(self, first: Tensor, second: Tensor) -> Tensor:
        return self.amplitude * self._kernel(first, second).to_dense()

    def _cross(self, rows: Tensor) -> Tensor:
        """Covariance of all labels with the outputs of ``rows``."""
        return self._frames.observed.flatten()[:, None] * self._prior(self._frames.rows, rows)

    def _conditional(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and covariance of each structure given the labels, and the root of what the labels explain."""
        cross = self._cross(rows)
        mean = (cross.mT @ self._weights).view(len(rows), -1)
        solver, at = self._exact
        half = solver.half(cross[at]).view(-1, *mean.shape)
        explained = torch.einsum("nsi,nsj->sij", half, half)
        return mean, self.amplitude * self._kernel.blocks(rows, rows) - explained, half

    def _encoded(self, structures: Structures) -> tuple[Tensor, Tensor]:
        """Kernel rows and internal directions of structures that must be the molecule of the training data."""
        return encoded(*self._orders(structures))

    def _orders(self, structures: Structures) -> tuple[Structures, Tensor]:
        """The structures, and the order of their atoms in which all training structures are alike."""
        species = self._topology.species
        like = bool((structures.counts == len(species)).all())
        numbers = structures.species.view(len(structures), -1) if like else structures.species
        if not like or not bool((numbers.sort(1).values == species.sort().values).all()):
            raise DataError(expected("structures", f"the molecule {species.tolist()}", "another composition"))
        if bool(structures.pbc.any()):
            raise DataError(expected("structures", "molecules without periodic directions", "a periodic cell"))
        positions = structures.positions.double().view(*numbers.shape, 3)
        return structures, self._topology.orders(positions, numbers)
