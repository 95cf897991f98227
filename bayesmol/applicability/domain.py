"""Domain of applicability: a verdict and a p-value with a guarantee, for any score of strangeness."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from scipy.special import betaincinv
from torch import Tensor

from bayesmol.applicability.scores import Leverage, LeverageScore, Nearest, NearestScore, Score, identity
from bayesmol.errors import ApplicabilityError, DataError, FormatError, ShapeError, expected

__all__ = ["CalibratedDomain", "Domain", "Verdict", "tolerance_rank"]

_SPECIFICATIONS = {"leverage": Leverage(), "knn": Nearest()}
_FITTED = {"leverage": LeverageScore, "knn": NearestScore}


@dataclass(frozen=True)
class Verdict:
    """What the domain says of each row: its score, its conformal p-value, and whether it is inside."""

    score: Float[Tensor, " rows"]
    p_value: Float[Tensor, " rows"]
    inside: Bool[Tensor, " rows"]


@dataclass(frozen=True)
class Domain:
    """Domain of applicability by a score ``features → (rows,)``, higher is stranger.

    ``Domain("knn").fit(training).calibrate(calibration).assess(new)``; a score that needs no fitting skips ``fit``.

    Attributes
    ----------
    score
        ``"identity"`` (the features are the scores), ``"leverage"``, ``"knn"``, a specification of these with its
        own settings, or any function of features.
    level
        Rate of false alarms: at most this fraction of rows like the calibration rows is called outside …
    confidence
        … with this probability over the draw of the calibration rows.
    """

    score: str | Leverage | Nearest | Score = "identity"
    level: float = 0.02
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name in ("level", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise DataError(expected(name, "a probability strictly between 0 and 1", getattr(self, name)))
        if isinstance(self.score, str) and self.score not in ("identity", *_SPECIFICATIONS):
            raise DataError(expected("score", ["identity", *_SPECIFICATIONS], self.score))

    def fit(self, features: Tensor) -> Domain:
        """The same domain with its score fitted to training features."""
        score = _SPECIFICATIONS.get(self.score, self.score) if isinstance(self.score, str) else self.score
        return replace(self, score=score.fit(features)) if isinstance(score, (Leverage, Nearest)) else self

    def calibrate(self, features: Tensor) -> CalibratedDomain:
        """Domain with its threshold, from features of rows that neither model nor score has seen.

        Raises
        ------
        ApplicabilityError
            If the score is not fitted yet, or there are too few rows for the level at the confidence.
        DataError
            If a calibration score is not finite.
        """
        score = identity if self.score == "identity" else self.score
        if isinstance(score, (str, Leverage, Nearest)):
            raise ApplicabilityError(expected("score", "a fitted score", score, "call fit(training features) first"))
        scores = _scores(score, features)
        if not bool(torch.isfinite(scores).all()):
            raise DataError(expected("features", "calibration rows with finite scores", "infinity", "remove them"))
        tolerance_rank(len(scores), self.level, self.confidence)
        return CalibratedDomain(score, scores.sort().values, self.level, self.confidence)


@dataclass(frozen=True, eq=False)
class CalibratedDomain:
    """Fitted domain; ``scores`` are those of the calibration rows, ascending."""

    score: Score
    scores: Float[Tensor, " calibration"]
    level: float
    confidence: float

    @property
    def threshold(self) -> float:
        """Largest score inside: the calibration score of :func:`tolerance_rank` from above."""
        return float(self.scores[-tolerance_rank(len(self.scores), self.level, self.confidence)])

    @property
    def guarantee(self) -> str:
        """The sentence that holds for ``inside``."""
        return (
            f"with probability {self.confidence:g} over the draw of the {len(self.scores)} calibration rows, at most "
            f"{100 * self.level:g} % of rows from their distribution are called outside; "
            "a p-value is ≤ p for at most a fraction p of rows exchangeable with them"
        )

    def assess(self, features: Tensor) -> Verdict:
        r"""Verdict on each row, with the conformal p-value :math:`p = (1 + \#\{i : s_i \ge s\})/(n + 1)`.

        A score of infinity (a hard physical guard) is always outside.

        Raises
        ------
        DataError
            If a score is NaN.
        """
        score = _scores(self.score, features)
        below = torch.searchsorted(self.scores.to(score.device), score, right=False)
        p_value = (1.0 + len(self.scores) - below.double()) / (len(self.scores) + 1)
        return Verdict(score, p_value, score <= self.threshold)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header (JSON) and arrays that :meth:`from_state` reads back; a function as score is left out."""
        name = "identity" if self.score is identity else "function"
        name = next((known for known, kind in _FITTED.items() if isinstance(self.score, kind)), name)
        header = {"score": name, "level": self.level, "confidence": self.confidence}
        fitted = {f"score.{key}": value for key, value in vars(self.score).items()} if name in _FITTED else {}
        return header, {"scores": self.scores, **fitted}

    @classmethod
    def from_state(
        cls, header: dict[str, Any], arrays: dict[str, Tensor], score: Score | None = None
    ) -> CalibratedDomain:
        """Domain from :meth:`state`; ``score`` is needed if the score was a function.

        Raises
        ------
        FormatError
            If a part is missing.
        """
        name = header.get("score")
        if not {"score", "level", "confidence"} <= set(header) or "scores" not in arrays:
            raise FormatError(expected("state", "score, level, confidence and scores", [*header, *arrays]))
        if name in _FITTED:
            parts = {key.removeprefix("score."): value for key, value in arrays.items() if key.startswith("score.")}
            score = _FITTED[name](**parts)
        elif name == "identity":
            score = identity
        if score is None:
            raise FormatError(expected("score", "the function that scored the rows", name, "give it as score="))
        return cls(score, arrays["scores"], header["level"], header["confidence"])


def tolerance_rank(count: int, level: float, confidence: float) -> int:
    r"""Rank k from above of the calibration score that is the threshold: an exact tolerance limit.

    New scores exceed the k-th largest of n with a probability that is :math:`\mathrm{Beta}(k, n + 1 - k)` over the
    draw of the calibration rows; k is the largest whose quantile at ``confidence`` is at most ``level``.

    Raises
    ------
    ApplicabilityError
        If there is none: :math:`n < \ln(1 - \mathrm{confidence}) / \ln(1 - \mathrm{level})`.

    References
    ----------
    Wilks, Ann. Math. Stat. 12, 91 (1941); Bates et al., Ann. Stat. 51, 149 (2023).
    """
    rank = bisect.bisect_right(
        range(1, count + 1), level, key=lambda k: float(betaincinv(k, count + 1 - k, confidence))
    )
    if rank == 0:
        needed = math.ceil(math.log1p(-confidence) / math.log1p(-level) - 1e-9)
        aim = f"at least {needed} rows for level {level:g} at confidence {confidence:g}"
        raise ApplicabilityError(expected("features", aim, count, "calibrate on more rows or raise the level"))
    return rank


def _scores(score: Score, features: Tensor) -> Tensor:
    scores = score(features)
    if scores.ndim != 1 or len(scores) != len(features):
        raise ShapeError(expected("score", f"one number a row, shape ({len(features)},)", tuple(scores.shape)))
    if bool(scores.isnan().any()):
        raise DataError(expected("features", "rows with a score", "NaN scores", "look for NaN in the features"))
    return scores.double()
