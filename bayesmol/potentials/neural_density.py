"""Log-density of the weights of an atomic network in the arrays of torch or JAX, on invariants that are constant."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.inference.perceptron import Perceptron
from bayesmol.inference.perceptron_rows import PerceptronRows, observed
from bayesmol.inference.random import generator
from bayesmol.potentials.network import Network, design
from bayesmol.potentials.network_atomic import AtomicNetwork
from bayesmol.potentials.neural_data import Batch
from bayesmol.potentials.neural_run import Run
from bayesmol.potentials.neural_weights import WeightPosterior
from bayesmol.representation.ace import Environments

_TOGETHER = 16  # structures whose Jacobians are made at once


@dataclass(frozen=True)
class WeightDensity:
    """Log-density of the sampled weights in units of their prior deviations, in torch or JAX.

    A call takes them with the stiff directions stretched to unit width.

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
        return observed(self.perceptron, self.counts, vector[data["places"]] * data["units"], data)

    def residuals(self, vector: Any, data: Any) -> tuple[Any, Any]:
        """Errors of energies and forces in units of the noise."""
        energies, forces = self.observed(vector, data)
        energy = (energies - data["sums"]) * data["energy_weights"]
        return energy, (forces - data["derivatives"]) * data["force_weights"][:, None]

    def widened(self, vector: Any, data: Any) -> Any:
        """Weights in units of their prior deviations from those that the sampler moves, ``(*draws, parameters)``."""
        return vector + ((vector @ data["directions"]) * (data["widths"] - 1)) @ data["directions"].T

    def __call__(self, vector: Any, data: Any) -> Any:
        """Log-density up to a constant, in nats."""
        weights = self.widened(vector, data)
        energy, force = self.residuals(weights, data)
        return -0.5 * ((weights * weights).sum() + (energy * energy).sum() + (force * force).sum())


def is_sampled(name: str) -> bool:
    """Whether a parameter of an energy is sampled: all but the mixing of the densities."""
    return name != "network.mixing"


def weight_density(run: Run, posterior: WeightPosterior, batch: Batch) -> tuple[WeightDensity, dict[str, Tensor]]:
    """Log-density given the labels of a batch, and the arrays that it takes, in float64."""
    rows = network_rows(run.energy.network, batch)
    network: Any = run.energy.network
    layers = network.perceptron.layers
    widths = tuple(layer.shape[-1] for layer in layers)
    perceptron = Perceptron(rows.inputs.shape[-1], widths, len(layers[0]), float(run.energy.scale))
    places, roots = _places(posterior, len(layers[0]))
    arrays = rows.arrays() | {
        "places": places,
        "units": posterior.target.prior.scale.double()[places] * roots,
        "energy_weights": batch.has_energies.double() / (run.noise[0] * batch.counts.double()).sqrt(),
        "force_weights": batch.has_forces.double() / run.noise[1] ** 0.5,
    }
    return WeightDensity(perceptron, rows.counts(len(layers[0]))), arrays


def stiff_directions(
    density: WeightDensity, place: Float[Tensor, " parameters"], data: dict[str, Tensor], size: int, *, seed: int
) -> dict[str, Tensor]:
    r"""Orthonormal directions V in which the labels determine the weights best, and the posterior widths along them.

    .. math:: J \approx U \Sigma V^T, \qquad \text{width} = (1 + \Sigma^2)^{-1/2}

    with the Jacobian J of the residuals at a place, by random projections.

    References
    ----------
    Halko, Martinsson, Tropp, SIAM Rev. 53, 217 (2011), section 1.6.
    """

    def errors(vector: Tensor) -> Tensor:
        return torch.cat([part.flatten() for part in density.residuals(vector, data)])

    count = min(size + 16, len(place))
    found, pull = cast(Any, torch.func.vjp(errors, place))
    kind: dict[str, Any] = {"generator": generator(seed, place.device), "dtype": place.dtype, "device": place.device}
    sketch = torch.stack([pull(row)[0] for row in torch.randn(count, len(found), **kind)], 1)
    basis = torch.linalg.qr(sketch)[0]
    columns = [torch.func.jvp(errors, (place,), (column,))[1] for column in basis.T]
    _, values, right = torch.linalg.svd(torch.stack(columns, 1), full_matrices=False)
    kept = min(size, len(values))
    return {"directions": basis @ right[:kept].T, "widths": (1 + values[:kept].square()).rsqrt()}


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
        torch.cat([part.given("forces") for part in parts]).reshape(shape).permute(0, 2, 3, 1).contiguous(),
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
