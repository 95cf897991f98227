"""Kernel EDMD and kernel TICA: a linear operator on kernel functions, with the bandwidth that predicts best."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.koopman import FittedKoopman
from bayesmol.dynamics.linear import EDMD, TICA, VAMP
from bayesmol.dynamics.moments import moments
from bayesmol.dynamics.scores import SingularModel, symmetrised
from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.inference.random import generator, integer_seed
from bayesmol.representation.basis import Functions
from bayesmol.representation.kernel_basis import Nystroem, median_distance

__all__ = ["Components", "KernelEDMD", "bandwidth_scores"]

_GRID = (0.1, 0.2, 0.4, 0.8, 1.6, math.inf)  # in median distances between frames
_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Components:
    """Linear combinations of the functions of a fitted basis; one itself."""

    of: Functions
    columns: Float[Tensor, "functions components"]

    @property
    def functions(self) -> int:
        """Number of combinations."""
        return self.columns.shape[1]

    @property
    def constant(self) -> bool:
        """Kept apart: the linear estimators have a constant function of their own."""
        return False

    def __call__(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows components"]:
        return self.of(x) @ self.columns


@dataclass(frozen=True)
class KernelEDMD:
    r"""Koopman operator on the leading principal components of a Gaussian kernel (Nyström).

    The operator is the ``estimator`` on these functions, with the posterior of it: TICA gives kernel TICA, for a system
    in detailed balance; EDMD kernel EDMD; VAMP kernel canonical correlations. An infinite bandwidth is the linear
    kernel, and the result that of the estimator on the features.

    Seen as a Gaussian process: the expectation of a function g after a lag, :math:`E[g(x_{t+\tau}) | x_t]`, has a prior
    of the same kernel with m inducing points, for every g of its span at once. Its posterior mean, with a noise that
    is small against the data, is the operator here; a finite noise would shrink the components by
    :math:`\lambda_i / (\lambda_i + \sigma^2 / n)`, and cutting them off after ``components`` is the hard form of this
    (subset of regressors with principal components). What a GP takes for independent noise is the scatter of the
    process and correlated from pair to pair; therefore the spread comes from weights of blocks of time, and the
    bandwidth from prediction of other blocks instead of the marginal likelihood.

    Attributes
    ----------
    lag, dimensions, draws
        Of the estimator.
    points
        Inducing points, chosen at random among the frames.
    components
        Most kernel principal components that are kept; directions below 1e-10 of the largest are left out before.
    bandwidth
        In the unit of the features; by default the best by :func:`bandwidth_scores`.
    estimator
        ``TICA``, ``EDMD`` or ``VAMP``.

    References
    ----------
    Williams, Rowley, Kevrekidis, J. Comput. Dyn. 2, 247 (2015); Schwantes, Pande, J. Chem. Theory Comput. 11, 600
    (2015); Wu, Noé, J. Nonlinear Sci. 30, 23 (2020), for the choice by cross-validated scores.
    """

    lag: int = 1
    dimensions: int = 5
    points: int = 300
    components: int = 50
    bandwidth: float | None = None
    estimator: type[TICA] | type[EDMD] | type[VAMP] = TICA
    draws: int = 1000

    def __post_init__(self) -> None:
        counts = (self.lag, self.dimensions, self.points, self.components, self.draws)
        if min(counts) < 1 or not (self.bandwidth is None or self.bandwidth > 0):
            raise DataError(expected("KernelEDMD", "positive counts and bandwidth", self))

    def fit(self, data: Any, *, seed: int | torch.Generator) -> FittedKoopman:
        """Choose bandwidth, points and components, and estimate the operator.

        Raises
        ------
        ShapeError, DataError
            If the data are no trajectories of finite features.
        ConvergenceError
            If they are too short for the lag, or for the slowest timescale that they show.
        """
        trajectories, start = _trajectories(data), integer_seed(seed)
        spec = self
        if self.bandwidth is None:
            scores = bandwidth_scores(trajectories, self, seed=start)
            spec = replace(self, bandwidth=max(scores, key=lambda width: float(scores[width].mean())))
        basis = spec.basis(trajectories, seed=start)
        source = generator(start, trajectories.parts[0].device)
        estimator = self.estimator(
            self.lag, self.dimensions, basis=Nystroem(spec.points, spec.bandwidth), draws=self.draws
        )
        found = moments(trajectories, basis, self.lag)
        return estimator.estimated(found, basis, trajectories.time_step, trajectories.unit, seed=source)

    def basis(self, trajectories: Trajectories, *, seed: int | torch.Generator) -> Components:
        """Principal components of the kernel functions over all frames."""
        frames = torch.cat(trajectories.parts)
        functions = Nystroem(self.points, self.bandwidth).fit(frames, seed=seed)
        total: Any = 0.0
        mean: Any = 0.0
        for chunk in frames.split(4096):
            values = functions(chunk)[:, 1:]
            total, mean = total + values.mT @ values, mean + values.sum(0)
        mean = mean / len(frames)
        covariance = total / len(frames) - torch.outer(mean, mean)
        columns = _components(covariance, self.components)
        return Components(functions, torch.cat([columns.new_zeros(1, columns.shape[1]), columns]))


def bandwidth_scores(
    data: Any, spec: KernelEDMD, bandwidths: tuple[float, ...] | None = None, *, seed: int | torch.Generator
) -> dict[float, Float[Tensor, " folds"]]:
    r"""VAMP-2 score of each bandwidth on every fifth of the time, of the operator from the other four.

    The score counts ``dimensions`` processes and the stationary one. Points and components come from all frames, whose
    order in time they do not use. Frames of two neighbouring fifths are correlated over their border.

    Parameters
    ----------
    bandwidths
        By default 0.1 to 1.6 times the median distance between frames, and the linear kernel.

    Raises
    ------
    ConvergenceError
        If the trajectories have less than 5 blocks of a lag or more.
    """
    trajectories, start = _trajectories(data), integer_seed(seed)
    frames = torch.cat(trajectories.parts)
    if bandwidths is None:
        middle = median_distance(frames, seed=start)
        bandwidths = tuple(factor * middle for factor in _GRID)
    return {width: _held_out(trajectories, replace(spec, bandwidth=width), start) for width in bandwidths}


def _held_out(trajectories: Trajectories, spec: KernelEDMD, seed: int) -> Float[Tensor, " folds"]:
    basis = spec.basis(trajectories, seed=seed)
    block = max(spec.lag, math.ceil(trajectories.frames / (4 * _FOLDS)))
    found = moments(trajectories, basis, spec.lag, block=block)
    if len(found.early) < _FOLDS:
        wanted = f"at least {_FOLDS} blocks of a lag, to choose the bandwidth"
        raise ConvergenceError(expected("trajectories", wanted, len(found.early), "give a bandwidth"))
    fold = torch.arange(len(found.early), device=found.early.device) * _FOLDS // len(found.early)
    sums = tuple(_summed(part, fold) for part in (found.early, found.cross, found.late))
    train = tuple((part.sum(0) - part) / _pairs(part.sum(0) - part) for part in _even(spec, sums))
    test = tuple(part / _pairs(part) for part in _even(spec, sums))
    processes = min(spec.dimensions + 1, train[0].shape[-1])
    return SingularModel.of(*train, processes=processes).score(*test)


def _even(spec: KernelEDMD, sums: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Moments as the estimator takes them: TICA those of both directions of time."""
    return symmetrised(*sums) if spec.estimator is TICA else sums


def _summed(part: Tensor, fold: Int[Tensor, " blocks"]) -> Float[Tensor, "folds functions functions"]:
    return part.new_zeros(_FOLDS, *part.shape[1:]).index_add_(0, fold, part)


def _pairs(sums: Tensor) -> Tensor:
    """Number of pairs: the moment of the constant function."""
    return sums[..., :1, :1]


def _components(covariance: Float[Tensor, "functions functions"], count: int) -> Tensor:
    """Principal axes of unit variance, from the largest on."""
    values, vectors = torch.linalg.eigh(covariance)
    kept = (values > 1e-10 * values[-1]).nonzero()[:, 0].flip(0)[:count]
    return vectors[:, kept] / values[kept].sqrt()


def _trajectories(data: Any) -> Trajectories:
    trajectories = Trajectories.of(data)
    if trajectories.discrete:
        raise DataError(expected("trajectories", "features", "states"))
    return trajectories
