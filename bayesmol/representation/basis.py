"""Basis functions for time series: what a frame is turned into before a linear model of its motion is fitted."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

__all__ = [
    "Basis",
    "Fourier",
    "Functions",
    "Identity",
    "Indicators",
    "Monomials",
    "checked_rows",
    "with_constant",
]


class Functions(Protocol):
    """Fitted basis: features (rows, features) to values (rows, functions).

    Attributes
    ----------
    functions
        Number of them.
    constant
        Whether the constant function is a combination of them.
    """

    @property
    def functions(self) -> int: ...

    @property
    def constant(self) -> bool: ...

    def __call__(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows functions"]: ...


class Basis(Protocol):
    """Specification of a basis; what it takes from the frames x, such as the points of a kernel, is fixed by fit."""

    def fit(self, x: Float[Tensor, "rows features"], *, seed: int | torch.Generator) -> Functions: ...


def checked_rows(x: Tensor, features: int | None = None) -> Tensor:
    """The same, if it is (rows, features) with so many features; else ShapeError."""
    if x.ndim != 2 or 0 in x.shape or (features is not None and x.shape[1] != features):
        wanted = "(rows, features), none empty" if features is None else f"(rows, {features})"
        raise ShapeError(expected("x", wanted, tuple(x.shape)))
    return x


def with_constant(values: Float[Tensor, "rows functions"]) -> Float[Tensor, "rows functions+1"]:
    """The values after a column of ones."""
    return torch.cat([torch.ones_like(values[:, :1]), values], 1)


@dataclass(frozen=True)
class Identity:
    """The features themselves; the constant function is not among them."""

    def fit(self, x: Float[Tensor, "rows features"], *, seed: int | torch.Generator = 0) -> _Features:
        """Remember how many features there are; nothing is random."""
        return _Features(checked_rows(x).shape[1])


@dataclass(frozen=True)
class _Features:
    functions: int
    constant: bool = False

    def __call__(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows features"]:
        return checked_rows(x, self.functions)


@dataclass(frozen=True)
class Monomials:
    r"""Products :math:`\prod_k z_k^{n_k}`, :math:`\sum_k n_k \le` ``degree``, the constant first.

    The features are shifted and scaled to mean 0 and variance 1 (a feature that does not vary is only shifted): the
    same span as of the raw monomials, with moments that can be inverted.

    Raises
    ------
    DataError
        If ``degree`` is less than one.
    """

    degree: int

    def __post_init__(self) -> None:
        if self.degree < 1:
            raise DataError(expected("degree", "at least 1", self.degree))

    def fit(self, x: Float[Tensor, "rows features"], *, seed: int | torch.Generator = 0) -> _Products:
        """Take mean and standard deviation of the features; nothing is random."""
        spread = checked_rows(x).std(0, correction=0)
        chosen = itertools.combinations_with_replacement(range(x.shape[1] + 1), self.degree)
        factors = torch.tensor(list(chosen), device=x.device)
        return _Products(x.mean(0), torch.where(spread > 0, spread, 1.0), factors)


@dataclass(frozen=True, eq=False)
class _Products:
    shift: Float[Tensor, " features"]
    scale: Float[Tensor, " features"]
    factors: Int[Tensor, "functions degree"]  # 0 is the constant, k the feature k − 1
    constant = True

    @property
    def functions(self) -> int:
        return len(self.factors)

    def __call__(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows functions"]:
        z = with_constant((checked_rows(x, len(self.shift)) - self.shift) / self.scale)
        values = z[:, self.factors[:, 0]]
        for column in self.factors.mT[1:]:
            values = values * z[:, column]
        return values


@dataclass(frozen=True)
class Fourier:
    r"""Cosine and sine :math:`\cos kx_j, \sin kx_j`, :math:`k = 1 \dots` ``order``, of angles such as torsions.

    Without the constant and without products of different angles. First all cosines of k = 1, then all sines.

    Raises
    ------
    DataError
        If ``order`` is less than one.
    """

    order: int = 1

    def __post_init__(self) -> None:
        if self.order < 1:
            raise DataError(expected("order", "at least 1", self.order))

    def fit(self, x: Float[Tensor, "rows features"], *, seed: int | torch.Generator = 0) -> _Waves:
        """Remember how many angles there are, in rad; nothing is random."""
        return _Waves(checked_rows(x).shape[1], self.order)


@dataclass(frozen=True)
class _Waves:
    angles: int
    order: int
    constant: bool = False

    @property
    def functions(self) -> int:
        return 2 * self.order * self.angles

    def __call__(self, x: Float[Tensor, "rows angles"]) -> Float[Tensor, "rows functions"]:
        checked_rows(x, self.angles)
        return torch.cat([f(k * x) for k in range(1, self.order + 1) for f in (torch.cos, torch.sin)], 1)


@dataclass(frozen=True, eq=False)
class Indicators:
    """One function for each cell of a partition: 1 inside, 0 elsewhere. Their sum is the constant function.

    Attributes
    ----------
    centres
        Cells are the frames nearest to each of these points (states, features).
    edges
        Or: cells are the intervals of one feature between these increasing numbers, and the two beyond them.

    Raises
    ------
    DataError, ShapeError
        If not one of both is given, or the edges do not increase.
    """

    centres: Float[Tensor, "states features"] | None = None
    edges: Float[Tensor, " edges"] | None = None

    def __post_init__(self) -> None:
        given = self._given()
        if self.edges is None:
            checked_rows(given)
        elif given.ndim != 1 or not bool((given.diff() > 0).all()):
            raise DataError(expected("edges", "increasing numbers", given))

    def fit(self, x: Float[Tensor, "rows features"], *, seed: int | torch.Generator = 0) -> _Cells:
        """Check that the frames have the features of the partition; nothing is random."""
        given = self._given().to(x)
        checked_rows(x, 1 if self.edges is not None else given.shape[1])
        return _Intervals(given) if self.edges is not None else _Nearest(given)

    def _given(self) -> Tensor:
        """The centres or the edges."""
        given = [part for part in (self.centres, self.edges) if part is not None]
        if len(given) != 1:
            raise DataError(expected("centres, edges", "one of both", "none or two"))
        return given[0]


class _Cells(ABC):
    constant = True

    @property
    @abstractmethod
    def functions(self) -> int: ...

    @abstractmethod
    def states(self, x: Float[Tensor, "rows features"]) -> Int[Tensor, " rows"]:
        """Index of the cell of each frame."""

    def __call__(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows functions"]:
        return torch.nn.functional.one_hot(self.states(x), self.functions).to(x)


@dataclass(frozen=True, eq=False)
class _Nearest(_Cells):
    centres: Float[Tensor, "states features"]

    @property
    def functions(self) -> int:
        return len(self.centres)

    def states(self, x: Float[Tensor, "rows features"]) -> Int[Tensor, " rows"]:
        """Number of the nearest centre of each frame."""
        return torch.cdist(checked_rows(x, self.centres.shape[1]), self.centres).argmin(1)


@dataclass(frozen=True, eq=False)
class _Intervals(_Cells):
    edges: Float[Tensor, " edges"]

    @property
    def functions(self) -> int:
        return len(self.edges) + 1

    def states(self, x: Float[Tensor, "rows features"]) -> Int[Tensor, " rows"]:
        """Number of the interval of each frame; on an edge, the one above."""
        return torch.bucketize(checked_rows(x, 1)[:, 0].contiguous(), self.edges, right=True)
