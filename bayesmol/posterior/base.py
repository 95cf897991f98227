"""Posterior: a random array with a unit, the result of every model of the package."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior.interval import Interval, checked_level

if TYPE_CHECKING:
    from bayesmol.posterior.draws import Draws

__all__ = ["IntervalRule", "Posterior"]


@runtime_checkable
class IntervalRule(Protocol):
    """How intervals are made when not by quantiles, for example by conformal calibration.

    A rule sees nothing but the posterior that it is given, so it also holds for a slice of that posterior.
    """

    def interval(self, posterior: Posterior, level: float) -> Interval:
        """Interval of ``posterior`` at ``level``."""
        ...


class Posterior(ABC):
    """A random array of ``shape`` with a ``unit``.

    A family defines the mean, the variance, samples, and the marginal distribution of each entry (``_cdf``,
    ``_quantile``, and ``_log_prob`` where a density exists); everything else is derived here, once.
    """

    def __init__(self, *, unit: str, rule: IntervalRule | None = None) -> None:
        self._unit, self._rule = unit, rule

    @property
    def unit(self) -> str:
        """Unit of the mean; the variance carries its square."""
        return self._unit

    @property
    def rule(self) -> IntervalRule | None:
        """Rule that makes the intervals; ``None`` for quantiles."""
        return self._rule

    @property
    @abstractmethod
    def mean(self) -> Float[Tensor, "*shape"]:
        """Expectation, in ``unit``."""

    @property
    @abstractmethod
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of each entry, in ``unit`` squared."""

    @property
    def shape(self) -> torch.Size:
        """Shape of one draw."""
        return self.mean.shape

    @property
    def stddev(self) -> Float[Tensor, "*shape"]:
        """Standard deviation of each entry, in ``unit``."""
        return self.variance.sqrt()

    @property
    def epistemic(self) -> Posterior | None:
        """What more data would narrow: the distribution of the mean of a label; ``None`` if not known apart."""
        return None

    @property
    def aleatoric(self) -> Posterior | None:
        """What no data narrow: the noise of a label about its mean, centred; ``None`` if not known apart."""
        return None

    @abstractmethod
    def sample(self, size: int, *, seed: int | torch.Generator) -> Float[Tensor, " size *shape"]:
        """``size`` joint draws, in ``unit``."""

    @abstractmethod
    def __getitem__(self, index: int | slice | Tensor) -> Posterior:
        """Posterior of the entries that ``index`` selects along the first axis."""

    @abstractmethod
    def _cdf(self, value: Tensor) -> Tensor: ...

    @abstractmethod
    def _quantile(self, p: float) -> Tensor: ...

    def _log_prob(self, value: Tensor) -> Tensor:
        raise DataError(expected("posterior", "one with a density", type(self).__name__, "use cdf or quantile"))

    def quantile(self, p: float | Float[Tensor, "*levels"]) -> Float[Tensor, "*levels_shape"]:
        """Value of each entry that is exceeded with probability ``1 − p``, in ``unit``.

        A tensor of probabilities gives its shape in front of ``shape``.
        """
        levels = torch.as_tensor(p, dtype=torch.float64)
        values = [self._quantile(checked_level(level)) for level in levels.flatten().tolist()]
        return torch.stack(values).reshape((*levels.shape, *self.shape))

    def cdf(self, value: float | Float[Tensor, "*sample_shape"]) -> Float[Tensor, "*sample_shape"]:
        """Probability that each entry is at most ``value``; leading axes of ``value`` are kept."""
        return self._cdf(self._checked(value))

    def log_prob(self, value: float | Float[Tensor, "*sample_shape"]) -> Float[Tensor, "*sample_shape"]:
        """Logarithm of the marginal density of each entry at ``value``, in nats with ``unit`` as the measure."""
        return self._log_prob(self._checked(value))

    def interval(self, level: float) -> Interval:
        """Interval of each entry at ``level``: by the rule if there is one, else between central quantiles."""
        checked_level(level)
        if self.rule is not None:
            return self.rule.interval(self, level)
        lower, upper = self._quantile((1 - level) / 2), self._quantile((1 + level) / 2)
        return Interval(lower, upper, level, self.unit, "exact if the model is true")

    def with_rule(self, rule: IntervalRule | None) -> Posterior:
        """The same posterior whose intervals ``rule`` makes."""
        other = copy.copy(self)
        other._rule = rule
        return other

    def apply(
        self, function: Callable[[Tensor], Tensor], unit: str, *, size: int = 1000, seed: int | torch.Generator = 0
    ) -> Draws:
        """Posterior of ``function`` of this array, by ``size`` joint draws (by the draws themselves if it is draws).

        ``function`` maps a tensor ``(size, *shape)`` to ``(size, *event)``; its result is in ``unit``.
        """
        return self._draws(size, seed)._mapped(function, unit)

    def to_arviz(self, name: str = "value", *, size: int = 1000, seed: int | torch.Generator = 0) -> Any:
        """ArviZ data with the variable ``name``: the draws themselves, or ``size`` joint draws in one chain.

        Raises
        ------
        DependencyError
            If ArviZ is not installed.
        """
        from bayesmol.posterior.arviz import to_arviz

        return to_arviz(self._draws(size, seed), name)

    def _draws(self, size: int, seed: int | torch.Generator) -> Draws:
        from bayesmol.posterior.draws import Draws

        return Draws(self.sample(size, seed=seed).unsqueeze(0), unit=self.unit)

    def _checked(self, value: float | Tensor) -> Tensor:
        """``value`` on the dtype and device of the mean, its last axes being ``shape``."""
        if not isinstance(value, Tensor):
            return torch.full_like(self.mean, float(value))
        if value.shape[value.ndim - len(self.shape) :] != self.shape or value.ndim < len(self.shape):
            raise ShapeError(expected("value", f"last axes {tuple(self.shape)}", f"shape {tuple(value.shape)}"))
        return value.to(self.mean)

    def __len__(self) -> int:
        return len(self.mean)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={tuple(self.shape)}, unit={self.unit!r})"
