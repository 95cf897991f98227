"""No-U-turn sampling of an atomic network: what its cheaper posteriors are compared with."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.inference.chains import Chains
from bayesmol.inference.perceptron import Perceptron
from bayesmol.inference.perceptron_regression import PerceptronRows
from bayesmol.inference.random import generator
from bayesmol.potentials.network import Network, design
from bayesmol.potentials.network_atomic import AtomicNetwork
from bayesmol.potentials.neural_data import Batch
from bayesmol.potentials.neural_member import Member
from bayesmol.potentials.neural_run import Run
from bayesmol.potentials.neural_weights import WeightPosterior
from bayesmol.representation.ace import Environments

_TOGETHER = 16  # structures whose Jacobians are made at once


@dataclass(frozen=True)
class NoUTurn:
    r"""Draws of the weights behind the invariants of an atomic network by the no-U-turn sampler (NumPyro).

    The posterior is the one that :class:`~bayesmol.potentials.neural_sampling.Hamiltonian` samples, but the mixing of
    the densities stays where training left it, so that the invariants x and their derivatives J are constant:

    .. math:: E = \sum_i s\,(\phi_{z_i}(x_i) \cdot w + b_{z_i}), \qquad F = -\sum_i J_i^T\, \partial E / \partial x_i

    Each chain starts at the trained weights turned by an angle towards a draw of the prior, in units of the prior
    deviations, where both have about one length. Hidden units can change places, so the chains are judged by forces of
    validation structures, never by weights.

    Attributes
    ----------
    warmup, draws, chains, depth
        Of the sampler, see :func:`bayesmol.inference.nuts.nuts`.
    kept
        Draws at equal distances that become networks; a prediction costs as many networks.
    turn
        Angle in rad.
    limit
        Largest :math:`\hat R` of a watched force; ``None`` accepts any.
    watched
        Validation structures whose forces must agree.
    """

    warmup: int = 300
    draws: int = 300
    chains: int = 2
    depth: int = 8
    kept: int = 20
    turn: float = 0.3
    limit: float | None = 1.1
    watched: int = 4

    def __post_init__(self) -> None:
        if not (1 <= self.kept <= self.draws * self.chains and self.watched >= 1):
            raise DataError(expected("kept, watched", "kept from 1 to all draws, watched positive", self))

    def members(self, run: Run) -> tuple[Member, ...]:
        """Draws as networks.

        Raises
        ------
        DataError
            If the network is not atomic, or structures differ in their number of atoms.
        ConvergenceError
            If the chains do not agree.
        """
        posterior = WeightPosterior.of(run, is_sampled)
        chains = self.chains_of(run, posterior)
        vectors = posterior.target.prior.scale * chains.thinned(self.kept)
        return posterior.drawn(vectors.to(posterior.start))

    def chains_of(self, run: Run, posterior: WeightPosterior) -> Chains:
        """All draws, of weights in units of their prior deviations; raises as :meth:`members`."""
        from bayesmol.inference.nuts import nuts

        watched = run.validation[torch.arange(min(self.watched, len(run.validation)), device=run.data.counts.device)]
        density, data = weight_density(run, posterior, run.data)
        judge, seen = weight_density(run, posterior, watched)
        white = (posterior.start / posterior.target.prior.scale).double()
        source = generator(run.seed, white.device)
        kind = {"generator": source, "dtype": white.dtype, "device": white.device}
        prior = torch.randn(self.chains, len(white), **kind)
        start = math.cos(self.turn) * white + math.sin(self.turn) * prior
        options = {"warmup": self.warmup, "draws": self.draws, "depth": self.depth, "seed": source}
        monitor = {"limit": self.limit, "monitor": lambda vector: judge.observed(vector, seen)[1]}
        return nuts(density, start, data=data, **options, **monitor)


@dataclass(frozen=True)
class WeightDensity:
    """Log-density of the sampled weights in units of their prior deviations, in torch or JAX.

    Attributes
    ----------
    perceptron
        The perceptrons of the elements with the last layer as their last weights.
    counts
        Atoms of each element.
    """

    perceptron: Perceptron
    counts: tuple[int, ...]

    def observed(self, vector: Any, data: Any) -> tuple[Any, Any]:
        """Energies (structures) in eV and forces (structures, 3 atoms) in eV/Å above the baseline."""
        weights = vector[data["places"]] * data["units"]
        values, slopes = self.perceptron.sorted_values(weights, data["inputs"], self.counts)
        groups = len(data["jacobians"])
        energies = values[data["back"]].reshape(groups, -1).sum(-1)
        return energies, (slopes[data["back"]].reshape(groups, 1, -1) @ data["jacobians"])[:, 0]

    def __call__(self, vector: Any, data: Any) -> Any:
        """Log-density up to a constant, in nats."""
        energies, forces = self.observed(vector, data)
        energy = (energies - data["sums"]) ** 2 * data["energy_precisions"]
        force = ((forces - data["derivatives"]) ** 2).sum(-1) * data["force_precisions"]
        return -0.5 * ((vector * vector).sum() + energy.sum() + force.sum())


def is_sampled(name: str) -> bool:
    """Whether a parameter of an energy is sampled: all but the mixing of the densities."""
    return name != "network.mixing"


def weight_density(run: Run, posterior: WeightPosterior, batch: Batch) -> tuple[WeightDensity, dict[str, Tensor]]:
    """Log-density given the labels of a batch, and the arrays that it takes, in float64."""
    rows = network_rows(run.energy.network, batch)
    layers = run.energy.network.perceptron.layers
    widths = tuple(layer.shape[-1] for layer in layers)
    perceptron = Perceptron(rows.inputs.shape[-1], widths, len(layers[0]), "silu", float(run.energy.scale))
    places, roots = _places(posterior, len(layers[0]))
    arrays = rows.arrays() | {
        "places": places,
        "units": posterior.target.prior.scale.double()[places] * roots,
        "energy_precisions": (batch.has_energies / batch.counts).double() / run.noise[0],
        "force_precisions": batch.has_forces.double() / run.noise[1],
    }
    return WeightDensity(perceptron, rows.counts(len(layers[0]))), arrays


def _places(posterior: WeightPosterior, kinds: int) -> tuple[Tensor, Tensor]:
    """Where each weight of the perceptrons stands in the sampled vector, and the root that it is divided by there."""
    number = torch.arange(len(posterior.start), device=posterior.start.device)
    named, parts, roots = posterior.flattened.named(number), [], []
    layers = sum(name.startswith("network.perceptron.layers") for name in named)
    for kind in range(kinds):
        own = [named[f"network.perceptron.{part}.{k}"][kind] for k in range(layers) for part in ("layers", "biases")]
        for array in (*own, named["head"], named["shift"][kind]):
            parts.append(array.flatten())
            weights = array.ndim == 2 and len(array) > 1
            roots.append(torch.full((array.numel(),), len(array) ** 0.5 if weights else 1.0, dtype=torch.float64))
    return torch.cat(parts), torch.cat(roots).to(number.device)


def network_rows(network: Network, batch: Batch) -> PerceptronRows:
    """Inputs of the perceptrons of an atomic network, minus their derivatives by all positions of the structure, and
    labels above the baseline, in float64.

    Raises
    ------
    DataError
        If the network is not atomic, or structures differ in their number of atoms.
    """
    if not isinstance(network, AtomicNetwork):
        raise DataError(expected("architecture", "an atomic network", type(network).__name__))
    structures, atoms = len(batch), int(batch.counts[0])
    if not bool((batch.counts == atoms).all()):
        got = f"{int(batch.counts.min())} to {int(batch.counts.max())}"
        raise DataError(expected("structures", "one number of atoms", got, "sample each molecule on its own"))
    inputs = _Inputs(copy.deepcopy(network).double(), atoms)
    parts = [design(inputs, own.environment.to(torch.float64)) for own in _split(batch)]
    shape = (structures, 3 * atoms, atoms, inputs.width // atoms)
    return PerceptronRows(
        torch.cat([part.energy for part in parts]).reshape(shape[0], *shape[2:]),
        batch.environment.species.reshape(structures, atoms),
        torch.cat([part.forces for part in parts]).reshape(shape).permute(0, 2, 3, 1).contiguous(),
        batch.energies.double(),
        batch.forces.double().reshape(shape[:2]),
    )


def _split(batch: Batch) -> list[Batch]:
    return [batch[part] for part in torch.arange(len(batch), device=batch.counts.device).split(_TOGETHER)]


class _Inputs(Network):
    """The standardised invariants of each atom of a structure in columns of its own, so that sums over the atoms of a
    structure keep them apart."""

    def __init__(self, network: AtomicNetwork, atoms: int) -> None:
        super().__init__(network.species, network.basis, network.degree, atoms * network.mean.shape[1])
        self.network, self.atoms = network, atoms

    def forward(self, environment: Environments) -> Float[Tensor, "atoms width"]:
        """Invariants of an atom in the columns of its place in the structure."""
        own, kinds = self.network, environment.species
        found = (own.invariants(environment) - own.mean[kinds]) / own.spread[kinds]
        place = torch.arange(len(kinds), device=kinds.device) % self.atoms
        return (torch.eye(self.atoms).to(found)[place, :, None] * found[:, None]).flatten(1)
