r"""Mean energies and forces of Bayesian ACE potentials: the invariants are contracted with the weights beforehand.

The energy of an atom is a polynomial in the projections :math:`A_{klm}` of its density, one polynomial for each element
and channel. With fixed weights w its gradient has the order of the invariants as only cost, not their number:

.. math:: \frac{\partial E_i}{\partial A_{k a}} = \sum_{bc} M^{z_i k}_{a, bc} A_{kb} A_{kc} \quad (\nu = 3), \qquad
    \frac{\partial E_i}{\partial A_{k a}} = 4 \sum_b A_{kb} \sum_{cd} Q^{z_i k}_{ab, cd} A_{kc} A_{kd} \quad (\nu = 4)

and :math:`\nu E_i = \sum A\, \partial E_i / \partial A` for each order :math:`\nu` (Euler). Of the orders 1 and 2 even
the sum over the channels is taken beforehand. What is left is one backward pass to the radial functions and harmonics.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.potentials.ace_posterior import ACEPotential
from bayesmol.potentials.ace_rows import OFFSET_STDDEV, Model
from bayesmol.potentials.contracted_polynomials import Cubic, Polynomial, Quartic
from bayesmol.potentials.network import Network, contracted
from bayesmol.potentials.surface import Surface
from bayesmol.representation.ace import Environments
from bayesmol.representation.couplings import Couplings, block, coupling

PIECE = {"cpu": 2**9, "cuda": 2**16}  # atoms at a time, so that what they need stays in the cache


class ACESurface(Network):
    """Energies and forces of one potential, or of ``draws`` from one posterior side by side.

    Of d draws the first is that of the first d-th part of the structures, and so on; all structures then have the same
    composition.
    """

    def __init__(self, model: Model, weights: Float[Tensor, "draws columns"]) -> None:
        form, kinds = model.representation, len(model.references)
        super().__init__(form.species, form.basis, max(form.degrees), 1)
        self.model, self.draws = model, len(weights)
        self.offsets = OFFSET_STDDEV * weights[:, -kinds:]
        own = (weights[:, :-kinds] * model.scales().to(weights)).unflatten(1, (kinds, -1))
        sizes = [mixing.shape[1] * len(c.invariants) for mixing, c in zip(form.mixing, form.couplings, strict=True)]
        lowest = (self.degree + 1) ** 2, len(weights), kinds, form.mixing[0].shape[2] * form.mixing[0].shape[3]
        self.linear, self.quadratic = own.new_zeros(lowest[1:]), own.new_zeros(*lowest, lowest[-1])
        self.higher: list[tuple[Tensor, Polynomial]] = []
        for part, mixing, couplings in zip(own.split(sizes, 2), form.mixing, form.couplings, strict=True):
            self._contract(part.unflatten(2, (mixing.shape[1], -1)), _spread(mixing), couplings)

    @classmethod
    def of(cls, *potentials: ACEPotential) -> ACESurface:
        """Surface of the mean of a potential, or of draws from one posterior (``potential.draws``).

        Raises
        ------
        DataError
            If the potentials differ in more than their weights.
        """
        if any(potential.model is not potentials[0].model for potential in potentials):
            raise DataError(expected("potentials", "draws from one posterior", f"{len(potentials)} potentials"))
        return cls(potentials[0].model, torch.stack([potential.posterior.mean for potential in potentials]))

    def _contract(self, weights: Float[Tensor, "d z k p"], mixing: Float[Tensor, "lm k x"], own: Couplings) -> None:
        """Contract the invariants of one group of channels."""
        for order in sorted({item.order for item in own.invariants}):
            chosen, couplings = weights[..., own.orders.to(weights.device) == order], own.only(order)
            if order == 1:
                self.linear = self.linear + torch.einsum("dzkp,kx->dzx", chosen, mixing[0])
            elif order == 2:
                self.quadratic[: len(mixing)] += _squares(couplings, chosen, mixing)
            else:
                self.higher.append((mixing, (Cubic if order == 3 else Quartic).of(couplings, chosen)))

    def forward(self, environment: Environments) -> Float[Tensor, "atoms 1"]:
        """Energies of the atoms, without references; their first derivatives are right, higher ones are not."""
        density = _density(environment)
        with torch.no_grad():
            energy, slope = self._values(density, environment)
        return (energy + ((density - density.detach()) * slope).flatten(1).sum(1))[:, None]

    def _values(self, density: Float[Tensor, "atoms lm x"], environment: Environments) -> tuple[Tensor, Tensor]:
        """Energies of the atoms and their derivatives by the density."""
        energy, slope = density.new_empty(len(density)), torch.empty_like(density)
        owner = environment.structure * self.draws // environment.structures
        size = max(1, PIECE.get(density.device.type, 2**16) // self.draws)
        for kind in range(environment.kinds):
            members = (environment.species == kind).nonzero()[:, 0]
            if not len(members):
                continue
            rows = self._equal_shares(members, owner[members])
            for piece in rows.split(size, 1):
                found = density[piece.flatten()].permute(1, 2, 0).contiguous()
                values, slopes = self._of_kind(found.unflatten(2, piece.shape), kind)
                energy[piece.flatten()] = values.flatten()
                slope[piece.flatten()] = slopes.flatten(2).permute(2, 0, 1)
        return energy, slope

    def _equal_shares(self, members: Tensor, owner: Tensor) -> Tensor:
        """Atoms of each draw, (draws, atoms)."""
        if self.draws > 1 and len(set(torch.bincount(owner, minlength=self.draws).tolist())) > 1:
            got = "different numbers of atoms of an element"
            raise DataError(expected("structures", f"equal replicas of {self.draws} draws", got))
        return members.reshape(self.draws, -1)

    def _of_kind(self, density: Float[Tensor, "lm x d n"], kind: int) -> tuple[Tensor, Tensor]:
        """Energies (draws, atoms) and slopes of atoms of one element."""
        linear, quadratic = self.linear[:, kind].T[..., None], self.quadratic[:, :, kind]
        slope = torch.einsum("mdxy,mydn->mxdn", quadratic, density).contiguous()
        energy = 0.5 * (slope * density).sum((0, 1)) + (linear * density[0]).sum(0)
        slope[0] += linear
        for mixing, polynomial in self.higher:
            size, channels = len(mixing), mixing.shape[1]
            mixed = (mixing @ density[:size].flatten(2)).unflatten(2, density.shape[2:])
            mixed = mixed.permute(2, 1, 0, 3).reshape(-1, size, density.shape[3])  # draws × channels first
            gradient = polynomial.gradient(mixed, kind)
            share = (mixed * gradient).sum(1).unflatten(0, (-1, channels)).sum(1)
            energy = energy + share / polynomial.order
            turned = gradient.unflatten(0, (-1, channels)).permute(2, 1, 0, 3).flatten(2)
            slope[:size] += (mixing.mT @ turned).unflatten(2, density.shape[2:])
        return energy, slope

    def surface(self, structures: Structures, *, virial: bool = False) -> Surface:
        """Energies, forces and virials of structures."""
        batch = structures.to(dtype=torch.float64)
        environment = self.model.representation.environments(batch)
        design = contracted(self, environment, None, virial=virial)
        energies, forces, virials = self.model.baseline(batch)
        owner = torch.arange(len(batch), device=energies.device) * self.draws // len(batch)
        offset = (self.model.representation.composition(batch) * self.offsets[owner]).sum(1)
        forces = design.given("forces").view(-1, 3) + forces
        strain = design.given("virial").view(-1, 3, 3) + virials if virial else None
        return Surface(design.energy[:, 0] + energies + offset, forces, strain)


def _spread(mixing: Float[Tensor, "degrees channels species radial"]) -> Float[Tensor, "lm channels x"]:
    repeats = 2 * torch.arange(len(mixing), device=mixing.device) + 1
    return mixing.flatten(2).repeat_interleave(repeats, 0)


def _squares(couplings: Couplings, weights: Tensor, mixing: Float[Tensor, "lm k x"]) -> Float[Tensor, "lm d z x x"]:
    """Second derivatives of the invariants of order 2, which are sums of squares of the components of one degree."""
    size = mixing.shape[2]
    found = mixing.new_zeros(len(mixing), *weights.shape[:2], size, size)
    for number, item in enumerate(couplings.invariants):
        pair = item.pairs[0]
        rows, factors = block(pair[0]), coupling(pair)[..., 0].diagonal().to(mixing)
        found[rows] = torch.einsum(
            "m,mkx,dzk,mky->mdzxy", 2 * factors, mixing[rows], weights[..., number], mixing[rows]
        )
    return found


def _density(environment: Environments) -> Float[Tensor, "atoms lm x"]:
    """Sums over neighbours of harmonics times radial functions, one block of radial functions for each element."""
    outer = environment.harmonics[:, :, None] * environment.radial[:, None, :]
    atoms, kinds = len(environment.species), environment.kinds
    key = environment.first * kinds + environment.species[environment.second]
    found = outer.new_zeros(atoms * kinds, *outer.shape[1:]).index_add(0, key, outer)
    return found.unflatten(0, (atoms, kinds)).transpose(1, 2).flatten(2)
