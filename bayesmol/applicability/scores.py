"""The contract of a score of strangeness, and the scores that have a name.

A score maps features, one row a configuration, to one number a row that is higher the less the training features
support it. A specification is a frozen dataclass with ``fit(features) -> score``. Any function of features is a score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.applicability.density import KernelDensity, KernelDensityScore
from bayesmol.applicability.linear import Leverage, LeverageScore, Mahalanobis, MahalanobisScore
from bayesmol.applicability.local_distance import LocalDistance, LocalDistanceScore
from bayesmol.applicability.maxvol import MaxVol, MaxVolScore
from bayesmol.applicability.nearest import Nearest, NearestScore
from bayesmol.errors import DataError, ShapeError, expected

__all__ = [
    "FITTED",
    "SPECIFICATIONS",
    "Score",
    "Specification",
    "check_score",
    "identity",
]

Score = Callable[[Any], Tensor]  # of features: rows, or those of atoms


@runtime_checkable
class Specification(Protocol):
    """Settings of a score that is fitted to training features."""

    def fit(self, features: Tensor) -> Score:
        """Score from training features, one row a configuration."""
        ...


SPECIFICATIONS: dict[str, Specification] = {
    "leverage": Leverage(),
    "mahalanobis": Mahalanobis(),
    "knn": Nearest(),
    "local": LocalDistance(),
    "kde": KernelDensity(),
    "maxvol": MaxVol(),
}
# Fitted scores that hold tensors and nothing else: ``FITTED[name](**vars(score))`` is the same score.
FITTED: dict[str, type] = {
    "leverage": LeverageScore,
    "mahalanobis": MahalanobisScore,
    "knn": NearestScore,
    "local": LocalDistanceScore,
    "kde": KernelDensityScore,
    "maxvol": MaxVolScore,
}


def identity(features: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """The features themselves: for models that bring their own score, one number a row."""
    if features.ndim != 1:
        raise ShapeError(expected("features", "one score a row, shape (rows,)", tuple(features.shape)))
    return features


def check_score(score: Score | Specification, features: Tensor, *, rtol: float = 1e-6) -> None:
    """Assert the contract of a score, or of a specification that is fitted to ``features`` first.

    One finite number a row on the device and in the precision of the features; the same again, and from the same fit
    again, but for the rounding of linear algebra; each row scored by itself, whatever its place and company; features
    left as they were; a NaN never scored as if it were a number; and a fitted score of tensors only, which a file can
    hold, is the same bit by bit when it is rebuilt from them.

    Parameters
    ----------
    features
        At least four rows on which the score must be finite, such as training rows; of any shape after the first axis.

    Raises
    ------
    AssertionError
        With the broken rule.
    """
    before = features.clone()
    fitted = score.fit(features) if isinstance(score, Specification) else score
    values = fitted(features)
    assert torch.equal(before, features), "a score must leave the features as they were"
    assert tuple(values.shape) == (len(features),), f"one number a row, got shape {tuple(values.shape)}"
    assert (values.dtype, values.device) == (features.dtype, features.device), "precision and device must be kept"
    assert bool(torch.isfinite(values).all()), "scores of rows like the training rows must be finite"
    scale = float(values.abs().max())
    same = partial(torch.allclose, rtol=rtol, atol=rtol * scale)
    assert same(fitted(features), values), "the same rows must have the same scores"
    for law, order in _arrangements(len(features)).items():
        got = torch.cat([fitted(features[part.to(features.device)]) for part in order])
        want = values[torch.cat(order).to(values.device)]
        assert same(got, want), law
    _check_missing(fitted, features)
    if isinstance(score, Specification):
        assert same(score.fit(features)(features), values), "the same fit must give the same scores"
    _check_arrays(fitted, features, values)


def _arrangements(count: int) -> dict[str, list[Tensor]]:
    order = torch.arange(count)
    return {
        "a score must follow its row to another place": [order.flip(0).roll(1)],
        "a score must not depend on the rows scored with it": [order[:1], order[1 : count // 2], order[count // 2 :]],
    }


def _check_missing(fitted: Score, features: Tensor) -> None:
    broken = features.clone()
    broken[1].fill_(float("nan"))
    try:
        values = fitted(broken)
    except DataError:
        return
    assert bool(values[1].isnan()), "a row of NaN must raise DataError or score NaN"


def _check_arrays(fitted: Score, features: Tensor, values: Tensor) -> None:
    if type(fitted) in FITTED.values():
        assert is_dataclass(fitted) and {field.name for field in fields(fitted)} == set(vars(fitted)), "only fields"
        assert all(isinstance(part, Tensor) for part in vars(fitted).values()), "a score for files holds tensors only"
        again = type(fitted)(**{name: part.clone() for name, part in vars(fitted).items()})
        assert torch.equal(values, again(features)), "a score must survive its arrays bit by bit"
