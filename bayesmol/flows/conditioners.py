"""Networks that give the parameters of a map of some coordinates from the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from bayesmol.errors import DataError, expected
from bayesmol.inference.random import integer_seed

__all__ = ["Conditioner", "Features", "reproducible"]


@contextmanager
def reproducible(seed: int | torch.Generator) -> Iterator[None]:
    """Modules of torch draw their first weights from this seed, and the global stream stays where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(integer_seed(seed))
        yield


class Features(nn.Module):
    """Cosines and sines of the angles, the straight coordinates, and the context: periodic where x is.

    Attributes
    ----------
    sources
        Coordinate from which each feature is made; -1 for context.
    """

    angles: Tensor
    lines: Tensor
    sources: Tensor

    def __init__(self, circular: Bool[Tensor, " coordinates"], context: int = 0) -> None:
        super().__init__()
        angles, lines = circular.nonzero()[:, 0], (~circular).nonzero()[:, 0]
        self.register_buffer("angles", angles)
        self.register_buffer("lines", lines)
        self.register_buffer("sources", torch.cat([angles, angles, lines, lines.new_full((context,), -1)]))
        self.context = context

    def forward(
        self, x: Float[Tensor, "points coordinates"], context: Float[Tensor, "points context"] | None = None
    ) -> Float[Tensor, "points features"]:
        """Features of each row.

        Raises
        ------
        DataError
            If the context has not the length for which the flow was built.
        """
        if self.context != (0 if context is None else context.shape[1]):
            got = "none" if context is None else tuple(context.shape)
            raise DataError(expected("context", f"{self.context} numbers for each row", got))
        angles = x.index_select(1, self.angles)
        parts = [torch.cos(angles), torch.sin(angles), x.index_select(1, self.lines)]
        return torch.cat(parts if context is None else [*parts, context], 1)


class Conditioner(nn.Module):
    r"""Multilayer perceptron with SiLU and a skip connection over its middle; it gives zero until it is trained.

    Parameters
    ----------
    inputs, outputs, width, layers
        Numbers of features, of parameters for one row, of units in a layer, and of layers of units.
    degrees
        Degree of each input and of each output for an autoregressive network: an output then depends only on inputs
        of lower degree.

    References
    ----------
    Germain, Gregor, Murray, Larochelle, ICML (2015), equations 8, 9 and 12 (masks).
    """

    first_mask: Tensor
    middle_mask: Tensor
    last_mask: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        layers: int = 2,
        degrees: tuple[Int[Tensor, " inputs"], Int[Tensor, " outputs"]] | None = None,
    ) -> None:
        super().__init__()
        if width < 1 or layers < 1:
            raise DataError(expected("width, layers", "positive numbers", (width, layers)))
        self.first = nn.Linear(max(inputs, 1), width)
        self.middle = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))
        self.last = nn.Linear(width, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.masked, self.inputs = degrees is not None, inputs
        if degrees is not None:
            self._mask(*degrees)

    def _mask(self, before: Int[Tensor, " inputs"], after: Int[Tensor, " outputs"]) -> None:
        """A unit sees inputs up to its degree, an output the units below its own."""
        width, top = len(self.first.bias), int(after.max())
        low = min(int(before.min()), top - 1) if len(before) else 0
        units = low + torch.arange(width) * (top - low) // width
        dtype = torch.get_default_dtype()
        self.register_buffer("first_mask", (units[:, None] >= before).to(dtype))
        self.register_buffer("middle_mask", (units[:, None] >= units).to(dtype))
        self.register_buffer("last_mask", (after[:, None] > units).to(dtype))

    def hidden(self, inputs: Float[Tensor, "points inputs"]) -> Float[Tensor, "points width"]:
        """Last layer of units."""
        if not self.inputs:
            inputs = inputs.new_zeros(len(inputs), 1)
        start = h = functional.silu(functional.linear(inputs, self._weight(self.first, "first"), self.first.bias))
        layers: list[Any] = list(self.middle)
        for layer in layers:
            h = functional.silu(functional.linear(h, self._weight(layer, "middle"), layer.bias))
        return h + start if len(self.middle) else h

    def _weight(self, layer: nn.Linear, place: str) -> Tensor:
        return layer.weight * getattr(self, f"{place}_mask") if self.masked else layer.weight

    def parameters_of(
        self, hidden: Float[Tensor, "points width"], outputs: slice = slice(None)
    ) -> Float[Tensor, "outputs points"]:
        """Some of the outputs; rows are the last axis, as the splines want them."""
        return torch.addmm(self.last.bias[outputs, None], self._weight(self.last, "last")[outputs], hidden.mT)

    def forward(self, inputs: Float[Tensor, "points inputs"]) -> Float[Tensor, "outputs points"]:
        """All outputs of each row."""
        return self.parameters_of(self.hidden(inputs))
