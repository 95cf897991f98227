"""Stochastic weight averaging, Gaussian: the moments of the iterates of an optimiser."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.low_rank import LowRankNormal

__all__ = ["SwagMoments"]


@dataclass(frozen=True, eq=False)
class SwagMoments:
    r"""Mean and variances of all iterates, and the last few iterates themselves.

    Attributes
    ----------
    count
        Number of iterates n.
    mean
        Mean of all iterates.
    squares
        Sum of the squared deviations from it.
    last
        The last iterates, the newest last, at most ``rank``.
    """

    rank: int
    count: int
    mean: Float[Tensor, " parameters"]
    squares: Float[Tensor, " parameters"]
    last: Float[Tensor, "kept parameters"]

    @classmethod
    def empty(cls, like: Float[Tensor, " parameters"], rank: int = 20) -> SwagMoments:
        """No iterate yet; ``like`` gives number, precision and device of the parameters."""
        if rank < 0:
            raise DataError(expected("rank", "0 or more", rank))
        zero = torch.zeros_like(like)
        return cls(rank, 0, zero, zero, zero[None][:0])

    def updated(self, vector: Float[Tensor, " parameters"]) -> SwagMoments:
        """The moments with one more iterate."""
        if vector.shape != self.mean.shape:
            raise ShapeError(expected("vector", f"shape {tuple(self.mean.shape)}", tuple(vector.shape)))
        vector = vector.detach()
        # Welford's recursion: a difference of large squares would lose all digits of a small variance.
        mean = self.mean + (vector - self.mean) / (self.count + 1)
        squares = self.squares + (vector - self.mean) * (vector - mean)
        last = torch.cat([self.last, vector[None]])[-self.rank :] if self.rank else self.last
        return SwagMoments(self.rank, self.count + 1, mean, squares, last)

    def posterior(self) -> LowRankNormal:
        r"""Normal distribution :math:`\mathcal N(\bar w, \tfrac12 \Sigma_{\mathrm{diag}} + \tfrac12 \hat\Sigma_K)`.

        .. math:: \Sigma_{\mathrm{diag}} = \tfrac{1}{n-1} \operatorname{diag} \sum_i (w_i - \bar w)^2, \qquad
                  \hat\Sigma_K = \tfrac{1}{K-1} \sum_{k > n-K} (w_k - \bar w_K)(w_k - \bar w_K)^\top

        The deviations are from the mean of the last K iterates, not from a running mean, so that with K = n the two
        matrices have one diagonal and the variances are exactly those of the iterates. Without rank the diagonal
        counts in full.

        Its spread is that of the optimiser about its goal: it grows with the rate, and on a normal posterior it is not
        the covariance of the posterior. Find its scale on held-out data.

        Raises
        ------
        DataError
            If there are fewer than two iterates.

        References
        ----------
        Maddox, Garipov, Izmailov, Vetrov, Wilson, NeurIPS 2019 (arXiv:1902.02476); Mandt, Hoffman, Blei, J. Mach.
        Learn. Res. 18, 134 (2017) (what the spread is).
        """
        if self.count < 2 or self.rank == 1:
            raise DataError(expected("iterates", "at least two, and no rank of one", f"{self.count}, rank {self.rank}"))
        diagonal = self.squares / (self.count - 1)
        if not self.rank:
            return LowRankNormal(self.mean, diagonal, self.last.mT)
        deviations = self.last - self.last.mean(0)
        return LowRankNormal(self.mean, diagonal / 2, deviations.mT / (2 * (len(self.last) - 1)) ** 0.5)
