r"""Invariants and their gradients as polynomials in the components of one density.

An invariant of order :math:`\nu` is a homogeneous polynomial, so its derivatives are combinations of the monomials of
degree :math:`\nu - 1`, and its value is :math:`\tfrac1\nu \sum_{lm} A_{lm}\, \partial B / \partial A_{lm}` (Euler). All
invariants share the monomials, and the mirror planes of the axes split monomials and components into classes that do
not mix: what is left are a few dense matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from bayesmol.representation.couplings import Couplings, Invariant, block, coupling

CACHED_NUMBERS = 2**19


@dataclass(frozen=True)
class Part:
    """Derivatives with respect to some components, as combinations of consecutive monomials.

    ``coefficients`` (monomials, components, invariants).
    """

    monomials: slice
    components: tuple[int, ...]
    coefficients: Float[Tensor, "monomials components invariants"]


@dataclass(frozen=True)
class Derivatives:
    """Derivatives of the invariants of one order; ``factors`` (monomials, order - 1) are the components of each."""

    size: int
    factors: Int[Tensor, "monomials degree"]
    parts: tuple[Part, ...]

    def __call__(self, density: Float[Tensor, "lm n"]) -> Float[Tensor, "n lm invariants"]:
        """Gradients of the invariants at densities, in blocks whose monomials fit into the cache."""
        blocks = density.split(max(64, CACHED_NUMBERS // max(1, len(self.factors))), 1)
        return torch.cat([self._gradient(block) for block in blocks]) if len(blocks) > 1 else self._gradient(density)

    def _gradient(self, density: Tensor) -> Tensor:
        monomials = _monomials(density, self.factors.to(density.device))
        found: dict[int, Tensor] = {}
        for part in self.parts:
            coefficients = part.coefficients.to(density)
            slopes = monomials[part.monomials].T @ coefficients.flatten(1)
            pieces = slopes.unflatten(1, coefficients.shape[1:]).unbind(1)
            found |= dict(zip(part.components, pieces, strict=True))
        absent = density.new_zeros(density.shape[1], self.size)
        return torch.stack([found.get(component, absent) for component in range(len(density))], 1)


def _monomials(density: Tensor, factors: Tensor) -> Tensor:
    """Products of the listed components, (monomials, n); those of degree 3 from each pair once."""
    if factors.shape[1] == 0:
        return torch.ones_like(density[:1])
    # The gradient of index_select is the same on any number of threads, that of brackets is not.
    if factors.shape[1] == 1:
        return density.index_select(0, factors[:, 0])
    if factors.shape[1] == 2:
        return density.index_select(0, factors[:, 0]) * density.index_select(0, factors[:, 1])
    pairs, where = _unique(factors[:, :2], len(density))
    found = density.index_select(0, pairs[:, 0]) * density.index_select(0, pairs[:, 1])
    return found.index_select(0, where) * density.index_select(0, factors[:, 2])


def products(density: Float[Tensor, "... lm"], couplings: Couplings) -> tuple[Tensor, Tensor]:
    """Invariants (..., invariants) and their gradients (..., lm, invariants)."""
    leading = density.shape[:-1]
    components = density.flatten(0, -2).T.contiguous()
    found = [derivatives(components) for derivatives in derivatives_of(couplings)]
    gradient = torch.cat(found, -1) if len(found) > 1 else found[0]
    values = (components.T.unsqueeze(1) @ gradient).squeeze(1) / couplings.orders.to(density)
    return values.unflatten(0, leading), gradient.unflatten(0, leading)


@lru_cache(maxsize=64)
def derivatives_of(couplings: Couplings) -> tuple[Derivatives, ...]:
    """Derivatives of the invariants of each order, by increasing order."""
    orders = sorted({item.order for item in couplings.invariants})
    return tuple(_of_order(couplings.only(order)) for order in orders)


def _of_order(couplings: Couplings) -> Derivatives:
    monomials, components, numbers, values = _terms(couplings.invariants)
    size = (couplings.degree + 1) ** 2
    factors, row = _unique(monomials, size)
    labels = _classes(row, components, len(factors), size)
    order = torch.argsort(labels[: len(factors)], stable=True)
    row = torch.argsort(order)[row]
    dense = values.new_zeros(len(factors), size, len(couplings.invariants))
    place = (row * size + components) * len(couplings.invariants) + numbers
    dense.view(-1).index_add_(0, place, values)
    parts, ends = [], torch.bincount(labels[: len(factors)]).cumsum(0).tolist()
    for label, (start, stop) in enumerate(zip([0, *ends], ends, strict=False)):
        own = (labels[len(factors) :] == label).nonzero()[:, 0]
        parts.append(Part(slice(start, stop), tuple(own.tolist()), dense[start:stop, own].contiguous()))
    return Derivatives(len(couplings.invariants), factors[order], tuple(parts))


def _unique(rows: Tensor, base: int) -> tuple[Tensor, Tensor]:
    """Distinct rows of digits, and where each row is among them."""
    powers = base ** torch.arange(rows.shape[1], device=rows.device)
    keys, where = (rows @ powers).unique(return_inverse=True)
    return keys[:, None] // powers % base, where


def _classes(row: Tensor, components: Tensor, monomials: int, size: int) -> Tensor:
    """Labels of the connected classes of monomials (first) and components; components without terms come last."""
    graph = coo_array((torch.ones(len(row)), (row, components + monomials)), shape=(monomials + size,) * 2)
    return torch.from_numpy(connected_components(graph, directed=False)[1]).long()


def _terms(invariants: tuple[Invariant, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Terms of all derivatives: sorted factors of the monomial, component, number of the invariant, coefficient."""
    found = []
    for number, invariant in enumerate(invariants):
        index, values = _polynomial(invariant)
        for position in range(invariant.order):
            rest = torch.cat([index[:, :position], index[:, position + 1 :]], 1).sort(1).values
            found.append((rest, index[:, position], torch.full_like(index[:, 0], number), values))
    factors, components, owners, coefficients = (torch.cat(parts) for parts in zip(*found, strict=True))
    return factors, components, owners, coefficients


def _polynomial(invariant: Invariant) -> tuple[Tensor, Tensor]:
    """Terms of one invariant: the components that each multiplies (terms, order), and its coefficient."""
    if invariant.order == 1:
        return torch.zeros(1, 1, dtype=torch.long), torch.ones(1, dtype=torch.float64)
    first, last = invariant.pairs[0], invariant.pairs[-1]
    left = coupling(first)
    degrees: tuple[int, ...] = first[:2]
    if invariant.order == 2:
        tensor = left[..., 0]
    elif invariant.order == 3:
        tensor, degrees = left, first
    else:
        tensor = torch.einsum("abm,cdm->abcd", left, coupling(last))
        degrees += last[:2]
    index = (tensor.abs() > 1e-10).nonzero()
    return index + torch.tensor([block(degree).start for degree in degrees]), tensor[tuple(index.T)]
