"""The complete list of rotation- and inversion-invariant products of up to four spherical tensors.

Products of one set of tensors :math:`A_{lm}` with itself are symmetric, so the number of independent invariants is
smaller than the number of coupling trees: each candidate tree is kept only if it is linearly independent of those
before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations_with_replacement

import torch
from e3nn.o3 import wigner_3j
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected

Pair = tuple[int, int, int]


@dataclass(frozen=True)
class Invariant:
    """One invariant: the tensors it multiplies, as at most two coupled pairs and at most one single tensor."""

    order: int
    pairs: tuple[Pair, ...] = ()


@dataclass(frozen=True)
class Couplings:
    """Invariants of tensors of degree ``0 .. degree``, by increasing order."""

    degree: int
    invariants: tuple[Invariant, ...]

    def only(self, *orders: int) -> Couplings:
        """The invariants of the given orders."""
        return Couplings(self.degree, tuple(item for item in self.invariants if item.order in orders))

    @property
    def orders(self) -> Tensor:
        """Number of tensors multiplied in each invariant (the body order less one)."""
        return torch.tensor([invariant.order for invariant in self.invariants])


def block(degree: int) -> slice:
    """Position of the components of one degree among all :math:`(l, m)`."""
    return slice(degree**2, (degree + 1) ** 2)


@lru_cache(maxsize=16)
def couplings(degree: int, correlation: int) -> Couplings:
    r"""Independent invariants of products of up to ``correlation`` tensors of degree ``l <= degree``.

    Raises
    ------
    DataError
        If the degree is not 0..6 or the correlation order not 1..4.

    References
    ----------
    Drautz, Phys. Rev. B 99, 014104 (2019); Dusson et al., J. Comput. Phys. 454, 110946 (2022).
    """
    if not 0 <= degree <= 6 or not 1 <= correlation <= 4:
        got = f"degree {degree}, correlation {correlation}"
        raise DataError(expected("degree, correlation", "0 <= degree <= 6 and 1 <= correlation <= 4", got))
    return Couplings(degree, tuple(_independent(_candidates(_pairs(degree), degree, correlation), degree)))


def _pairs(degree: int) -> list[Pair]:
    """Coupled pairs that do not vanish for a symmetric product."""
    return [
        (a, b, c)
        for a, b in combinations_with_replacement(range(degree + 1), 2)
        for c in range(b - a, a + b + 1)
        if a != b or c % 2 == 0
    ]


@lru_cache(maxsize=1024)
def coupling(pair: Pair) -> Float[Tensor, "first second coupled"]:
    """Clebsch-Gordan coefficients that couple two tensors of degrees l₁ and l₂ to one of degree L."""
    return wigner_3j(*pair, dtype=torch.float64)


def _candidates(pairs: list[Pair], degree: int, correlation: int) -> list[tuple[tuple[int, ...], Invariant]]:
    """Every coupling tree with even parity, with the multiset of degrees it multiplies."""
    found: list[tuple[tuple[int, ...], Invariant]] = [((0,), Invariant(1))]
    found += [((l, l), Invariant(2, ((l, l, 0),))) for l in range(degree + 1)]
    found += [(tuple(sorted(p)), Invariant(3, (p,))) for p in pairs if p[2] <= degree and sum(p) % 2 == 0]
    found += [
        (tuple(sorted(a[:2] + b[:2])), Invariant(4, (a, b)))
        for a, b in combinations_with_replacement(pairs, 2)
        if a[2] == b[2] and (sum(a) - sum(b)) % 2 == 0
    ]
    return [item for item in found if item[1].order <= correlation]


def _independent(candidates: list, degree: int) -> list[Invariant]:
    """Keep a tree only if its values on random tensors are not a combination of those kept before."""
    draws = torch.randn(400, (degree + 1) ** 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    single = [draws[:, block(l)] for l in range(degree + 1)]
    coupled = {p: torch.einsum("na,nb,abm->nm", single[p[0]], single[p[1]], coupling(p)) for p in _pairs(degree)}
    kept: list[Invariant] = []
    values: dict[tuple[int, ...], list[Tensor]] = {}
    for degrees, invariant in candidates:
        value = _value(invariant, draws, coupled)
        family = values.setdefault(degrees, [])
        residual = value.clone()
        for direction in family * 2:  # twice: re-orthogonalise
            residual = residual - direction * (direction @ residual)
        if residual.norm() > 1e-6 * (1 + value.norm()):
            family.append(residual / residual.norm())
            kept.append(invariant)
    return kept


def _value(invariant: Invariant, draws: Tensor, coupled: dict[Pair, Tensor]) -> Tensor:
    if invariant.order == 1:
        return draws[:, 0]
    left, right = invariant.pairs[0], invariant.pairs[-1]
    if invariant.order == 2:
        return coupled[left].sum(-1)
    if invariant.order == 3:
        return (coupled[left] * draws[:, block(left[2])]).sum(-1)
    return (coupled[left] * coupled[right]).sum(-1)
