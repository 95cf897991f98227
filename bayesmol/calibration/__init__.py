"""Is the uncertainty true? Figures of merit, exact reference bands, recalibration and conformal intervals."""

from bayesmol.calibration.conformal import ConformalRule, SplitConformal, StructureConformal
from bayesmol.calibration.evaluation import evaluate, figures
from bayesmol.calibration.metrics import (
    auroc,
    coverage,
    crps,
    mean_absolute_error,
    miscalibration_area,
    nll,
    root_mean_square_error,
    separation,
    z_std,
)
from bayesmol.calibration.recalibration import recalibrated, variance_factors
from bayesmol.calibration.reference import binomial_band, bootstrap_standard_error, coverage_band

__all__ = [
    "ConformalRule",
    "SplitConformal",
    "StructureConformal",
    "auroc",
    "binomial_band",
    "bootstrap_standard_error",
    "coverage",
    "coverage_band",
    "crps",
    "evaluate",
    "figures",
    "mean_absolute_error",
    "miscalibration_area",
    "nll",
    "recalibrated",
    "root_mean_square_error",
    "separation",
    "variance_factors",
    "z_std",
]
