"""Any differentiable potential in torch as a foundation: two callables, or a module and the name of its last layer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.potentials.foundation import Evaluated, LayeredFoundation

__all__ = ["TorchFoundation", "weights_hash"]


@dataclass(frozen=True, eq=False)
class TorchFoundation(LayeredFoundation):
    """A potential that torch can differentiate.

    Attributes
    ----------
    energies
        ``energies(positions, species, pointer, cell) -> (structures,)`` in eV: a module or a function, differentiable
        in the positions and the cell. Structure s owns the atoms ``pointer[s]:pointer[s + 1]``; cells of molecules are
        zero.
    features
        A function of the same arguments that gives ``(atoms, width)``; or the name of a linear layer of the module,
        whose input is taken in the same pass.
    dtype
        Floating type of positions and cells that it gets.

    Raises
    ------
    DataError
        If there is no linear layer of that name.
    """

    energies: Callable[..., Tensor]
    features: Callable[..., Tensor] | str
    dtype: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        if isinstance(self.features, str):
            _ = self._readout

    @property
    def device(self) -> torch.device:  # type: ignore[override]  # that of the module, which no one sets
        """Where the module is."""
        parameters = getattr(self.energies, "parameters", lambda: iter(()))()
        return next((parameter.device for parameter in parameters), torch.device("cpu"))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Name of the callable, of its features, and the SHA-256 of its weights if it is a module."""
        place = self.energies if hasattr(self.energies, "__qualname__") else type(self.energies)
        layer = self.features if isinstance(self.features, str) else getattr(self.features, "__qualname__", "callable")
        digest = weights_hash(self.energies) if isinstance(self.energies, torch.nn.Module) else None
        name = f"{place.__module__}.{place.__qualname__}"
        return {"kind": "torch", "name": name, "features": layer, "sha256": digest}

    @property
    def _readout(self) -> torch.nn.Linear:
        layers = dict(self.energies.named_modules()) if isinstance(self.energies, torch.nn.Module) else {}
        if not isinstance(layer := layers.get(self.features), torch.nn.Linear):
            linear = [name for name, part in layers.items() if isinstance(part, torch.nn.Linear)]
            raise DataError(expected("features", f"one of the linear layers {linear}", repr(self.features)))
        return layer

    def evaluated(self, structures: Structures) -> Evaluated:
        """Energies and features of a few structures.

        Raises
        ------
        ShapeError
            If the module gives other shapes than it should.
        """
        positions = structures.positions.detach().to(self.device, self.dtype).requires_grad_()
        strains = positions.new_zeros(len(structures), 3, 3).requires_grad_()
        deformation = torch.eye(3, dtype=self.dtype, device=positions.device) + strains
        moved = torch.einsum("ax,axy->ay", positions, deformation[structures.structure_index])
        cell = structures.cell.to(positions) @ deformation
        with torch.enable_grad():
            energies, features = self._called(moved, structures.species, structures.pointer, cell)
        wanted = {"energies": (len(structures),), "features": (len(positions), *features.shape[1:2])}
        for name, value in {"energies": energies, "features": features}.items():
            if tuple(value.shape) != wanted[name]:
                raise ShapeError(expected(name, f"{wanted[name]}, one for each structure or atom", tuple(value.shape)))
        return Evaluated(positions, strains, energies, features)

    def _called(self, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        if callable(self.features):
            return self.energies(*arguments), self.features(*arguments)
        seen: list[Tensor] = []
        handle = self._readout.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            energies = self.energies(*arguments)
        finally:
            handle.remove()
        if len(seen) != 1:
            raise DataError(expected("features", "a layer that is used once in an evaluation", f"{len(seen)} uses"))
        return energies, seen[0]


def weights_hash(module: torch.nn.Module) -> str:
    """SHA-256 of the names, shapes and values of all weights and buffers, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        array = value.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype} {array.shape};".encode() + array.tobytes())
    return digest.hexdigest()
