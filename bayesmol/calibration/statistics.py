"""Statistics of scores: a number for each question, and the influence of each entry on it.

The influence function gives the standard error without resampling, in one pass, and for entries that depend on each
other within a structure: influences are added up within structures (the infinitesimal jackknife, which is the limit of
the bootstrap over structures).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from bayesmol.calibration.claim import Scores
from bayesmol.calibration.metrics import interval_area
from bayesmol.calibration.ranks import ascending, ascending_midranks, ascending_order
from bayesmol.posterior import Posterior

__all__ = ["STATISTICS", "Influenced", "Kind", "average", "clustered_error", "confidence_interval", "design_effect"]


@dataclass(frozen=True, eq=False)
class Influenced:
    """A statistic and, when asked for, the influence of each entry on it.

    Attributes
    ----------
    value
        The statistic.
    change
        Function that returns the influences.
    kind
        How its interval is made, see :func:`confidence_interval`.
    """

    value: float
    change: Callable[[], Float[Tensor, " entries"]]
    kind: Literal["real", "scale", "proportion", "distance"] = "real"

    @cached_property
    def influence(self) -> Float[Tensor, " entries"]:
        """First-order change of n times the statistic with the weight of each entry; its mean is zero."""
        return self.change()


def clustered_error(influence: Float[Tensor, " entries"], owner: Int[Tensor, " entries"]) -> float:
    r"""Standard error from influences, :math:`\frac1n \bigl(\frac{G}{G-1} \sum_g (\sum_{i \in g} I_i)^2\bigr)^{1/2}`.

    Infinite with one structure.

    References
    ----------
    Efron, The Jackknife, the Bootstrap and Other Resampling Plans (1982), chapter 6; Liang and Zeger, Biometrika 73,
    13 (1986).
    """
    groups = int(owner.max()) + 1
    if groups < 2:
        return math.inf
    sums = influence.new_zeros(groups).index_add_(0, owner, influence)
    return float(sums.square().sum().sqrt()) / len(influence) * math.sqrt(groups / (groups - 1))


def confidence_interval(
    found: Influenced, owner: Int[Tensor, " entries"], reach: float, level: float = 0.95
) -> tuple[float, float]:
    """Interval of what a statistic would be of infinitely many labels.

    Real numbers by Student's t with one degree of freedom less than structures, scales the same on the logarithm, both
    asymptotic; proportions by Wilson's interval with as many trials as give the standard error (as many as structures,
    if it is zero). A distance from what is true is larger than its limit by chance alone, so its standard error says
    too little: by the triangle inequality it differs from its limit by no more than a true claim's differs from zero,
    ``reach``; relative errors scale this with the error itself.

    References
    ----------
    Wilson, J. Am. Stat. Assoc. 22, 209 (1927).
    """
    if not math.isfinite(found.value):
        return -math.inf, math.inf
    if found.kind == "distance":
        half = reach * (1 + found.value)
        return max(0.0, found.value - half), found.value + half
    error, groups = clustered_error(found.influence, owner), int(owner.max()) + 1
    if not math.isfinite(error):
        return (0.0, 1.0) if found.kind == "proportion" else (-math.inf, math.inf)
    if found.kind == "proportion":
        trials = found.value * (1 - found.value) / error**2 if error > 0 else groups
        return _wilson(found.value, trials, level)
    half = float(stats.t.ppf((1 + level) / 2, groups - 1)) * error
    if found.kind == "scale" and found.value > 0:
        return found.value * math.exp(-half / found.value), found.value * math.exp(half / found.value)
    return found.value - half, found.value + half


def _wilson(share: float, trials: float, level: float) -> tuple[float, float]:
    z = float(stats.norm.ppf((1 + level) / 2))
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def design_effect(found: Influenced, owner: Int[Tensor, " entries"]) -> float:
    """Standard error with the dependence within structures over that without, at least 1.

    References
    ----------
    Kish, Survey Sampling, Wiley (1965), section 8.2 (its root).
    """
    if int(owner.max()) + 1 == len(owner):
        return 1.0
    influence = found.influence
    alone = float(influence.square().sum().sqrt()) / len(influence)
    clustered = clustered_error(influence, owner)
    return max(1.0, clustered / alone) if alone > 0 and math.isfinite(clustered) else 1.0


def average(values: Float[Tensor, " entries"], kind: Literal["real", "scale", "proportion"] = "real") -> Influenced:
    """Mean of the entries."""
    mean = values.mean()
    return Influenced(float(mean), lambda: values - mean, kind)


def root_mean(squares: Float[Tensor, " entries"]) -> Influenced:
    """Root of the mean of the entries."""
    root = squares.mean().sqrt()
    return Influenced(float(root), lambda: (squares - root.square()) / (2 * root), "scale")


def area(scores: Scores) -> Influenced:
    """Area between observed and nominal coverage of the central intervals of all levels."""
    central = ascending(scores.central)
    value = interval_area(central)

    def influence() -> Tensor:
        edges = torch.cat([central.new_zeros(1), central, central.new_ones(1)])
        height = torch.arange(len(central) + 1, dtype=central.dtype, device=central.device) / len(central)
        # the integral of sign(C − p) over each step of C, which may change sign once within it
        signed = (height - edges[:-1]).abs() - (height - edges[1:]).abs()
        beyond = signed.flip(0).cumsum(0).flip(0)[1:]
        found = torch.empty_like(central)
        found[ascending_order(scores.central)] = beyond
        return _centred(found)

    return Influenced(float(value), influence, "distance")


def distance(scores: Scores) -> Influenced:
    """Largest distance between the distribution function of the transforms and the diagonal (Kolmogorov, Smirnov)."""
    ordered = ascending(scores.pit)
    ranks = torch.arange(len(ordered) + 1, dtype=ordered.dtype, device=ordered.device) / len(ordered)
    above, below = ranks[1:] - ordered, ordered - ranks[:-1]
    upward = bool(above.max() >= below.max())
    at = ordered[int(above.argmax() if upward else below.argmax())]

    def influence() -> Tensor:
        hit = (scores.pit <= at if upward else scores.pit < at).double()
        return (1 if upward else -1) * (hit - hit.mean())

    return Influenced(float(torch.maximum(above.max(), below.max())), influence, "distance")


def rank_correlation(scores: Scores) -> Influenced:
    r"""Spearman's correlation of :math:`|e|` and :math:`\sigma`; zero if one of them is constant."""
    # In the order of the errors, which needs no rank of each entry unless influences are asked for.
    u, v = _centred(ascending_midranks(scores.ordered)), _centred(scores.claim.ranks)
    scale = float((u.square().mean() * v.square().mean()).sqrt())
    if scale == 0:
        return Influenced(0.0, lambda: torch.zeros_like(v))

    def influence() -> Tensor:
        ranks = torch.empty_like(u)
        ranks[scores.order] = u
        # Besides its own product an entry moves the ranks of all entries above it.
        moved = _above(v / len(v), scores.order) + _above(ranks / len(v), scores.claim.order)
        return _centred(ranks * v + moved) / scale

    return Influenced(float((u * v[scores.order]).mean()) / scale, influence)


def sparsification(scores: Scores) -> Influenced:
    r"""How much of what an oracle gains is gained by discarding the entries with the largest :math:`\sigma`.

    With the mean absolute error of the fraction q of least :math:`\sigma`, averaged over q and divided by that of all,
    called S, and the same for the oracle that sorts by :math:`|e|`: :math:`(1 - S_\sigma) / (1 - S_{|e|})`; 1 is an
    oracle, 0 is chance. A true claim lies between, at its reference.
    """
    error = scores.error.abs()
    own, oracle = (float((scores.claim.gains * x).mean()) for x in (error[scores.claim.order], scores.ordered))
    value = own / oracle if oracle > 0 else 0.0

    def influence() -> Tensor:
        ranks = torch.arange(1, len(error) + 1, dtype=error.dtype, device=error.device)
        parts = []
        for order in (scores.claim.order, scores.order):
            found = torch.empty_like(error)
            found[order] = error[order] / ranks
            moved = _above(found, order)  # an entry also moves the ranks of those above it
            found[order] = scores.claim.gains * error[order]
            parts.append(found + moved)
        return _centred(parts[0] - value * parts[1]) / oracle

    return Influenced(value, influence)


def expected_calibration_error(scores: Scores) -> Influenced:
    r"""Mean over bins of :math:`\sigma` of :math:`|\mathrm{RMV} - \mathrm{RMSE}|/\mathrm{RMV}` (ENCE).

    Bins have equally many entries; there are at most 20, with at least 10 entries each. Of a true claim it is not
    zero, and it grows with the bins: only the reference band says what it means.

    References
    ----------
    Levi, Gispan, Giladi, Fetaya, Sensors 22, 5540 (2022), equation 9.
    """
    place, sizes, predicted = scores.claim.bins
    used = (sizes > 0) / (sizes > 0).sum()  # a bin is empty if many deviations are equal
    squares = place.bincount(scores.error.square(), len(sizes)) / sizes.clamp_min(1)
    predicted, observed = predicted.clamp_min(1e-300), squares.sqrt().clamp_min(1e-300)
    gap = used * (observed - predicted) / predicted

    def influence() -> Tensor:
        slope = used * gap.sign() / (2 * observed * predicted) * len(place) / sizes.clamp_min(1)
        return slope[place] * (scores.error.square() - squares[place])

    return Influenced(float(gap.abs().sum()), influence, "distance")


@dataclass(frozen=True)
class Kind:
    """A statistic of scores.

    Attributes
    ----------
    function
        Computes it.
    meaning
        What it is, in a few words.
    has_unit
        Whether it has the unit of the quantity; otherwise it is a pure number.
    needs
        What the claim must say: transforms (which all do), mean and variance, or also a density.
    """

    function: Callable[[Scores], Influenced]
    meaning: str
    has_unit: bool = False
    needs: Literal["transforms", "moments", "density"] = "moments"

    def applies(self, scores: Scores) -> bool:
        """Whether the claim says enough."""
        if self.needs == "density" and type(scores.claim.posterior)._log_prob is Posterior._log_prob:
            return False
        return self.needs == "transforms" or scores.claim.has_moments


def _covered(level: float) -> Kind:
    meaning = f"of the central {100 * level:g} % intervals"
    return Kind(lambda s: average(s.inside(level).double(), "proportion"), meaning, needs="transforms")


STATISTICS = {
    "bias": Kind(lambda s: average(s.z), "mean of z = error/σ"),
    "z_mean_square": Kind(lambda s: average(s.z.square(), "scale"), "mean of z²"),
    "coverage_50": _covered(0.5),
    "coverage_90": _covered(0.9),
    "coverage_95": _covered(0.95),
    "miscalibration_area": Kind(area, "between observed and nominal coverage", needs="transforms"),
    "pit_distance": Kind(distance, "largest, of the PIT from uniform", needs="transforms"),
    "calibration_error": Kind(expected_calibration_error, "|RMSE − σ|/σ, mean over bins of σ"),
    "rank_correlation": Kind(rank_correlation, "of |error| and σ (Spearman)"),
    "sparsification": Kind(sparsification, "gain by discarding large σ, of an oracle's"),
    "mae": Kind(lambda s: average(s.error.abs(), "scale"), "mean absolute error", True),
    "rmse": Kind(lambda s: root_mean(s.error.square()), "root mean square error", True),
    "crps": Kind(lambda s: average(s.crps, "scale"), "continuous ranked probability score", True),
    "interval_score_90": Kind(lambda s: average(s.penalty(0.9), "scale"), "of the 90 % intervals", True),
    "weighted_interval_score": Kind(lambda s: average(s.weighted, "scale"), "of five levels", True),
    "nll": Kind(lambda s: average(s.nll), "negative log-density, in nats", needs="density"),
}


def _above(values: Float[Tensor, " entries"], order: Int[Tensor, " entries"]) -> Float[Tensor, " entries"]:
    """For each entry the sum of ``values`` over the entries from its place in the order on."""
    found = torch.empty_like(values)
    found[order] = values[order].flip(0).cumsum(0).flip(0)
    return found


def _centred(values: Tensor) -> Tensor:
    return values - values.mean()
