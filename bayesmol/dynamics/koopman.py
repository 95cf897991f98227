"""A Koopman operator that was estimated: its timescales, functions and scores, each with a distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.dynamics.moments import Moments
from bayesmol.dynamics.reweighting import EquilibriumMoments
from bayesmol.dynamics.spectra import Spectrum, matched
from bayesmol.dynamics.strangeness import leverage, residual
from bayesmol.dynamics.weights import BlockWeights, independent_events
from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.posterior import Draws

__all__ = ["FittedKoopman"]


@dataclass(frozen=True, eq=False)
class FittedKoopman:
    """The result of ``TICA``, ``VAMP`` or ``EDMD``; index 0 of all spectra is the stationary process, which none shows.

    Attributes
    ----------
    spec
        What was estimated.
    basis
        Functions of the features; the constant one is put before them where they do not begin with it.
    columns
        Combinations of these, after the constant one, that are uncorrelated.
    estimate, draws
        Spectra in these combinations, from all blocks and for each row of weights.
    covariance
        Second moments of the functions, the constant one first, over both ends of the pairs.
    moments
        Of the combinations.
    weights
        Of the blocks of ``moments``.
    time_step, unit
        Of a frame.
    """

    spec: Any
    basis: Any
    columns: Float[Tensor, "functions rank"]
    covariance: Float[Tensor, "functions functions"]
    estimate: Spectrum
    draws: Spectrum
    moments: Moments | EquilibriumMoments
    weights: BlockWeights
    time_step: float
    unit: str

    @property
    def dimensions(self) -> int:
        """Number of processes."""
        return self.estimate.values.shape[-1] - 1

    def eigenvalues(self, count: int | None = None) -> Draws:
        """Eigenvalues (of ``VAMP`` singular values), from the largest on; complex ones as pairs (count, 2)."""
        values = self.draws.values[:, self._kept(count)]
        if values.is_complex():
            values = torch.view_as_real(values)
        return Draws(values[None], unit="")

    def timescales(self, count: int | None = None) -> Draws:
        r"""Implied timescales :math:`-\tau / \ln |\lambda|`, from the longest on, in ``unit``.

        Raises
        ------
        ConvergenceError
            If some draws have an eigenvalue of one or more: then no upper bound of the timescale is known.
        """
        sizes = self.draws.values[:, self._kept(count)].abs()
        if beyond := float((sizes >= 1).double().mean(0).max()):
            got = f"{100 * beyond:.2g} % of the draws at one or more"
            raise ConvergenceError(expected("eigenvalues", "below one", got, "sample longer, or ask eigenvalues()"))
        return Draws((-self.spec.lag * self.time_step / sizes.log())[None], unit=self.unit)

    def eigenfunctions(self, x: Float[Tensor, "points features"], count: int | None = None) -> Draws:
        """Functions of the slow processes at ``x``, (points, count): mean zero and variance one over the data.

        Signs and order of the draws are those that suit the estimate best.
        """
        kept = self._kept(count)
        right = self.draws.right
        if right.is_complex():
            raise DataError(expected("eigenfunctions", "a reversible operator or VAMP", "complex functions"))
        order, sign = matched(right, self.estimate.right, self._metric())
        aligned = right.gather(2, order[:, None].expand_as(right)) * sign[:, None]
        return Draws(torch.einsum("pr,drc->dpc", self._white(x), aligned[..., kept])[None], unit="")

    def transform(self, x: Float[Tensor, "points features"], count: int | None = None) -> Float[Tensor, "points count"]:
        """The functions of the estimate at ``x``: slow coordinates."""
        return self._white(x).to(self.estimate.right.dtype) @ self.estimate.right[:, self._kept(count)]

    def score(self, power: float = 2.0) -> Draws:
        r"""VAMP score :math:`\sum_i \sigma_i^r` of the processes that are kept, the stationary one included."""
        values = self.draws.values.abs()
        return Draws((1 + values[:, 1:].pow(power).sum(1))[None], unit="")

    def gap_probability(self, after: int = 1, ratio: float = 2.0) -> float:
        """Probability that process ``after`` is slower than the next one by this ratio of timescales."""
        if not 1 <= after < self.dimensions:
            raise DataError(expected("after", f"from 1 to {self.dimensions - 1}", after))
        slow, fast = (self.draws.values[:, k].abs().log() for k in (after, after + 1))
        return float((fast <= ratio * slow).double().mean())

    def support(self, found: Draws) -> Float[Tensor, "*shape"]:
        """On about how many independent events each number of ``found``, one of the posteriors above, rests.

        Below three its interval is not to be trusted, see :func:`~bayesmol.dynamics.weights.independent_events`.

        Raises
        ------
        DataError
            If ``found`` is of another operator or of fewer than 300 draws, or these do not come from weights of blocks.
        """
        if self.spec.posterior != "bootstrap":
            raise DataError(expected("posterior", "'bootstrap', which weighs blocks", repr(self.spec.posterior)))
        return independent_events(found.values.flatten(0, 1), self.weights, self.moments.length)

    def leverage(self, frames: Float[Tensor, "rows features"]) -> Float[Tensor, " rows"]:
        """Leverage of configurations in the basis, a score: :func:`~bayesmol.dynamics.strangeness.leverage`."""
        return leverage(self, frames)

    def residual(self, pairs: Float[Tensor, "rows 2 features"]) -> Float[Tensor, " rows"]:
        """What the operator misses of a step in time, a score: :func:`~bayesmol.dynamics.strangeness.residual`."""
        return residual(self, pairs)

    def _kept(self, count: int | None) -> slice:
        count = self.dimensions if count is None else count
        if not 1 <= count <= self.dimensions:
            raise DataError(expected("count", f"from 1 to {self.dimensions}", count, "raise dimensions"))
        return slice(1, count + 1)

    def _metric(self) -> Tensor:
        early, _, late = self.moments.mean()
        return (early + late) / 2

    def _white(self, x: Tensor) -> Tensor:
        values = self.basis(torch.as_tensor(x, dtype=torch.float64, device=self.columns.device))
        return self.columns[0] + values @ self.columns[1:]
