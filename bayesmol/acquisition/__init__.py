"""What should I measure next? Batches that are informative together, with a random baseline beside them.

The bridge to BoTorch, :mod:`bayesmol.acquisition.botorch`, is imported by its own name, because it needs BoTorch.
"""

from bayesmol.acquisition.audits import Audits
from bayesmol.acquisition.batches import Batch, greedy_log_determinant, information_gain
from bayesmol.acquisition.biased import Biased
from bayesmol.acquisition.campaign import Campaign, Query
from bayesmol.acquisition.determinants import determinant
from bayesmol.acquisition.diversity import farthest, largest_cluster
from bayesmol.acquisition.fidelity import Autoregressive, value_per_cost
from bayesmol.acquisition.functions import FUNCTIONS, exceedance, values
from bayesmol.acquisition.history import History
from bayesmol.acquisition.improvement import (
    Goal,
    expected_improvement,
    log_expected_improvement,
    optimistic_value,
    probability_of_improvement,
    thompson,
)
from bayesmol.acquisition.information import (
    InformationBounds,
    d_optimality,
    expected_information_gain,
    monte_carlo_information,
    optimal_design,
    predictive_information,
    variance_reduction,
)
from bayesmol.acquisition.on_the_fly import Langevin, Learned, OnTheFly, Verlet
from bayesmol.acquisition.pareto import hypervolume, non_dominated, pareto_select, shell_error, shells
from bayesmol.acquisition.pool import Selection, select
from bayesmol.acquisition.reduction import variance_batch
from bayesmol.acquisition.stopping import Check, Forecast, StopRule, forecast
from bayesmol.acquisition.trace import Trace

__all__ = [
    "FUNCTIONS",
    "Audits",
    "Autoregressive",
    "Batch",
    "Biased",
    "Campaign",
    "Check",
    "Forecast",
    "Goal",
    "History",
    "InformationBounds",
    "Langevin",
    "Learned",
    "OnTheFly",
    "Query",
    "Selection",
    "StopRule",
    "Trace",
    "Verlet",
    "d_optimality",
    "determinant",
    "exceedance",
    "expected_improvement",
    "expected_information_gain",
    "farthest",
    "forecast",
    "greedy_log_determinant",
    "hypervolume",
    "information_gain",
    "largest_cluster",
    "log_expected_improvement",
    "monte_carlo_information",
    "non_dominated",
    "optimal_design",
    "optimistic_value",
    "pareto_select",
    "predictive_information",
    "probability_of_improvement",
    "select",
    "shell_error",
    "shells",
    "thompson",
    "value_per_cost",
    "values",
    "variance_batch",
    "variance_reduction",
]
