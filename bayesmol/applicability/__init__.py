"""May I trust it here? Scores of strangeness, domains with a guaranteed rate of false alarms, control of errors."""

from bayesmol.applicability.atoms import AtomicScore
from bayesmol.applicability.combination import MaxRank, MaxRankScore
from bayesmol.applicability.decision import Choices, Decision, DecisionRule
from bayesmol.applicability.density import KernelDensity, KernelDensityScore
from bayesmol.applicability.domain import CalibratedDomain, Domain, Verdict
from bayesmol.applicability.error_control import ControlledDomain, ErrorControl
from bayesmol.applicability.false_discovery import (
    Selected,
    conditional_p_values,
    false_discovery_power,
    select_outside,
)
from bayesmol.applicability.guards import FittedGuards, Guards
from bayesmol.applicability.linear import Leverage, LeverageScore, Mahalanobis, MahalanobisScore
from bayesmol.applicability.maxvol import MaxVol, MaxVolScore
from bayesmol.applicability.monitor import Alarm, Monitor
from bayesmol.applicability.nearest import Nearest, NearestScore
from bayesmol.applicability.scores import SPECIFICATIONS, Score, Specification, check_score, identity
from bayesmol.applicability.spread import EpistemicSpread
from bayesmol.applicability.tolerance import rows_needed, tolerance_confidence, tolerance_rank
from bayesmol.applicability.typicality import Typicality, TypicalityScore
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
    "EpistemicSpread",
    "ErrorControl",
    "FittedGuards",
    "Guards",
    "KernelDensity",
    "KernelDensityScore",
    "Leverage",
    "LeverageScore",
    "Mahalanobis",
    "MahalanobisScore",
    "MaxRank",
    "MaxRankScore",
    "MaxVol",
    "MaxVolScore",
    "Monitor",
    "Nearest",
    "NearestScore",
    "Score",
    "Selected",
    "Specification",
    "Typicality",
    "TypicalityScore",
    "Verdict",
    "check_score",
    "conditional_p_values",
    "effective_rows",
    "false_discovery_power",
    "identity",
    "rows_needed",
    "select_outside",
    "tolerance_confidence",
    "tolerance_rank",
    "weighted_p_values",
]
