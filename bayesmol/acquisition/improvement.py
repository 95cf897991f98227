"""Value of measuring a candidate when the lowest or the highest is sought: improvement, optimism, Thompson draws.

Every function takes the posterior of the candidates' outputs and ranks them: higher is better to measure. Where the
posterior knows its epistemic part, that alone counts: the noise of a label is no promise.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Estimate, Gaussian, Posterior
from bayesmol.units import convert

__all__ = [
    "Goal",
    "expected_improvement",
    "log_expected_improvement",
    "optimistic_value",
    "probability_of_improvement",
    "reducible",
    "thompson",
]

Goal = Literal["minimise", "maximise"]
Best = float | Tensor | Estimate
_FAR = 200.0  # standard deviations, beyond which the asymptotic series is exact to 1e-11


def expected_improvement(
    posterior: Posterior, best: Best, *, goal: Goal, size: int = 4000, seed: int | torch.Generator = 0
) -> Float[Tensor, "*shape"]:
    r"""Mean amount by which each output betters the best one known, in the unit of the posterior.

    .. math:: \mathrm{EI} = \mathrm E \max(0, f^* - f) = \sigma\,[z\, \Phi(z) + \varphi(z)], \qquad
              z = (f^* - \mu)/\sigma

    when minimising a Gaussian; of any other posterior the mean over joint draws.

    Parameters
    ----------
    best
        Best output known, :math:`f^*`; with noisy labels the best posterior mean at measured candidates, because the
        best label is partly luck. A number in the unit of the posterior, or an
        :class:`~bayesmol.posterior.Estimate`, whose unit is converted.
    goal
        ``"minimise"`` or ``"maximise"``.
    size
        Draws of a posterior that is no Gaussian and no draws itself.

    Raises
    ------
    UnitError
        If the unit of ``best`` measures something else.

    References
    ----------
    Jones, Schonlau, Welch, J. Glob. Optim. 13, 455 (1998).
    """
    known, sign = reducible(posterior), _sign(goal)
    threshold = _threshold(best, known)
    if not isinstance(known, Gaussian):
        return known.apply(lambda y: (sign * (y - threshold)).clamp_min(0.0), known.unit, size=size, seed=seed).mean
    gain, sigma = sign * (known.mean - threshold), known.stddev
    certain = sigma == 0
    z = gain / sigma.masked_fill(certain, 1.0)
    value = sigma * _log_gain(z).exp()
    return torch.where(certain, gain.clamp_min(0.0), value)


def log_expected_improvement(posterior: Posterior, best: Best, *, goal: Goal) -> Float[Tensor, "*shape"]:
    r"""Logarithm of the expected improvement of a Gaussian, finite where the improvement itself underflows.

    The improvement is in the unit of the posterior; −∞ where an output is certain and no better.

    Raises
    ------
    DataError
        If the posterior is no Gaussian: draws say nothing about an improvement that none of them brings.

    References
    ----------
    Ament, Daulton, Eriksson, Balandat, Bakshy, NeurIPS 2023.
    """
    known, sign = reducible(posterior), _sign(goal)
    if not isinstance(known, Gaussian):
        raise DataError(expected("posterior", "a Gaussian", type(known).__name__, "use expected_improvement"))
    gain, sigma = sign * (known.mean - _threshold(best, known)), known.stddev
    certain = sigma == 0
    scale = sigma.masked_fill(certain, 1.0)
    return torch.where(certain, gain.clamp_min(0.0).log(), scale.log() + _log_gain(gain / scale))


def probability_of_improvement(
    posterior: Posterior, best: Best, *, goal: Goal, margin: float = 0.0
) -> Float[Tensor, "*shape"]:
    """Probability that each output betters the best one known by more than ``margin``; exact for every posterior.

    Without a margin it prefers a sure gain of nearly nothing; ``margin`` is in the unit of the posterior.

    References
    ----------
    Kushner, J. Basic Eng. 86, 97 (1964).
    """
    known, sign = reducible(posterior), _sign(goal)
    threshold = _threshold(best, known) + sign * margin
    below = known.cdf(threshold)
    return below if sign < 0 else 1 - below


def optimistic_value(posterior: Posterior, *, goal: Goal, level: float = 0.975) -> Float[Tensor, "*shape"]:
    r"""How good each output may be: its quantile at ``level`` towards the goal, in the unit of the posterior.

    Of a Gaussian the upper bound :math:`\mu + k \sigma` with :math:`k = \Phi^{-1}(\mathrm{level})`, 1.96 by default;
    when minimising the lower bound with its sign turned, so that higher is better here too. A calibrated posterior
    makes "level" true.

    References
    ----------
    Srinivas, Krause, Kakade, Seeger, ICML 2010.
    """
    known = reducible(posterior)
    return known.quantile(level) if _sign(goal) > 0 else -known.quantile(1 - level)


def thompson(posterior: Posterior, size: int, *, goal: Goal, seed: int | torch.Generator = 0) -> Int[Tensor, " size"]:
    """The best candidate of each of ``size`` joint draws; the same candidate can come more than once.

    Each candidate comes with the probability that it is the best. Candidates need one axis, and for outputs that are
    correlated the posterior must carry the covariance.

    References
    ----------
    Thompson, Biometrika 25, 285 (1933).
    """
    known = reducible(posterior)
    if len(known.shape) != 1:
        raise ShapeError(expected("posterior", "one output a candidate", f"shape {tuple(known.shape)}"))
    return (_sign(goal) * known.sample(size, seed=seed)).argmax(1)


def reducible(posterior: Posterior) -> Posterior:
    """What labels can narrow: the epistemic part where it is known, else all of it."""
    part = posterior.epistemic
    return posterior if part is None else part


def _sign(goal: str) -> int:
    if goal not in ("minimise", "maximise"):
        raise DataError(expected("goal", "'minimise' or 'maximise'", repr(goal)))
    return 1 if goal == "maximise" else -1


def _threshold(best: Best, posterior: Posterior) -> Tensor:
    """Best known output as an array like the mean, in the unit of the posterior."""
    if isinstance(best, Estimate):
        same = best.unit == posterior.unit
        best = best.value if same else convert(best.value, best.unit, posterior.unit)
    value = torch.as_tensor(best, dtype=posterior.mean.dtype, device=posterior.mean.device)
    if value.ndim and value.shape != posterior.shape:
        raise ShapeError(expected("best", f"a number or shape {tuple(posterior.shape)}", tuple(value.shape)))
    if not bool(torch.isfinite(value).all()):
        raise DataError(expected("best", "a finite number", best, "measure a candidate first"))
    return value.expand(posterior.shape)


def _log_gain(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""Logarithm of :math:`z\,\Phi(z) + \varphi(z)` for any z, by three forms each exact in its range."""
    constant = 0.5 * math.log(2 * math.pi)
    near, middle, far = z.clamp_min(-1.0), z.clamp(-_FAR, -1.0), z.clamp_max(-_FAR)
    direct = (near * torch.special.ndtr(near) + (-0.5 * near.square() - constant).exp()).log()
    # z Φ(z) + φ(z) = φ(z) (1 − |z| R(|z|)), with Mills' ratio R.
    mills = math.sqrt(math.pi / 2) * torch.special.erfcx(-middle / math.sqrt(2))
    scaled = -0.5 * middle.square() - constant + torch.log1p(middle * mills)
    inverse = far.square().reciprocal()
    series = torch.log1p(-3 * inverse + 15 * inverse.square()) + inverse.log()
    series = -0.5 * far.square() - constant + series
    return torch.where(z >= -1, direct, torch.where(z >= -_FAR, scaled, series))
