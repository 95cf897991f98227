"""Is the uncertainty true? Figures of merit, exact reference bands, recalibration and conformal intervals."""

from bayesmol.calibration.adaptive import AdaptiveConformal, AdaptivePath, AdaptiveState
from bayesmol.calibration.blockwise import BlockConformal, BlockRule
from bayesmol.calibration.compared import Compared, cell_shares, equal_weights, mode_shares, share_interval
from bayesmol.calibration.comparison import Comparison, compare
from bayesmol.calibration.conditional import Skill, conditional_calibration
from bayesmol.calibration.conformal import Conformal, QuantileRule, mapie_estimator
from bayesmol.calibration.cross import CrossConformal, CrossRule, cross_bound, cross_interval
from bayesmol.calibration.density_ratio import DensityRatio, FittedRatio
from bayesmol.calibration.distances import energy_distance, replicates, wasserstein_distance
from bayesmol.calibration.divergences import (
    Bins,
    jensen_shannon,
    kullback_leibler,
    sliced_wasserstein,
    total_variation,
    wasserstein_circle,
    wasserstein_line,
)
from bayesmol.calibration.drift import ConformalMartingale, MartingalePath, MartingaleState
from bayesmol.calibration.energy_test import EnergyTest
from bayesmol.calibration.evaluation import figures, summary
from bayesmol.calibration.full import FullConformal, FullRule
from bayesmol.calibration.inputs import predictive
from bayesmol.calibration.jackknife import Jackknife, JackknifeAfterBootstrap
from bayesmol.calibration.local import Local, worst_slab_coverage
from bayesmol.calibration.local_conformal import LocalConformal, LocalRule
from bayesmol.calibration.local_test import LocalTest, Located
from bayesmol.calibration.locality import ErrorField, FittedErrorField
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
from bayesmol.calibration.neighbourhoods import memorisation, precision_recall
from bayesmol.calibration.observed import Observed, paired
from bayesmol.calibration.probabilities import BrierDecomposition, brier_decomposition
from bayesmol.calibration.recalibration import Recalibration, Recalibrator
from bayesmol.calibration.reference import binomial_band, bootstrap_standard_error, coverage_band, uniform_band
from bayesmol.calibration.regressors import GaussianProcess, Ridge
from bayesmol.calibration.report import Report, Statistic, evaluate
from bayesmol.calibration.rules import ConformalRule
from bayesmol.calibration.subgroups import FoundSubgroup, Subgroup, SubgroupSearch
from bayesmol.calibration.systems import ConformalDistribution, ConformalSystem, OutwardQuantiles, PredictiveSystem
from bayesmol.calibration.transport import assignment_distance, sinkhorn_distance
from bayesmol.calibration.two_sample import ClassifierTest, KernelTest, TwoSample
from bayesmol.calibration.vector_scores import energy_scores, variogram_scores
from bayesmol.calibration.vectors import ConformalRegion, Region, RegionRule
from bayesmol.calibration.verdict import Finding, Verdict
from bayesmol.calibration.weighted import WeightedConformal, WeightedRule

__all__ = [
    "AdaptiveConformal",
    "AdaptivePath",
    "AdaptiveState",
    "Bins",
    "BlockConformal",
    "BlockRule",
    "BrierDecomposition",
    "ClassifierTest",
    "Compared",
    "Comparison",
    "Conformal",
    "ConformalDistribution",
    "ConformalMartingale",
    "ConformalRegion",
    "ConformalRule",
    "ConformalSystem",
    "CrossConformal",
    "CrossRule",
    "DensityRatio",
    "EnergyTest",
    "ErrorField",
    "Finding",
    "FittedErrorField",
    "FittedRatio",
    "FoundSubgroup",
    "FullConformal",
    "FullRule",
    "GaussianProcess",
    "Jackknife",
    "JackknifeAfterBootstrap",
    "KernelTest",
    "Local",
    "LocalConformal",
    "LocalRule",
    "LocalTest",
    "Located",
    "MartingalePath",
    "MartingaleState",
    "Observed",
    "OutwardQuantiles",
    "PredictiveSystem",
    "QuantileRule",
    "Recalibration",
    "Recalibrator",
    "Region",
    "RegionRule",
    "Report",
    "Ridge",
    "Skill",
    "Statistic",
    "Subgroup",
    "SubgroupSearch",
    "TwoSample",
    "Verdict",
    "WeightedConformal",
    "WeightedRule",
    "assignment_distance",
    "auroc",
    "binomial_band",
    "bootstrap_standard_error",
    "brier_decomposition",
    "cell_shares",
    "compare",
    "conditional_calibration",
    "coverage",
    "coverage_band",
    "cross_bound",
    "cross_interval",
    "crps",
    "energy_distance",
    "energy_scores",
    "equal_weights",
    "evaluate",
    "figures",
    "jensen_shannon",
    "kullback_leibler",
    "mapie_estimator",
    "mean_absolute_error",
    "memorisation",
    "miscalibration_area",
    "mode_shares",
    "nll",
    "paired",
    "precision_recall",
    "predictive",
    "replicates",
    "root_mean_square_error",
    "separation",
    "share_interval",
    "sinkhorn_distance",
    "sliced_wasserstein",
    "summary",
    "total_variation",
    "uniform_band",
    "variogram_scores",
    "wasserstein_circle",
    "wasserstein_distance",
    "wasserstein_line",
    "worst_slab_coverage",
    "z_std",
]
