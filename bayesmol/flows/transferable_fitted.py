"""A kernel that many molecules share, as a proposal for one of them; and the gate of what it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ApplicabilityError, FormatError, expected
from bayesmol.flows.mixture import Ensemble
from bayesmol.flows.transferable_context import Contexts, Molecule, stacked
from bayesmol.flows.transferable_network import Kernel
from bayesmol.flows.viewed import Seen
from bayesmol.inference.random import generator
from bayesmol.typing import Species

__all__ = ["Familiarity", "FittedTransferable", "MoleculeProposal"]

Environment = tuple[int, tuple[int, ...]]


class MoleculeProposal:
    """One kernel as a proposal of the internal coordinates of one molecule.

    Attributes
    ----------
    dimension
        Numbers of a row of internal coordinates.
    """

    def __init__(self, kernel: Kernel, molecule: Molecule, context: Contexts) -> None:
        self.kernel, self.molecule, self.context = kernel, molecule, context
        self.dimension = len(molecule.internal.circular)

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the kernel computes."""
        return self.kernel.grid.dtype

    @torch.no_grad()
    def log_prob(self, x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        """Log-density of each row of internal coordinates, in nats, in one pass over the atoms."""
        values, volume = self.molecule.groups(x)
        return self.kernel.log_prob(self.context, values[None])[0] + volume

    @torch.no_grad()
    def sample(
        self, size: int, *, seed: int | torch.Generator
    ) -> tuple[Float[Tensor, "size dimension"], Float[Tensor, " size"]]:
        """Independent rows, atom after atom, and their log-density."""
        values = self.kernel.sample(self.context, size, generator(seed, self.kernel.grid.device))[0]
        rows, volume = self.molecule.columns(values)
        return rows, self.kernel.log_prob(self.context, values[None])[0] - volume


@dataclass(frozen=True)
class Familiarity:
    """How a molecule compares with those of the training.

    Attributes
    ----------
    elements
        Atomic numbers that no molecule of the training has.
    environments
        Elements with the sorted elements of their neighbours that no molecule of the training has.
    """

    elements: tuple[int, ...]
    environments: tuple[Environment, ...]

    @property
    def inside(self) -> bool:
        """Whether every atom has an environment of the training."""
        return not self.elements and not self.environments

    def __str__(self) -> str:
        if self.inside:
            return "every atom has neighbours as in the training"
        from ase.data import chemical_symbols as symbols

        if self.elements:
            return f"no molecule of the training has {', '.join(symbols[z] for z in self.elements)}"
        names = [f"{symbols[z]}({', '.join(symbols[n] for n in near)})" for z, near in self.environments]
        return f"no molecule of the training has {'; '.join(names)}"


@dataclass(frozen=True, eq=False)
class FittedTransferable:
    """Kernels with weights from the posterior, and what they have seen.

    Attributes
    ----------
    kernels
        Members of the ensemble, each from other weights of the molecules (a Bayesian bootstrap of molecules).
    environments
        Element of an atom with the sorted elements of its neighbours, of all molecules of the training.
    steps
        Steps of training.
    loss
        Mean negative log-density per coordinate in the last tenth of the steps, in nats, of each member.
    """

    kernels: tuple[Kernel, ...]
    environments: frozenset[Environment]
    steps: int
    loss: tuple[float, ...]

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers of the training."""
        return frozenset(z for z, _ in self.environments)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header and arrays of a file."""
        header = {
            "shape": self.kernels[0].shape,
            "members": len(self.kernels),
            "environments": sorted(self.environments),
            "steps": self.steps,
            "loss": self.loss,
        }
        members = enumerate(self.kernels)
        return header, {f"{k}.{name}": value for k, one in members for name, value in one.state_dict().items()}

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> FittedTransferable:
        """Kernels from what :meth:`state` gave.

        Raises
        ------
        FormatError
            If the weights are not those of kernels of this shape.
        """
        kernels = []
        for k in range(header["members"]):
            own = {name.split(".", 1)[1]: value for name, value in arrays.items() if name.startswith(f"{k}.")}
            kernel = Kernel(**header["shape"]).double()
            try:
                kernel.load_state_dict(own)
            except RuntimeError as error:
                raise FormatError(expected("kernel", "the weights of its shape", error)) from error
            kernels.append(kernel.to(own["grid"].device).requires_grad_(False))
        environments = frozenset((int(z), tuple(map(int, near))) for z, near in header["environments"])
        return cls(tuple(kernels), environments, int(header["steps"]), tuple(header["loss"]))

    def familiarity(self, species: Species, equilibrium: Float[Tensor, " coordinates"]) -> Familiarity:
        """What of a molecule is new; no network is asked, so that nothing new can look familiar.

        Parameters
        ----------
        equilibrium
            Geometry of least energy, in Å.
        """
        found = self._strange(species)
        return self._compared(Molecule.of(species, equilibrium)) if found.inside else found

    def proposal(
        self, species: Species, equilibrium: Float[Tensor, " coordinates"], *, new_environments: bool = False
    ) -> Seen:
        r"""Density of the positions of one molecule, :math:`\frac1M \sum_m q_m(x)` over the members.

        Parameters
        ----------
        equilibrium
            Geometry of least energy on the surface that will judge, in Å. Another one makes the proposal worse, and no
            weighted result wrong.
        new_environments
            Whether atoms may have neighbours that no atom of their element had in the training.

        Raises
        ------
        ApplicabilityError
            If the molecule has an element that was not in the training; or a new environment, unless allowed.
        DataError
            If internal coordinates cannot describe it.
        """
        _refuse(self._strange(species), "train on molecules that have them")
        molecule = Molecule.of(species, equilibrium)
        if not new_environments:
            _refuse(self._compared(molecule), "train on molecules that have them, or allow new_environments")
        context = _on(stacked([molecule]), self.kernels[0])
        return Seen(
            Ensemble([MoleculeProposal(kernel, molecule, context) for kernel in self.kernels]), molecule.internal
        )

    def _strange(self, species: Species) -> Familiarity:
        """Elements alone, which need no geometry."""
        return Familiarity(tuple(sorted(set(species.tolist()) - self.elements)), ())

    def _compared(self, molecule: Molecule) -> Familiarity:
        return Familiarity((), tuple(sorted(set(molecule.environments) - self.environments)))


def _refuse(found: Familiarity, remedy: str) -> None:
    if not found.inside:
        raise ApplicabilityError(expected("species", "a molecule like those of the training", found, remedy))


def _on(contexts: Contexts, kernel: Kernel) -> Contexts:
    return Contexts(*(q.to(kernel.grid.device) for q in contexts))
