"""Generalised Born solvent of Onufriev, Bashford and Case, for many configurations at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.flows.force_field_terms import Geometry, Scratch

__all__ = ["Solvation", "Solvent"]


@dataclass(frozen=True, eq=False)
class Solvent:
    r"""Parameters of a generalised Born model with a surface term.

    .. math::
        U = -\tfrac12 \kappa \sum_{ij} \frac{q_i q_j}{f_{ij}} + \sigma \sum_i (\rho_i + p)^2 (\rho_i / B_i)^6, \qquad
        f_{ij}^2 = r_{ij}^2 + B_i B_j e^{-r_{ij}^2 / 4 B_i B_j},

    .. math::
        B_i^{-1} = (\rho_i - d)^{-1} - \rho_i^{-1} \tanh(\alpha \psi_i - \beta \psi_i^2 + \gamma \psi_i^3)

    with the pairwise descreening integral :math:`\psi_i` of Hawkins, Cramer and Truhlar.

    Attributes
    ----------
    charges
        In elementary charges.
    radii
        :math:`\rho_i`, in Å.
    scales
        Factors of the radii of the atoms that displace the solvent.
    alpha, beta, gamma
        0.8, 0, 2.909125 for OBC1; 1, 0.8, 4.85 for OBC2.
    strength
        :math:`\kappa`, Coulomb's constant times the difference of the inverse dielectric constants, in eV Å.
    tension
        :math:`\sigma`, in eV/Å²; 0 without surface term.
    offset, probe
        d and p, in Å.

    References
    ----------
    Onufriev, Bashford, Case, Proteins 55, 383 (2004); Hawkins, Cramer, Truhlar, J. Phys. Chem. 100, 19824 (1996);
    Schaefer, Bartels, Karplus, J. Mol. Biol. 284, 835 (1998).
    """

    charges: Float[Tensor, " atoms"]
    radii: Float[Tensor, " atoms"]
    scales: Float[Tensor, " atoms"]
    alpha: float
    beta: float
    gamma: float
    strength: float
    tension: float = 0.0
    offset: float = 0.09
    probe: float = 1.4

    def __post_init__(self) -> None:
        if not self.charges.shape == self.radii.shape == self.scales.shape:
            shapes = [tuple(a.shape) for a in (self.charges, self.radii, self.scales)]
            raise ShapeError(expected("solvent", "a charge, radius and scale for each atom", shapes))
        if not bool((self.radii > self.offset).all()):
            raise DataError(expected("radii", f"more than the offset of {self.offset} Å", float(self.radii.min())))

    def numbers(self) -> dict[str, float]:
        """The parameters that are one number each."""
        return {f.name: float(getattr(self, f.name)) for f in fields(self)[3:]}


class Solvation:
    """Tables of a solvent for the pairs of a geometry.

    Of two atoms where one is wholly inside the other (r < scaled radius − radius, some hundredths of an ångström) the
    inner one keeps the solvent that the formula for overlapping spheres gives.
    """

    def __init__(self, solvent: Solvent, pairs: Int[Tensor, "2 pairs"], like: Tensor) -> None:
        column = lambda values: values.to(like)[..., None]  # noqa: E731
        inner = solvent.radii - solvent.offset
        scaled = inner * solvent.scales
        self._solvent, self._pairs = solvent, pairs.to(like.device)
        self._ends = self._pairs.flatten()
        self._lower = column(inner[pairs])  # of the atom that is descreened, in both directions of a pair
        self._reach = column(scaled[pairs.flip(0)])
        self._reach2 = self._reach.square()
        self._inner, self._radii = column(inner), column(solvent.radii)
        self._charge = column(-solvent.strength * solvent.charges[pairs[0]] * solvent.charges[pairs[1]])
        self._self = column(-0.5 * solvent.strength * solvent.charges.square())
        self._surface = column(solvent.tension * (solvent.radii + solvent.probe).square() * solvent.radii**6)

    def add(self, geometry: Geometry, energy: Tensor, slope: Tensor | None, scratch: Scratch) -> None:
        r"""Add energy, and :math:`r^{-1} dU/dr` of each pair unless it is ``None``."""
        integral, change = self._integrals(geometry, scratch)
        born, response = self._born(integral)
        inverse = born.reciprocal()
        own = self._self * inverse
        surface = self._surface * (inverse * inverse).pow_(3)
        energy.add_(own.sum(0)).add_(surface.sum(0))
        virial = self._pairwise(geometry, born, energy, slope, scratch)  # B dU/dB
        if slope is not None and virial is not None:
            virial.sub_(own).sub_(surface, alpha=6).mul_(inverse).mul_(response)
            weight = torch.index_select(virial, 0, self._ends, out=scratch("step", *change.flatten(0, 1).shape))
            both = change.mul_(weight.view_as(change))
            slope.addcmul_(both[0].add_(both[1]), geometry.inverse.square(), value=-1)

    def _integrals(self, geometry: Geometry, scratch: Scratch) -> tuple[Tensor, Tensor]:
        r"""Twice the descreening integral of each atom, and :math:`-r \, d/dr` of the part of each end of a pair."""
        shape = (2, *geometry.squared.shape)
        r = torch.mul(geometry.squared, geometry.inverse, out=scratch("other", *shape[1:]))
        upper, lower, logarithm = (scratch(name, *shape) for name in ("upper", "lower", "logarithm"))
        torch.maximum(torch.add(r, self._reach, out=upper), self._lower, out=upper).reciprocal_()
        # Without the modulus of r − reach: the derivative is right for every r.
        torch.maximum(torch.sub(r, self._reach, out=lower), self._lower, out=lower)
        torch.mul(lower, upper, out=logarithm).log_().mul_(geometry.inverse).mul_(0.5)
        step = torch.sub(lower.reciprocal_(), upper, out=scratch("step", *shape))
        weight = lower.add_(upper).mul_(step).mul_(0.25)
        ratio = torch.mul(weight, self._reach2, out=upper).mul_(geometry.inverse)
        weight.mul_(r)
        change = logarithm.add_(ratio)
        part = step.sub_(weight).add_(change)
        integral = part.new_zeros(len(self._inner), shape[-1]).index_add_(0, self._ends, part.flatten(0, 1))
        return integral, change.add_(weight)

    def _born(self, integral: Tensor) -> tuple[Tensor, Tensor]:
        """Born radii, and their derivative by twice the integral."""
        constants, psi = self._solvent, integral * (0.5 * self._inner)
        tanh = torch.tanh(psi * (constants.alpha + psi * (constants.gamma * psi - constants.beta)))
        born = (1 / self._inner - tanh / self._radii).reciprocal_()
        inner = constants.alpha + psi * (3 * constants.gamma * psi - 2 * constants.beta)
        return born, born.square() * (1 - tanh.square()) * inner * (0.5 * self._inner / self._radii)

    def _pairwise(
        self, geometry: Geometry, born: Tensor, energy: Tensor, slope: Tensor | None, scratch: Scratch
    ) -> Tensor | None:
        """Add the energy of pairs; B dU/dB of each atom if a slope is wanted."""
        shape = geometry.squared.shape
        exponent, product, damping, inverse = (scratch(f"pair_{k}", *shape) for k in range(4))
        torch.index_select(born, 0, self._pairs[0], out=product)
        product.mul_(torch.index_select(born, 0, self._pairs[1], out=damping))
        torch.div(geometry.squared, product, out=exponent).mul_(0.25)
        torch.neg(exponent, out=damping).exp_()
        smeared = product.mul_(damping)
        torch.add(smeared, geometry.squared, out=inverse).rsqrt_()
        pair = inverse * self._charge
        energy.add_(pair.sum(0))
        if slope is None:
            return None
        pair.mul_(-0.5).mul_(inverse).mul_(inverse)
        slope.add_(pair, alpha=2).addcmul_(pair, damping, value=-0.5)
        virial = smeared.mul_(pair).addcmul_(smeared, exponent)
        total = torch.zeros_like(born)
        return total.index_add_(0, self._pairs[0], virial).index_add_(0, self._pairs[1], virial)
