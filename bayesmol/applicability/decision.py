"""Decision: accept a prediction, abstain, or compute the reference, by expected cost and under a certificate."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.applicability.error_control import ControlledDomain, ErrorControl
from bayesmol.applicability.exceedance import exceedance_bound
from bayesmol.errors import DataError, expected

__all__ = ["Choices", "Decision", "DecisionRule"]

BINS = 10
LEAST = 50  # rows in a bin


@dataclass(frozen=True)
class Decision:
    r"""What to do with each prediction, given what a wrong one costs.

    A prediction is accepted if the certificate of ``control`` accepts it and its expected cost is least,

    .. math:: \mathrm{wrong} \cdot \bar q(s) \le \min(\mathrm{reference}, \mathrm{abstain}),

    where :math:`\bar q(s)` is an upper bound of :math:`q(s) = P(\mathrm{error} > \mathrm{tolerance} \mid s)`; else the
    cheaper of the other two is done. With q rising with the score, q(s) is at most the mean of q over any bin of
    scores above s: :math:`\bar q(s)` is the least Clopper-Pearson bound of these bins, all of them valid together.

    Attributes
    ----------
    control
        Tolerance, risk and confidence.
    wrong, reference, abstain
        Costs, all in one unit, of accepting a prediction whose error is above the tolerance, of a reference
        calculation, and of leaving a structure out; the last is infinite where each structure needs an answer.
    """

    wrong: float
    reference: float
    abstain: float = math.inf
    control: ErrorControl = field(default_factory=ErrorControl)

    def __post_init__(self) -> None:
        for name in ("wrong", "reference", "abstain"):
            if not getattr(self, name) >= 0:
                raise DataError(expected(name, "a cost ≥ 0", getattr(self, name)))
        if not math.isfinite(self.wrong) or math.isinf(min(self.reference, self.abstain)):
            raise DataError(expected("wrong", "a finite cost, and one of reference and abstain finite", "infinity"))

    def fit(self, scores: Float[Tensor, " rows"], errors: Float[Tensor, " rows"]) -> DecisionRule:
        """Rule from independent rows that neither model nor score has seen, as for :meth:`ErrorControl.fit`."""
        domain = self.control.fit(scores, errors)
        ordered, order = scores.double().cpu().sort(stable=True)
        exceeds = (errors.double().cpu() > self.control.tolerance)[order]
        bins = max(1, min(BINS, len(ordered) // LEAST))
        ranks = torch.arange(bins) * len(ordered) // bins
        # Given its ends, the rows strictly within a bin are independent draws from it.
        ends = torch.cat([ordered[ranks], ordered.new_full((1,), math.inf)])
        ends[0] = -math.inf
        lower = torch.searchsorted(ordered, ends[:-1], right=True)
        upper = torch.searchsorted(ordered, ends[1:], right=False)
        counted = torch.cat([torch.zeros(1, dtype=torch.long), exceeds.cumsum(0)])
        count = (upper - lower).clamp_min(0)
        exceeding = torch.where(count > 0, counted[upper] - counted[lower], 0)
        bound = exceedance_bound(exceeding.numpy(), count.numpy(), (1 - self.control.confidence) / bins)
        return DecisionRule(self, domain, ends[:-1], torch.from_numpy(bound))


@dataclass(frozen=True, eq=False)
class DecisionRule:
    """Fitted :class:`Decision`.

    Attributes
    ----------
    domain
        The certificate.
    starts, bounds
        Lower end of each bin of scores, ascending, and the upper bound of the rate of errors above the tolerance in it.
    """

    specification: Decision
    domain: ControlledDomain
    starts: Float[Tensor, " bins"]
    bounds: Float[Tensor, " bins"]

    def probability(self, scores: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """Upper bound of the probability of an error above the tolerance; 1 in the last bin and beyond."""
        least = torch.cat([self.bounds, self.bounds.new_ones(1)]).flip(0).cummin(0).values.flip(0)
        bins = torch.searchsorted(self.starts, scores.double().cpu(), right=False)
        return least[bins].to(scores.device)

    def decide(self, scores: Float[Tensor, " rows"]) -> Choices:
        """Choice for each structure."""
        costs, probability = self.specification, self.probability(scores)
        risked, otherwise = costs.wrong * probability, min(costs.reference, costs.abstain)
        accept = self.domain.accept(scores) & (risked <= otherwise)
        rest = torch.zeros_like(accept) if costs.reference <= costs.abstain else ~accept
        return Choices(accept, rest, ~accept & ~rest, torch.where(accept, risked, otherwise))

    @property
    def guarantee(self) -> str:
        """The sentence that holds for what is accepted."""
        return (
            f"{self.domain.guarantee}; the expected cost of each accepted prediction is an upper bound with "
            f"{100 * self.specification.control.confidence:g} % confidence, for all scores together, if the "
            "probability of an error above the tolerance rises with the score"
        )


@dataclass(frozen=True, eq=False)
class Choices:
    """What to do with each structure; exactly one of the three.

    Attributes
    ----------
    accept, abstain, compute
        Accept the prediction, leave the structure out, compute the reference.
    cost
        Expected cost of the choice, for the accepted an upper bound.
    """

    accept: Bool[Tensor, " rows"]
    abstain: Bool[Tensor, " rows"]
    compute: Bool[Tensor, " rows"]
    cost: Float[Tensor, " rows"]
