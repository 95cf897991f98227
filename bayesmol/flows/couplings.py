"""Coupling flows: half of the coordinates move, and the other half says how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from nflows.transforms.base import CompositeTransform, Transform
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.bases import GaussianUniform
from bayesmol.flows.conditioners import Conditioner, Features, reproducible
from bayesmol.flows.elementwise import Elementwise, Marginals, Shifts, Splines
from bayesmol.flows.flow import Flow

__all__ = ["Coupling", "Couplings"]


class Coupling(Transform):
    """Maps of the coordinates of a mask, with parameters from the other coordinates and the context.

    Parameters
    ----------
    moved
        Which coordinates move.
    maps
        The family of maps of those coordinates.
    """

    given: Tensor
    moved: Tensor
    order: Tensor

    def __init__(
        self,
        moved: Bool[Tensor, " dimension"],
        circular: Bool[Tensor, " dimension"],
        maps: Elementwise,
        *,
        width: int,
        layers: int,
        context: int,
    ) -> None:
        super().__init__()
        given, changed = (~moved).nonzero()[:, 0], moved.nonzero()[:, 0]
        self.register_buffer("given", given)
        self.register_buffer("moved", changed)
        self.register_buffer("order", torch.argsort(torch.cat([given, changed])))
        self.features = Features(circular[given], context)
        self.maps = maps
        self.conditioner = Conditioner(len(self.features.sources), maps.numbers * len(changed), width, layers)

    def forward(
        self, inputs: Float[Tensor, "points dimension"], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mapped rows, and the log-determinant of each."""
        return self._mapped(inputs, context, inverse=False)

    def inverse(
        self, inputs: Float[Tensor, "points dimension"], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mapped rows, and the log-determinant of each."""
        return self._mapped(inputs, context, inverse=True)

    def _mapped(self, rows: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        given = rows.index_select(1, self.given)
        planes = self.conditioner(self.features(given, context)).unflatten(0, (self.maps.numbers, -1))
        moved, slopes = self.maps(rows.index_select(1, self.moved).mT, planes, inverse=inverse)
        return torch.cat([given, moved.mT], 1).index_select(1, self.order), slopes.sum(0)


@dataclass(frozen=True)
class Couplings:
    """Flow of coupling layers over marginal splines; density and draws cost one pass each.

    Attributes
    ----------
    layers
        Coupling layers; two in turn move complementary random halves of the coordinates, straight and circular alike.
    width, depth
        Units in a layer of a conditioner, and layers of units.
    bins
        Bins of a spline.
    kind
        Rational-quadratic splines, or affine maps (circles are then turned).
    bound
        Splines of straight coordinates bend within ±``bound`` standard deviations of the base.

    References
    ----------
    Durkan, Bekasov, Murray, Papamakarios, NeurIPS 32 (2019); Dinh, Sohl-Dickstein, Bengio, ICLR (2017), equations 7-8;
    Rezende et al., ICML (2020).
    """

    layers: int = 8
    width: int = 128
    bins: int = 8
    kind: Literal["spline", "affine"] = "spline"
    depth: int = 2
    bound: float = 5.0

    def __post_init__(self) -> None:
        if self.kind not in ("spline", "affine"):
            raise DataError(expected("kind", "'spline' or 'affine'", repr(self.kind)))
        if self.layers < 0:
            raise DataError(expected("layers", "0 or more", self.layers))

    def build(self, circular: Bool[Tensor, " dimension"], *, seed: int | torch.Generator, context: int = 0) -> Flow:
        """A new flow, which is the identity: its density is the base.

        Parameters
        ----------
        circular
            Which coordinates are angles in :math:`[-\\pi, \\pi)`.
        context
            Numbers on which the density is conditional.
        """
        circular = circular.cpu()
        base, dimension = GaussianUniform(circular), len(circular)
        with reproducible(seed):
            layers: list[Transform] = [Marginals(Splines(circular, max(self.bins, 16), self.bound), dimension)]
            moved = torch.ones_like(circular)
            for i in range(self.layers if dimension > 1 or context else 0):
                if dimension > 1:
                    moved = _half(circular) if i % 2 == 0 else ~moved
                layers.append(self._coupling(moved, circular, context))
        return Flow(base, CompositeTransform(layers))

    def _coupling(
        self, moved: Bool[Tensor, " dimension"], circular: Bool[Tensor, " dimension"], context: int
    ) -> Coupling:
        kinds = circular[moved]
        maps = Splines(kinds, self.bins, self.bound) if self.kind == "spline" else Shifts(kinds)
        return Coupling(moved, circular, maps, width=self.width, layers=self.depth, context=context)


def _half(circular: Bool[Tensor, " dimension"]) -> Bool[Tensor, " dimension"]:
    """A random half of the circular coordinates and a random half of the straight ones."""
    moved = torch.zeros_like(circular)
    angles, lines = circular.nonzero()[:, 0], (~circular).nonzero()[:, 0]
    # Of two odd kinds one half is rounded up and one down, so that the halves have the same size.
    some = (len(angles) + 1) // 2
    more = (len(circular) + 1) // 2 - some
    moved[angles[torch.randperm(len(angles))[:some]]] = True
    moved[lines[torch.randperm(len(lines))[:more]]] = True
    return moved
