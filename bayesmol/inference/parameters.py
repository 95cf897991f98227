"""The parameters of a torch module as one flat vector: what every inference engine samples."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["Flattened"]


@dataclass(frozen=True)
class Flattened:
    """Order of the parameters of a module in one vector.

    Attributes
    ----------
    names
        As in ``module.named_parameters()``, in its order.
    shapes
        Of each parameter.

    Examples
    --------
    >>> module = torch.nn.Linear(3, 2)
    >>> flattened = Flattened.of(module)
    >>> flattened.call(module, flattened.vector(module), torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, module: torch.nn.Module, chosen: Callable[[str], bool] | None = None) -> Flattened:
        """Parameters of ``module`` whose names are ``chosen``; by default all that require a gradient.

        Raises
        ------
        DataError
            If none is chosen.
        """
        parameters = dict(module.named_parameters())
        names = [name for name, value in parameters.items() if (chosen(name) if chosen else value.requires_grad)]
        if not names:
            raise DataError(expected("chosen", "at least one parameter of the module", "none"))
        return cls(tuple(names), tuple(parameters[name].shape for name in names))

    @property
    def size(self) -> int:
        """Number of entries of the vector."""
        return sum(shape.numel() for shape in self.shapes)

    def vector(self, module: torch.nn.Module) -> Float[Tensor, " parameters"]:
        """Copy of the parameters of ``module`` as one vector."""
        parameters = dict(module.named_parameters())
        return torch.cat([parameters[name].detach().reshape(-1) for name in self.names])

    def named(self, vector: Float[Tensor, "*draws parameters"]) -> dict[str, Tensor]:
        """Views of the vector by name, ``(*draws, *shape)`` each; differentiable.

        Raises
        ------
        ShapeError
            If the last axis does not have as many entries as the parameters.
        """
        if vector.shape[-1] != self.size:
            raise ShapeError(expected("vector", f"{self.size} entries in the last axis", tuple(vector.shape)))
        parts = vector.split([shape.numel() for shape in self.shapes], dim=-1)
        return {
            name: part.reshape(*vector.shape[:-1], *shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def call(self, module: torch.nn.Module, vector: Float[Tensor, " parameters"], *inputs: Any) -> Any:
        """``module(*inputs)`` with these parameters, differentiable by the vector; the module does not change."""
        return torch.func.functional_call(module, self.named(vector), inputs)

    def module(self, module: torch.nn.Module, vector: Float[Tensor, " parameters"]) -> torch.nn.Module:
        """Copy of ``module`` that has these parameters."""
        found = copy.deepcopy(module)
        found.load_state_dict({k: v.detach() for k, v in self.named(vector).items()}, strict=False)
        return found

    def scales(self, module: torch.nn.Module, width: float = 1.0) -> Float[Tensor, " parameters"]:
        r"""Prior standard deviations :math:`s/\sqrt{\text{fan-in}}` that keep the variance from layer to layer.

        The fan-in of an array is the product of all its axes but the first, as for ``torch.nn.Linear``; an array with
        one axis (biases, one weight a channel) gets ``width`` itself.

        Parameters
        ----------
        width
            s, the standard deviation of the sum that a unit receives.
        """
        like = self.vector(module)
        fan_in = [max(1, shape[1:].numel()) if len(shape) > 1 else 1 for shape in self.shapes]
        parts = [like.new_full((shape.numel(),), width / n**0.5) for shape, n in zip(self.shapes, fan_in, strict=True)]
        return torch.cat(parts)
