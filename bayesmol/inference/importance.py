"""Importance sampling from log-weights alone: effective sizes, partition functions, populations, smoothed weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.inference.blocks import summed_covariance
from bayesmol.posterior import Estimate
from bayesmol.posterior.arviz import pareto_smoothed
from bayesmol.posterior.estimate import kish

__all__ = [
    "EffectiveSize",
    "PartitionBounds",
    "Populations",
    "SmoothedWeights",
    "effective_size",
    "forward_effective_size",
    "k_hat_limit",
    "log_partition",
    "partition_bounds",
    "populations",
    "smoothed_weights",
]


@dataclass(frozen=True)
class EffectiveSize:
    """How many equal weights these weights are worth; prints as ``813 of 2000 (41 %)``.

    Attributes
    ----------
    effective, draws
        The effective number, and the number of draws it was estimated from: from few draws it is too large.
    """

    effective: float
    draws: int

    @property
    def fraction(self) -> float:
        """Effective number as a share of the draws."""
        return self.effective / self.draws

    def __str__(self) -> str:
        return f"{self.effective:.0f} of {self.draws} ({100 * self.fraction:.3g} %)"


def effective_size(log_weights: Float[Tensor, " draws"]) -> EffectiveSize:
    r"""Kish's effective size :math:`(\sum w)^2 / \sum w^2` of weights at draws of the proposal.

    Blind to regions that the proposal misses; see :func:`forward_effective_size`.

    Raises
    ------
    DataError
        If a weight is NaN or infinite, or none is positive.
    """
    return EffectiveSize(float(kish(_checked(log_weights))), len(log_weights))


def forward_effective_size(log_weights: Float[Tensor, " draws"]) -> EffectiveSize:
    r"""Effective size from weights at draws of the target, which sees regions that the proposal misses.

    .. math:: \frac{n}{\langle w \rangle_p \, \langle 1/w \rangle_p}

    because :math:`Z = 1 / \langle 1/w \rangle_p` and :math:`\langle w^2 \rangle_q = Z \langle w \rangle_p`; as a share
    it is what :func:`effective_size` tends to as the proposal is drawn for ever. Zero if the density of the proposal
    vanishes at a draw of the target.

    Raises
    ------
    DataError
        If a log-weight is NaN or −∞, which at a draw of the target says that its energy is infinite.
    """
    values = log_weights.double()
    if not len(values) or bool((torch.isnan(values) | (values == -math.inf)).any()):
        raise DataError(expected("log_weights", "numbers or +∞, at least one", "none, NaN or −∞"))
    draws = len(values)
    logarithm = 3 * math.log(draws) - values.logsumexp(0) - (-values).logsumexp(0)
    return EffectiveSize(0.0 if bool(torch.isinf(values).any()) else float(logarithm.exp()), draws)


def k_hat_limit(draws: int) -> float:
    r"""Largest tail index at which estimates from so many draws can be trusted, :math:`\min(1 - 1/\log_{10} n, 0.7)`.

    References
    ----------
    Vehtari, Simpson, Gelman, Yao, Gabry, J. Mach. Learn. Res. 25, 72 (2024).
    """
    return min(1 - 1 / math.log10(draws), 0.7) if draws > 1 else -math.inf


@dataclass(frozen=True, eq=False)
class SmoothedWeights:
    """Importance weights with a smoothed tail.

    Attributes
    ----------
    log_weights
        The largest replaced by quantiles of a generalised Pareto law; on the scale of the raw ones.
    pareto_k
        Tail index of that law: moments of the weights above its reciprocal are infinite.
    """

    log_weights: Float[Tensor, " draws"]
    pareto_k: float

    @property
    def limit(self) -> float:
        """See :func:`k_hat_limit`."""
        return k_hat_limit(len(self.log_weights))

    @property
    def reliable(self) -> bool:
        """Whether the tail index is at most the limit."""
        return self.pareto_k <= self.limit


def smoothed_weights(log_weights: Float[Tensor, " draws"]) -> SmoothedWeights:
    """Pareto-smoothed importance weights and their tail index, by ArviZ; infinite from fewer than 25 draws.

    Raises
    ------
    DataError
        If a weight is NaN or infinite, or none is positive.
    """
    return SmoothedWeights(*pareto_smoothed(_checked(log_weights)))


def log_partition(log_weights: Float[Tensor, " draws"], *, block: int = 1) -> Estimate:
    r"""Logarithm of the mean weight, :math:`\ln \frac1n \sum_i w_i`, with its error by the delta method.

    .. math:: \sigma^2 = \frac{1}{n - 1} \left( \frac{\langle w^2 \rangle}{\langle w \rangle^2} - 1 \right)

    Parameters
    ----------
    block
        Length of the blocks of correlated draws, see :func:`~bayesmol.inference.blocks.block_length`; 1 if they are
        independent.

    Raises
    ------
    DataError
        If a weight is NaN or infinite, or none is positive.
    """
    weights = _checked(log_weights).softmax(0)
    centred = (weights - 1 / len(weights)).unsqueeze(1)
    value = log_weights.double().logsumexp(0) - math.log(len(log_weights))
    return Estimate(value, summed_covariance(centred, block).squeeze().sqrt(), kish(log_weights.double()), "")


@dataclass(frozen=True, eq=False)
class PartitionBounds:
    r"""The logarithm of the partition function from both sides, :math:`\langle \ln w \rangle_q \le \ln Z \le
    \langle \ln w \rangle_p`.

    Attributes
    ----------
    lower, upper
        Evidence lower and upper bound; −∞ and +∞ exactly if a draw has weight zero or infinity.
    """

    lower: Estimate
    upper: Estimate

    @property
    def gap(self) -> Estimate:
        """Symmetric Kullback-Leibler divergence of proposal and target, in nats; zero if they are the same."""
        error = torch.hypot(self.lower.standard_error, self.upper.standard_error)
        count = torch.minimum(self.lower.effective_sample_size, self.upper.effective_sample_size)
        return Estimate(self.upper.value - self.lower.value, error, count, "")


def partition_bounds(
    proposal: Float[Tensor, " proposal"], target: Float[Tensor, " target"], *, block: int = 1
) -> PartitionBounds:
    """Bounds from log-weights at draws of the proposal and at draws of the target.

    Parameters
    ----------
    block
        Length of the blocks of correlated draws of the target.

    Raises
    ------
    DataError
        If a log-weight is NaN, infinite at a draw of the proposal, or −∞ at one of the target.
    """
    if bool((torch.isnan(proposal) | (proposal == math.inf)).any()) or not len(proposal):
        raise DataError(expected("proposal", "numbers or −∞, at least one", "none, NaN or +∞"))
    if bool((torch.isnan(target) | (target == -math.inf)).any()) or not len(target):
        raise DataError(expected("target", "numbers or +∞, at least one", "none, NaN or −∞"))
    return PartitionBounds(_mean(proposal.double(), 1), _mean(target.double(), block))


@dataclass(frozen=True, eq=False)
class Populations:
    """Probabilities of states, estimated together.

    Attributes
    ----------
    shares
        One for each state. The standard error of a state without any draw is infinite.
    covariance
        Of the shares.
    """

    shares: Estimate
    covariance: Float[Tensor, "states states"]

    def free_energy_difference(self, first: int, second: int) -> Estimate:
        r"""Free energy of the second state minus that of the first, :math:`-\ln(P_B / P_A)`, in units of kT.

        Its influence function is :math:`1_A / P_A - 1_B / P_B`.

        Raises
        ------
        ConvergenceError
            If one of the two has no draws.
        """
        pair = torch.tensor([first, second])
        share = self.shares.value[pair]
        if bool((share == 0).any()):
            remedy = "sample from a proposal that reaches it"
            raise ConvergenceError(expected("draws", "some in both states", share.tolist(), remedy))
        slope = torch.tensor([1.0, -1.0]).to(share) / share
        variance = slope @ self.covariance[pair][:, pair] @ slope
        count = self.shares.effective_sample_size[pair].amin()
        return Estimate((share[0] / share[1]).log(), variance.clamp_min(0).sqrt(), count, "")


def populations(
    labels: Int[Tensor, " draws"],
    log_weights: Float[Tensor, " draws"] | None = None,
    *,
    states: int,
    block: int = 1,
) -> Populations:
    r"""Probabilities of states from weighted draws, :math:`P_k = \sum_i W_i 1[s_i = k]`.

    Errors are those of the delta method, :math:`\mathrm{cov} = \sum_i W_i^2 (1_k - P_k)(1_l - P_l)`; of correlated
    draws, the terms of each block are added before they are multiplied.

    Parameters
    ----------
    labels
        State of each draw, from 0; a negative one belongs to no state.
    log_weights
        All equal if ``None``.
    block
        Length of the blocks of correlated draws, see :func:`~bayesmol.inference.blocks.block_length`; 1 if they are
        independent.

    Raises
    ------
    ShapeError, DataError
        If labels and weights differ in number, a label is too large, or weights cannot be used.
    """
    log_weights = torch.zeros(len(labels), device=labels.device) if log_weights is None else log_weights
    if labels.shape != log_weights.shape:
        raise ShapeError(expected("labels", f"shape {tuple(log_weights.shape)}", tuple(labels.shape)))
    if bool((labels >= states).any()):
        raise DataError(expected("labels", f"below {states}", int(labels.max())))
    checked = _checked(log_weights)
    inside = (torch.arange(states, device=labels.device) == labels.unsqueeze(1)).double()
    weights = checked.softmax(0)
    share = weights @ inside
    covariance = summed_covariance(weights.unsqueeze(1) * (inside - share), block)
    error = torch.where(share > 0, covariance.diagonal().clamp_min(0).sqrt(), math.inf)
    count = kish(checked).expand_as(share).clone()
    return Populations(Estimate(share, error, count, ""), covariance)


def _mean(values: Tensor, block: int) -> Estimate:
    mean = values.mean()
    if bool(torch.isinf(mean)):
        return Estimate(mean, torch.zeros_like(mean), mean.new_tensor(float(len(values))), "")
    variance = summed_covariance(((values - mean) / len(values)).unsqueeze(1), block).squeeze()
    count = len(values) / block
    return Estimate(mean, variance.sqrt(), mean.new_tensor(float(count)), "")


def _checked(log_weights: Tensor) -> Float[Tensor, " draws"]:
    """Log-weights in double precision, if they can be used."""
    if log_weights.ndim != 1 or not len(log_weights):
        raise ShapeError(expected("log_weights", "(draws,), at least one", tuple(log_weights.shape)))
    if bool((torch.isnan(log_weights) | (log_weights == math.inf)).any()):
        raise DataError(expected("log_weights", "numbers or −∞", "NaN or +∞"))
    if not bool((log_weights > -math.inf).any()):
        raise DataError(expected("log_weights", "some above −∞", "all −∞", "no draw has a finite energy"))
    return log_weights.detach().double()
