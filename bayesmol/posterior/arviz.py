"""Bridge to ArviZ, for its diagnostics and plots; the only file that imports it."""

from __future__ import annotations

from typing import Any

from bayesmol.errors import DependencyError
from bayesmol.posterior.draws import Draws

__all__ = ["to_arviz"]


def to_arviz(draws: Draws, name: str) -> Any:
    """Draws as the variable ``name`` of ArviZ data; weights, if any, become ``sample_stats.log_weight``.

    Returns
    -------
    ``arviz.InferenceData`` with ArviZ 0.x, ``xarray.DataTree`` with 1.x; the unit is an attribute of the variable.

    Raises
    ------
    DependencyError
        If ArviZ is not installed.
    """
    try:
        import arviz
    except ImportError as error:
        raise DependencyError.extra("arviz") from error
    groups = {"posterior": {name: draws.values.detach().cpu().numpy()}}
    if draws.log_weights is not None:
        groups["sample_stats"] = {"log_weight": draws.log_weights.detach().cpu().numpy()}
    data = arviz.from_dict(groups) if int(arviz.__version__.split(".")[0]) >= 1 else arviz.from_dict(**groups)
    data["posterior"][name].attrs["units"] = draws.unit
    return data
