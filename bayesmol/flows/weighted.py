"""Draws of a Boltzmann density: weighted draws of a proposal, with the verdict on whether they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import ShapeError, expected
from bayesmol.flows.weighted_estimate import Untrusted, influenced
from bayesmol.inference.importance import EffectiveSize, effective_size, k_hat_limit, smoothed_weights
from bayesmol.inference.profiles import FreeEnergyProfile, free_energy_profile
from bayesmol.posterior import Draws, Estimate

__all__ = ["BoltzmannDraws", "Judgement", "tail_index"]

K_HAT_GREEN = 0.3  # above, intervals cover less than they say: experiments/boltzmann_coverage.py
EFFECTIVE_GREEN, EFFECTIVE_RED = 200.0, 25.0
_ALIKE, _SPREAD, _ROUNDING = 10, 1.5, 1e-9

_SENTENCES = {
    "green": (
        "asymptotic in the number of draws, corrected for skewness and heavy tails; given that the proposal misses no "
        "region of the density, for which the trust report found no sign"
    ),
    "amber": "approximate: the interval may be too short, because {reasons}",
    "": "asymptotic in the number of draws, if the proposal misses no region of the density: it was not diagnosed",
}


def tail_index(log_weights: Float[Tensor, " draws"]) -> float:
    r"""K-hat of the weights; −∞ if the largest are alike, or all are but for rounding.

    A mode that the proposal starves by a factor has weights of one size, which a fit takes for a heavy tail. Of the
    weights above the threshold of the fit the largest is beyond it by at least :math:`(U_{10} / U_1)^k` times as much
    as the tenth, with :math:`U_1 / U_{10}` distributed as Beta(1, 9). Below 1.5 it is no tail: to one with k = 0.5 that
    happens at most once in 200 times, with k = 0.7 once in 1600.
    """
    weights = log_weights.double().sub(log_weights.max()).exp()
    count = min(len(weights) // 5, math.ceil(3 * math.sqrt(len(weights))))  # as ArviZ
    if count > _ALIKE and len(weights) >= 25:
        largest = weights.topk(count + 1).values
        beyond = largest - largest[-1]
        if float(beyond[0]) < max(_ROUNDING, _SPREAD * float(beyond[_ALIKE - 1])):
            return -math.inf
    return smoothed_weights(log_weights).pareto_k


class Judgement(Protocol):
    """What is asked of a trust report."""

    @property
    def verdict(self) -> str: ...

    @property
    def reasons(self) -> tuple[str, ...]: ...


class BoltzmannDraws(Draws):
    r"""Independent draws of a proposal with their importance weights :math:`w = e^{-u(x)} / q(x)`.

    Numbers come with an interval only where it is earned: if the report on the proposal is red, or the tail of these
    weights is too heavy, every estimate is an :class:`~bayesmol.flows.weighted_estimate.Untrusted` one.

    Parameters
    ----------
    values
        Axes ``(1, draw, *event)``, in ``unit``.
    log_weights
        :math:`-u(x) - \ln q(x)`, axes ``(1, draw)``; −∞ where the density is zero.
    report
        Trust report of the proposal; ``None`` if it was not diagnosed.
    """

    _log_weights: Tensor

    def __init__(
        self,
        values: Float[Tensor, "1 draw *event"],
        log_weights: Float[Tensor, "1 draw"],
        *,
        unit: str,
        report: Judgement | None = None,
    ) -> None:
        super().__init__(values, log_weights, unit=unit)
        if len(values) != 1:
            raise ShapeError(expected("values", "one chain of independent draws", f"{len(values)} chains"))
        self.report = report

    @cached_property
    def effective(self) -> EffectiveSize:
        """Kish's effective number of the weights."""
        return effective_size(self._flat)

    @cached_property
    def k_hat(self) -> float:
        """Tail index of the weights."""
        return tail_index(self._flat)

    @cached_property
    def verdict(self) -> tuple[str, tuple[str, ...]]:
        """``"green"``, ``"amber"``, ``"red"``, or ``""`` without a report; and why, if it is not green."""
        level, reasons = ("", ()) if self.report is None else (self.report.verdict, tuple(self.report.reasons))
        limit, effective = k_hat_limit(len(self._flat)), self.effective.effective
        if self.k_hat > limit or effective < EFFECTIVE_RED:
            tail = (
                f"k-hat {self.k_hat:.2f} > {limit:.2f}"
                if self.k_hat > limit
                else f"only {effective:.0f} effective draws"
            )
            return "red", (*reasons, tail)
        if self.k_hat > K_HAT_GREEN or effective < EFFECTIVE_GREEN:
            tail = (
                f"k-hat {self.k_hat:.2f} > {K_HAT_GREEN}"
                if self.k_hat > K_HAT_GREEN
                else f"{effective:.0f} effective draws"
            )
            return ("red" if level == "red" else "amber"), (*reasons, tail)
        return level, reasons

    def expectation(self, observable: Callable[[Tensor], Tensor] | None = None, unit: str = "") -> Estimate:
        r"""Mean at the Boltzmann density, with the error of self-normalised importance sampling.

        The influence of a draw is :math:`z_i = n W_i (f(x_i) - \hat\mu)`. With an ``observable`` f, the mean of its
        values, in ``unit``; it takes and returns a batch of draws.
        """
        if observable is not None:
            return self.apply(observable, unit).expectation()
        mean, values = self.mean, self._values[0]
        weights = self._shares.reshape(-1, *(1 for _ in self.shape)).to(values)
        return self._estimate(mean, len(values) * weights * (values - mean), self.unit)

    @property
    def log_partition(self) -> Estimate:
        r"""Logarithm of the partition function, :math:`\ln \frac1n \sum_i w_i`, with :math:`z_i = n W_i - 1`."""
        value = self._flat.logsumexp(0) - math.log(len(self._flat))
        return self._estimate(value, len(self._flat) * self._shares - 1, "")

    def populations(self, states: Callable[[Tensor], Tensor], count: int | None = None) -> Estimate:
        """Probability of each state.

        Parameters
        ----------
        states
            Label of the state (0, 1, …) of each configuration, given as a row; a negative one is no state.
        count
            Number of states; by default as many as are found.
        """
        shares, influence = self._indicators(self._labels(states), count)
        return self._estimate(shares, influence, "")

    def free_energy_difference(self, first: int, second: int, states: Callable[[Tensor], Tensor]) -> Estimate:
        r"""Free energy of the second state minus that of the first, :math:`-\ln(P_B / P_A)`, in units of kT.

        The influence is :math:`z_i = n W_i (1_A / P_A - 1_B / P_B)`.
        """
        shares, influence = self._indicators(self._labels(states), max(first, second) + 1)
        pair = torch.tensor([first, second], device=shares.device)
        share, change = shares[pair], influence[:, pair]
        if bool((share <= 0).any()):
            empty = f"no draw in state {first if share[0] <= 0 else second}"
            return Untrusted.like(share[0], "", "; ".join((empty, *self.verdict[1])))
        change = change[:, 0] / share[0] - change[:, 1] / share[1]
        return self._estimate((share[0] / share[1]).log(), change, "")

    def profile(
        self,
        variable: Callable[[Tensor], Tensor],
        *,
        bins: int = 50,
        span: tuple[float, float] | None = None,
        periodic: bool = False,
    ) -> FreeEnergyProfile:
        """Free energy along a variable of the configurations, which are given as rows, in units of kT; NaN if the draws
        cannot be trusted. See :func:`~bayesmol.inference.profiles.free_energy_profile`."""
        values = self._of_rows(variable)
        found = free_energy_profile(values, self._flat, bins=bins, span=span, periodic=periodic)
        level, reasons = self.verdict
        if level != "red":
            return found
        untrusted = Untrusted.like(found.free_energy.value, "", "; ".join(reasons))
        return replace(found, free_energy=untrusted, covariance=torch.zeros_like(found.covariance))

    def __getitem__(self, index: int | slice | Tensor) -> BoltzmannDraws:
        return self._derived(super().__getitem__(index))

    def _mapped(self, function: Callable[[Tensor], Tensor], unit: str) -> BoltzmannDraws:
        return self._derived(super()._mapped(function, unit))

    def _derived(self, draws: Draws) -> BoltzmannDraws:
        other = BoltzmannDraws(draws.values, self._log_weights, unit=draws.unit, report=self.report)
        other._rule = draws.rule
        for name in ("k_hat", "effective", "verdict"):  # of the weights alone, which are the same
            other.__dict__[name] = getattr(self, name)
        return other

    @property
    def _flat(self) -> Float[Tensor, " draw"]:
        return self._log_weights[0].double()

    @cached_property
    def _shares(self) -> Float[Tensor, " draw"]:
        return self._flat.softmax(0)

    def _of_rows(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        result = function(self._values[0].flatten(1))
        if result.shape != self._shares.shape:
            raise ShapeError(expected("function", f"one number for each of {len(self._shares)} rows", result.shape))
        return result

    def _labels(self, states: Callable[[Tensor], Tensor]) -> Int[Tensor, " draw"]:
        return self._of_rows(states).long()

    def _indicators(self, labels: Tensor, count: int | None) -> tuple[Tensor, Tensor]:
        """Weighted shares of labels and the influence of each draw on them."""
        count = int(labels.max()) + 1 if count is None else count
        inside = (labels.unsqueeze(1) == torch.arange(count, device=labels.device)).double()
        shares = self._shares @ inside
        return shares, len(labels) * self._shares.unsqueeze(1) * (inside - shares)

    def _estimate(self, value: Tensor, influence: Tensor, unit: str) -> Estimate:
        level, reasons = self.verdict
        text = "; ".join(reasons)
        if level == "red":
            return Untrusted.like(value, unit, text)
        effective = value.new_tensor(self.effective.effective)
        return influenced(value, influence, effective, unit, _SENTENCES[level].format(reasons=text))
