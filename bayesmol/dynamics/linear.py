"""TICA, VAMP and EDMD: Koopman operators on a basis, whose spectra are distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.koopman import FittedKoopman
from bayesmol.dynamics.moments import Moments, moments
from bayesmol.dynamics.operator_posteriors import POSTERIORS
from bayesmol.dynamics.reweighting import EquilibriumMoments, equilibrium_moments
from bayesmol.dynamics.spectra import Spectrum, centred_whitening, general, reversible, singular
from bayesmol.dynamics.weights import FEWEST, bandwidth, block_weights
from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.inference.random import generator
from bayesmol.representation.basis import Identity

__all__ = ["EDMD", "TICA", "VAMP"]

BlockMoments = Moments | EquilibriumMoments


@dataclass(frozen=True)
class _Linear:
    """What is estimated from the moments of a basis.

    Attributes
    ----------
    lag
        In frames.
    dimensions
        Number of processes that are kept, besides the stationary one.
    basis
        Functions in which the operator is expanded, with ``fit(x, seed=)``; the features themselves by default.
    draws
        Of the posterior.
    block
        Frames of a block of moments; by default a thousandth of all frames, and not less than the lag.
    posterior
        ``"bootstrap"`` of blocks, which holds for every quantity; or, to check it where the operator is all that
        counts, ``"sandwich"`` or the tempered ``"matrix-normal"`` of :mod:`~bayesmol.dynamics.operator_posteriors`.
    """

    solve: ClassVar[Callable[..., Spectrum]]

    lag: int = 1
    dimensions: int = 5
    basis: Any = field(default_factory=Identity)
    draws: int = 1000
    block: int | None = None
    posterior: str = "bootstrap"

    def __post_init__(self) -> None:
        if self.posterior not in self._posteriors:
            raise DataError(expected("posterior", self._posteriors, self.posterior))
        counts = (self.lag, self.dimensions, self.draws, self.block or 1)
        if min(counts) < 1:
            raise DataError(expected("lag, dimensions, draws, block", "positive counts", counts))

    def fit(self, data: Any, *, seed: int | torch.Generator) -> FittedKoopman:
        """Estimate from trajectories: one array (frames, features), several in a list, or ``Trajectories``.

        Raises
        ------
        ShapeError, DataError
            If they are no trajectories of finite features, or are states.
        ConvergenceError
            If they are too short for the lag, or for the slowest timescale that they show.
        """
        trajectories = Trajectories.of(data)
        if trajectories.discrete:
            raise DataError(expected("trajectories", "features", "states", "use MarkovStateModel"))
        source = generator(seed, trajectories.parts[0].device)
        basis = self.basis.fit(torch.cat(trajectories.parts), seed=source)
        found = self._moments(trajectories, basis)
        return self.estimated(found, basis, trajectories.time_step, trajectories.unit, seed=source)

    def estimated(
        self,
        found: BlockMoments,
        basis: Any,
        time_step: float = 1.0,
        unit: str = "frames",
        *,
        seed: int | torch.Generator,
    ) -> FittedKoopman:
        """The same from block moments, such as those of trajectories larger than memory."""
        early, _, late = found.mean()
        covariance = (early + late) / 2
        columns = centred_whitening(covariance)
        white = found.projected(columns)
        solve = type(self).solve
        estimate = solve(*white.mean())
        wide = bandwidth(self.lag, _slowest(estimate, self.lag), int(found.pairs), _independent(found))
        source = generator(seed, columns.device)
        weights = block_weights(white.trajectory, white.length, wide, self.draws, shares=white.shares, seed=source)
        if not weights.freedom >= FEWEST:
            remedy = "sample longer, and where the weights at equilibrium are large"
            raise ConvergenceError(expected("blocks", f"worth {FEWEST} independent ones", weights.freedom, remedy))
        count = min(self.dimensions + 1, columns.shape[1])
        drawn = POSTERIORS[self.posterior](white, weights, source)
        draws = _joined(solve(*part).leading(count) for part in drawn)
        spectra = estimate.leading(count), draws
        return FittedKoopman(self, basis, columns, covariance, *spectra, white, weights, time_step, unit)

    def _moments(self, trajectories: Trajectories, basis: Any) -> BlockMoments:
        return moments(trajectories, basis, self.lag, block=self.block)

    @property
    def _posteriors(self) -> list[str]:
        """Those that suit the estimator."""
        return list(POSTERIORS)


@dataclass(frozen=True)
class TICA(_Linear):
    """Time-lagged independent components: the operator of a system in detailed balance.

    Attributes
    ----------
    equilibrium
        Whether the frames are distributed as at equilibrium. If not, as in short trajectories that start elsewhere,
        every pair is reweighted by :func:`~bayesmol.dynamics.reweighting.equilibrium_moments`, anew in each draw; the
        trajectories must then fit in memory, and their effective sample size is that of the fitted ``moments``.

    References
    ----------
    Pérez-Hernández, Paul, Giorgino, De Fabritiis, Noé, J. Chem. Phys. 139, 015102 (2013); Wu, Nüske, Paul, Klus,
    Koltai, Noé, J. Chem. Phys. 146, 154104 (2017), for data that are not at equilibrium.
    """

    solve = staticmethod(reversible)

    equilibrium: bool = True

    def _moments(self, trajectories: Trajectories, basis: Any) -> BlockMoments:
        summed = moments if self.equilibrium else equilibrium_moments
        return summed(trajectories, basis, self.lag, block=self.block)

    @property
    def _posteriors(self) -> list[str]:
        return list(POSTERIORS) if self.equilibrium else ["bootstrap"]  # the others keep the weights of pairs fixed


class VAMP(_Linear):
    """Singular functions of the operator: no detailed balance and no equilibrium needed.

    References
    ----------
    Wu, Noé, J. Nonlinear Sci. 30, 23 (2020).
    """

    solve = staticmethod(singular)

    @property
    def _posteriors(self) -> list[str]:
        return ["bootstrap"]  # the others keep the moments of both ends fixed


class EDMD(_Linear):
    """Extended dynamic mode decomposition: eigenvalues of the operator by least squares, complex ones as well.

    References
    ----------
    Williams, Kevrekidis, Rowley, J. Nonlinear Sci. 25, 1307 (2015).
    """

    solve = staticmethod(general)


def _slowest(estimate: Spectrum, lag: int) -> float:
    """Slowest timescale in frames that the estimate shows, without the stationary process."""
    sizes = estimate.values[1:].abs()
    if not len(sizes):
        raise DataError(expected("trajectories", "features that change", "constant ones"))
    return -lag / math.log(min(float(sizes[0]), 1 - 1e-12)) if float(sizes[0]) > 0 else 0.0


def _independent(found: BlockMoments) -> float:
    """Number of trajectories of equal length that are worth as much as these."""
    pairs = found.sizes.new_zeros(int(found.trajectory.max()) + 1).index_add_(0, found.trajectory, found.sizes)
    return float(pairs.sum().square() / pairs.square().sum())


def _joined(parts: Iterator[Spectrum]) -> Spectrum:
    """Spectra of all draws, of which a part at a time fits in memory with its moments."""
    return Spectrum(*(torch.cat(part) for part in zip(*parts, strict=True)))
