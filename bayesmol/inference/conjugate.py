r"""Gaussian linear models in closed form: posterior, leave-one-group-out, updates.

The model is :math:`y = \Phi w + \varepsilon` with :math:`w \sim \mathcal N(0, 1)` (prior scales are absorbed in the
columns of :math:`\Phi`) and independent noise of known variance in each row. Rows that belong together form a group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.errors import ConvergenceError, ShapeError, expected
from bayesmol.inference.random import generator


def cholesky(matrix: Float[Tensor, "n n"], name: str = "matrix") -> Float[Tensor, "n n"]:
    """Lower Cholesky factor without any jitter.

    Raises
    ------
    ConvergenceError
        If the matrix is not positive definite to working precision.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if bool(failed):
        remedy = "rows repeat each other without noise, or scales differ by more than 1e12: increase the noise"
        raise ConvergenceError(expected(name, "a positive definite matrix", f"failure in column {int(failed)}", remedy))
    return factor


def _solved(lower: Tensor, right: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(lower, right, upper=False)


@dataclass(frozen=True)
class LinearPosterior:
    r"""Posterior of the weights, :math:`\mathcal N(m, S)` with :math:`S = (L L^T)^{-1} - V V^T`.

    Attributes
    ----------
    mean
        Posterior mean of the weights.
    root
        Lower Cholesky factor L of a precision matrix; ``None`` for the identity.
    factor
        V, (weights, rank): what rows of data have taken away since.
    """

    mean: Float[Tensor, " weights"]
    root: Float[Tensor, "weights weights"] | None
    factor: Float[Tensor, "weights rank"]

    def variance(self, rows: Float[Tensor, "rows weights"]) -> Float[Tensor, " rows"]:
        """Variance of each linear functional of the weights, never below zero."""
        before, taken = self._parts(rows)
        return (before.square().sum(0) - taken.square().sum(0)).clamp_min(0.0)

    def covariance(self, rows: Tensor, others: Tensor | None = None) -> Float[Tensor, "rows others"]:
        """Covariance between two sets of linear functionals of the weights."""
        before, taken = self._parts(rows)
        before_other, taken_other = (before, taken) if others is None else self._parts(others)
        return before.T @ before_other - taken.T @ taken_other

    def _parts(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        before = rows.T if self.root is None else _solved(self.root, rows.T)
        return before, (rows @ self.factor).T

    def sample(self, size: int, *, seed: int | torch.Generator) -> Float[Tensor, "size weights"]:
        """Joint draws of the weights."""
        source = generator(seed, self.mean.device)
        shape = (len(self.mean), size)
        normal = torch.randn(shape, generator=source, dtype=self.mean.dtype, device=self.mean.device)
        return self.mean + self.spread(normal).T

    def spread(self, columns: Float[Tensor, "weights columns"]) -> Float[Tensor, "weights columns"]:
        r"""A times some columns, for a root A of the covariance :math:`S = A A^T`.

        :math:`A = L^{-T} (1 - U U^T)^{1/2}` with the symmetric square root, and U by :math:`V = L^{-T} U`.
        """
        shrunk = self._shrunk(columns)
        return shrunk if self.root is None else torch.linalg.solve_triangular(self.root.T, shrunk, upper=True)

    def spread_transposed(self, columns: Float[Tensor, "weights columns"]) -> Float[Tensor, "weights columns"]:
        """The transpose of that root times some columns."""
        return self._shrunk(columns if self.root is None else _solved(self.root, columns))

    def _shrunk(self, columns: Tensor) -> Tensor:
        """:math:`(1 - U U^T)^{1/2}` times some columns."""
        if not self.factor.shape[1]:
            return columns
        base, vectors, less = self._shrinkage
        return columns - base @ (vectors @ (less[:, None] * (vectors.T @ (base.T @ columns))))

    @cached_property
    def _shrinkage(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""U, eigenvectors of :math:`U^T U`, and :math:`(1 - \sqrt{1 - \lambda}) / \lambda` of the eigenvalues."""
        base = self.factor if self.root is None else self.root.T @ self.factor
        values, vectors = torch.linalg.eigh(base.T @ base)
        values = values.clamp(1e-300, 1.0)
        return base, vectors, -torch.expm1(0.5 * torch.log1p(-values)) / values

    def updated(
        self, rows: Float[Tensor, "rows weights"], targets: Float[Tensor, " rows"], noise: Float[Tensor, " rows"]
    ) -> LinearPosterior:
        """Posterior after more rows of data, in O(rows · weights · (weights + rank)).

        ``noise`` is the variance of each row.
        """
        covariance = self.covariance(rows) + torch.diag(noise)
        lower = cholesky(covariance, "covariance of the new labels")
        gain = self._times(rows.T)
        factor = _solved(lower, gain.T).T
        mean = self.mean + factor @ _solved(lower, (targets - rows @ self.mean)[:, None])[:, 0]
        return LinearPosterior(mean, self.root, torch.cat([self.factor, factor], 1))

    def _times(self, columns: Tensor) -> Tensor:
        """Covariance of the weights times some columns."""
        base = columns if self.root is None else torch.cholesky_solve(columns, self.root)
        return base - self.factor @ (self.factor.T @ columns)


def posterior_from_rows(
    rows: Float[Tensor, "rows weights"], targets: Float[Tensor, " rows"], noise: Float[Tensor, " rows"]
) -> LinearPosterior:
    """Posterior when there are fewer rows than weights: one Cholesky factor of (rows, rows)."""
    empty = rows.new_zeros(rows.shape[1], 0)
    return LinearPosterior(rows.new_zeros(rows.shape[1]), None, empty).updated(rows, targets, noise)


def condensed(
    rows: Float[Tensor, "rows weights"],
    targets: Float[Tensor, " rows"],
    noise: Float[Tensor, " rows"],
    groups: Int[Tensor, " rows"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Fewer rows, of noise one, that say the same about the weights.

    Within each group rows are divided by their noise and turned; directions in which nothing depends on the weights are
    dropped, such as the net force and the torque on a molecule.
    """
    white, goal = rows / noise.sqrt()[:, None], targets / noise.sqrt()
    parts, goals = [], []
    for _, members in group_members(groups):
        own = white[members]
        values, vectors = torch.linalg.eigh(own @ own.mT)
        keep = values > 1e-14 * values[:, -1:]
        parts.append((vectors.mT @ own)[keep])
        goals.append((vectors.mT @ goal[members].unsqueeze(-1))[keep][:, 0])
    return torch.cat(parts), torch.cat(goals), torch.ones_like(torch.cat(goals))


def posterior_from_gram(gram: Float[Tensor, "weights weights"], moment: Float[Tensor, " weights"]) -> LinearPosterior:
    r"""Posterior from :math:`\Phi^T \Sigma^{-1} \Phi` and :math:`\Phi^T \Sigma^{-1} y`.

    It takes one Cholesky factor of (weights, weights).
    """
    root = cholesky(gram + torch.eye(len(gram), dtype=gram.dtype, device=gram.device), "precision of the weights")
    mean = torch.cholesky_solve(moment[:, None], root)[:, 0]
    return LinearPosterior(mean, root, gram.new_zeros(len(gram), 0))


@dataclass(frozen=True)
class LeftOut:
    """Predictions of each group of rows from all other groups.

    ``residual`` (rows,) is label minus prediction; ``variance`` (rows,) that of the predicted label, noise included;
    ``score`` (groups,) the joint negative log-density of each group in nats;
    ``judged`` says which rows were left out at all.
    """

    residual: Float[Tensor, " rows"]
    variance: Float[Tensor, " rows"]
    score: Float[Tensor, " groups"]
    judged: Bool[Tensor, " rows"]


def group_members(groups: Int[Tensor, " rows"]) -> list[tuple[Tensor, Tensor]]:
    """Groups of equal size together: (numbers of the groups, their rows as (groups, size)), without empty groups."""
    order = torch.argsort(groups, stable=True)
    counts = torch.bincount(groups)
    starts = counts.cumsum(0) - counts
    found = []
    for size in counts.unique().tolist():
        if size:
            numbers = (counts == size).nonzero()[:, 0]
            found.append((numbers, order[starts[numbers, None] + torch.arange(size, device=groups.device)]))
    return found


def left_out(
    inverse_blocks: list[Tensor], weights: Tensor, members: list[tuple[Tensor, Tensor]], groups: int
) -> LeftOut:
    r"""Leave-one-group-out predictions from blocks of the inverse covariance and :math:`\alpha = K^{-1} y`.

    .. math:: r_b = C_b \alpha_b, \quad C_b = [(K^{-1})_{bb}]^{-1}

    References
    ----------
    Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), equations 5.10-5.12, in blocks.
    """
    residual, variance = torch.zeros_like(weights), torch.ones_like(weights)
    judged = torch.zeros(len(weights), dtype=torch.bool, device=weights.device)
    score = weights.new_zeros(groups)
    for block, (numbers, rows) in zip(inverse_blocks, members, strict=True):
        covariance = torch.linalg.inv(block)
        right = weights[rows]
        left = (covariance @ right.unsqueeze(-1)).squeeze(-1)
        residual[rows], variance[rows] = left, covariance.diagonal(dim1=-2, dim2=-1)
        judged[rows.reshape(-1)] = True
        constant = rows.shape[1] * math.log(2 * math.pi)
        score[numbers] = 0.5 * ((left * right).sum(-1) - torch.linalg.slogdet(block)[1] + constant)
    return LeftOut(residual, variance, score, judged)


def left_out_from_covariance(
    covariance: Float[Tensor, "rows rows"],
    targets: Float[Tensor, " rows"],
    members: list[tuple[Tensor, Tensor]],
    groups: int,
) -> LeftOut:
    """Leave-one-group-out predictions of the listed groups from the covariance of all labels, noise included."""
    lower = cholesky(covariance, "covariance of the labels")
    weights = torch.cholesky_solve(targets[:, None], lower)[:, 0]
    blocks = []
    for _, rows in members:
        picked = covariance.new_zeros(len(covariance), rows.numel())
        picked[rows.reshape(-1), torch.arange(rows.numel(), device=rows.device)] = 1.0
        half = _solved(lower, picked).T.reshape(*rows.shape, -1)
        blocks.append(half @ half.transpose(-1, -2))
    return left_out(blocks, weights, members, groups)


def leave_one_out_gradient(
    covariance: Float[Tensor, "rows rows"], targets: Float[Tensor, " rows"], members: list[tuple[Tensor, Tensor]]
) -> tuple[float, Float[Tensor, "rows rows"]]:
    r"""Sum of the leave-one-group-out scores (nats) and its derivative with respect to the covariance.

    With :math:`P = K^{-1}` and :math:`D` block-diagonal with blocks :math:`\tfrac12 (r_b r_b^T + C_b)`,

    .. math:: \partial S / \partial K = P D P - \tfrac12 (P r\, \alpha^T + \alpha\, r^T P).
    """
    lower = cholesky(covariance, "covariance of the labels")
    inverse = torch.cholesky_inverse(lower)
    weights = inverse @ targets
    product, residual, score = torch.zeros_like(inverse), torch.zeros_like(weights), 0.0
    for _, rows in members:
        block = inverse[rows[:, :, None], rows[:, None, :]]
        found = torch.linalg.inv(block)
        right = weights[rows]
        left = (found @ right.unsqueeze(-1)).squeeze(-1)
        residual[rows] = left
        score += 0.5 * float((left * right).sum() - torch.linalg.slogdet(block)[1].sum())
        middle = 0.5 * (left.unsqueeze(-1) * left.unsqueeze(-2) + found)
        product[rows.reshape(-1)] = (middle @ inverse[rows]).reshape(-1, len(inverse))
    score += 0.5 * sum(rows.numel() for _, rows in members) * math.log(2 * math.pi)
    gradient = inverse @ product
    outer = torch.outer(inverse @ residual, weights)
    return score, gradient - 0.5 * (outer + outer.T)


def evidence_gradient(
    covariance: Float[Tensor, "rows rows"], targets: Float[Tensor, " rows"]
) -> Float[Tensor, "rows rows"]:
    r"""Derivative of the negative log marginal likelihood (nats) with respect to the covariance.

    .. math:: \tfrac12 (K^{-1} - \alpha \alpha^T), \quad \alpha = K^{-1} y
    """
    inverse = torch.cholesky_inverse(cholesky(covariance, "covariance of the labels"))
    weights = inverse @ targets
    return 0.5 * (inverse - torch.outer(weights, weights))


def log_evidence(covariance: Float[Tensor, "rows rows"], targets: Float[Tensor, " rows"]) -> Float[Tensor, ""]:
    r"""Log marginal likelihood :math:`\ln \mathcal N(y; 0, K)` in nats, differentiable."""
    if covariance.shape != (len(targets), len(targets)):
        raise ShapeError(expected("covariance", f"shape ({len(targets)}, {len(targets)})", tuple(covariance.shape)))
    lower = cholesky(covariance, "covariance of the labels")
    white = _solved(lower, targets[:, None])[:, 0]
    return -0.5 * white.square().sum() - lower.diagonal().log().sum() - 0.5 * len(targets) * math.log(2 * math.pi)
