"""What every model returns, whatever it models: random arrays with a unit."""

from bayesmol.posterior.base import IntervalRule, Posterior
from bayesmol.posterior.draws import Draws
from bayesmol.posterior.estimate import Estimate
from bayesmol.posterior.gaussian import Gaussian
from bayesmol.posterior.interval import Interval
from bayesmol.posterior.location_scale import Laplace, StudentT
from bayesmol.posterior.mixture import Mixture
from bayesmol.posterior.prediction import Prediction
from bayesmol.posterior.quantiles import Quantiles
from bayesmol.posterior.recalibrated import Recalibrated

__all__ = [
    "Draws",
    "Estimate",
    "Gaussian",
    "Interval",
    "IntervalRule",
    "Laplace",
    "Mixture",
    "Posterior",
    "Prediction",
    "Quantiles",
    "Recalibrated",
    "StudentT",
]
