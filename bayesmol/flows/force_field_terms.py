"""Energies of bonds, angles, torsions and pairs of atoms with their slopes, for many configurations at once.

All arrays end with the axis of configurations and vectors begin with their three components: each operation then runs
over contiguous memory, whatever the molecule. Sums over terms are ``index_add_`` and never a product of matrices, which
some devices round to ten bits on request.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Angles", "Bonds", "Geometry", "Nonbonded", "Scratch", "Torsions", "rows"]

NEAREST = 0.02  # Å; nearer atoms count as at this distance, so that no power of it leaves the range of float32


@dataclass(frozen=True, eq=False)
class Scratch:
    """Memory that all chunks share: fresh pages would cost more than the arithmetic on them."""

    like: Tensor
    _held: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, name: str, *shape: int) -> Tensor:
        """An array of any content; one of the same name is overwritten."""
        size = math.prod(shape)
        if name not in self._held or len(self._held[name]) < size:
            self._held[name] = self.like.new_empty(size)
        return self._held[name][:size].view(shape)


def rows(atoms: Int[Tensor, "terms each"], count: int) -> Int[Tensor, "each three_terms"]:
    """Rows of x, then of y, then of z of atoms, in positions of ``count`` atoms with the axes (3 atoms, points)."""
    shift = count * torch.arange(3, device=atoms.device)
    return (atoms.T[:, None] + shift[:, None]).reshape(atoms.shape[1], -1).contiguous()


@dataclass(frozen=True, eq=False)
class Geometry:
    """Differences, squared and inverse distances of pairs."""

    difference: Float[Tensor, "3 pairs points"]
    squared: Float[Tensor, "pairs points"]
    inverse: Float[Tensor, "pairs points"]

    @classmethod
    def of(
        cls, x: Float[Tensor, "three_atoms points"], pairs: Int[Tensor, "2 three_pairs"], scratch: Scratch
    ) -> Geometry:
        """Of the pairs whose atoms have the two :func:`rows`."""
        count, points = pairs.shape[1], x.shape[1]
        difference, other = (scratch(name, count, points) for name in ("difference", "other"))
        torch.index_select(x, 0, pairs[0], out=difference)
        difference.sub_(torch.index_select(x, 0, pairs[1], out=other))
        difference = difference.view(3, -1, points)
        squared, inverse = (scratch(name, count // 3, points) for name in ("squared", "inverse"))
        torch.mul(difference[0], difference[0], out=squared)
        for component in difference[1:]:
            squared.addcmul_(component, component)
        squared.clamp_min_(NEAREST**2)
        return cls(difference, squared, torch.rsqrt(squared, out=inverse))


@dataclass(frozen=True, eq=False)
class Bonds:
    r"""Harmonic bonds, :math:`k (r - r_0)^2 / 2`."""

    atoms: Int[Tensor, "2 three_bonds"]
    lengths: Float[Tensor, "bonds 1"]
    constants: Float[Tensor, "bonds 1"]

    def add(self, x: Tensor, energy: Tensor, gradient: Tensor | None) -> None:
        """Add energy, and gradient by the positions unless it is ``None``."""
        bond = Geometry.of(x, self.atoms, Scratch(x))
        stretch = bond.squared * bond.inverse - self.lengths
        tension = self.constants * stretch
        energy.add_((tension * stretch).sum(0), alpha=0.5)
        if gradient is not None:
            pull = bond.difference.mul_(tension.mul_(bond.inverse)).flatten(0, 1)
            gradient.index_add_(0, self.atoms[0], pull).index_add_(0, self.atoms[1], pull.neg_())


@dataclass(frozen=True, eq=False)
class Angles:
    r"""Harmonic angles, :math:`k (\theta - \theta_0)^2 / 2`."""

    atoms: Int[Tensor, "3 three_angles"]
    values: Float[Tensor, "angles 1"]
    constants: Float[Tensor, "angles 1"]

    def add(self, x: Tensor, energy: Tensor, gradient: Tensor | None) -> None:
        """Add energy, and gradient by the positions unless it is ``None``."""
        centre = x.index_select(0, self.atoms[1])
        ends = (x.index_select(0, self.atoms[k]).sub_(centre) for k in (0, 2))
        a, b = (end.view(3, -1, x.shape[1]) for end in ends)
        normal, scalar = _cross(a, b), _dot(a, b)
        # atan2 keeps its accuracy where the cosine of an angle does not: near 0 and π.
        area = _dot(normal, normal).clamp_min_(_tiny(x)).sqrt_()
        bend = torch.atan2(area, scalar) - self.values
        torque = self.constants * bend
        energy.add_((torque * bend).sum(0), alpha=0.5)
        if gradient is not None:
            torque.div_(area)
            left = (a * (scalar / _square(a))).sub_(b).mul_(torque).flatten(0, 1)
            right = (b * (scalar / _square(b))).sub_(a).mul_(torque).flatten(0, 1)
            gradient.index_add_(0, self.atoms[0], left).index_add_(0, self.atoms[2], right)
            gradient.index_add_(0, self.atoms[1], left.add_(right).neg_())


@dataclass(frozen=True, eq=False)
class Torsions:
    r"""Periodic torsions, :math:`\sum_n c_n + a_n \cos n\phi + b_n \sin n\phi`, one row for each quadruple.

    The gradient is that of Blondel and Karplus, which has no pole at :math:`\phi = 0`.

    References
    ----------
    Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996).
    """

    atoms: Int[Tensor, "4 three_torsions"]
    cosines: Float[Tensor, "periods torsions 1"]
    sines: Float[Tensor, "periods torsions 1"]
    constant: float

    def add(self, x: Tensor, energy: Tensor, gradient: Tensor | None) -> None:
        """Add energy, and gradient by the positions unless it is ``None``."""
        first, second, third, fourth = (x.index_select(0, atoms) for atoms in self.atoms)
        edges = first.sub_(second), second.sub_(third), fourth.sub_(third)
        f, g, h = (edge.view(3, -1, x.shape[1]) for edge in edges)
        a, b = _cross(f, g), _cross(h, g)
        a2, b2, axis = _square(a), _square(b), _square(g).sqrt_()
        inverse = (a2 * b2).rsqrt_()
        value, slope = self._series(_dot(a, b).mul_(inverse), _dot(b, f).mul_(axis).mul_(inverse).neg_())
        energy.add_(value).add_(self.constant)
        if gradient is not None:
            shift = slope / axis
            slope.mul_(axis)
            one, other = (a * (slope / a2).neg_()).flatten(0, 1), (b * (slope / b2)).flatten(0, 1)
            a.mul_(_dot(f, g).mul_(shift).div_(a2))
            middle = a.sub_(b.mul_(_dot(h, g).mul_(shift).div_(b2))).flatten(0, 1)
            gradient.index_add_(0, self.atoms[0], one).index_add_(0, self.atoms[3], other)
            gradient.index_add_(0, self.atoms[1], middle - one)
            gradient.index_add_(0, self.atoms[2], middle.add_(other).neg_())

    def _series(self, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        """Energy, and slope by the angle; multiples of the angle are powers of a complex number."""
        value, slope, c, s = torch.zeros_like(cosine), torch.zeros_like(cosine), cosine, sine
        for n, (a, b) in enumerate(zip(self.cosines, self.sines, strict=True), start=1):
            value.addcmul_(a, c).addcmul_(b, s)
            slope.addcmul_(a, s, value=-n).addcmul_(b, c, value=n)
            if n < len(self.cosines):
                c, s = (c * cosine).addcmul_(s, sine, value=-1), (s * cosine).addcmul_(c, sine)
        return value.sum(0), slope


@dataclass(frozen=True, eq=False)
class Nonbonded:
    r"""Lennard-Jones and Coulomb energy of the first pairs of a geometry, :math:`A r^{-12} - B r^{-6} + C r^{-1}`."""

    repulsion: Float[Tensor, "interacting 1"]
    attraction: Float[Tensor, "interacting 1"]
    charge: Float[Tensor, "interacting 1"]

    def add(self, geometry: Geometry, energy: Tensor, slope: Tensor | None) -> None:
        """Add energy, and :math:`r^{-1} dU/dr` of each pair unless it is ``None``."""
        inverse = geometry.inverse[: len(self.charge)]
        square = inverse * inverse
        sixth = (square * square).mul_(square)
        repulsion = (sixth * self.repulsion).mul_(sixth)
        attraction, coulomb = sixth.mul_(self.attraction), inverse * self.charge
        energy.add_((repulsion - attraction).add_(coulomb).sum(0))
        if slope is not None:
            change = repulsion.mul_(-12).add_(attraction, alpha=6).sub_(coulomb)
            slope[: len(self.charge)].addcmul_(change, square)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products of vectors."""
    product = a * b
    return product[0].add_(product[1]).add_(product[2])


def _square(a: Tensor) -> Tensor:
    """Squared lengths, above zero so that one can divide by them."""
    return _dot(a, a).clamp_min_(_tiny(a))


def _tiny(x: Tensor) -> float:
    # The square of such a number is still a normal one.
    return float(torch.finfo(x.dtype).tiny ** 0.45)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Vector products."""
    product = torch.empty_like(a)
    (a0, a1, a2), (b0, b1, b2), (p0, p1, p2) = a.unbind(), b.unbind(), product.unbind()
    torch.mul(a1, b2, out=p0).addcmul_(a2, b1, value=-1)
    torch.mul(a2, b0, out=p1).addcmul_(a0, b2, value=-1)
    torch.mul(a0, b1, out=p2).addcmul_(a1, b0, value=-1)
    return product
