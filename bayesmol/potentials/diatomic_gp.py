"""DiatomicGP: the potential curve of a diatomic molecule from few energies, each with its own error bar."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from ase import units
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.potentials.ace import provenance_of
from bayesmol.potentials.diatomic_posterior import DiatomicPotential

__all__ = ["DiatomicGP"]

_COULOMB = units.Hartree * units.Bohr  # eV Å, between two charges of one
_LINE = math.sqrt(10) * units.Hartree  # eV, of the straight line, and of its change over a bohr
_PIVOT = 1.0  # Å, about which the line turns
_LENGTHS, _SIZES = (0.4, 6.4), (0.8, 8000.0)  # Å and eV
_SCATTERS = (0.0, 0.5, 1.0, 2.0, 4.0)  # beyond the error bars of the labels, in units of their median,
_CHANCES = (0.4, 0.2, 0.2, 0.13, 0.07)  # and how likely before any label is seen
_NODES, _KNOTS = 20, 121
_LEAST = 1e-4  # eV, unit of the scatter of labels that are said to be exact


@dataclass(frozen=True)
class DiatomicGP:
    r"""Gaussian process of the electronic energy of two atoms, whose scales are integrated out.

    .. math:: E(r) = \frac{Z_1 Z_2}{4 \pi \varepsilon_0 r} + a + b r + g(r), \quad
        g \sim \mathcal{GP}\left(0,\, s^2 e^{-(r - r')^2 / 2 \ell^2}\right), \quad
        y_i = E(r_i) + \epsilon_i,\; \epsilon_i \sim \mathcal{N}(0,\, \sigma_i^2 + \tau^2)

    The repulsion of the nuclei is exact, and what is left of a curve is smooth. The labels' own standard errors
    :math:`\sigma_i` are their noise; a scatter :math:`\tau` beyond them, as of trainings that ended differently well,
    is found with :math:`s` and :math:`\ell`, all three weighed by their evidence on a grid. The draws of the posterior
    come from all of these, so that error bars hold for few labels too: of curves with this repulsion. A Morse curve has
    none at r = 0, and there 90 % intervals of the frequency held in 23 of 40 data sets of ten labels.

    Attributes
    ----------
    draws
        Curves that are drawn.

    References
    ----------
    Rasmussen, Williams, Gaussian Processes for Machine Learning (MIT Press, 2006), chapters 2 and 5.
    """

    draws: int = 2000

    def __post_init__(self) -> None:
        if self.draws < 100:
            raise DataError(expected("draws", "100 or more", self.draws))

    def fit(self, labelled: Labelled, *, seed: int) -> DiatomicPotential:
        """Posterior of the curve between the shortest and the longest distance.

        Raises
        ------
        DataError
            If the structures are not of one pair of atoms without cell, have no energies with standard errors, or fewer
            than five distances.
        """
        energies, errors = _labels(labelled)
        species, distances = _diatomics(labelled)
        repulsion = _COULOMB * float(species.prod())
        grid = torch.linspace(float(distances.min()), float(distances.max()), _KNOTS, dtype=torch.float64)
        target = energies - repulsion / distances
        curves = _drawn(distances, target - target.mean(), errors, grid, self.draws, generator(seed))
        found = curves + target.mean() + repulsion / grid
        return DiatomicPotential.of(species, grid, found, {"model": "DiatomicGP", **provenance_of(labelled, seed)})


def _labels(labelled: Labelled) -> tuple[Tensor, Tensor]:
    """Energies and their standard errors."""
    if labelled.energies is None or labelled.energy_errors is None:
        remedy = "add them; zeros say that the energies are exact"
        raise DataError(expected("labelled", "energies with standard errors", "none", remedy))
    return labelled.energies.double(), labelled.energy_errors.double()


def _diatomics(labelled: Labelled) -> tuple[Tensor, Tensor]:
    """Atomic numbers and distances."""
    structures = labelled.structures
    if not bool((structures.counts == 2).all()) or bool(structures.pbc.any()):
        raise DataError(expected("labelled", "molecules of two atoms without periodic directions", "others"))
    species = structures.species.view(-1, 2).sort(1).values
    if not bool((species == species[0]).all()):
        raise DataError(expected("labelled", "one pair of elements", "several"))
    places = structures.positions.double().view(-1, 2, 3)
    distances = (places[:, 1] - places[:, 0]).norm(dim=1)
    if len(distances.unique()) < 5:
        raise DataError(expected("labelled", "five distances or more", len(distances.unique()), "add labels"))
    return species[0], distances


def _drawn(
    x: Float[Tensor, " labels"],
    target: Float[Tensor, " labels"],
    errors: Float[Tensor, " labels"],
    grid: Float[Tensor, " knots"],
    draws: int,
    source: torch.Generator,
) -> Float[Tensor, "draws knots"]:
    """Curves on a grid, from the nodes of the scales by their evidence."""
    kind: dict[str, Any] = {"dtype": torch.float64}
    lengths = torch.logspace(math.log10(_LENGTHS[0]), math.log10(_LENGTHS[1]), _NODES, **kind)
    sizes = torch.logspace(math.log10(_SIZES[0]), math.log10(_SIZES[1]), _NODES, **kind)
    scatters = torch.tensor(_SCATTERS, **kind) * max(float(errors.median()), _LEAST)
    nodes = torch.cartesian_prod(lengths, sizes, scatters)
    noise = torch.diag(errors.square()) + nodes[:, 2, None, None].square() * torch.eye(len(x), **kind)
    factors, failed = torch.linalg.cholesky_ex(_prior(x, x, nodes) + noise + 1e-10 * torch.eye(len(x), **kind))
    solved = torch.linalg.solve_triangular(factors, target[:, None].expand(len(nodes), -1, 1), upper=False)
    evidence = -factors.diagonal(dim1=1, dim2=2).log().sum(1) - solved.square().sum((1, 2)) / 2
    evidence = evidence + torch.tensor(_CHANCES, **kind).log().repeat(len(lengths) * len(sizes))
    weights = torch.where(failed == 0, evidence, -torch.inf).softmax(0)
    chosen = torch.multinomial(weights, draws, replacement=True, generator=source)
    found = torch.empty(draws, len(grid), **kind)
    for node in chosen.unique().tolist():
        own = (chosen == node).nonzero()[:, 0]
        across = torch.linalg.solve_triangular(factors[node], _prior(x, grid, nodes[node : node + 1])[0], upper=False)
        rest = _prior(grid, grid, nodes[node : node + 1])[0] - across.mT @ across
        values, vectors = torch.linalg.eigh((rest + rest.mT) / 2)
        normal = torch.randn(len(own), len(grid), generator=source, **kind)
        found[own] = (across.mT @ solved[node])[:, 0] + (normal * values.clamp_min(0).sqrt()) @ vectors.mT
    return found


def _prior(x: Tensor, y: Tensor, nodes: Float[Tensor, "nodes 3"]) -> Float[Tensor, "nodes x y"]:
    """Covariance of the line and of the process."""
    length, size = nodes[:, 0, None, None], nodes[:, 1, None, None]
    line = _LINE**2 * (1 + torch.outer(x - _PIVOT, y - _PIVOT) / units.Bohr**2)
    return line + size.square() * torch.exp(-(x[:, None] - y).square() / (2 * length.square()))
