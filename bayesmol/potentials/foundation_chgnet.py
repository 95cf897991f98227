"""CHGNet as a foundation; only this file imports chgnet and the pymatgen that it needs."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version as installed
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, FormatError, expected
from bayesmol.optional import optional
from bayesmol.potentials.foundation import Evaluated, LayeredFoundation
from bayesmol.potentials.foundation_torch import weights_hash

__all__ = ["CHGNetFoundation"]

VERSIONS = ("0.3.0", "0.2.0", "r2scan")


@dataclass(frozen=True, eq=False)
class CHGNetFoundation(LayeredFoundation):
    """The pretrained CHGNet, for crystals of the elements 1 to 94.

    The features of an atom are the 64 numbers that enter its readout. What leaves the last hidden layer of that readout
    is no use: on silicon its 64 numbers vary along four directions only, because all that the layer was trained for is
    one number, and a correction along them explains less than one along as many of its inputs.

    Attributes
    ----------
    version
        Of the weights: ``"0.3.0"`` and ``"0.2.0"`` were trained on PBE+U relaxations of the Materials Project,
        ``"r2scan"`` was transferred to another functional.
    device, dtype
        Where and in which precision it runs; it was trained in float32.

    Raises
    ------
    DataError
        If there are no such weights.
    DependencyError
        If ``chgnet`` is not installed.

    References
    ----------
    Deng et al., Nat. Mach. Intell. 5, 1031 (2023).
    """

    version: str = "0.3.0"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise DataError(expected("version", f"one of {', '.join(VERSIONS)}", repr(self.version)))
        _ = self._network

    @classmethod
    def from_identity(cls, identity: dict[str, Any]) -> CHGNetFoundation:
        """The installed weights that a saved model names.

        Raises
        ------
        FormatError
            If the installed weights are others.
        """
        found = cls(identity["version"], dtype=getattr(torch, identity["dtype"]))
        if found.identity["sha256"] != identity["sha256"]:
            got = f"{found.identity['sha256'][:12]}… in chgnet {installed('chgnet')}"
            remedy = f"install chgnet {identity['package']}"
            raise FormatError(expected("CHGNet weights", f"SHA-256 {identity['sha256'][:12]}…", got, remedy))
        return found

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Version and SHA-256 of the weights."""
        return {
            "kind": "chgnet",
            "version": self.version,
            "package": installed("chgnet"),
            "dtype": str(self.dtype).removeprefix("torch."),
            "sha256": vars(self)["_published"],
        }

    @cached_property
    def _network(self) -> Any:
        library = optional("chgnet.model", "foundation")
        with _quiet():
            network = library.CHGNet.load(model_name=self.version, use_device="cpu", verbose=False)
        object.__setattr__(self, "_published", weights_hash(network))
        network.graph_converter.set_isolated_atom_response("ignore")  # it is asked for below, with a remedy
        network = network.to(self.device, self.dtype).requires_grad_(False).eval()
        network.composition_model.float()  # it counts in float32 whatever comes in
        return network

    def evaluated(self, structures: Structures) -> Evaluated:
        """Energies and features of a few crystals.

        Raises
        ------
        DataError
            If a structure is not periodic in all directions, or an atom has no neighbour within the cutoff.
        """
        from chgnet.model.model import BatchedGraph

        network, owner = self._network, structures.structure_index
        positions = structures.positions.detach().double().requires_grad_()
        strains = positions.new_zeros(len(structures), 3, 3).requires_grad_()
        with torch.enable_grad(), _quiet():
            cell = structures.cell.double()
            strained = cell @ (torch.eye(3).to(cell) + strains)
            # The network multiplies fractional coordinates by the strained cell: both leaves act as they should.
            fractional = torch.einsum("ax,axy->ay", positions, torch.linalg.inv(cell)[owner])
            graphs = self._graphs(structures, fractional.to(self.dtype), strained.to(self.dtype))
            batch = BatchedGraph.from_graphs(graphs, network.bond_basis_expansion, network.angle_basis_expansion)
            seen: list[Tensor] = []
            handle = network.mlp.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
            try:
                per_atom = network._compute(batch)["e"] + network.composition_model(graphs)
            finally:
                handle.remove()
        return Evaluated(positions, strains, per_atom * structures.counts.to(per_atom), seen[0])

    def _graphs(self, structures: Structures, fractional: Tensor, cell: Tensor) -> list[Any]:
        """Graphs of the crystals whose coordinates and cells are those of our leaves."""
        from pymatgen.core import Lattice, Structure

        if not bool(structures.pbc.all()):
            remedy = "give molecules a large cell, or use another foundation"
            raise DataError(expected("structures", "crystals, periodic in all directions", "others", remedy))
        species, positions = structures.species.tolist(), structures.positions.detach().cpu().double().numpy()
        cells, graphs = structures.cell.detach().cpu().double().numpy(), []
        for s, (a, b) in enumerate(pairwise(structures.pointer.tolist())):
            crystal = Structure(Lattice(cells[s]), species[a:b], positions[a:b], coords_are_cartesian=True)
            graph = self._network.graph_converter(crystal)
            if len(graph.atom_graph) == 0 or len(graph.atom_graph[:, 0].unique()) < b - a:
                reach = f"neighbours within {self._network.graph_converter.atom_graph_cutoff} Å of each atom"
                raise DataError(expected("structures", reach, f"an isolated atom in structure {s}"))
            graph = graph.to(str(self.device))
            graph.atom_frac_coord, graph.lattice = fractional[a:b], cell[s]
            graph.neighbor_image = graph.neighbor_image.to(self.dtype)
            graphs.append(graph)
        return graphs


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the greetings and the warnings of the library."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
