"""Solvers of ``(prior + noise) x = b``: exact by Cholesky, or preconditioned conjugate gradients without the matrix."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ConvergenceError, expected

__all__ = ["ConjugateGradients", "Exact", "noisy", "pivoted_root"]

Columns = Float[Tensor, "rows columns"]


class Exact:
    """Cholesky solver of a dense covariance matrix, noise included."""

    def __init__(self, covariance: Float[Tensor, "rows rows"]) -> None:
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if bool(failed):
            remedy = "raise the noise, or remove duplicated structures"
            raise ConvergenceError(expected("covariance", "a positive definite matrix", "a singular one", remedy))
        self._factor = factor

    def solve(self, right: Columns) -> Columns:
        """Solutions of the columns of ``right``."""
        return torch.cholesky_solve(right, self._factor)

    def half(self, cross: Columns) -> Columns:
        """Matrix ``A`` with ``Aᵀ A = crossᵀ K⁻¹ cross``: what the labels explain of ``cross``."""
        return torch.linalg.solve_triangular(self._factor, cross, upper=False)

    def inverse(self) -> Float[Tensor, "rows rows"]:
        """Inverse of the covariance matrix."""
        return torch.cholesky_inverse(self._factor)


@dataclass(frozen=True, eq=False)
class ConjugateGradients:
    r"""Conjugate gradients in coordinates in which the noise is white, with a Nyström preconditioner.

    With the noise :math:`N = L L^\top` (blocks) and some columns :math:`C` of the prior, of core :math:`A`,
    :math:`L^{-1} C A^{-1/2} = Q S V^\top` and, :math:`\lambda` being the smallest :math:`S^2`,

    .. math:: P^{-1} = I + Q \left[ \frac{1 + \lambda}{1 + S^2} - 1 \right] Q^\top .

    Attributes
    ----------
    product
        Prior covariance times vectors.
    noise
        Cholesky factors of the noise, one a structure.
    tolerance
        Largest relative residual of a solution.

    References
    ----------
    Frangella, Tropp, Udell, SIAM J. Matrix Anal. Appl. 44, 718 (2023), equation 1.3; Chmiela et al., Sci. Adv. 9,
    eadf0873 (2023).
    """

    product: Callable[[Columns], Columns]
    noise: Float[Tensor, "structures outputs outputs"]
    directions: Float[Tensor, "rows rank"]
    factors: Float[Tensor, " rank"]
    tolerance: float = 1e-8
    iterations: int = 2000

    @classmethod
    def nystrom(
        cls,
        product: Callable[[Columns], Columns],
        noise: Float[Tensor, "structures outputs outputs"],
        columns: Columns,
        core: Float[Tensor, "columns columns"],
        **options: Any,
    ) -> "ConjugateGradients":
        """Solver preconditioned by ``columns`` of the prior, whose own rows of it are ``core``."""
        values, vectors = torch.linalg.eigh(core)
        kept = values > len(values) * torch.finfo(values.dtype).eps * values.max()
        root = columns @ (vectors[:, kept] / values[kept].sqrt())
        left, singular, _ = torch.linalg.svd(_white(noise, root), full_matrices=False)
        factors = (1 + singular.square().min()) / (1 + singular.square()) - 1
        return cls(product, noise, left, factors, **options)

    def solve(self, right: Columns) -> Columns:
        """Solutions of the columns of ``right``.

        Raises
        ------
        ConvergenceError
            If a residual stays above the tolerance.
        """
        target = _white(self.noise, right)
        solution, residual = torch.zeros_like(target), target.clone()
        norm = target.norm(dim=0).clamp_min(torch.finfo(target.dtype).tiny)
        direction = step = self._preconditioned(residual)
        size = (residual * step).sum(0)
        for _ in range(self.iterations):
            if bool((residual.norm(dim=0) <= self.tolerance * norm).all()):
                return _coloured(self.noise, solution)
            image = self._operator(direction)
            length = size / (direction * image).sum(0).clamp_min(torch.finfo(size.dtype).tiny)
            solution, residual = solution + length * direction, residual - length * image
            step = self._preconditioned(residual)
            size, old = (residual * step).sum(0), size
            direction = step + size / old.clamp_min(torch.finfo(size.dtype).tiny) * direction
        worst = float((residual.norm(dim=0) / norm).max())
        remedy = "raise preconditioner_rows, or exact_rows if the memory allows"
        raise ConvergenceError(expected("residual", f"at most {self.tolerance:g}", f"{worst:.1e}", remedy))

    def _operator(self, vectors: Columns) -> Columns:
        return vectors + _white(self.noise, self.product(_coloured(self.noise, vectors)))

    def _preconditioned(self, vectors: Columns) -> Columns:
        return vectors + self.directions @ (self.factors[:, None] * (self.directions.mT @ vectors))


def _white(noise: Tensor, vectors: Columns) -> Columns:
    """``L⁻¹ v`` by blocks."""
    parts = vectors.reshape(len(noise), noise.shape[1], -1)
    return torch.linalg.solve_triangular(noise, parts, upper=False).reshape(vectors.shape)


def _coloured(noise: Tensor, vectors: Columns) -> Columns:
    """``L⁻ᵀ v`` by blocks."""
    parts = vectors.reshape(len(noise), noise.shape[1], -1)
    return torch.linalg.solve_triangular(noise.mT, parts, upper=True).reshape(vectors.shape)


def noisy(
    prior: Float[Tensor, "rows rows"], mask: Float[Tensor, " rows"], noise: Float[Tensor, "structures outputs outputs"]
) -> Float[Tensor, "rows rows"]:
    """Covariance of the labels: the prior where ``mask`` is one, and the noise blocks; overwrites ``prior``."""
    structures, outputs, _ = noise.shape
    every = torch.arange(structures, device=mask.device)
    prior.mul_(mask[:, None]).mul_(mask)
    prior.view(structures, outputs, structures, outputs)[every, :, every] += noise
    return prior


def pivoted_root(
    blocks: Float[Tensor, "structures outputs outputs"],
    column: Callable[[int], Float[Tensor, "structures outputs outputs"]],
    rank: int,
) -> Float[Tensor, "structures outputs columns"]:
    """Root ``W`` of at most ``rank`` columns, ``W Wᵀ`` ≤ covariance, by Cholesky pivoted over whole structures.

    Parameters
    ----------
    blocks
        Covariance of each structure with itself.
    column
        Covariance of all structures with one.
    """
    root, rest = blocks.new_zeros(*blocks.shape[:2], 0), blocks
    size = rest.diagonal(dim1=1, dim2=2).sum(1)
    floor = 1e-12 * float(size.max())
    while root.shape[2] < rank and float(size.max()) > floor:
        pivot = int(size.argmax())
        left = column(pivot) - root @ root[pivot].mT
        values, vectors = torch.linalg.eigh((left[pivot] + left[pivot].mT) / 2)
        kept = (values > 1e-10 * values.max()).nonzero().flatten()[root.shape[2] - rank :]
        new = left @ (vectors[:, kept] / values[kept].sqrt())
        root, rest = torch.cat([root, new], dim=2), rest - new @ new.mT
        rest[pivot] = 0.0
        size = rest.diagonal(dim1=1, dim2=2).sum(1)
    return root
