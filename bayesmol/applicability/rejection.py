"""Risk against coverage: the mean error of the rows that a score keeps, as it keeps more of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.calibration.ranks import ascending, ascending_order
from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["RiskCoverage", "average_precision", "kept_influence", "risk_coverage"]


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Curve of one score, and what the best possible score would give.

    Attributes
    ----------
    risk
        Mean error of the k rows of lowest score, k = 1, 2, …; of equal scores the mean over all their orders.
    oracle
        The same for the score that is the error itself.
    scores, errors
        What they were made from, row by row.
    """

    risk: Float[Tensor, " rows"]
    oracle: Float[Tensor, " rows"]
    scores: Float[Tensor, " rows"]
    errors: Float[Tensor, " rows"]

    @property
    def coverage(self) -> Float[Tensor, " rows"]:
        """Fraction of the rows that is kept, k/n."""
        return torch.arange(1, len(self.risk) + 1, dtype=self.risk.dtype, device=self.risk.device) / len(self.risk)

    @cached_property
    def area(self) -> float:
        """Mean risk over all coverages (AURC), in the unit of the errors."""
        return float(self.risk.mean())

    @cached_property
    def random_area(self) -> float:
        """The same expected of a random score: the mean error."""
        return float(self.risk[-1])

    @cached_property
    def oracle_area(self) -> float:
        """The same of the oracle, the least possible."""
        return float(self.oracle.mean())

    @property
    def fraction(self) -> float:
        """Of the way from random (0) to the oracle (1); negative if errors are larger where the score is low.

        NaN if all errors are equal, where no score can help.
        """
        room = self.random_area - self.oracle_area
        return (self.random_area - self.area) / room if room > 1e-14 * self.random_area else float("nan")

    @property
    def area_influence(self) -> Float[Tensor, " rows"]:
        """First-order change of n times the area with the weight of each row."""
        return kept_influence(self.scores, self.errors, torch.ones_like(self.errors))

    @property
    def fraction_influence(self) -> Float[Tensor, " rows"]:
        """First-order change of n times the fraction with the weight of each row."""
        own, oracle = self.area_influence, kept_influence(self.errors, self.errors, torch.ones_like(self.errors))
        mean = self.errors - self.errors.mean()
        return (mean - own - self.fraction * (mean - oracle)) / (self.random_area - self.oracle_area)


def risk_coverage(scores: Float[Tensor, " rows"], errors: Float[Tensor, " rows"]) -> RiskCoverage:
    r"""Risk :math:`R(k/n) = \frac1k \sum_{i \le k} |e|_{(i)}` of the rows in the order of their scores.

    A block of equal scores enters with its mean error, which is the expectation over its orders.

    Parameters
    ----------
    scores
        Lower is kept first; may be infinite.
    errors
        Absolute or squared errors, any losses ≥ 0.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, there are no rows, or a score is NaN or an error negative or not finite.

    References
    ----------
    El-Yaniv, Wiener, J. Mach. Learn. Res. 11, 1605 (2010); Geifman, Uziel, El-Yaniv, ICLR (2019), arXiv:1805.08206.
    """
    if scores.ndim != 1 or scores.shape != errors.shape or len(scores) == 0:
        shapes = tuple(scores.shape), tuple(errors.shape)
        raise ShapeError(expected("scores, errors", "one shape (rows,), not empty", shapes))
    if bool(scores.isnan().any()) or not bool((errors.isfinite() & (errors >= 0)).all()):
        raise DataError(expected("scores, errors", "no NaN, and finite errors ≥ 0", "others", "take absolute errors"))
    errors = errors.double()
    order, block = _blocks(scores)
    sums, sizes = block.bincount(errors[order]), block.bincount()
    counts = torch.arange(1, len(errors) + 1, dtype=errors.dtype, device=errors.device)
    risk, oracle = ((sums / sizes)[block].cumsum(0) / counts, ascending(errors).cumsum(0) / counts)
    return RiskCoverage(risk, oracle, scores, errors)


def average_precision(scores: Float[Tensor, " rows"], positives: Bool[Tensor, " rows"]) -> float:
    r"""Mean over the positives of the fraction of positives among the rows that score no higher.

    Here the positives are the rows inside, of low score. The value of a random score is their prevalence.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, a score is NaN, or there are no positives.
    """
    if scores.ndim != 1 or scores.shape != positives.shape:
        raise ShapeError(expected("positives", f"shape (rows,) {tuple(scores.shape)}", tuple(positives.shape)))
    if bool(scores.isnan().any()) or not bool(positives.any()):
        raise DataError(expected("scores, positives", "numbers, and at least one positive", "NaN or none"))
    return float(_kept(scores, positives.double())[0][positives].mean())


def kept_influence(
    scores: Float[Tensor, " rows"], losses: Float[Tensor, " rows"], weights: Float[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    r"""Influence of each row on :math:`M = \sum_j w_j R(s_j) / \sum_j w_j`, R being the mean loss of lower scores.

    .. math:: I_x = rac{w_x}{ar w} (R(s_x) - M)
                  + rac1n \sum_{j: s_j \ge s_x} rac{w_j}{ar w} rac{\ell_x - R(s_j)}{F(s_j)}

    with the fraction F of the rows that score no higher. Weights of one give the area below the risk-coverage curve,
    the positives as losses and as weights the average precision.
    """
    ratio, share = _kept(scores, losses)
    weights = weights / weights.mean()
    mean = (weights * ratio).mean()
    order, block = _blocks(scores)

    def above(values: Tensor) -> Tensor:
        sums = block.bincount(values[order]).flip(0).cumsum(0).flip(0)
        return torch.empty_like(values).index_copy_(0, order, sums[block]) / len(values)

    return weights * (ratio - mean) + losses * above(weights / share) - above(weights * ratio / share)


def _kept(scores: Tensor, losses: Tensor) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Mean loss and fraction of the rows that score no higher than each row."""
    order, block = _blocks(scores)
    sums, sizes = block.bincount(losses[order]).cumsum(0), block.bincount().cumsum(0)
    ratio, share = torch.empty_like(losses), torch.empty_like(losses)
    ratio[order], share[order] = (sums / sizes)[block], (sizes / len(scores))[block].to(losses)
    return ratio, share


def _blocks(scores: Tensor) -> tuple[Int[Tensor, " rows"], Int[Tensor, " rows"]]:
    """Order of the rows by score, and the number of its block of equal scores for each place in the order."""
    order = ascending_order(scores)
    ordered = scores[order]
    return order, torch.cat([order.new_zeros(1), (ordered[1:] != ordered[:-1]).long().cumsum(0)])
