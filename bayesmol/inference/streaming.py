r"""Bayesian linear regression on a stream: fixed memory, exact, with optional forgetting.

The model is that of :mod:`bayesmol.inference.conjugate`: :math:`y = \Phi w + \varepsilon` with
:math:`w \sim \mathcal N(0, 1)`. A :class:`~bayesmol.inference.conjugate.LinearPosterior` keeps a column for every row
that it is updated with: right for some hundred labels on top of a large fit, whose factor it leaves alone. A
:class:`Stream` keeps one matrix (weights, weights) however many rows have come: right for long streams and at most a
few thousand weights, and the only one that can forget.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.conjugate import LinearPosterior, cholesky, posterior_from_gram
from bayesmol.posterior import Gaussian

__all__ = ["Stream", "inducing_features"]


@dataclass(frozen=True, eq=False)
class Stream:
    r"""All that the rows seen so far say about the weights, in information form.

    .. math:: G \leftarrow \lambda G + \Phi^\top N^{-1} \Phi, \quad \eta \leftarrow \lambda \eta + \Phi^\top N^{-1} y,
              \qquad w \sim \mathcal N(\Lambda^{-1} \lambda \eta, \Lambda^{-1}), \quad \Lambda = 1 + \lambda G.

    Without forgetting, :math:`\lambda = 1`, the posterior is exactly that of all rows at once. With
    :math:`\lambda < 1` it is exactly that of all rows at once with the noise variance of a row from k updates ago
    divided by :math:`\lambda^k` (the last update is one ago, so the posterior is for what comes next). What is old
    counts less while the prior does not fade: where nothing new comes the variance returns to that of the prior and
    never goes beyond it (no wind-up). The variance is honest if :math:`\lambda` fits the drift: take the factor with
    the highest sum of ``predict(…).log_prob(targets)`` over the stream, each prediction made before its update.

    Attributes
    ----------
    gram, moment
        G and :math:`\eta`; start with :meth:`empty`.
    forgetting
        :math:`\lambda`, in (0, 1]: a memory of :math:`1/(1 - \lambda)` updates.

    References
    ----------
    Kulhavý, Zarrop, Int. J. Control 58, 905 (1993) (forgetting towards a prior).
    """

    gram: Float[Tensor, "weights weights"]
    moment: Float[Tensor, " weights"]
    forgetting: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.forgetting <= 1:
            raise DataError(expected("forgetting", "a factor above 0 and at most 1", self.forgetting))
        if self.gram.shape != (len(self.moment),) * 2:
            raise ShapeError(expected("gram", f"shape ({len(self.moment)},) * 2", tuple(self.gram.shape)))

    @classmethod
    def empty(cls, weights: int, *, forgetting: float = 1.0, device: torch.device | str = "cpu") -> Stream:
        """The prior: no rows yet."""
        moment = torch.zeros(weights, dtype=torch.float64, device=device)
        return cls(moment.new_zeros(weights, weights), moment, forgetting)

    def updated(
        self, rows: Float[Tensor, "rows weights"], targets: Float[Tensor, " rows"], noise: Float[Tensor, " rows"]
    ) -> Stream:
        """The stream after one more batch of rows, in O(rows · weights²); ``noise`` is the variance of each row.

        Forgetting acts once an update, whatever its number of rows; an update without rows only lets time pass.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a number is not finite, or a variance is not positive.
        """
        _check(rows, targets, noise, len(self.moment))
        white = rows.to(self.moment) / noise.to(self.moment).sqrt()[:, None]
        goal = targets.to(self.moment) / noise.to(self.moment).sqrt()
        gram = torch.addmm(self.gram, white.mT, white, beta=self.forgetting)
        return Stream(gram, self.forgetting * self.moment + white.mT @ goal, self.forgetting)

    @cached_property
    def posterior(self) -> LinearPosterior:
        """Distribution of the weights at the next update, by one Cholesky factor of (weights, weights)."""
        return posterior_from_gram(self.forgetting * self.gram, self.forgetting * self.moment)

    def predict(
        self,
        rows: Float[Tensor, "rows weights"],
        noise: Float[Tensor, " rows"],
        *,
        unit: str,
        residual: Float[Tensor, " rows"] | None = None,
    ) -> Gaussian:
        """Predictive distribution of new labels, before the stream has seen them.

        Parameters
        ----------
        noise
            Variance of each label.
        unit
            Of the labels.
        residual
            Epistemic variance beyond the features, as from :func:`inducing_features`.
        """
        rows = rows.to(self.moment)
        known = self.posterior.variance(rows) + (0.0 if residual is None else residual.to(self.moment))
        mean = rows @ self.posterior.mean
        return Gaussian(mean, known + noise.to(self.moment), unit=unit, epistemic_variance=known)


def inducing_features(
    cross: Float[Tensor, "rows inducing"],
    inducing: Float[Tensor, "inducing inducing"],
    diagonal: Float[Tensor, " rows"],
) -> tuple[Float[Tensor, "rows inducing"], Float[Tensor, " rows"]]:
    r"""Rows that make a :class:`Stream` a sparse online Gaussian process, and the variance that they leave out.

    .. math:: \Phi = K_{nm} L^{-\top}, \quad K_{mm} = L L^\top, \qquad r = \operatorname{diag}(K_{nn} - \Phi\Phi^\top).

    Add r to the noise of training rows (FITC) and give it as ``residual`` of predictions: then the variance does not
    collapse away from the inducing points.

    Parameters
    ----------
    cross, inducing, diagonal
        Kernel of the rows with the inducing points, of these among themselves, and of each row with itself.

    Raises
    ------
    ConvergenceError
        If inducing points repeat each other.

    References
    ----------
    Snelson, Ghahramani, NeurIPS 2005; Quiñonero-Candela, Rasmussen, J. Mach. Learn. Res. 6, 1939 (2005).
    """
    if cross.shape != (len(diagonal), len(inducing)):
        raise ShapeError(expected("cross", f"shape ({len(diagonal)}, {len(inducing)})", tuple(cross.shape)))
    lower = cholesky(inducing.double(), "kernel of the inducing points")
    rows = torch.linalg.solve_triangular(lower, cross.double().mT, upper=False).mT
    return rows, (diagonal.double() - rows.square().sum(1)).clamp_min(0.0)


def _check(rows: Tensor, targets: Tensor, noise: Tensor, weights: int) -> None:
    if rows.ndim != 2 or rows.shape[1] != weights:
        raise ShapeError(expected("rows", f"shape (rows, {weights})", tuple(rows.shape)))
    for name, column in {"targets": targets, "noise": noise}.items():
        if column.shape != rows.shape[:1]:
            raise ShapeError(expected(name, f"shape ({len(rows)},)", tuple(column.shape)))
    if not all(bool(torch.isfinite(part).all()) for part in (rows, targets, noise)):
        raise DataError(expected("rows, targets, noise", "finite numbers", "NaN or infinity"))
    if not bool((noise > 0).all()):
        raise DataError(expected("noise", "positive variances", "zero or less"))
