"""Energy: the mean of local energies with an error that has been judged, or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.checks import Check, worst
from bayesmol.posterior import Draws, Estimate, Interval
from bayesmol.posterior.interval import checked_level
from bayesmol.units import convert, squared
from bayesmol.wavefunctions.energy_errors import (
    Clipped,
    ErrorEstimates,
    KineticGap,
    clipped,
    error_estimates,
    kinetic_gap,
)
from bayesmol.wavefunctions.energy_verdict import ORDER, EnergyVerdict, judged

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Energy"]


@dataclass(frozen=True, eq=False)
class Energy:
    r"""Energy expectation of a fixed wavefunction from walkers that sampled :math:`|\psi|^2`.

    Prints ``-8.0702(3) Ha`` if all checks pass, adds ``suspect: …`` if one is in doubt, and prints ``refused: …``
    without a number if the error cannot be known. Make it by :meth:`of`, from an evaluation at fixed parameters, never
    from the energies of a training.

    Attributes
    ----------
    local, kinetic_laplacian, kinetic_gradient, potential
        Local energies :math:`E_L`, the kinetic estimators :math:`T_P = -\frac14 \nabla^2 \ln|\psi|` and
        :math:`T_F = \frac12 |\nabla \ln|\psi||^2`, and the potential energy, in ``unit``; one row a walker.
    log_density
        :math:`\ln|\psi|^2` up to a constant; ``None`` if it was not kept.
    acceptance
        Share of proposed moves that were accepted.
    steps
        Moves between draws.
    """

    local: Float[Tensor, "walkers draws"]
    kinetic_laplacian: Float[Tensor, "walkers draws"]
    kinetic_gradient: Float[Tensor, "walkers draws"]
    potential: Float[Tensor, "walkers draws"]
    log_density: Float[Tensor, "walkers draws"] | None
    acceptance: float
    steps: int
    unit: str = "Ha"

    def __post_init__(self) -> None:
        shape = tuple(self.local.shape)
        if len(shape) != 2 or 0 in shape or shape[1] < 4:
            raise ShapeError(expected("local", "(walkers, draws), at least 4 draws", shape))
        for name in ("kinetic_laplacian", "kinetic_gradient", "potential", "log_density"):
            part = getattr(self, name)
            if part is not None and tuple(part.shape) != shape:
                raise ShapeError(expected(name, f"shape {shape} of the local energies", tuple(part.shape)))
        if self.steps < 1:
            raise DataError(expected("steps", "at least one move between draws", self.steps))

    @classmethod
    def of(
        cls,
        local: Any,
        kinetic_laplacian: Any,
        kinetic_gradient: Any,
        potential: Any,
        *,
        log_density: Any = None,
        acceptance: float,
        steps: int = 1,
    ) -> Energy:
        """From arrays of any library, in hartree, ``(walkers, draws)``; see the attributes."""
        total, laplacian, gradient, rest = map(_tensor, (local, kinetic_laplacian, kinetic_gradient, potential))
        density = None if log_density is None else _tensor(log_density)
        return cls(total, laplacian, gradient, rest, density, float(acceptance), int(steps))

    @property
    def draws(self) -> Draws:
        """Local energies as draws, walkers as chains; raises :class:`DataError` if one is not finite."""
        return Draws(self.local, unit=self.unit)

    @cached_property
    def errors(self) -> ErrorEstimates:
        """Standard error of the mean in three ways, in ``unit``; judged by nobody."""
        return error_estimates(self.local)

    @cached_property
    def estimate(self) -> Estimate:
        """Mean with the largest of the three standard errors; the error is infinite if the energy is refused."""
        mean = self.local.mean()
        if self.verdict == "refused":
            return Estimate(mean, torch.full_like(mean, math.inf), torch.zeros_like(mean), self.unit)
        # No mean is known better than its rounding, not that of an exact wavefunction either.
        error = max(self.errors.largest.value, 8 * torch.finfo(mean.dtype).eps * abs(float(mean)))
        return Estimate(mean, mean.new_tensor(error), mean.new_tensor(self.effective_sample_size), self.unit)

    @cached_property
    def variance(self) -> Estimate:
        r"""Variance of the local energy, zero for an eigenstate, in ``unit`` squared.

        At nodes its own error has no finite expectation (Trail, Phys. Rev. E 77, 016703 (2008)): take the standard
        error for an order of magnitude.
        """
        squares = (self.local - self.local.mean()).square()
        count = squares.numel()
        value = squares.sum() / (count - 1)
        error = error_estimates(squares).largest.value if bool(torch.isfinite(squares).all()) else math.inf
        effective = squares.new_tensor(self.effective_sample_size)
        return Estimate(value, value.new_tensor(error), effective, squared(self.unit))

    @cached_property
    def kinetic_gap(self) -> KineticGap:
        """Difference of the two kinetic estimators, zero within errors if Laplacian and sampling are right."""
        return kinetic_gap(self.kinetic_gradient, self.kinetic_laplacian, unit=self.unit)

    @cached_property
    def clipped(self) -> Clipped:
        """Robust mean and what the tails contribute to the plain one."""
        return clipped(self.local, unit=self.unit)

    @property
    def effective_sample_size(self) -> float:
        """Number of independent draws with the error of :attr:`estimate`, before it is judged."""
        error = self.errors.largest.value
        return float(self.local.var()) / error**2 if error > 0 else float(self.local.numel())

    @property
    def autocorrelation_time(self) -> float:
        """Integrated autocorrelation time of the local energy, in draws of ``steps`` moves: draws / ESS."""
        return self.local.numel() / self.effective_sample_size

    @cached_property
    def checks(self) -> tuple[Check[EnergyVerdict], ...]:
        """What was checked, with numbers, limits and sentences."""
        return judged(self)

    def __getitem__(self, name: str) -> Check[EnergyVerdict]:
        """The check of this name."""
        found = {check.name: check for check in self.checks}
        if name not in found:
            raise KeyError(expected("check", f"one of {sorted(found)}", name))
        return found[name]

    @property
    def r_hat(self) -> float:
        """Disagreement of the walkers in local energy and log-density."""
        return self["R-hat"].value

    @property
    def pareto_k(self) -> float:
        """Tail index of the distances of local energies from their median; 1/3 is sound, 1/2 is the limit."""
        return self["tail"].value

    @property
    def verdict(self) -> EnergyVerdict:
        """``"ok"``, ``"suspect"`` or ``"refused"``: the worst of the checks."""
        return worst(self.checks, ORDER)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is refused or suspect; the gravest first."""
        order = ("refused", "suspect")
        return tuple(check.sentence for level in order for check in self.checks if check.level == level)

    def interval(self, level: float) -> Interval:
        """Student's t interval of the energy of this wavefunction; infinite if it is refused."""
        return self._ends(level, (1 + checked_level(level)) / 2, upper_only=False)

    def bound(self, level: float) -> Interval:
        """The ground-state energy lies below the upper end with probability ``level``, by the variational principle."""
        return self._ends(level, checked_level(level), upper_only=True)

    def _ends(self, level: float, quantile: float, *, upper_only: bool) -> Interval:
        mean, infinite = self.local.mean(), self.local.new_tensor(math.inf)
        if self.verdict == "refused":
            return Interval(-infinite, infinite, level, self.unit, f"none: {'; '.join(self.reasons)}")
        freedom = self.errors.largest.degrees_of_freedom
        reach = float(stats.t.ppf(quantile, freedom)) * self.estimate.standard_error
        law = f"Student's t with {freedom:.0f} degrees of freedom"
        sentence = (
            f"one-sided: the exact ground-state energy lies below the energy of this wavefunction (variational "
            f"principle), whose sampling error has {law}"
            if upper_only
            else f"sampling error alone, {law}, at a fixed wavefunction; the exact ground-state energy lies at or "
            "below the energy that this interval covers (variational principle)"
        )
        doubt = f"; suspect: {'; '.join(self.reasons)}" if self.reasons else ""
        return Interval(-infinite if upper_only else mean - reach, mean + reach, level, self.unit, sentence + doubt)

    def to(self, unit: str) -> Energy:
        """The same energy in another unit, such as ``"eV"`` or ``"kcal/mol"``.

        Raises
        ------
        UnitError
            If ``unit`` is none of energy.
        """
        names = ("local", "kinetic_laplacian", "kinetic_gradient", "potential")
        return replace(self, **{name: convert(getattr(self, name), self.unit, unit) for name in names}, unit=unit)

    def table(self) -> Table:
        """The energy and all checks for a terminal."""
        from rich.table import Table

        table = Table(title=str(self), title_justify="left")
        for name in ("", "value", "limit", "verdict", ""):
            table.add_column(name)
        for check in self.checks:
            table.add_row(check.name, f"{check.value:.3g}", f"{check.limit:.3g}", check.level, check.sentence)
        return table

    def content(self) -> dict[str, Any]:
        """As plain values, for JSON; numbers that are not finite as ``None``."""
        numbers = {
            "energy": float(self.estimate.value),
            "standard_error": float(self.estimate.standard_error),
            "variance": float(self.variance.value),
            "effective_sample_size": self.effective_sample_size,
            "autocorrelation_time": self.autocorrelation_time,
            "acceptance": self.acceptance,
            **{check.name: check.value for check in self.checks},
        }
        plain = {name: number if math.isfinite(number) else None for name, number in numbers.items()}
        return {"unit": self.unit, "verdict": self.verdict, "reasons": list(self.reasons), **plain}

    def __rich__(self) -> Table:
        return self.table()

    def __str__(self) -> str:
        if self.verdict == "refused":
            return f"refused: {'; '.join(self.reasons)}"
        doubt = f" (suspect: {'; '.join(self.reasons)})" if self.reasons else ""
        return f"{self.estimate}{doubt}"


def _tensor(array: Any) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach().cpu().double()
    return torch.from_numpy(np.array(array, dtype=np.float64))
