"""May I trust it here? Scores of strangeness and a domain with a guaranteed rate of false alarms."""

from bayesmol.applicability.domain import CalibratedDomain, Domain, Verdict, tolerance_rank
from bayesmol.applicability.scores import Leverage, LeverageScore, Nearest, NearestScore, identity

__all__ = [
    "CalibratedDomain",
    "Domain",
    "Leverage",
    "LeverageScore",
    "Nearest",
    "NearestScore",
    "Verdict",
    "identity",
    "tolerance_rank",
]
