"""Zero-variance extrapolation: the ground-state energy from energies and variances of several wavefunctions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Draws, Estimate, Interval
from bayesmol.posterior.interval import checked_level
from bayesmol.units import convert
from bayesmol.wavefunctions.energy import Energy

__all__ = ["Extrapolated", "ZeroVarianceExtrapolation"]

_DRAWS = 8192
_GRID, _SCATTERS = 64, 16


class _Points(NamedTuple):
    """Energies, in hartree above the lowest, variances, and their errors."""

    energy: Tensor
    energy_error: Tensor
    variance: Tensor
    variance_error: Tensor


@dataclass(frozen=True, eq=False)
class Extrapolated:
    r"""Posterior of the ground-state energy and of the slope of energy against variance.

    Attributes
    ----------
    energy, slope
        Of :math:`E_0` in Ha and of a in 1/Ha, draws; ``None`` if refused.
    energies, variances
        The points, in Ha and Ha².
    reason
        Why it is refused; empty if it is not.
    """

    energy: Draws | None
    slope: Draws | None
    energies: Estimate
    variances: Estimate
    reason: str = ""

    @property
    def verdict(self) -> str:
        """``"ok"`` or ``"refused"``."""
        return "refused" if self.reason else "ok"

    @property
    def guarantee(self) -> str:
        """The sentence that holds for an interval."""
        if self.reason:
            return f"none: {self.reason}"
        return (
            "credible if the model is true: the energy is close to linear in the variance, with the stated priors on "
            "slope, curvature and scatter, and all wavefunctions tend to the same ground state; no variational bound"
        )

    def interval(self, level: float) -> Interval:
        """Central credible interval of the ground-state energy; infinite if refused."""
        checked_level(level)
        if self.energy is None:
            infinite = self.energies.value.new_tensor(math.inf)
            return Interval(-infinite, infinite, level, "Ha", self.guarantee)
        found = self.energy.interval(level)
        return Interval(found.lower, found.upper, level, "Ha", self.guarantee)

    def __str__(self) -> str:
        if self.energy is None:
            return f"refused: {self.reason}"
        mean, stddev = self.energy.mean, self.energy.stddev
        number = Estimate(mean, stddev, torch.full_like(mean, len(self.energies.value)), "Ha")
        return f"{number} from {len(self.energies.value)} wavefunctions, extrapolated to variance zero"


@dataclass(frozen=True)
class ZeroVarianceExtrapolation:
    r"""Bayesian regression of energy on variance with errors in both and scatter between wavefunctions.

    .. math:: E_i = E_0 + a V_i \left(1 + q \frac{V_i}{V_{\max}} + \rho\, \xi_i\right), \qquad a > 0,

    because both :math:`E_i - E_0` and the variance :math:`V_i` vanish for an eigenstate: with weights
    :math:`p_n` of excited states, :math:`E - E_0 = \sum_n p_n \Delta_n` and :math:`V \approx \sum_n p_n \Delta_n^2`.
    So a is the reciprocal of an excitation energy; curvature q and scatter :math:`\rho` are relative and vanish with
    the variance too. Measured are :math:`E_i` and :math:`V_i` with normal errors.

    Only the wavefunction of lowest variance of each run is used. Along one optimisation errors of low excitation energy
    go first and a falls, so that a line through its snapshots is several times too steep: its intervals missed the
    exact energies of H2, Li and LiH, from below. One wavefunction alone leaves a to its prior, which holds the ratios
    :math:`(E - E_0) / V` of trained networks for He, H2, Li, Be, LiH, B, H4 and H10, 0.02 to 0.74 1/Ha. For more, take
    independent seeds or sizes of ansatz.

    Priors: :math:`E_0` flat; :math:`\ln a` normal, so that it lies below the energies but for their errors;
    :math:`q \sim N(0, \mathrm{curvature}^2)`; :math:`\rho` half-normal with the width ``scatter``;
    :math:`\xi_i \sim N(0, 1)`; :math:`V_i` flat. All but :math:`(a, \rho)` is integrated in closed form, these two on a
    grid.

    Attributes
    ----------
    slope
        Median of the prior of a, in 1/Ha.
    slope_spread
        Standard deviation of ln a.
    curvature, scatter
        Relative, see above.

    References
    ----------
    Kwon, Ceperley, Martin, Phys. Rev. B 58, 6800 (1998) (extrapolation in the variance).
    """

    slope: float = 0.12
    slope_spread: float = 1.1
    curvature: float = 0.2
    scatter: float = 0.2

    def __post_init__(self) -> None:
        for name in ("slope", "slope_spread", "scatter"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise DataError(expected(name, "a positive number", getattr(self, name)))
        if not self.curvature >= 0:
            raise DataError(expected("curvature", "a number ≥ 0", self.curvature))

    def of(self, energies: Sequence[Energy], *, runs: Int[Tensor, " points"] | None = None) -> Extrapolated:
        """Extrapolate evaluated energies, see :meth:`fit`; refused ones are left out."""
        usable = [i for i, energy in enumerate(energies) if energy.verdict != "refused"]
        if not usable:
            empty = torch.zeros(0, dtype=torch.float64)
            return _refused(Estimate(empty, empty, empty, "Ha"), Estimate(empty, empty, empty, "Ha²"), "no energy left")
        kept = [energies[i].to("Ha") for i in usable]
        pair = [_stacked([one.estimate for one in kept], "Ha"), _stacked([one.variance for one in kept], "Ha²")]
        return self.fit(*pair, runs=None if runs is None else runs[torch.tensor(usable)])

    def fit(
        self, energies: Estimate, variances: Estimate, *, runs: Int[Tensor, " points"] | None = None
    ) -> Extrapolated:
        """Posterior from one energy and one variance of the local energy for each wavefunction.

        Refused without any.

        Parameters
        ----------
        runs
            Number of the optimisation that each wavefunction comes from; all different if ``None``.

        Raises
        ------
        ShapeError, DataError
            If the numbers of points differ, an entry is not finite, or a variance is not positive.
        UnitError
            If units are not of an energy and of its square.
        """
        energies, variances = _converted(energies, "Ha"), _converted(variances, "Ha²")
        _check(energies, variances, runs)
        if not len(energies.value):
            return _refused(energies, variances, "no wavefunction")
        used = _best_of_each(variances.value, torch.arange(len(energies.value)) if runs is None else runs)
        lowest = energies.value.min()
        numbers = (energies.value - lowest, energies.standard_error, variances.value, variances.standard_error)
        points = _Points(*(part[used] for part in numbers))
        slope, where, width, weight = self._components(points)
        chosen, normal = _stratified(weight)
        draws = where[chosen] + width[chosen] * normal
        energy = Draws((draws + lowest).unsqueeze(0), unit="Ha")
        return Extrapolated(energy, Draws(slope[chosen].unsqueeze(0), unit=""), energies, variances)

    def _components(self, points: _Points) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Slope, conditional mean and width of the energy, and weight, at each node of the grid."""
        low = math.log(self.slope) - 6 * self.slope_spread
        high = math.log(self.slope) + 6 * self.slope_spread
        scatters = self.scatter * torch.logspace(-2, math.log10(4), _SCATTERS, dtype=torch.float64)
        for _ in range(3):  # each grid covers where the one before found the weight
            slopes = torch.linspace(low, high, _GRID, dtype=torch.float64).exp()
            parts = [self._conditional(points, slopes, float(rho)) for rho in scatters]
            where, width, log_weight = (torch.stack(rows, 1) for rows in zip(*parts, strict=True))
            held = (log_weight.amax(1) > log_weight.max() - 16).nonzero().squeeze(1)
            step = (high - low) / (_GRID - 1)
            high = math.log(float(slopes[held[-1]])) + step
            low = math.log(float(slopes[held[0]])) - step
        weight = log_weight.flatten().softmax(0)
        return slopes[:, None].expand(where.shape).flatten(), where.flatten(), width.flatten(), weight

    def _conditional(self, points: _Points, slopes: Tensor, rho: float) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and width of the energy given the slopes and one scatter, and the logarithm of the weight."""
        v, a = points.variance, slopes[:, None, None]
        bent = v.square() / v.max()
        apart = torch.diag(rho**2 * v.square() + points.variance_error.square())
        model = self.curvature**2 * bent[:, None] * bent + apart
        factor = torch.linalg.cholesky(a.square() * model + torch.diag(points.energy_error.square()))
        rest = points.energy - slopes[:, None] * v
        sides = torch.stack([torch.ones_like(rest), rest], 2)
        white = torch.linalg.solve_triangular(factor, sides, upper=False)
        ones, rests = white.unbind(2)
        precision = ones.square().sum(1)
        mean = (ones * rests).sum(1) / precision
        misfit = (rests - mean[:, None] * ones).square().sum(1)
        log_det = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
        # Densities on the grid of ln a and of ln ρ, whose nodes are at equal distances.
        prior = -(((slopes / self.slope).log() / self.slope_spread) ** 2) / 2
        prior = prior - (rho / self.scatter) ** 2 / 2 + math.log(rho)
        return mean, precision.rsqrt(), prior - (log_det + precision.log() + misfit) / 2


def _stratified(weight: Float[Tensor, " nodes"]) -> tuple[Int[Tensor, " draws"], Float[Tensor, " draws"]]:
    """Nodes in proportion to their weights, and normal numbers: a Hammersley set, the same at each call.

    References
    ----------
    Hammersley, Ann. N. Y. Acad. Sci. 86, 844 (1960).
    """
    order = torch.arange(_DRAWS)
    places = (order.double() + 0.5) / _DRAWS
    chosen = torch.searchsorted(weight.cumsum(0), places).clamp_max(len(weight) - 1)
    bits = int(math.log2(_DRAWS))
    mirrored = torch.stack([((order >> k) & 1) << (bits - 1 - k) for k in range(bits)]).sum(0)
    return chosen, torch.special.ndtri((mirrored.double() + 0.5) / _DRAWS)


def _best_of_each(variances: Float[Tensor, " points"], runs: Int[Tensor, " points"]) -> Int[Tensor, " runs"]:
    """The wavefunction of lowest variance of each run."""
    order = variances.argsort()
    first = {int(run): int(place) for run, place in zip(runs[order].flip(0), order.flip(0), strict=True)}
    return torch.tensor(sorted(first.values()))


def _refused(energies: Estimate, variances: Estimate, reason: str) -> Extrapolated:
    return Extrapolated(None, None, energies, variances, reason)


def _stacked(estimates: list[Estimate], unit: str) -> Estimate:
    names = ("value", "standard_error", "effective_sample_size")
    value, error, size = (torch.stack([getattr(one, name) for one in estimates]) for name in names)
    return Estimate(value, error, size, unit)


def _converted(estimate: Estimate, unit: str) -> Estimate:
    value, error = (convert(part.double(), estimate.unit, unit) for part in (estimate.value, estimate.standard_error))
    return Estimate(value, error, estimate.effective_sample_size, unit)


def _check(energies: Estimate, variances: Estimate, runs: Tensor | None) -> None:
    shape = tuple(energies.value.shape)
    if len(shape) != 1 or tuple(variances.value.shape) != shape:
        raise ShapeError(expected("variances", f"one for each energy, {shape}", tuple(variances.value.shape)))
    if runs is not None and tuple(runs.shape) != shape:
        raise ShapeError(expected("runs", f"one for each energy, {shape}", tuple(runs.shape)))
    for name, part in (("energies", energies), ("variances", variances)):
        if not bool((torch.isfinite(part.value) & torch.isfinite(part.standard_error)).all()):
            raise DataError(expected(name, "finite values and errors", "others", "leave out what was refused"))
    if not bool((variances.value > 0).all() & (energies.standard_error > 0).all()):
        raise DataError(expected("variances", "positive variances and errors of energies", "others"))
