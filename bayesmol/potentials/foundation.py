"""Foundations: potentials that exist already, to which this package adds what they do not know of themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.potentials.surface import Surface
from bayesmol.representation.design import Design

__all__ = ["Evaluated", "Foundation", "LayeredFoundation"]

_ATOMS = 256  # evaluated at a time, with the graph of their derivatives in memory


class Foundation(ABC):
    """A potential as it was published or bought: energies, forces and stresses without error bars.

    The four ways in are :meth:`chgnet`, :meth:`from_torch`, :meth:`from_calculator` and :meth:`committee`; the ways on
    are a Bayesian last layer (:meth:`LayeredFoundation.with_last_layer`) and a Bayesian residual
    (:meth:`with_residual`).
    """

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Kind, settings and, where there are weights, their SHA-256: what a saved model says of its foundation."""

    @abstractmethod
    def surface(self, structures: Any, *, virial: bool = False) -> Surface:
        """Energies (eV), forces (eV/Å) and, on demand, virials (eV, the derivative along a strain)."""

    def with_residual(self, train: Labelled, specification: Any = None, *, seed: int = 0) -> Any:
        """Posterior of what this potential gets wrong, learned from labels by a Bayesian ACE on their difference.

        Parameters
        ----------
        specification
            A :class:`~bayesmol.potentials.BayesianACE`; by default with its default settings.
        """
        from bayesmol.potentials.residual import fitted_residual

        return fitted_residual(self, train, specification, seed=seed)

    def attach(self, model: Any) -> Any:
        """A loaded model, certified or not, with this foundation under it again.

        Raises
        ------
        FormatError
            If this is not the foundation that the model was made with.
        DataError
            If the model has no foundation.
        """
        from bayesmol.potentials.foundation_state import attached

        return attached(model, self)

    @staticmethod
    def chgnet(
        version: str = "0.3.0", *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Any:
        """The pretrained CHGNet of the installed package ``chgnet``; see
        :class:`~bayesmol.potentials.foundation_chgnet.CHGNetFoundation`."""
        from bayesmol.potentials.foundation_chgnet import CHGNetFoundation

        return CHGNetFoundation(version, torch.device(device), dtype)

    @staticmethod
    def from_torch(energies: Any, *, features: Callable[..., Tensor] | str, dtype: torch.dtype = torch.float64) -> Any:
        """Any differentiable potential in torch; see
        :class:`~bayesmol.potentials.foundation_torch.TorchFoundation`."""
        from bayesmol.potentials.foundation_torch import TorchFoundation

        return TorchFoundation(energies, features, dtype)

    @staticmethod
    def from_calculator(calculator: Any) -> Any:
        """Any ASE calculator, or a reference of :mod:`bayesmol.data`, which can be saved with the model."""
        from bayesmol.potentials.residual_base import CalculatorFoundation, ReferenceFoundation

        kind = ReferenceFoundation if hasattr(calculator, "fingerprint") else CalculatorFoundation
        return kind(calculator)

    @staticmethod
    def committee(members: Sequence[Any]) -> Any:
        """Several foundations, calculators or fitted potentials; see
        :class:`~bayesmol.potentials.committee.Committee`."""
        from bayesmol.potentials.committee import Committee

        return Committee.of(members)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Energies and last hidden features of some structures, with the graph through which they depend on geometry.

    Attributes
    ----------
    positions, strains
        Leaves of the graph: positions in Å, and a strain of each structure, zero.
    energies, features
        In eV; features of each atom.
    """

    positions: Float[Tensor, "atoms 3"]
    strains: Float[Tensor, "structures 3 3"]
    energies: Float[Tensor, " structures"]
    features: Float[Tensor, "atoms width"]


class LayeredFoundation(Foundation):
    """A foundation that shows the features of its atoms in which its energy is linear."""

    device: torch.device
    dtype: torch.dtype

    @abstractmethod
    def evaluated(self, structures: Structures) -> Evaluated:
        """Energies and features of a few structures on the device and in the precision of the foundation."""

    def with_last_layer(self, train: Labelled, *, rank: int = 12) -> Any:
        """Posterior of a linear correction on the features; see
        :func:`~bayesmol.potentials.foundation_fit.fitted_layer`.

        Parameters
        ----------
        rank
            Directions of the features that are used: a prediction costs as many backward passes and two more.
        """
        from bayesmol.potentials.foundation_fit import fitted_layer

        return fitted_layer(self, train, rank)

    def surface(self, structures: Any, *, virial: bool = False) -> Surface:
        """Energies (eV), forces (eV/Å) and, on demand, virials (eV)."""
        return self.layer(structures, None, virial=virial)[0]

    def layer(
        self,
        structures: Any,
        heads: Float[Tensor, "width columns"] | None,
        *,
        forces: bool = True,
        virial: bool = False,
    ) -> tuple[Surface, Design]:
        """What the foundation says, and the rows of its features times ``heads``, in one evaluation.

        A column costs one backward pass; without heads there are none. The result is in float64.
        """
        batch = Structures.coerce(structures).to(self.device, torch.float64)
        with torch.enable_grad():  # calculators call us without
            parts = [self._part(batch[chunk], heads, forces, virial) for chunk in chunks(batch)]
        return _joined([surface for surface, _ in parts]), _stacked([design for _, design in parts])

    def _part(self, batch: Structures, heads: Tensor | None, forces: bool, virial: bool) -> tuple[Surface, Design]:
        found = self.evaluated(batch)
        columns = found.features.shape[1] if heads is None else heads.shape[1]
        atomic = found.features[:, :0] if heads is None else found.features @ heads.to(found.features)
        columns = atomic.shape[1]
        owner = batch.structure_index
        energy = atomic.new_zeros(len(batch), columns).index_add(0, owner, atomic)
        totals = torch.cat([found.energies.sum()[None], energy.sum(0)])
        slopes = _slopes(totals, found, virial) if forces or virial else None
        design = Design(energy.detach().double(), None, None, atomic.detach().double(), batch.species)
        energies = found.energies.detach().double()
        if slopes is None:
            return Surface(energies, torch.zeros_like(batch.positions), None), design
        force, strain = (-slopes[0]).double(), None if slopes[1] is None else slopes[1].double()
        rows = force[1:].permute(1, 2, 0).flatten(0, 1)
        work = None if strain is None else strain[1:].permute(1, 2, 3, 0).flatten(0, 2)
        return Surface(energies, force[0], None if strain is None else strain[0]), replace(
            design, forces=rows, virial=work
        )


def _slopes(totals: Tensor, found: Evaluated, virial: bool) -> tuple[Tensor, Tensor | None]:
    """Derivatives of each total by the positions and the symmetric strain: (columns, atoms, 3), (columns, s, 3, 3)."""
    leaves = [found.positions, found.strains] if virial else [found.positions]
    parts = [
        torch.autograd.grad(total, leaves, retain_graph=k + 1 < len(totals), materialize_grads=True)
        for k, total in enumerate(totals)
    ]
    stacked = [torch.stack(column) for column in zip(*parts, strict=True)]
    return stacked[0], (stacked[1] + stacked[1].mT) / 2 if virial else None


def chunks(structures: Structures, atoms: int = _ATOMS) -> Iterator[slice]:
    """Consecutive structures with at most so many atoms, or one structure."""
    start = 0
    while start < len(structures):
        reach = structures.pointer - structures.pointer[start] <= atoms
        stop = min(max(start + 1, int(reach.nonzero()[-1])), len(structures))
        yield slice(start, stop)
        start = stop


def _joined(parts: list[Surface]) -> Surface:
    virials = None if parts[0].virials is None else torch.cat([part.needed_virials for part in parts])
    return Surface(torch.cat([part.energies for part in parts]), torch.cat([part.forces for part in parts]), virials)


def _stacked(parts: list[Design]) -> Design:
    first = parts[0]
    return Design(
        torch.cat([part.energy for part in parts]),
        None if first.forces is None else torch.cat([part.given("forces") for part in parts]),
        None if first.virial is None else torch.cat([part.given("virial") for part in parts]),
        torch.cat([part.atomic for part in parts]),
        torch.cat([part.species for part in parts]),
    )
