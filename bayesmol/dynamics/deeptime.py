"""Models from and to deeptime: matrices, counts and Koopman functions, without any uncertainty that was not there."""

from __future__ import annotations

from functools import singledispatch
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesmol.dynamics.koopman import FittedKoopman
from bayesmol.dynamics.markov_state_model import FittedMarkovStateModel
from bayesmol.dynamics.reversible import TransitionEstimate
from bayesmol.dynamics.spectra import Spectrum
from bayesmol.errors import DataError, expected
from bayesmol.optional import optional

__all__ = ["from_deeptime", "to_deeptime"]


@singledispatch
def to_deeptime(model: Any) -> Any:
    """The estimate as a model of deeptime, whose analyses can then be used.

    A Markov state model becomes a ``MarkovStateModel`` with its sliding-window counts, the result of TICA or VAMP a
    ``CovarianceKoopmanModel``. The posterior stays here: deeptime has none for correlated data.

    Raises
    ------
    DependencyError
        If deeptime is not installed.
    DataError
        If deeptime has no such model.
    """
    raise DataError(expected("model", "a fitted Markov state model, TICA or VAMP", type(model).__name__))


@to_deeptime.register
def _(model: FittedMarkovStateModel) -> Any:
    markov = _deeptime().markov
    counts, lag = model.counts.total().cpu().numpy(), model.spec.lag
    symbols = model.states.cpu().numpy()
    count_model = markov.TransitionCountModel(counts, "sliding", lag, counts.sum(1), symbols)
    matrix, populations = model.transition_matrix.cpu().numpy(), model.estimate.stationary.cpu().numpy()
    return markov.msm.MarkovStateModel(matrix, populations, model.spec.reversible, count_model=count_model)


@to_deeptime.register
def _(model: FittedKoopman) -> Any:
    deeptime, estimate = _deeptime(), model.estimate
    if estimate.values.is_complex():
        raise DataError(expected("model", "the result of TICA or VAMP", "that of EDMD", "take TICA"))
    early, cross, late = model.moments.mean()
    symmetric = estimate.left is estimate.right or torch.equal(estimate.left, estimate.right)
    if symmetric:
        early = late = (early + late) / 2
        cross = (cross + cross.mT) / 2
    back = torch.linalg.pinv(model.columns[1:, 1:])
    means = [(part[0, 1:] - model.columns[0, 1:]) @ back for part in (early, late)]
    ends = (early[0, 1:], late[0, 1:])
    pairs = ((early, ends[0], ends[0]), (cross, *ends), (late, ends[1], ends[1]))
    moments = [(back.mT @ (m[1:, 1:] - torch.outer(a, b)) @ back).cpu().numpy() for m, a, b in pairs]
    centres = [mean.cpu().numpy() for mean in means]
    covariances = deeptime.covariance.CovarianceModel(
        *moments,
        *centres,
        bessels_correction=False,
        symmetrized=symmetric,
        lagtime=model.spec.lag,
        data_mean_removed=True,
    )
    left, right = ((model.columns[1:] @ part[:, 1:]).cpu().numpy() for part in (estimate.right, estimate.left))
    values, rank = estimate.values[1:].cpu().numpy(), len(back)

    def functions(x: np.ndarray) -> np.ndarray:
        return model.basis(torch.as_tensor(x, dtype=torch.float64)).numpy()

    return deeptime.decomposition.CovarianceKoopmanModel(
        left,
        values,
        right,
        covariances,
        rank,
        rank,
        dim=len(values),
        instantaneous_obs=functions,
        timelagged_obs=functions,
    )


def from_deeptime(model: Any) -> TransitionEstimate | Spectrum | Tensor:
    """What the functions of this package take, from a model of deeptime.

    ========================== ===================================================================================
    ``TransitionCountModel``   the matrix of counts
    ``MarkovStateModel``       a :class:`~bayesmol.dynamics.reversible.TransitionEstimate`
    ``BayesianMSMPosterior``   the same of all its samples: their spread is deeptime's
    ``CovarianceKoopmanModel`` a :class:`~bayesmol.dynamics.spectra.Spectrum` in the basis ``(1, features)``
    ========================== ===================================================================================

    None of them holds the order of the frames in time, so no posterior for correlated data can be made of it: fit the
    trajectories for that.

    Raises
    ------
    DependencyError
        If deeptime is not installed.
    DataError
        If it is another object.
    """
    deeptime = _deeptime()
    msm = deeptime.markov.msm
    if isinstance(model, deeptime.markov.TransitionCountModel):
        dense = model.count_matrix if isinstance(model.count_matrix, np.ndarray) else model.count_matrix.toarray()
        return torch.tensor(dense, dtype=torch.float64)
    if isinstance(model, msm.MarkovStateModel):
        return _estimate([model])
    if isinstance(model, msm.BayesianMSMPosterior):
        return _estimate(model.samples)
    if isinstance(model, deeptime.decomposition.CovarianceKoopmanModel):
        return _spectrum(model)
    kinds = "TransitionCountModel, MarkovStateModel, BayesianMSMPosterior or CovarianceKoopmanModel of deeptime"
    raise DataError(expected("model", kinds, type(model).__name__))


def _estimate(models: list[Any]) -> TransitionEstimate:
    """Matrices (models, states, states), or (states, states) of one."""
    matrices = torch.stack([torch.tensor(np.asarray(model.transition_matrix)) for model in models])
    populations = torch.stack([torch.tensor(model.stationary_distribution) for model in models])
    return TransitionEstimate(matrices.squeeze(0), populations.squeeze(0))


def _spectrum(model: Any) -> Spectrum:
    """With the stationary process first."""
    count = model.output_dimension
    values = torch.cat([torch.ones(1), torch.tensor(model.singular_values[:count])])
    means = (model.cov.mean_0, model.cov.mean_t) if model.cov.data_mean_removed else (None, None)
    coefficients = (model.instantaneous_coefficients, model.timelagged_coefficients)
    right, left = (_functions(part[:, :count], mean) for part, mean in zip(coefficients, means, strict=True))
    return Spectrum(values.double(), right, left)


def _functions(coefficients: np.ndarray, mean: np.ndarray | None) -> Tensor:
    """Coefficients of (1, features) of the constant function and of the others."""
    columns = torch.tensor(coefficients, dtype=torch.float64)
    constant = torch.zeros(columns.shape[1]) if mean is None else -torch.tensor(mean) @ columns
    first = torch.zeros(1 + len(columns), 1, dtype=torch.float64)
    first[0] = 1
    return torch.cat([first, torch.cat([constant[None].double(), columns])], 1)


def _deeptime() -> ModuleType:
    for part in ("covariance", "decomposition", "markov.msm"):
        optional(f"deeptime.{part}", "deeptime")
    return optional("deeptime", "deeptime")
