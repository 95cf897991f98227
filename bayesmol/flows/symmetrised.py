"""Exact averages of a density over a finite group of exchanges of coordinates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.flows.proposal import Proposal
from bayesmol.inference.random import generator

__all__ = ["Symmetrised", "exchanges"]

LARGEST_GROUP = 10_000
CHUNK = 1 << 16  # images whose density is evaluated at once


class Symmetrised:
    r"""The density :math:`q_G(x) = |G|^{-1} \sum_{g \in G} q(g x)`, with :math:`(g x)_i = \pm x_{g(i)}`.

    Where the target has the symmetry G, the weights of the average are never more uneven than those of q.
    With gradients, the value is that average, and its gradient that of one image, drawn with its share
    :math:`q(gx) / \sum_h q(hx)` of the average: right in the mean, at the cost of one density instead of :math:`|G|`.

    Parameters
    ----------
    proposal
        The density q.
    symmetry
        Index of the coordinate that takes each place, one row for each element.
    signs
        Factor ±1 of each place; all 1 if ``None``.
    seed
        Of the images whose gradients are taken.

    Raises
    ------
    DataError
        If a row is no permutation, a sign not ±1, or the group too big.

    References
    ----------
    Köhler, Klein, Noé, ICML (2020), theorem 1 (invariant densities).
    """

    def __init__(
        self,
        proposal: Proposal,
        symmetry: Int[Tensor, "elements dimension"],
        signs: Float[Tensor, "elements dimension"] | None = None,
        *,
        seed: int | torch.Generator = 0,
    ) -> None:
        if symmetry.ndim != 2 or symmetry.shape[1] != proposal.dimension or not len(symmetry):
            raise ShapeError(expected("symmetry", f"(elements, {proposal.dimension})", tuple(symmetry.shape)))
        _affordable(len(symmetry))
        places = torch.arange(proposal.dimension, device=symmetry.device)
        if not torch.equal(symmetry.sort(1).values, places.expand_as(symmetry)):
            raise DataError(expected("symmetry", "each coordinate once in each row", "a row that is no permutation"))
        signs = torch.ones_like(symmetry, dtype=torch.get_default_dtype()) if signs is None else signs
        if signs.shape != symmetry.shape or not bool((signs.abs() == 1).all()):
            raise DataError(expected("signs", "±1 for each place of each element", tuple(signs.shape)))
        self.proposal, self.dimension = proposal, proposal.dimension
        self.symmetry, self.signs = symmetry, signs
        self._source = generator(seed, symmetry.device)

    def log_prob(self, x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        """Log-density of each row, in nats; with gradients enabled, that of one image is followed."""
        followed = torch.is_grad_enabled()
        with torch.no_grad():
            images = torch.cat([self._densities(part) for part in x.split(max(1, CHUNK // len(self.symmetry)))])
            total = torch.logsumexp(images, 1) - math.log(len(self.symmetry))
            chosen = self._drawn(images, self._source) if followed else None
        if chosen is None:
            return total
        image = self.proposal.log_prob(_moved(x, self.symmetry[chosen], self.signs[chosen]))
        # Where no image has any density there is no gradient either, and infinities must not meet.
        return total + torch.where(total.isfinite(), image - image.detach(), 0.0)

    def sample(
        self, size: int, *, seed: int | torch.Generator
    ) -> tuple[Float[Tensor, "size dimension"], Float[Tensor, " size"]]:
        """Draws of q, each moved by the inverse of a random element, and their log-density under the average."""
        source = generator(seed, self.symmetry.device)
        y, _ = self.proposal.sample(size, seed=source)
        chosen = torch.randint(len(self.symmetry), (size,), generator=source, device=self.symmetry.device)
        x = torch.zeros_like(y).scatter(1, self.symmetry[chosen], y * self.signs[chosen].to(y.dtype))
        return x, self.log_prob(x)

    def images(self, x: Float[Tensor, "points dimension"]) -> Float[Tensor, "points elements dimension"]:
        """All images of each row."""
        rows = x[:, None].expand(-1, len(self.symmetry), -1)
        return _moved(rows, self.symmetry.expand_as(rows), self.signs.expand_as(rows))

    @torch.no_grad()
    def image(
        self, x: Float[Tensor, "points dimension"], source: torch.Generator
    ) -> tuple[Float[Tensor, "points dimension"], Float[Tensor, " points"]]:
        """One image of each row, drawn by its share of the average, and the logarithm of this share."""
        densities = self._densities(x)
        chosen = self._drawn(densities, source)
        shares = densities.log_softmax(1).gather(1, chosen[:, None])[:, 0]
        return _moved(x, self.symmetry[chosen], self.signs[chosen]), shares

    def _densities(self, x: Tensor) -> Float[Tensor, "points elements"]:
        images = self.images(x)
        return self.proposal.log_prob(images.flatten(0, 1)).unflatten(0, images.shape[:2])

    @staticmethod
    def _drawn(images: Float[Tensor, "points elements"], source: torch.Generator) -> Int[Tensor, " points"]:
        """An element for each row, by its share; any one where no image has a density."""
        some = images.isfinite().any(1, keepdim=True)
        shares = torch.softmax(torch.where(some, images, 0.0), 1)
        return torch.multinomial(shares, 1, generator=source)[:, 0]


def _moved(x: Tensor, index: Tensor, signs: Tensor) -> Tensor:
    return x.gather(-1, index) * signs.to(x.dtype)


def _affordable(elements: int) -> None:
    if elements > LARGEST_GROUP:
        remedy = "train an equivariant flow (Continuous), whose density has the symmetry already, or name fewer atoms"
        raise DataError(expected("symmetry", f"at most {LARGEST_GROUP} elements to sum over", elements, remedy))


def exchanges(
    groups: Sequence[Sequence[int]], atoms: int, *, space: int = 3, cyclic: bool = False
) -> Int[Tensor, "elements dimension"]:
    """The group of all exchanges of like atoms within each of some groups, as ``symmetry`` of flattened positions.

    Parameters
    ----------
    groups
        Atoms that may take each other's place; no atom is in two groups.
    atoms
        Number of all atoms.
    space
        Numbers of the position of an atom.
    cyclic
        Only turn each group, as a methyl group does: the mirror images of a rotor are different configurations.

    Raises
    ------
    DataError
        If atoms are named twice or do not exist, or if there are too many exchanges to sum over.
    """
    named = [atom for group in groups for atom in group]
    if len(set(named)) != len(named) or any(not 0 <= atom < atoms for atom in named):
        raise DataError(expected("groups", f"distinct atoms from 0 to {atoms - 1}", named))
    _affordable(math.prod(len(group) if cyclic else math.factorial(len(group)) for group in groups))
    turns = [
        [tuple(group[i:]) + tuple(group[:i]) for i in range(len(group))]
        if cyclic
        else list(itertools.permutations(group))
        for group in groups
    ]
    elements = torch.arange(atoms).repeat(math.prod(map(len, turns)), 1)
    for row, choice in zip(elements, itertools.product(*turns), strict=True):
        for group, taken in zip(groups, choice, strict=True):
            row[list(group)] = torch.tensor(taken)
    return (elements[..., None] * space + torch.arange(space)).flatten(1)
