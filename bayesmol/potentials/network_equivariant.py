"""Equivariant message passing with body-ordered products, in the family of NequIP and MACE."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.potentials.network import Network
from bayesmol.potentials.network_products import Convolution, Linear, Product, ScalarProduct
from bayesmol.representation.ace import Environments
from bayesmol.representation.radial import RadialBasis


@dataclass(frozen=True)
class Equivariant:
    """Configuration of :class:`EquivariantNetwork`.

    Attributes
    ----------
    basis
        Radial functions of the edges; the cutoff is in Å.
    channels
        Channels of each degree.
    degree, hidden
        Largest degree of the edges and products, and of the features that atoms send in all layers but the first.
    layers
        Message passing layers.
    radial
        Units of the two hidden layers of the radial perceptron.
    width
        Features of an atom before the last layer.
    """

    basis: RadialBasis = field(default_factory=lambda: RadialBasis(cutoff=5.0, size=8, scale=0.9))
    channels: int = 32
    degree: int = 2
    hidden: int = 1
    layers: int = 2
    radial: int = 32
    width: int = 32

    def __post_init__(self) -> None:
        if not (0 <= self.hidden <= self.degree <= 3 and min(self.channels, self.layers, self.radial, self.width) > 0):
            got = f"degree {self.degree}, hidden {self.hidden}, {self.layers} layers of {self.channels} channels"
            raise DataError(expected("configuration", "0 <= hidden <= degree <= 3 and positive sizes", got))

    def network(self, species: tuple[int, ...], *, seed: int | torch.Generator) -> EquivariantNetwork:
        """Network with random weights."""
        return EquivariantNetwork(self, species, generator(seed))


class EquivariantNetwork(Network):
    r"""Each layer gathers :math:`A_i` from the neighbours, multiplies it with itself up to the third power, and mixes.

    .. math:: h_i^{(t+1)} = W\,[A_i,\; A_i \otimes A_i,\; A_i \otimes A_i \otimes A_i] + U_{z_i} h_i^{(t)}

    so that one layer has four-body, two layers many-body terms.

    References
    ----------
    Batzner et al., Nat. Commun. 13, 2453 (2022), for equivariant messages; Batatia et al., NeurIPS 35 (2022),
    for products of higher body order.
    """

    def __init__(self, config: Equivariant, species: tuple[int, ...], source: torch.Generator) -> None:
        super().__init__(species, config.basis, config.degree, config.width)
        self.config = config
        self.embedding = _normal(source, len(species), config.channels)
        last = config.layers - 1
        degrees = [(config.hidden if t else 0, config.hidden if t < last else 0) for t in range(config.layers)]
        self.layers = torch.nn.ModuleList(Layer(config, len(species), *pair, source) for pair in degrees)
        inputs = config.channels * config.layers
        self.readout = torch.nn.ParameterList(
            [
                _normal(source, inputs, config.width, scale=inputs),
                _normal(source, config.width, config.width, scale=config.width),
            ]
        )
        self.to(torch.float32)

    def forward(self, environment: Environments) -> Float[Tensor, "atoms width"]:
        """Features of all atoms."""
        features = self.embedding.index_select(0, environment.species).unsqueeze(-1)
        scalars = []
        for layer in self.layers:
            features = layer(features, environment)
            scalars.append(features[:, :, 0])
        found = torch.cat(scalars, 1)
        return silu(found @ self.readout[0]) @ self.readout[1]


class Layer(torch.nn.Module):
    """One step of message passing from features of degree ``inner`` to features of degree ``outer``."""

    def __init__(self, config: Equivariant, kinds: int, inner: int, outer: int, source: torch.Generator) -> None:
        super().__init__()
        channels, degree = config.channels, config.degree
        self.send = Linear(inner, channels, channels, source)
        self.convolution = Convolution(degree, inner, degree)
        sizes = [config.basis.size, config.radial, config.radial]
        self.radial = torch.nn.ParameterList(_normal(source, a, b, scale=a) for a, b in pairwise(sizes))
        self.radial.append(_normal(source, config.radial, channels, len(self.convolution.paths), scale=config.radial))
        self.gather = Linear(degree, channels, channels, source)
        self.kind = torch.nn.Parameter(torch.ones(kinds, channels, degree + 1, dtype=torch.float64))
        self.square = Product(degree, degree, degree, channels, source)
        cube = Product(degree, degree, outer, channels, source)
        self.cube = cube if outer else ScalarProduct(degree, channels, source)
        self.mix = Linear(outer, 3 * channels, channels, source)
        self.keep = _normal(source, min(inner, outer) + 1, kinds, channels, channels, scale=channels)

    def forward(self, features: Tensor, environment: Environments) -> Float[Tensor, "atoms channels lm"]:
        """Features after the step."""
        radial = environment.radial
        for weight in self.radial[:-1]:
            radial = silu(radial @ weight) * 1.7
        last = self.radial[-1][..., list(self.convolution.path)]
        radial = (radial @ last.flatten(1)).unflatten(1, last.shape[1:])
        pair = environment.first, environment.second
        density = self.gather(self.convolution(environment.harmonics, radial, self.send(features), *pair)) * 0.3
        repeats = 2 * torch.arange(self.kind.shape[2], device=density.device) + 1
        density = density * self.kind.index_select(0, environment.species).repeat_interleave(repeats, 2)
        square = self.square(density, density)
        outer = (len(self.mix.weight)) ** 2
        cube = self.cube(square, density)
        mixed = self.mix(torch.cat([density[..., :outer], square[..., :outer], cube], 1))
        return self._kept(features, environment.species, mixed)

    def _kept(self, features: Tensor, species: Tensor, mixed: Tensor) -> Tensor:
        """The features before, mixed by weights of the element, added."""
        degree, kinds, size = self.keep.shape[:3]
        repeats = 2 * torch.arange(degree, device=mixed.device) + 1
        every = self.keep.permute(0, 2, 1, 3).flatten(2).repeat_interleave(repeats, 0)
        own = (features[:, :, : len(every)].permute(2, 0, 1) @ every).unflatten(2, (kinds, size))
        kept = own[:, torch.arange(len(species), device=species.device), species].permute(1, 2, 0)
        missing = mixed.shape[2] - kept.shape[2]
        return mixed + (torch.nn.functional.pad(kept, (0, missing)) if missing else kept)


def _normal(source: torch.Generator, *shape: int, scale: int = 1) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(shape, generator=source, dtype=torch.float64) / scale**0.5)
