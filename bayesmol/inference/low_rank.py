"""Normal distributions of many parameters: a diagonal plus few directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.conjugate import LinearPosterior, cholesky
from bayesmol.inference.random import generator

__all__ = ["LowRankNormal"]


@dataclass(frozen=True, eq=False)
class LowRankNormal:
    r"""Normal distribution :math:`\mathcal N(m, \operatorname{diag}(d) + F F^\top)`.

    Independent parameters have no columns in F; a dense covariance has d = 0 and a triangular F.

    Attributes
    ----------
    mean
        m.
    diagonal
        d, variances.
    factor
        F.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, or a number is not finite or a variance negative.
    """

    mean: Float[Tensor, " parameters"]
    diagonal: Float[Tensor, " parameters"]
    factor: Float[Tensor, "parameters rank"]

    def __post_init__(self) -> None:
        if self.diagonal.shape != self.mean.shape or self.factor.shape[:1] != self.mean.shape:
            shapes = (tuple(self.diagonal.shape), tuple(self.factor.shape))
            raise ShapeError(expected("diagonal, factor", f"{len(self.mean)} rows", shapes))
        finite = all(bool(torch.isfinite(part).all()) for part in (self.mean, self.diagonal, self.factor))
        if not finite or bool((self.diagonal < 0).any()):
            raise DataError(expected("mean, diagonal, factor", "finite numbers, variances ≥ 0", "others"))

    @classmethod
    def independent(cls, mean: Float[Tensor, " parameters"], stddev: Float[Tensor, " parameters"]) -> LowRankNormal:
        """Independent parameters."""
        return cls(mean, stddev.square(), mean.new_zeros(len(mean), 0))

    @property
    def stddev(self) -> Float[Tensor, " parameters"]:
        """Standard deviation of each parameter."""
        return (self.diagonal + self.factor.square().sum(1)).sqrt()

    def variance(self, rows: Float[Tensor, "rows parameters"]) -> Float[Tensor, " rows"]:
        """Variance of each linear functional of the parameters."""
        return rows.square() @ self.diagonal + (rows @ self.factor).square().sum(1)

    def covariance(self, rows: Tensor, others: Tensor | None = None) -> Float[Tensor, "rows others"]:
        """Covariance between two sets of linear functionals of the parameters."""
        others = rows if others is None else others
        return (rows * self.diagonal) @ others.mT + (rows @ self.factor) @ (others @ self.factor).mT

    def sample(self, size: int, *, seed: int | torch.Generator) -> Float[Tensor, "size parameters"]:
        """Independent draws."""
        source = generator(seed, self.mean.device)
        kind: dict[str, Any] = {"generator": source, "dtype": self.mean.dtype, "device": self.mean.device}
        own = torch.randn(size, len(self.mean), **kind)
        return self.mean + own * self.diagonal.sqrt() + torch.randn(size, self.factor.shape[1], **kind) @ self.factor.mT

    def linear(self) -> LinearPosterior:
        """The same distribution by the Cholesky factor of its precision, for few parameters.

        Raises
        ------
        ConvergenceError
            If the covariance is singular.
        """
        dense = torch.diag(self.diagonal) + self.factor @ self.factor.mT
        precision = torch.cholesky_inverse(cholesky(dense.double(), "covariance"))
        root = cholesky(precision, "precision").to(dense)
        return LinearPosterior(self.mean, root, root.new_zeros(len(root), 0))
