r"""Gradients of fixed combinations of invariants of one density: all invariants of one order are one polynomial.

Derivatives of invariants of order 3 are combinations of products of two components; those of order 4 are quadratic
forms of such products, which costs fewer multiplications than products of three. Products that the mirror planes of
the axes keep apart (:mod:`bayesmol.representation.polynomials`) are multiplied apart, classes of like size together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from bayesmol.representation.couplings import Couplings
from bayesmol.representation.polynomials import derivatives_of

BLOCK = {"cpu": 2**18, "cuda": 2**26}  # numbers in the products of one block of channels


@dataclass(frozen=True, eq=False)
class _Classes:
    """Some classes of products with as many rows and results each, padded with zeros.

    ``first``, ``second`` (classes × products,) are the components of each product; ``coefficients`` (species, draws ×
    channels, classes, results, products).
    """

    first: Tensor
    second: Tensor
    coefficients: Tensor

    def __call__(self, density: Float[Tensor, "channels lm n"], channels: slice, kind: int) -> Tensor:
        """Results, (channels, classes × results, n)."""
        matrix = self.coefficients[kind, channels]
        products = density.index_select(1, self.first).mul_(density.index_select(1, self.second))
        found = matrix.flatten(0, 1) @ products.view(-1, matrix.shape[3], density.shape[2])
        return found.view(len(density), -1, density.shape[2])


@dataclass(frozen=True, eq=False)
class Polynomial(ABC):
    """A homogeneous polynomial of each channel and element.

    ``places`` says where the result of each product or component is among those of the ``classes``; the last place is
    that of a zero, where there are ``absent`` results.
    """

    classes: tuple[_Classes, ...]
    places: Tensor
    absent: bool

    order = 0

    def gradient(self, density: Float[Tensor, "channels lm n"], kind: int) -> Float[Tensor, "channels lm n"]:
        """Derivatives by the components of the density, a block of channels at a time."""
        products = sum(len(part.first) for part in self.classes) * density.shape[2]
        block = max(1, BLOCK.get(density.device.type, 2**26) // products)
        starts = range(0, len(density), block)
        parts = [self._gradient(density[start : start + block], slice(start, start + block), kind) for start in starts]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _results(self, density: Tensor, channels: slice, kind: int) -> Tensor:
        parts = [part(density, channels, kind) for part in self.classes]
        if self.absent:
            parts.append(density.new_zeros(len(density), 1, density.shape[2]))
        return torch.cat(parts, 1).index_select(1, self.places)

    @abstractmethod
    def _gradient(self, density: Tensor, channels: slice, kind: int) -> Tensor: ...


class Cubic(Polynomial):
    """Order 3."""

    order = 3

    @classmethod
    def of(cls, couplings: Couplings, weights: Float[Tensor, "draws species channels invariants"]) -> Cubic:
        """Sum of invariants times weights."""
        (derivatives,) = derivatives_of(couplings)
        found = [
            (derivatives.factors[p.monomials], torch.tensor(p.components), _contracted(p.coefficients, weights))
            for p in derivatives.parts
        ]
        return cls(*_joined(found, derivatives.factors.new_zeros((couplings.degree + 1) ** 2), weights.device))

    def _gradient(self, density: Tensor, channels: slice, kind: int) -> Tensor:
        return self._results(density, channels, kind)


class Quartic(Polynomial):
    """Order 4, as a quadratic form of the products of two components."""

    order = 4

    @classmethod
    def of(cls, couplings: Couplings, weights: Float[Tensor, "draws species channels invariants"]) -> Quartic:
        """Sum of invariants times weights."""
        size = (couplings.degree + 1) ** 2
        pairs = torch.combinations(torch.arange(size), with_replacement=True)
        number = torch.zeros(size, size, dtype=torch.long)
        number[pairs[:, 0], pairs[:, 1]] = number[pairs[:, 1], pairs[:, 0]] = torch.arange(len(pairs))
        form = _quadratic_form(couplings, number)
        share = torch.where(pairs[:, 0] == pairs[:, 1], 4.0, 2.0)  # a square depends on its component twice
        found = []
        for members in _connected(form):
            matrix = form[members][:, members] * share[members, None]
            found.append((pairs[members], members, _contracted(matrix, weights)))
        classes, places, absent = _joined(found, torch.zeros(len(pairs), dtype=torch.long), weights.device)
        return cls(classes, places[number.flatten().to(weights.device)], absent)

    def _gradient(self, density: Tensor, channels: slice, kind: int) -> Tensor:
        results = self._results(density, channels, kind)
        size = density.shape[1]
        return results.view(-1, size, size, density.shape[2]).mul_(density[:, None]).sum(2)


def _contracted(coefficients: Tensor, weights: Tensor) -> Float[Tensor, "species channels results products"]:
    """Coefficients (products, results, invariants) times weights; draws go with the channels."""
    found = torch.einsum("mcp,dzkp->zdkcm", coefficients.to(weights), weights)
    return found.flatten(1, 2)


def _quadratic_form(couplings: Couplings, number: Tensor) -> Float[Tensor, "pairs pairs invariants"]:
    """Symmetric matrix of each invariant of order 4 in the products of two components."""
    (derivatives,) = derivatives_of(couplings)
    size = int(number.max()) + 1
    form = torch.zeros(size, size, derivatives.size, dtype=torch.float64)
    for part in derivatives.parts:
        factors, components = derivatives.factors[part.monomials], torch.tensor(part.components)
        left = number[factors[:, 0], factors[:, 1]][:, None].expand(-1, len(components))
        right = number[factors[:, 2][:, None], components]
        form.index_put_((left, right), part.coefficients / 4, accumulate=True)
    return (form + form.transpose(0, 1)) / 2


def _connected(form: Tensor) -> list[Tensor]:
    """Products that the form multiplies with each other; those that it multiplies with nothing are left out."""
    graph = (form != 0).any(-1)
    row, column = graph.nonzero().unbind(1)
    labels = connected_components(coo_array((torch.ones(len(row)), (row, column)), shape=graph.shape), directed=False)[
        1
    ]
    groups = [(torch.from_numpy(labels) == label).nonzero()[:, 0] for label in range(labels.max() + 1)]
    return [members for members in groups if bool(graph[members].any())]


def _joined(found: list[tuple[Tensor, Tensor, Tensor]], places: Tensor, device: torch.device) -> tuple:
    """Classes of like size together, and the place of each result."""
    found = sorted(found, key=lambda item: -item[2].shape[2] * item[2].shape[3])
    bundles: list[list] = []
    for item in found:
        area = item[2].shape[2] * item[2].shape[3]
        if bundles and area >= 0.5 * bundles[-1][0][2].shape[2] * bundles[-1][0][2].shape[3]:
            bundles[-1].append(item)
        else:
            bundles.append([item])
    classes, places, start = [], torch.full_like(places, -1), 0
    for bundle in bundles:
        results, products = (max(item[2].shape[axis] for item in bundle) for axis in (2, 3))
        shape = bundle[0][2].shape
        coefficients = bundle[0][2].new_zeros(*shape[:2], len(bundle), results, products)
        factors = torch.zeros(len(bundle), products, 2, dtype=torch.long)
        for position, (own, targets, matrix) in enumerate(bundle):
            factors[position, : len(own)] = own
            coefficients[:, :, position, : matrix.shape[2], : matrix.shape[3]] = matrix
            places[targets] = start + position * results + torch.arange(len(targets))
        start += len(bundle) * results
        flat = factors.flatten(0, 1).to(device)
        classes.append(_Classes(flat[:, 0].contiguous(), flat[:, 1].contiguous(), coefficients))
    absent = bool((places < 0).any())
    return tuple(classes), torch.where(places < 0, start, places).to(device), absent
