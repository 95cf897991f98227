"""May I trust it here? Scores of strangeness, domains with a guaranteed rate of false alarms, control of errors."""

from bayesmol.applicability.atoms import AtomicScore
from bayesmol.applicability.combination import MaxRank, MaxRankScore
from bayesmol.applicability.decision import Choices, Decision, DecisionRule
from bayesmol.applicability.density import KernelDensity, KernelDensityScore
from bayesmol.applicability.domain import CalibratedDomain, Domain, Verdict
from bayesmol.applicability.error_control import ControlledDomain, ErrorControl
from bayesmol.applicability.evaluation import DomainReport, evaluate
from bayesmol.applicability.false_discovery import (
    Selected,
    conditional_p_values,
    false_discovery_power,
    select_outside,
)
from bayesmol.applicability.ground_truths import Truth, truths
from bayesmol.applicability.guards import FittedGuards, Guards
from bayesmol.applicability.linear import Leverage, LeverageScore, Mahalanobis, MahalanobisScore
from bayesmol.applicability.local_distance import LocalDistance, LocalDistanceScore
from bayesmol.applicability.maxvol import MaxVol, MaxVolScore
from bayesmol.applicability.measures import Intervals, Measure, clopper_pearson
from bayesmol.applicability.monitor import Alarm, Monitor
from bayesmol.applicability.nearest import Nearest, NearestScore
from bayesmol.applicability.rejection import RiskCoverage, average_precision, risk_coverage
from bayesmol.applicability.scores import SPECIFICATIONS, Score, Specification, check_score, identity
from bayesmol.applicability.spread import EpistemicSpread
from bayesmol.applicability.subgroups import FoundDomain, SubgroupDomain
from bayesmol.applicability.tolerance import rows_needed, tolerance_confidence, tolerance_rank
from bayesmol.applicability.typicality import Typicality, TypicalityScore
from bayesmol.applicability.weight_tails import WeightTails, WeightTailsScore
from bayesmol.applicability.weighted_p import effective_rows, weighted_p_values

__all__ = [
    "SPECIFICATIONS",
    "Alarm",
    "AtomicScore",
    "CalibratedDomain",
    "Choices",
    "ControlledDomain",
    "Decision",
    "DecisionRule",
    "Domain",
    "DomainReport",
    "EpistemicSpread",
    "ErrorControl",
    "FittedGuards",
    "FoundDomain",
    "Guards",
    "Intervals",
    "KernelDensity",
    "KernelDensityScore",
    "Leverage",
    "LeverageScore",
    "LocalDistance",
    "LocalDistanceScore",
    "Mahalanobis",
    "MahalanobisScore",
    "MaxRank",
    "MaxRankScore",
    "MaxVol",
    "MaxVolScore",
    "Measure",
    "Monitor",
    "Nearest",
    "NearestScore",
    "RiskCoverage",
    "Score",
    "Selected",
    "Specification",
    "SubgroupDomain",
    "Truth",
    "Typicality",
    "TypicalityScore",
    "Verdict",
    "WeightTails",
    "WeightTailsScore",
    "average_precision",
    "check_score",
    "clopper_pearson",
    "conditional_p_values",
    "effective_rows",
    "evaluate",
    "false_discovery_power",
    "identity",
    "risk_coverage",
    "rows_needed",
    "select_outside",
    "tolerance_confidence",
    "tolerance_rank",
    "truths",
    "weighted_p_values",
]
