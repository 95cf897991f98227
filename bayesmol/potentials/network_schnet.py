r"""SchNet: atoms exchange messages through filters that are continuous functions of distance.

.. math:: x_i \leftarrow x_i + f\Big(\sum_j (V x_j) \circ W(r_{ij})\Big)

References
----------
Schütt, Sauceda, Kindermans, Tkatchenko, Müller, J. Chem. Phys. 148, 241722 (2018).
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
from bayesmol.potentials.network_layers import Perceptron, parts, weights
from bayesmol.representation.ace import Environments
from bayesmol.representation.radial import RadialBasis


@dataclass(frozen=True)
class SchNet:
    """Configuration of :class:`SchNetNetwork`.

    Attributes
    ----------
    basis
        Radial functions of which filters are made; their cutoff is that of a message.
    features
        Number of features that atoms exchange.
    interactions
        Number of rounds of messages.
    width
        Number of features of an atom in which the energy is linear.

    Raises
    ------
    DataError
        If a size is not positive.
    """

    basis: RadialBasis = field(default_factory=lambda: RadialBasis(cutoff=5.0, size=16))
    features: int = 64
    interactions: int = 3
    width: int = 64

    def __post_init__(self) -> None:
        sizes = (self.features, self.interactions, self.width)
        if min(sizes) < 1:
            raise DataError(expected("features, interactions, width", "positive numbers", sizes))

    def network(self, species: tuple[int, ...], *, seed: int | torch.Generator) -> SchNetNetwork:
        """A network for these elements with random weights."""
        return SchNetNetwork(self, species, generator(seed))


class SchNetNetwork(Network):
    """Features of atoms by continuous-filter convolutions, see :class:`SchNet`."""

    magnitude: Tensor

    def __init__(self, config: SchNet, species: tuple[int, ...], source: torch.Generator) -> None:
        super().__init__(species, config.basis, 0, config.width)
        self.config = config
        size, rounds = config.features, config.interactions
        self.embedding = weights((len(species), size), 1, source)
        # Without biases a filter vanishes at the cutoff as smoothly as the radial functions do.
        self.filters = Perceptron(rounds, (config.basis.size, size, size), source, biases=False)
        self.sending = weights((rounds, size, size), size, source)
        self.receiving = torch.nn.ModuleList(Perceptron(1, (size, size, size), source) for _ in range(rounds))
        self.last = Perceptron(1, (size, config.width), source)
        self.register_buffer("magnitude", torch.ones(rounds))

    def forward(self, environment: Environments) -> Float[Tensor, "atoms width"]:
        """Features of all atoms, differentiable by ``environment.radial``."""
        state = self.embedding.index_select(0, environment.species)
        filters = self.filters(environment.radial)
        for turn in range(len(self.receiving)):
            message = self._gathered(turn, state, filters, environment) / self.magnitude[turn]
            state = state + self.receiving[turn](message)[0]
        return silu(self.last(state)[0])

    def _gathered(self, turn: int, state: Tensor, filters: Tensor, environment: Environments) -> Tensor:
        """Sum of the filtered states of the neighbours of every atom."""
        sent = (state @ self.sending[turn]).index_select(0, environment.second) * filters[turn]
        return torch.zeros_like(state).index_add(0, environment.first, sent)

    @torch.no_grad()
    def standardise(self, environment: Environments) -> None:
        """Divide the messages of each round by their root mean square in the first structures, round after round."""
        environment = next(parts(environment))
        state = self.embedding.index_select(0, environment.species)
        filters = self.filters(environment.radial)
        for turn in range(len(self.receiving)):
            message = self._gathered(turn, state, filters, environment)
            size = message.square().mean().sqrt()
            self.magnitude[turn] = torch.where(size > 0, size, torch.ones_like(size))
            state = state + self.receiving[turn](message / self.magnitude[turn])[0]
