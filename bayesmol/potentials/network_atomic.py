r"""Atomic networks: for each element a perceptron on the body-ordered invariants of an atom's environment.

.. math:: h_i = f_{z_i}\!\left(\frac{B_i - \mu_{z_i}}{\sigma_{z_i}}\right), \quad
    B_i = B(A_i), \quad A_{i,k,lm} = \sum_j W^l_{k z_j n} R_n(r_{ij}) Y_{lm}(\hat r_{ij})
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.potentials.network import Network
from bayesmol.potentials.network_layers import Perceptron, parts, tree_products
from bayesmol.representation.ace import Environments, mixed
from bayesmol.representation.couplings import couplings
from bayesmol.representation.design import Representation
from bayesmol.representation.radial import RadialBasis

SMALLEST_SPREAD = 0.03  # of an invariant, relative to its root mean square: one that hardly varies is not blown up


@dataclass(frozen=True)
class Atomic:
    """Configuration of :class:`AtomicNetwork`.

    Attributes
    ----------
    basis
        Radial functions of the neighbours.
    degree
        Largest degree of the spherical harmonics, 1 to 4.
    correlation
        Largest number of neighbours that an invariant couples, 2 to 4.
    channels
        Number of learned densities of neighbours.
    hidden
        Units of the hidden layers of each perceptron.
    width
        Number of features of an atom: units of the last hidden layer.

    Raises
    ------
    DataError
        If a size is out of range.

    References
    ----------
    Behler & Parrinello, Phys. Rev. Lett. 98, 146401 (2007); Drautz, Phys. Rev. B 99, 014104 (2019).
    """

    basis: RadialBasis = field(default_factory=lambda: RadialBasis(cutoff=4.0, size=8))
    degree: int = 3
    correlation: int = 4
    channels: int = 16
    hidden: tuple[int, ...] = (64,)
    width: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.degree <= 4 or not 2 <= self.correlation <= 4:
            got = f"{self.degree}, {self.correlation}"
            raise DataError(expected("degree, correlation", "degree 1 to 4, correlation 2 to 4", got))
        sizes = (self.channels, *self.hidden, self.width)
        if min(sizes) < 1:
            raise DataError(expected("channels, hidden, width", "positive numbers", sizes))

    def network(self, species: tuple[int, ...], *, seed: int | torch.Generator) -> AtomicNetwork:
        """A network for these elements with random weights."""
        return AtomicNetwork(self, species, generator(seed))


class AtomicNetwork(Network):
    """Features of atoms by one perceptron for each element, see :class:`Atomic`."""

    mean: Tensor
    spread: Tensor

    def __init__(self, config: Atomic, species: tuple[int, ...], source: torch.Generator) -> None:
        super().__init__(species, config.basis, config.degree, config.width)
        self.config = config
        self.couplings = couplings(config.degree, config.correlation)
        own = int(torch.randint(2**62, (), generator=source))
        start = Representation.random(species, config.basis, (config.channels,), (config.degree,), seed=own)
        self.mixing = torch.nn.Parameter(start.mixing[0].float())
        inputs = config.channels * len(self.couplings.invariants)
        self.perceptron = Perceptron(len(species), (inputs, *config.hidden, config.width), source)
        self.register_buffer("mean", torch.zeros(len(species), inputs))
        self.register_buffer("spread", torch.ones(len(species), inputs))

    def forward(self, environment: Environments) -> Float[Tensor, "atoms width"]:
        """Features of all atoms, differentiable by ``environment.radial`` and ``environment.harmonics``."""
        kinds = environment.species
        inputs = (self.invariants(environment) - self.mean[kinds]) / self.spread[kinds]
        found = self.perceptron(inputs)
        return silu(found[kinds, torch.arange(len(kinds), device=kinds.device)])

    def invariants(self, environment: Environments) -> Float[Tensor, "atoms inputs"]:
        """Invariants of the learned densities."""
        density = mixed(environment, self.mixing)
        found = tree_products(density.permute(2, 0, 1).flatten(1), self.couplings)
        return found.unflatten(1, density.shape[:2]).permute(2, 0, 1).flatten(1)

    @torch.no_grad()
    def standardise(self, environment: Environments) -> None:
        """Shift and scale the invariants to mean 0 and variance 1 over the atoms of each element."""
        shape = self.mean.shape
        count, first, second = (
            torch.zeros(s, dtype=torch.float64, device=self.mean.device) for s in (shape[0], shape, shape)
        )
        for part in parts(environment):
            found = self.invariants(part).double()
            count.index_add_(0, part.species, torch.ones_like(found[:, 0]))
            first.index_add_(0, part.species, found)
            second.index_add_(0, part.species, found.square())
        present = count > 0
        mean, square = (total[present] / count[present, None] for total in (first, second))
        variance = (square - mean.square()).clamp(min=0) + SMALLEST_SPREAD**2 * square
        self.mean[present] = mean.to(self.mean)
        self.spread[present] = torch.where(square > 0, variance.sqrt(), 1.0).to(self.spread)
