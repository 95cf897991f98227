r"""Is the form of a model wrong, are its data few, or are they noisy? A linear model with a discrepancy.

.. math:: y = \phi(x) \cdot w + \delta(x) + \varepsilon, \qquad w \sim \mathcal N(0, \tau^2), \quad
          \delta \sim \mathcal{GP}\bigl(0,\, a^2 e^{-|x - x'|^2 / 2\ell^2}\bigr), \quad
          \varepsilon_i \sim \mathcal N(0, s^2 + \sigma_i^2)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.inference.conjugate import cholesky, log_evidence
from bayesmol.posterior import Gaussian

__all__ = ["FittedDiscrepancy", "ModelDiscrepancy", "VarianceParts"]

# Where the search of ln τ, ln a, ln ℓ, ln s begins and ends, all in units of the standard deviations of the data.
_STARTS: list[tuple[float, ...]] = [
    (0.0, amplitude, length, -1.5) for amplitude in (-0.5, -3.0) for length in (-1.5, 0.0, 1.5)
]
_NONE = -9.0  # ln a of a discrepancy that is none
_EARNED = 2.0  # nats that a discrepancy must add to the log-evidence
_BOUNDS = [(-7.0, 4.0), (_NONE, 2.0), (-4.0, 5.0), (-7.0, 2.0)]


@dataclass(frozen=True)
class ModelDiscrepancy:
    r"""Specification of a linear model with a discrepancy; the scales :math:`\tau, a, \ell, s` maximise the evidence.

    Features are taken in units of their standard deviations, columns of the design of their root mean squares, targets
    in units of theirs and, if the design has a constant column, about their mean. The noise is searched from a
    thousandth of the spread of the targets upwards. A discrepancy is left out if it raises the log-evidence by no more
    than 2 nats, one for each of its two scales.

    Attributes
    ----------
    unit
        Unit of the targets.

    References
    ----------
    Kennedy and O'Hagan, J. R. Stat. Soc. B 63, 425 (2001).
    """

    unit: str = ""

    def fit(
        self,
        design: Float[Tensor, "rows weights"],
        targets: Float[Tensor, " rows"],
        features: Float[Tensor, "rows features"],
        *,
        errors: Float[Tensor, " rows"] | None = None,
    ) -> FittedDiscrepancy:
        r"""Learn the scales and the posterior of weights and discrepancy, in O(rows³).

        Parameters
        ----------
        design
            Columns of the parametric model, a constant among them if it has one; none for residuals of another model.
        features
            Coordinates in which the discrepancy is smooth.
        errors
            Known standard deviations :math:`\sigma_i` of the targets: standard errors of labels, or the predictive
            spread of the model whose residuals they are.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a number is not finite, or the targets or features do not vary.
        ConvergenceError
            If the search finds no maximum of the evidence.
        """
        _check(design, targets, features, errors)
        size, constant = targets.double().std(), bool(((design == design[:1]) & (design != 0)).all(0).any())
        units = _rms(design.double()), features.double().std(0), size
        columns, places = design.double() / units[0], features.double() / units[1]
        offset = targets.double().mean() if constant else size.new_zeros(())
        goal = (targets.double() - offset) / size
        known = torch.zeros_like(goal) if errors is None else (errors.double() / size).square()
        scales, gain = _learned(columns, places, goal, known)
        return FittedDiscrepancy(columns, places, goal, known, scales, gain, units, offset, self.unit)


@dataclass(frozen=True, eq=False)
class FittedDiscrepancy:
    """Fitted :class:`ModelDiscrepancy`.

    Attributes
    ----------
    design, features, targets, known
        Training data in units of their spread, and the known variances of the targets.
    scales
        Prior width of the weights, amplitude and length scale of the discrepancy, and noise, in the same units.
    evidence_gain
        Logarithm of the best evidence over that of the model without discrepancy, in nats: how clearly the data show
        that the form of the model is wrong.
    units
        Of the columns of the design, of the features, and of the targets.
    offset
        Mean of the targets, where the design has a constant; else zero.
    unit
        Unit of the targets in words.
    """

    design: Float[Tensor, "rows weights"]
    features: Float[Tensor, "rows features"]
    targets: Float[Tensor, " rows"]
    known: Float[Tensor, " rows"]
    scales: Float[Tensor, " scales"]
    evidence_gain: float
    units: tuple[Tensor, Tensor, Tensor]
    offset: Float[Tensor, ""]
    unit: str

    @property
    def noise(self) -> float:
        """Standard deviation s of the unknown noise, in the unit of the targets."""
        return float(self.scales[3] * self.units[2])

    @property
    def amplitude(self) -> float:
        """Prior standard deviation a of the discrepancy, in the unit of the targets."""
        return float(self.scales[1] * self.units[2])

    def predict(self, design: Float[Tensor, "new weights"], features: Float[Tensor, "new features"]) -> VarianceParts:
        r"""Predictive distribution of new labels and the parts of its variance.

        With :math:`C = K_\delta + \Sigma` of the training rows, :math:`k` of new to training rows and
        :math:`r = \phi - \Phi^\top C^{-1} k`,

        .. math:: \mathrm{var}(y) = \underbrace{r^\top (\Phi^\top C^{-1} \Phi + \tau^{-2})^{-1} r}_{\text{density}}
                  + \underbrace{a^2 - k^\top C^{-1} k}_{\text{discrepancy}} + \underbrace{s^2}_{\text{noise}}.

        Raises
        ------
        ShapeError
            If the columns are not those of the training.

        References
        ----------
        Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), equation 2.41.
        """
        for name, given, known in (("design", design, self.design), ("features", features, self.features)):
            if given.ndim != 2 or given.shape[1] != known.shape[1] or len(design) != len(features):
                raise ShapeError(expected(name, f"shape (rows, {known.shape[1]})", tuple(given.shape)))
        columns, places = design.double() / self.units[0], features.double() / self.units[1]
        prior, amplitude, length, noise = self.scales
        lower = cholesky(
            _kernel(self.features, self.features, amplitude, length) + torch.diag(noise.square() + self.known),
            "covariance of the discrepancy and the noise",
        )
        across = torch.linalg.solve_triangular(lower, _kernel(self.features, places, amplitude, length), upper=False)
        white = torch.linalg.solve_triangular(lower, torch.column_stack([self.design, self.targets]), upper=False)
        basis, goal = white[:, :-1], white[:, -1]
        precision = basis.mT @ basis + torch.eye(basis.shape[1]).to(basis) / prior.square()
        root = cholesky(precision, "precision of the weights")
        weights = torch.cholesky_solve((basis.mT @ goal).unsqueeze(1), root).squeeze(1)
        rest = columns.mT - basis.mT @ across
        density = torch.linalg.solve_triangular(root, rest, upper=False).square().sum(0)
        discrepancy = (amplitude.square() - across.square().sum(0)).clamp_min(0.0)
        mean = columns @ weights + across.mT @ (goal - basis @ weights)
        return self._parts(mean, density, discrepancy, noise.square().expand_as(mean))

    def _parts(self, mean: Tensor, density: Tensor, discrepancy: Tensor, noise: Tensor) -> VarianceParts:
        size = self.units[2]
        density, discrepancy, noise = (part * size.square() for part in (density, discrepancy, noise))
        epistemic = density + discrepancy
        total = Gaussian(self.offset + size * mean, epistemic + noise, unit=self.unit, epistemic_variance=epistemic)
        return VarianceParts(total, density, discrepancy, noise)


@dataclass(frozen=True, eq=False)
class VarianceParts:
    """Predictive distribution of a label and the three parts of its variance, in the square of its unit.

    By the law of total variance over the weights: the discrepancy would stay if the weights were known.

    Attributes
    ----------
    total
        Of a new label with noise of the learned size.
    density
        The weights are not known, because data are few or leave them open.
    discrepancy
        The form of the model is wrong, and no data near tell by how much.
    noise
        What neither data nor a better model narrow.
    """

    total: Gaussian
    density: Float[Tensor, " rows"]
    discrepancy: Float[Tensor, " rows"]
    noise: Float[Tensor, " rows"]

    @property
    def share(self) -> Float[Tensor, " rows"]:
        """Part of the discrepancy in the epistemic variance."""
        return self.discrepancy / (self.density + self.discrepancy)


def _learned(
    design: Tensor, features: Tensor, targets: Tensor, known: Tensor
) -> tuple[Float[Tensor, " scales"], float]:
    """Scales of the largest evidence found from all starts, and its gain over no discrepancy."""
    from scipy.optimize import minimize

    linear, distance = design @ design.mT, torch.cdist(features, features).square()

    def loss(values: list[float]) -> tuple[float, list[float]]:
        logs = torch.tensor(values, dtype=torch.float64, device=targets.device, requires_grad=True)
        prior, amplitude, length, noise = logs.exp()
        covariance = prior.square() * linear + amplitude.square() * (-0.5 * distance / length.square()).exp()
        value = -log_evidence(covariance + torch.diag(noise.square() + known), targets)
        return value.item(), torch.autograd.grad(value, logs)[0].tolist()

    def best(starts: list[tuple[float, ...]], bounds: list[tuple[float, float]]) -> Any:
        found = [minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds) for start in starts]
        return min(found, key=lambda result: result.fun)

    free = best(_STARTS, _BOUNDS)
    none = best([(0.0, _NONE, 0.0, -1.5)], [_BOUNDS[0], (_NONE, _NONE), (0.0, 0.0), _BOUNDS[3]])
    gain = max(float(none.fun - free.fun), 0.0)
    taken = free if gain > _EARNED else none
    if not (taken.success and math.isfinite(taken.fun)):
        raise ConvergenceError(expected("evidence", "a maximum", taken.message, "check the scale of the targets"))
    return torch.tensor(taken.x, dtype=torch.float64, device=targets.device).exp(), gain


def _kernel(one: Tensor, other: Tensor, amplitude: Tensor, length: Tensor) -> Tensor:
    return amplitude.square() * (-0.5 * torch.cdist(one, other).square() / length.square()).exp()


def _rms(design: Tensor) -> Float[Tensor, " weights"]:
    size = design.square().mean(0).sqrt()
    return torch.where(size > 0, size, 1.0)


def _check(design: Tensor, targets: Tensor, features: Tensor, errors: Tensor | None) -> None:
    shapes = {"design": design.shape[:1], "targets": targets.shape, "features": features.shape[:1]}
    shapes |= {} if errors is None else {"errors": errors.shape}
    if design.ndim != 2 or features.ndim != 2 or targets.ndim != 1 or len(set(shapes.values())) > 1:
        raise ShapeError(expected("design, targets, features", "as many rows in all, design and features 2-d", shapes))
    arrays = [array for array in (design, targets, features, errors) if array is not None]
    if len(targets) < 5 or not all(bool(torch.isfinite(array).all()) for array in arrays):
        raise DataError(expected("design, targets, features", "finite numbers in at least 5 rows", "others"))
    if errors is not None and bool((errors < 0).any()):
        raise DataError(expected("errors", "numbers ≥ 0", "a negative one"))
    if float(targets.double().std()) == 0 or not bool((features.double().std(0) > 0).all()):
        raise DataError(expected("targets, features", "numbers that vary in every column", "a constant"))
