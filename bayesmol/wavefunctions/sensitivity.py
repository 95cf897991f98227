"""How much an energy depends on what the optimiser left to chance: seeds, and iterates of one run."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import jax.numpy as jnp
import numpy as np
import torch
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from scipy import optimize, stats
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.files import made
from bayesmol.inference.random import integer_seed
from bayesmol.inference.swag import SwagMoments
from bayesmol.parallel import parallel
from bayesmol.posterior import Estimate, Interval
from bayesmol.posterior.interval import checked_level
from bayesmol.wavefunctions.energy import Energy
from bayesmol.wavefunctions.precision import double

if TYPE_CHECKING:
    from bayesmol.wavefunctions.ansatz import Ansatz
    from bayesmol.wavefunctions.fitted import FittedWavefunction
    from bayesmol.wavefunctions.molecule import Molecule

__all__ = ["Sensitivity", "iterates", "seeds"]

_WALKERS = 128
_MEANING = {
    "seeds": "wavefunctions trained alike from different seeds differ by so much: it is the scatter of a label. All "
    "share one ansatz and one budget, whose error is one-sided and not in it",
    "iterates": "energies change by so much when the parameters move as they did in the second half of one training. "
    "It is no posterior of the wavefunction, which has no likelihood: it grows with the learning rate, and what the "
    "run never visited is not in it",
}


@dataclass(frozen=True)
class Sensitivity:
    r"""Energies of several wavefunctions of one molecule, with :math:`E_i \sim N(\mu, \tau^2 + s_i^2)`.

    :math:`s_i` are the errors of sampling; the spread τ is what is left.

    Attributes
    ----------
    energies
        One for each wavefunction, in Ha.
    source
        What differs: ``"seeds"`` or ``"iterates"``.

    Raises
    ------
    ShapeError, DataError
        If there are fewer than two energies, or an error is infinite: a refused energy is none.
    """

    energies: Estimate
    source: Literal["seeds", "iterates"]

    def __post_init__(self) -> None:
        if self.energies.value.ndim != 1 or len(self.energies.value) < 2:
            raise ShapeError(expected("energies", "(wavefunctions,), at least two", tuple(self.energies.value.shape)))
        error = self.energies.standard_error
        if not bool(torch.isfinite(error).all() & (error > 0).all()):
            raise DataError(expected("energies", "positive, finite standard errors", error.tolist(), "sample longer"))

    @classmethod
    def of(cls, energies: Sequence[Energy], source: Literal["seeds", "iterates"] = "seeds") -> Sensitivity:
        """From evaluated energies.

        Raises
        ------
        DataError
            If one of them is refused.
        """
        for place, energy in enumerate(energies):
            if energy.verdict == "refused":
                raise DataError(expected("energies", "none refused", f"{place}: {'; '.join(energy.reasons)}"))
        parts = [energy.estimate for energy in energies]
        names = ("value", "standard_error", "effective_sample_size")
        value, error, size = (torch.stack([getattr(part, name) for part in parts]) for name in names)
        return cls(Estimate(value, error, size, "Ha"), source)

    @property
    def spread(self) -> float:
        r"""τ in Ha, from :math:`Q(\tau) = \sum_i (E_i - \hat\mu)^2 / (\tau^2 + s_i^2) = m - 1`.

        Zero if sampling explains all.

        References
        ----------
        Paule, Mandel, J. Res. Natl. Bur. Stand. 87, 377 (1982).
        """
        return self._tau(len(self.energies.value) - 1.0)

    def interval(self, level: float = 0.95) -> Interval:
        r"""Interval of τ, where :math:`Q(\tau)` is between its :math:`\chi^2` quantiles; wide, if the energies are few.

        References
        ----------
        Viechtbauer, Stat. Med. 26, 37 (2007) (Q-profile).
        """
        tail, freedom = (1 - checked_level(level)) / 2, len(self.energies.value) - 1
        lower, upper = (self._tau(float(stats.chi2.ppf(p, freedom))) for p in (1 - tail, tail))
        ends = self.energies.value.new_tensor(lower), self.energies.value.new_tensor(upper)
        return Interval(ends[0], ends[1], level, "Ha", "exact for normal energies with known errors of sampling")

    @property
    def mean(self) -> Estimate:
        r"""Mean energy of such wavefunctions, an upper bound of the exact energy in expectation.

        Its error is :math:`\sqrt{\sum_i w_i (E_i - \hat\mu)^2 / ((m - 1) \sum_i w_i)}`, at least that of sampling.

        References
        ----------
        Hartung, Knapp, Stat. Med. 20, 1771 (2001).
        """
        weights = self._weights(self.spread)
        mean = (weights * self.energies.value).sum() / weights.sum()
        scatter = (weights * (self.energies.value - mean).square()).sum() / (len(weights) - 1)
        error = (scatter.clamp_min(1.0) / weights.sum()).sqrt()
        return Estimate(mean, error, mean.new_tensor(float(len(weights))), "Ha")

    @property
    def meaning(self) -> str:
        """What the spread is, and what it is not."""
        return _MEANING[self.source]

    def __str__(self) -> str:
        found = self.interval(0.95)
        band = f"{1e3 * float(found.lower):.2g} to {1e3 * float(found.upper):.2g}"
        count = len(self.energies.value)
        return f"{self.mean} over {count} {self.source}, spread {1e3 * self.spread:.2g} mHa (95 %: {band} mHa)"

    def _weights(self, tau: float) -> Float[Tensor, " wavefunctions"]:
        return 1 / (tau**2 + self.energies.standard_error.square())

    def _tau(self, wanted: float) -> float:
        """Where Q, which falls with τ, has the value ``wanted``."""

        def excess(tau: float) -> float:
            weights = self._weights(tau)
            mean = (weights * self.energies.value).sum() / weights.sum()
            return float((weights * (self.energies.value - mean).square()).sum()) - wanted

        if excess(0.0) <= 0:
            return 0.0
        deviation = float(self.energies.value.std()) * math.sqrt(len(self.energies.value))
        return float(optimize.brentq(excess, 0.0, 1.01 * deviation / math.sqrt(wanted), xtol=1e-12))


def seeds(
    ansatz: Ansatz,
    molecule: Molecule,
    count: int = 4,
    *,
    seed: int | torch.Generator,
    minutes: float | None = None,
    draws: int = 1000,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Sensitivity:
    """Train ``count`` wavefunctions from different seeds and compare their energies.

    It takes ``count`` times as long as one, unless joblib is told to compute them at once
    (:mod:`bayesmol.parallel`), and is the only way to see what a single run cannot: nothing inside one
    run tells where another would have ended.

    Parameters
    ----------
    minutes
        Of the training of each.
    draws
        Of each walker in the evaluations.
    checkpoint
        Folder for the states of the trainings.

    Raises
    ------
    DataError
        If ``count`` is less than two, or an energy is refused.
    """
    if count < 2:
        raise DataError(expected("count", "at least two wavefunctions", count))
    if checkpoint is not None:
        made(Path(checkpoint))
    pairs = np.random.SeedSequence(integer_seed(seed)).generate_state(2 * count).reshape(-1, 2).tolist()
    work = partial(_replica, ansatz, molecule, minutes, draws, checkpoint)
    return Sensitivity.of(parallel(work, pairs, description="wavefunctions from other seeds"), "seeds")


def _replica(
    ansatz: Ansatz,
    molecule: Molecule,
    minutes: float | None,
    draws: int,
    checkpoint: str | os.PathLike[str] | None,
    seeds: tuple[int, int],
) -> Energy:
    """Energy of one wavefunction, from the seeds of its training and of its walks."""
    path = None if checkpoint is None else Path(checkpoint) / f"seed-{seeds[0]}.training"
    return ansatz.fit(molecule, seed=seeds[0], minutes=minutes, checkpoint=path).energy(draws, seed=seeds[1])


def iterates(
    wavefunction: FittedWavefunction, count: int = 8, *, seed: int | torch.Generator, draws: int = 500
) -> Sensitivity:
    r"""Energies at parameters drawn from the normal distribution of the iterates of the second half of a training.

    Mean and covariance are those of the snapshots (:class:`~bayesmol.inference.swag.SwagMoments`), without its
    diagonal part: independent noise in all parameters leaves the valley that the optimiser was in, and its energies
    say nothing of the run. So draws are combinations of snapshots.

    The energy at the mean is the lowest in expectation; the draws lie above it by half of the curvature times the
    covariance, which is what averaging of the parameters gains.

    Raises
    ------
    ConvergenceError
        If there are fewer than three snapshots.
    DataError
        If an energy is refused, or ``count`` is less than two.
    """
    if count < 2:
        raise DataError(expected("count", "at least two", count))
    snapshots = torch.from_numpy(np.array(wavefunction.trained.snapshots, dtype=np.float64))
    if len(snapshots) < 3:
        raise ConvergenceError(expected("snapshots", "at least three", len(snapshots), "train for more steps"))
    moments = SwagMoments.empty(snapshots[0], rank=len(snapshots))
    for vector in snapshots:
        moments = moments.updated(vector)
    first, second = np.random.SeedSequence(integer_seed(seed)).generate_state(2)
    places, found = np.asarray(wavefunction.trained.walkers)[:_WALKERS], []
    for place, vector in enumerate(_drawn(moments, count, int(first))):
        with double():
            parameters = ravel_pytree(wavefunction.parameters)[1](jnp.asarray(vector.numpy()))
        found.append(wavefunction.evaluation.energy(parameters, places, draws, seed=int(second) + place))
    return Sensitivity.of(found, "iterates")


def _drawn(moments: SwagMoments, count: int, seed: int) -> Float[Tensor, "count parameters"]:
    """Draws with the covariance of the snapshots, in the space that they span."""
    normal = moments.posterior()
    whole = (2**0.5) * normal.factor  # the diagonal part had the other half of the variance
    noise = torch.randn(count, whole.shape[1], dtype=whole.dtype, generator=torch.Generator().manual_seed(seed))
    return normal.mean + noise @ whole.mT
