r"""Matérn-5/2 kernel of an energy and its forces, symmetrised over permutations, as a GPyTorch kernel.

The energy is a Gaussian process :math:`f` of the inverse distances :math:`x`, the force its negative gradient
:math:`F = -J^\top \nabla f`. With :math:`d = (x - P_\pi x') / \ell`, :math:`q = \sqrt 5\, |d|`,
:math:`a = \tfrac 5 3 (1 + q) e^{-q}` and lengths in :math:`\ell`, averaged over the permutations :math:`\pi`,

.. math::

    \mathrm{Cov}(E, E') = (1 + q + q^2/3)\, e^{-q}, \qquad \mathrm{Cov}(E, F') = -a\, d^\top P_\pi J', \qquad
    \mathrm{Cov}(F, F') = J^\top \left[ a\, I - \tfrac{25}{3} e^{-q}\, d d^\top \right] P_\pi J'.
"""

from typing import Any

import gpytorch
import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["GradientKernel"]

Rows = Float[Tensor, "_ features"]


class GradientKernel(gpytorch.kernels.Kernel):
    """Covariance between energies and force components of structures of one molecule, in units of the amplitude.

    A row of input holds the descriptor, ``pairs`` numbers, and after it the Jacobian ``(pairs, components)`` of the
    descriptor in the directions in which forces are wanted, flattened; see :meth:`rows`. Each input has
    ``1 + components`` outputs: the energy and the force components.

    Parameters
    ----------
    group
        Permutations of the pairs; a group, or the kernel is not symmetric.
    kinds
        Kind of every pair, from 0; each kind has its length scale. Constant on the orbits of the group.
    offset
        Prior variance of a constant added to all energies, in units of the variance of the energy.

    References
    ----------
    Chmiela et al., Nat. Commun. 9, 3887 (2018), equations 3-6, the mean; here with the whole covariance.
    """

    has_lengthscale = True

    def __init__(self, group: Int[Tensor, "group pairs"], kinds: Int[Tensor, " pairs"], *, offset: float = 0.0) -> None:
        positive = gpytorch.constraints.Positive(transform=torch.exp, inv_transform=torch.log)
        super().__init__(lengthscale_constraint=positive)
        self.raw_lengthscale = torch.nn.Parameter(torch.zeros(1, int(kinds.max()) + 1, dtype=torch.float64))
        self.group, self.kinds, self.offset = group, kinds, offset

    @staticmethod
    def rows(
        descriptor: Float[Tensor, "structures pairs"], jacobian: Float[Tensor, "structures pairs components"]
    ) -> Rows:
        """Input rows of the kernel."""
        return torch.cat([descriptor, jacobian.flatten(1)], dim=1)

    def num_outputs_per_input(self, x1: Rows, x2: Rows) -> tuple[int, int]:
        """Outputs of a row of each input: the energy and the force components."""
        return x1.shape[-1] // len(self.kinds), x2.shape[-1] // len(self.kinds)

    def forward(
        self, x1: Rows, x2: Rows, diag: bool = False, **params: object
    ) -> Float[Tensor, "rows columns"] | Float[Tensor, " rows"]:
        """Covariance matrix, or its diagonal; the outputs of one structure are consecutive."""
        if diag:
            return self.blocks(x1, x2).diagonal(dim1=1, dim2=2).flatten()
        (x, jx), (z, jz) = self._scaled(x1), self._scaled(x2)
        shape = len(x), 1 + jx.shape[2], len(z), 1 + jz.shape[2]
        result = x.new_zeros(shape)
        needs_gradient = torch.is_grad_enabled() and (x.requires_grad or z.requires_grad)
        for permutation in self.group:
            arguments = x, jx, z[:, permutation], jz[:, permutation]
            if needs_gradient:
                result = result + _Term.apply(*arguments)
            else:
                _term(*arguments, out=result)
        result = result / len(self.group)
        result[:, 0, :, 0] += self.offset
        return result.reshape(shape[0] * shape[1], shape[2] * shape[3])

    def blocks(self, x1: Rows, x2: Rows) -> Float[Tensor, "structures outputs outputs"]:
        """Covariance of each structure of ``x1`` with the same one of ``x2``."""
        (x, jx), (z, jz) = self._scaled(x1), self._scaled(x2)
        result = x.new_zeros(len(x), 1 + jx.shape[2], 1 + jz.shape[2])
        for permutation in self.group:
            moved = jz[:, permutation]
            d = x - z[:, permutation]
            value, slope, curvature = _matern(d.norm(dim=1))
            u, v = torch.einsum("spi,sp->si", jx, d), torch.einsum("spi,sp->si", moved, d)
            result[:, 0, 0] += value
            result[:, 0, 1:] -= slope[:, None] * v
            result[:, 1:, 0] += slope[:, None] * u
            result[:, 1:, 1:] += slope[:, None, None] * (jx.mT @ moved)
            result[:, 1:, 1:] -= curvature[:, None, None] * u[:, :, None] * v[:, None, :]
        result = result / len(self.group)
        result[:, 0, 0] += self.offset
        return result

    def product(self, x1: Rows, x2: Rows, vectors: Float[Tensor, "columns batch"]) -> Float[Tensor, "rows batch"]:
        """Covariance matrix times vectors, in the space of descriptors and so without the matrix.

        The cost is of the order structures² × pairs × permutations, not (structures × components)².
        """
        (x, jx), (z, jz) = self._scaled(x1), self._scaled(x2)
        batch = vectors.shape[1]
        weight = vectors.reshape(len(z), 1 + jz.shape[2], batch)
        charge, dipole = weight[:, 0], jz @ weight[:, 1:]
        energy, gradient = x.new_zeros(len(x), batch), x.new_zeros(len(x), x.shape[1], batch)
        for permutation in self.group:
            y, g = z[:, permutation], dipole[:, permutation]
            value, slope, curvature = _matern(torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist"))
            along = torch.einsum("sp,tpb->stb", x, g) - torch.einsum("tp,tpb->tb", y, g)
            energy += value @ charge - torch.einsum("st,stb->sb", slope, along)
            pull = slope[:, :, None] * charge - curvature[:, :, None] * along
            gradient += torch.einsum("st,tpb->spb", slope, g)
            gradient += x[:, :, None] * pull.sum(1)[:, None] - torch.einsum("stb,tp->spb", pull, y)
        energy = energy / len(self.group) + self.offset * charge.sum(0)
        return torch.cat([energy[:, None], jx.mT @ gradient / len(self.group)], dim=1).reshape(-1, batch)

    def _scaled(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Descriptor and Jacobian in units of the length scales."""
        pairs = len(self.kinds)
        inverse = 1.0 / self.lengthscale[0, self.kinds]
        components = rows.shape[1] // pairs - 1
        return rows[:, :pairs] * inverse, rows[:, pairs:].view(len(rows), pairs, components) * inverse[:, None]


class _Term(torch.autograd.Function):
    """One permutation's covariance with a gradient that keeps none of the large intermediate arrays."""

    @staticmethod
    def forward(context: Any, x: Tensor, jx: Tensor, y: Tensor, jy: Tensor) -> Tensor:
        context.save_for_backward(x, jx, y, jy)
        return _term(x, jx, y, jy)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        x, jx, y, jy = context.saved_tensors
        distance, (_, slope, curvature), product, u, v = _parts(x, jx, y, jy)
        from_energy, to_energy = gradient[:, 0, :, 1:], gradient[:, 1:, :, 0].mT
        forces = gradient[:, 1:, :, 1:].permute(0, 2, 1, 3).contiguous()
        along_u, along_v = (forces.mT @ u[..., None])[..., 0], (forces @ v[..., None])[..., 0]
        of_slope = (
            (forces * product.permute(0, 2, 1, 3)).sum((2, 3)) + (to_energy * u).sum(2) - (from_energy * v).sum(2)
        )
        # At distance zero u is rounding error, not zero: a tinier floor would blow it up.
        of_curvature = -(u * along_v).sum(2) / distance.clamp_min(torch.finfo(x.dtype).eps ** 0.5)
        radial = -curvature * (of_slope + 5**0.5 * of_curvature) - slope * gradient[:, 0, :, 0]
        of_u = slope[..., None] * to_energy - curvature[..., None] * along_v
        of_v = -slope[..., None] * from_energy - curvature[..., None] * along_u
        weighted = (forces * slope[:, :, None, None]).permute(0, 2, 1, 3).reshape(len(x) * u.shape[2], -1)
        left = (weighted @ jy.mT.flatten(0, 1)).view(len(x), -1, x.shape[1]).mT
        right = (weighted.mT @ jx.mT.flatten(0, 1)).view(len(y), -1, x.shape[1]).mT
        along_x = torch.einsum("spi,si->sp", jx, of_u.sum(1)) + torch.einsum("tpj,stj->sp", jy, of_v)
        along_y = torch.einsum("spi,sti->tp", jx, of_u) + torch.einsum("tpj,tj->tp", jy, of_v.sum(0))
        return (
            along_x + radial.sum(1, keepdim=True) * x - radial @ y,
            left + x[:, :, None] * of_u.sum(1)[:, None] - torch.einsum("sti,tp->spi", of_u, y),
            -along_y + radial.sum(0)[:, None] * y - radial.mT @ x,
            right + torch.einsum("stj,sp->tpj", of_v, x) - y[:, :, None] * of_v.sum(0)[:, None],
        )


def _matern(distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value of the kernel, and the factors ``a`` and ``b`` of its Hessian ``a I − b d dᵀ``."""
    q = 5**0.5 * distance
    decay = torch.exp(-q)
    return (1 + q + q.square() / 3) * decay, 5 / 3 * (1 + q) * decay, 25 / 3 * decay


def _parts(x: Tensor, jx: Tensor, y: Tensor, jy: Tensor) -> tuple[Tensor, tuple, Tensor, Tensor, Tensor]:
    """Distances, factors of the kernel, ``Jᵀ J'`` and the projections ``Jᵀ d`` and ``J'ᵀ d`` of all pairs of frames."""
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    left, right = jx.mT.flatten(0, 1), jy.mT.flatten(0, 1)
    product = (left @ right.mT).view(len(x), jx.shape[2], len(y), jy.shape[2])
    u = torch.einsum("spi,sp->si", jx, x)[:, None] - (left @ y.mT).view(len(x), jx.shape[2], len(y)).mT
    v = (right @ x.mT).view(len(y), jy.shape[2], len(x)).permute(2, 0, 1) - torch.einsum("tpi,tp->ti", jy, y)
    return distance, _matern(distance), product, u, v


def _term(x: Tensor, jx: Tensor, y: Tensor, jy: Tensor, out: Tensor | None = None) -> Tensor:
    """One permutation's covariance (structures, outputs, structures, outputs), added to ``out``."""
    if out is None:
        out = x.new_zeros(len(x), 1 + jx.shape[2], len(y), 1 + jy.shape[2])
    _, (value, slope, curvature), product, u, v = _parts(x, jx, y, jy)
    out[:, 0, :, 0] += value
    out[:, 0, :, 1:] -= slope[:, :, None] * v
    out[:, 1:, :, 0] += (slope[:, :, None] * u).mT
    out[:, 1:, :, 1:].addcmul_(product, slope[:, None, :, None])
    out[:, 1:, :, 1:].addcmul_((curvature[:, :, None] * u).mT[..., None], v[:, None], value=-1)
    return out
