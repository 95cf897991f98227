"""The Chapman–Kolmogorov test: does a model at one lag predict what the data show at its multiples?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.counts import BlockCounts, block_counts
from bayesmol.dynamics.macrostates import indicators
from bayesmol.dynamics.markov_state_model import FittedMarkovStateModel, places
from bayesmol.dynamics.pcca import pcca
from bayesmol.errors import DataError, expected
from bayesmol.posterior import Draws

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ChapmanKolmogorov", "chapman_kolmogorov"]


@dataclass(frozen=True, eq=False)
class ChapmanKolmogorov:
    """Probabilities to be in the same set again after multiples of the lag, predicted and seen.

    Attributes
    ----------
    times
        Multiples of the lag, in ``unit`` of the model.
    predicted, seen
        By powers of the transition matrix, and from pairs of frames at these lags; (multiples, sets).
    difference
        Of the two, draw by draw: they are of the same data, so it is known better than either.
    p_value
        Probability of differences at least as large if the model were right.
    unit
        Of time.
    """

    times: Float[Tensor, " multiples"]
    predicted: Draws
    seen: Draws
    difference: Draws
    p_value: float
    unit: str

    def plot(self) -> Figure:
        """Predicted lines with 95 % bands, and the data with 95 % intervals, one panel a set."""
        from matplotlib.figure import Figure

        count = self.predicted.shape[1]
        figure = Figure(figsize=(2.6 * count, 2.6), layout="constrained")
        panels = figure.subplots(1, count, squeeze=False, sharey=True)[0]
        band, bars = self.predicted.interval(0.95), self.seen.interval(0.95)
        for k, panel in enumerate(panels):
            panel.fill_between(self.times, band.lower[:, k], band.upper[:, k], color="#2f6fb3", alpha=0.3, linewidth=0)
            panel.plot(self.times, self.predicted.mean[:, k], color="#2f6fb3", label="predicted")
            middle = self.seen.mean[:, k]
            ends = torch.stack([middle - bars.lower[:, k], bars.upper[:, k] - middle]).clamp_min(0)
            panel.errorbar(self.times, middle, ends, fmt="o", color="#222222", markersize=3, capsize=2, label="seen")
            panel.set(xlabel=f"time ({self.unit})", title=f"set {k + 1}")
            panel.spines[["top", "right"]].set_visible(False)
        panels[0].set_ylabel("probability to be there again")
        panels[0].legend(fontsize=7, frameon=False)
        figure.suptitle(f"Chapman–Kolmogorov test, p = {self.p_value:.2g}", fontsize=9)
        return figure


def chapman_kolmogorov(
    model: FittedMarkovStateModel,
    data: Any,
    multiples: Sequence[int] = (2, 4, 8),
    *,
    sets: Sequence[Sequence[int]] | int = 2,
) -> ChapmanKolmogorov:
    r"""Test :math:`P(\tau)^k = P(k \tau)` by the probabilities of staying in sets of states.

    For the estimate of the difference d and its covariance S over the draws, :math:`d^\top S^{-1} d` follows
    Hotelling's :math:`T^2` with the degrees of freedom of the block weights.

    Parameters
    ----------
    data
        The trajectories of the model, of features or of states.
    multiples
        k, each above one.
    sets
        Sets of connected states, each state in one of them; or the number of metastable sets.

    Raises
    ------
    DataError
        If the multiples are not above one, the sets do not cover the states, or there are more differences than
        degrees of freedom.
    ConvergenceError
        If no trajectory is as long as the longest lag.

    References
    ----------
    Prinz et al., J. Chem. Phys. 134, 174105 (2011), section IV.
    """
    if not multiples or min(multiples) < 2:
        raise DataError(expected("multiples", "numbers from 2 on", list(multiples)))
    inside: Sequence[Sequence[int] | Tensor]
    if isinstance(sets, int):
        inside = pcca(model.transition_matrix, sets).sets()
    else:
        inside = [places(model, one, "sets") for one in sets]
    member = indicators(inside, len(model.states)).to(model.transition_matrix)
    freedom, count = model.weights.freedom, len(multiples) * member.shape[1]
    if not count < freedom:
        wanted = f"fewer than {freedom:.0f} multiples times sets, the degrees of freedom"
        raise DataError(expected("multiples, sets", wanted, count, "take fewer, or sample longer"))
    longer = [_counted(model, data, k) for k in multiples]
    batches = [_both(model, longer, weights, multiples, member) for weights in _with_estimate(model)]
    predicted, seen = (torch.cat(part) for part in zip(*batches, strict=True))
    off = predicted - seen
    p_value = _hotelling(off[0].flatten(), off[1:].flatten(1), freedom)
    times = torch.tensor([k * model.spec.lag * model.time_step for k in multiples])
    forecast, found, gap = (Draws(part[1:][None], unit="") for part in (predicted, seen, off))
    return ChapmanKolmogorov(times, forecast, found, gap, p_value, model.unit)


def _counted(model: FittedMarkovStateModel, data: Any, multiple: int) -> BlockCounts:
    """Counts at a multiple of the lag between the states of the model, in its blocks."""
    trajectories = Trajectories.of(data)
    if model.partition is not None:
        trajectories = model.partition.discretise(trajectories)
    found = block_counts(trajectories, multiple * model.spec.lag, block=model.counts.length)
    places = torch.searchsorted(found.states, model.states)
    if not bool((found.states[places.clamp(max=len(found.states) - 1)] == model.states).all()):
        raise DataError(expected("data", "the trajectories of the model", "some of its states do not occur"))
    aligned = replace(found, values=found.like(model.counts), trajectory=model.counts.trajectory)
    return aligned.restricted(places)


def _with_estimate(model: FittedMarkovStateModel) -> tuple[Tensor, ...]:
    """Weights of the draws in parts, after those of the estimate, which are one."""
    values = model.weights.values
    size = max(1, int(2e7 / len(model.states) ** 2))
    return torch.cat([torch.ones_like(values[:1]), values]).split(size)


def _both(
    model: FittedMarkovStateModel, longer: list[BlockCounts], weights: Tensor, multiples: Sequence[int], member: Tensor
) -> tuple[Tensor, Tensor]:
    short = model.spec.transitions(model.counts.total(weights), model.estimate.potentials)
    predicted = [_staying(torch.linalg.matrix_power(short.transition, k), short.stationary, member) for k in multiples]
    long = (model.spec.transitions(counts.total(weights)) for counts in longer)
    seen = [_staying(one.transition, one.stationary, member) for one in long]
    return torch.stack(predicted, 1), torch.stack(seen, 1)


def _staying(transition: Tensor, stationary: Tensor, member: Tensor) -> Float[Tensor, "draws sets"]:
    r""":math:`\sum_{i, j \in A} \pi_i P_{ij} / \sum_{i \in A} \pi_i` of each set A."""
    inside = stationary[..., None] * member
    return (inside * (transition @ member)).sum(1) / inside.sum(1)


def _hotelling(value: Float[Tensor, " entries"], draws: Float[Tensor, "draws entries"], freedom: float) -> float:
    """Probability of a larger T²; the draws of a variance with ν degrees of freedom spread ν / (ν − 2) wider."""
    covariance = torch.cov(draws.mT).reshape(len(value), len(value)) * (freedom - 2) / freedom
    square = float(value @ torch.linalg.pinv(covariance, rtol=1e-8, hermitian=True) @ value)
    count = len(value)
    return float(stats.f.sf(square * (freedom - count + 1) / (freedom * count), count, freedom - count + 1))
