"""Autoregressive flows: each coordinate given those before it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from nflows.transforms.base import CompositeTransform, Transform
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.bases import GaussianUniform
from bayesmol.flows.conditioners import Conditioner, Features, reproducible
from bayesmol.flows.elementwise import Marginals, Splines
from bayesmol.flows.flow import Flow

__all__ = ["Autoregressive", "Chain"]


class Chain(Transform):
    """Splines of each coordinate with parameters from the coordinates before it, and the context.

    The density takes one pass of the network, a draw one pass for each coordinate.

    Parameters
    ----------
    order
        The coordinates, first to last.
    maps
        The splines of all coordinates.
    """

    def __init__(
        self,
        order: Int[Tensor, " dimension"],
        circular: Bool[Tensor, " dimension"],
        maps: Splines,
        *,
        width: int,
        layers: int,
        context: int,
    ) -> None:
        super().__init__()
        self.order, self.maps = order.tolist(), maps
        self.features = Features(circular, context)
        rank = torch.argsort(order) + 1
        sources = self.features.sources
        before = torch.where(sources < 0, torch.zeros_like(sources), rank[sources.clamp_min(0)])
        after = rank.repeat(maps.numbers)
        self.conditioner = Conditioner(len(sources), len(after), width, layers, (before, after))

    def forward(
        self, inputs: Float[Tensor, "points dimension"], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mapped rows, and the log-determinant of each."""
        planes = self.conditioner(self.features(inputs, context)).unflatten(0, (self.maps.numbers, -1))
        z, slopes = self.maps(inputs.mT, planes)
        return z.mT, slopes.sum(0)

    def inverse(
        self, inputs: Float[Tensor, "points dimension"], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mapped rows, and the log-determinant of each."""
        columns = [torch.zeros_like(inputs[:, 0]) for _ in self.order]
        volume = torch.zeros_like(inputs[:, 0])
        for i in self.order:
            hidden = self.conditioner.hidden(self.features(torch.stack(columns, 1), context))
            planes = self.conditioner.parameters_of(hidden, slice(i, None, len(self.order)))[:, None]
            x, slope = self.maps(inputs[None, :, i], planes, inverse=True, chosen=slice(i, i + 1))
            columns[i], volume = x[0], volume + slope[0]
        return torch.stack(columns, 1), volume


@dataclass(frozen=True)
class Autoregressive:
    """Flow of conditional splines, each coordinate given those before it, over marginal splines.

    For few coordinates this is the most accurate flow for its cost; a draw costs as many passes as there are
    coordinates.

    Attributes
    ----------
    width, depth
        Units in a layer of the network, and layers of units.
    bins
        Bins of a spline.
    layers
        Autoregressive layers; every second one takes the coordinates in reverse.
    order
        The coordinates, first to last; as they come if ``None``.
    bound
        Splines of straight coordinates bend within ±``bound`` standard deviations of the base.

    References
    ----------
    Papamakarios, Pavlakou, Murray, NeurIPS 30 (2017); Durkan, Bekasov, Murray, Papamakarios, NeurIPS 32 (2019).
    """

    width: int = 64
    bins: int = 32
    layers: int = 1
    depth: int = 2
    order: tuple[int, ...] | None = None
    bound: float = 5.0

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise DataError(expected("layers", "1 or more", self.layers))

    def build(self, circular: Bool[Tensor, " dimension"], *, seed: int | torch.Generator, context: int = 0) -> Flow:
        """A new flow, which is the identity: its density is the base.

        Parameters
        ----------
        circular
            Which coordinates are angles in :math:`[-\\pi, \\pi)`.
        context
            Numbers on which the density is conditional.

        Raises
        ------
        DataError
            If the order does not name each coordinate once.
        """
        circular = circular.cpu()
        base, dimension = GaussianUniform(circular), len(circular)
        order = torch.arange(dimension) if self.order is None else torch.tensor(self.order)
        if sorted(order.tolist()) != list(range(dimension)):
            raise DataError(expected("order", f"each coordinate from 0 to {dimension - 1} once", self.order))
        with reproducible(seed):
            layers: list[Transform] = [Marginals(Splines(circular, self.bins, self.bound), dimension)]
            for i in range(self.layers):
                places = order if i % 2 == 0 else order.flip(0)
                maps = Splines(circular, self.bins, self.bound)
                size = {"width": self.width, "layers": self.depth, "context": context}
                layers.append(Chain(places, circular, maps, **size))
        return Flow(base, CompositeTransform(layers))
