"""Has the distribution changed? A betting martingale on conformal p-values, which may be watched for ever.

Under exchangeability a score is as likely to be among the largest of all so far as any other: its conformal p-value is
uniform and independent of the past. Whoever bets against that wins money only by luck, or because things changed.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from scipy.special import gammainc, gammaln
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["ConformalMartingale", "Jumper", "MartingalePath", "MartingaleState", "PowerMixture"]

Capital = tuple[float, ...]


@runtime_checkable
class Betting(Protocol):
    """A strategy: ``capital`` is what it has to remember, the logarithm of the martingale is read off it."""

    def initial(self) -> Capital:
        """Capital before the first bet."""
        ...

    def updated(self, capital: Capital, largest: int, least: int, count: int) -> Capital:
        """Capital after a score whose rank among ``count``, counted from the top, is between ``least`` and ``largest``.

        The two differ by the ties.
        """
        ...

    def log_martingale(self, capital: Capital) -> float:
        """Logarithm of the martingale."""
        ...


@dataclass(frozen=True)
class Jumper:
    r"""Simple jumper: three gamblers bet :math:`1 + \epsilon (p - 1/2)` and some of their money changes hands.

    The gambler with :math:`\epsilon = -1` wins by large scores, the one with 1 by small ones, the third keeps what he
    has; after each step a fraction of all is dealt out evenly, so a late change is found as fast as an early one.

    Attributes
    ----------
    rate
        Fraction that is dealt out at each step.

    References
    ----------
    Vovk, Petej, Nouretdinov, Ahlberg, Carlsson, Gammerman, COPA 2021, PMLR 152, 191 (2021), algorithm 1.
    """

    rate: float = 0.01

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise DataError(expected("rate", "a fraction above 0 and at most 1", self.rate))

    def initial(self) -> Capital:
        """Logarithm of the whole, and the share of each gambler."""
        return (0.0, 1 / 3, 1 / 3, 1 / 3)

    def updated(self, capital: Capital, largest: int, least: int, count: int) -> Capital:
        """Each gambler is paid by the rank that is worse for him, its p-value in the middle of its cell."""
        log_total, *shares = capital
        low, even, high = ((1 - self.rate) * share + self.rate / 3 for share in shares)
        low, high = low * (1.5 - (largest - 0.5) / count), high * (0.5 + (least - 0.5) / count)
        total = low + even + high
        return (log_total + math.log(total), low / total, even / total, high / total)

    def log_martingale(self, capital: Capital) -> float:
        """Logarithm of the sum of all capital."""
        return capital[0]


@dataclass(frozen=True)
class PowerMixture:
    r"""Mixture of all power martingales, for scores that grow larger.

    .. math:: M_n = \int_0^1 \prod_i \epsilon p_i^{\epsilon - 1} \,\mathrm d\epsilon
       = \frac{e^L \gamma(n + 1, L)}{L^{n+1}}, \quad L = -\sum_i \ln p_i

    with the upper ends of the p-values. No setting, and faster than the jumper for a change near the beginning of the
    stream; after a long quiet stretch it is slow.

    References
    ----------
    Vovk, Nouretdinov, Gammerman, ICML 2003 (simple mixture).
    """

    def initial(self) -> Capital:
        """Number of bets and L."""
        return (0.0, 0.0)

    def updated(self, capital: Capital, largest: int, least: int, count: int) -> Capital:
        """One more bet on a small p-value."""
        return (capital[0] + 1, capital[1] - math.log(largest / count))

    def log_martingale(self, capital: Capital) -> float:
        """Closed form; by its power series where the incomplete gamma function underflows."""
        count, total = capital
        if total >= count + 1:
            share = math.log(float(gammainc(count + 1, total)))
            return total + float(gammaln(count + 1)) + share - (count + 1) * math.log(total)
        term, series, place = 1 / (count + 1), 0.0, count + 1
        while term > 1e-17 * series:
            series, place = series + term, place + 1
            term *= total / place
        return math.log(series)


@dataclass(frozen=True)
class ConformalMartingale:
    r"""Watches a stream of scores: ``ConformalMartingale().start(calibration)``, then ``update`` with each score.

    .. math:: p_t = \frac{1 + \#\{i : s_i \ge s_t\}}{n + t}, \quad
       P\Big(\sup_t M_t \ge \frac1\delta\Big) \le \delta \quad\text{(Ville)}

    with i over the n calibration scores and those of the stream before t. The bets are on ranks, which are uniform and
    independent under exchangeability, by the worse end where scores tie; no random number is needed. The bound holds
    at all times at once: the stream may be watched after each step and stopped at will. Calibration and stream must be
    exchangeable: structures drawn independently, or frames further apart than their correlation. Frames of a
    trajectory are not; ``block`` makes blocks of them.

    Attributes
    ----------
    betting
        :class:`Jumper` or :class:`PowerMixture`.
    false_alarms
        :math:`\delta`: probability of ever raising an alarm without a change.
    block
        So many consecutive scores are replaced by their mean; longer than the correlation time for correlated frames.

    References
    ----------
    Vovk, Nouretdinov, Gammerman, ICML 2003; Ville, Étude critique de la notion de collectif, Gauthier-Villars (1939).
    """

    betting: Betting = Jumper()
    false_alarms: float = 0.01
    block: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.false_alarms < 1:
            raise DataError(expected("false_alarms", "a probability strictly between 0 and 1", self.false_alarms))
        if self.block < 1:
            raise DataError(expected("block", "at least 1 step", self.block))

    def start(self, calibration: Float[Tensor, " calibration"]) -> MartingaleState:
        """State before the first score; the calibration scores are of rows that neither model nor score has seen.

        Raises
        ------
        DataError
            If there is no whole block of scores, or one is NaN.
        """
        values = _checked(calibration)
        blocks = len(values) // self.block
        if blocks < 1:
            raise DataError(expected("calibration", f"at least {self.block} scores, one block", len(values)))
        means = values[: blocks * self.block].reshape(blocks, self.block).mean(1)
        return MartingaleState(self, tuple(sorted(means.tolist())), (), self.betting.initial(), 0, None, None)


@dataclass(frozen=True, eq=False)
class MartingaleState:
    """Where the stream is; each update gives a new state.

    Attributes
    ----------
    pool
        Scores of calibration and stream, ascending.
    waiting
        Scores of a block that is not full yet.
    capital
        What the betting strategy has to remember.
    steps
        Scores so far.
    p_value
        Of the last block.
    alarm
        Number of scores after which the alarm was raised; ``None`` if it was not.
    """

    specification: ConformalMartingale
    pool: tuple[float, ...]
    waiting: tuple[float, ...]
    capital: Capital
    steps: int
    p_value: float | None
    alarm: int | None

    @property
    def log_martingale(self) -> float:
        """Natural logarithm of the capital; it starts at 0, and the alarm is raised at −ln δ."""
        return self.specification.betting.log_martingale(self.capital)

    @property
    def guarantee(self) -> str:
        """The sentence that holds."""
        kind = self.specification
        unit = "scores" if kind.block == 1 else f"blocks of {kind.block} scores"
        return (
            f"raises an alarm with probability ≤ {kind.false_alarms:g}, however long it watches, if the {unit} of "
            "calibration and stream are exchangeable"
        )

    def update(self, score: float) -> MartingaleState:
        """State after one more score."""
        if math.isnan(score):
            raise DataError(expected("score", "a number", "NaN"))
        kind, waiting, steps = self.specification, (*self.waiting, float(score)), self.steps + 1
        if len(waiting) < kind.block:
            return replace(self, waiting=waiting, steps=steps)
        value, pool = sum(waiting) / kind.block, list(self.pool)
        first, last = bisect.bisect_left(pool, value), bisect.bisect_right(pool, value)
        largest, least, count = 1 + len(pool) - first, 1 + len(pool) - last, len(pool) + 1
        pool.insert(last, value)
        capital = kind.betting.updated(self.capital, largest, least, count)
        raised = kind.betting.log_martingale(capital) >= -math.log(kind.false_alarms)
        alarm = steps if self.alarm is None and raised else self.alarm
        return MartingaleState(kind, tuple(pool), (), capital, steps, largest / count, alarm)

    def run(self, scores: Float[Tensor, " steps"]) -> MartingalePath:
        """All updates of a stream that is already known."""
        state, log_martingale, p_values = self, [], []
        for score in _checked(scores).tolist():
            state = state.update(score)
            log_martingale.append(state.log_martingale)
            p_values += [] if state.waiting else [state.p_value]
        return MartingalePath(scores.new_tensor(p_values), scores.new_tensor(log_martingale), state)


@dataclass(frozen=True, eq=False)
class MartingalePath:
    """A stream in hindsight.

    Attributes
    ----------
    p_values
        Conformal p-value of each block: the probability of so large a score.
    log_martingale
        After each score.
    state
        After the last score; its ``alarm`` is the number of scores it took, or ``None``.
    """

    p_values: Float[Tensor, " blocks"]
    log_martingale: Float[Tensor, " steps"]
    state: MartingaleState

    @property
    def alarm(self) -> int | None:
        """Number of scores after which the alarm was raised; ``None`` if it was not."""
        return self.state.alarm


def _checked(scores: Tensor) -> Tensor:
    if scores.ndim != 1:
        raise ShapeError(expected("scores", "one number a step", tuple(scores.shape)))
    if bool(scores.isnan().any()):
        raise DataError(expected("scores", "numbers", "NaN"))
    return scores.double().cpu()
