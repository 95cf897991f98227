"""A flow learns from samples and from its own draws, and from the energy how much density is right at each of them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.flows.proposal import Proposal, Target

__all__ = ["BEGIN", "balanced_loss", "check_own", "mean_one", "mixed", "own_draws", "remembered", "settled"]

BEGIN = 0.04  # of the budget; before, draws of the flow are worth little
_ROUNDS = 10  # for which own draws are kept
_LOST = 500.0  # nats below the median of the log-densities of draws
_CLIP = 10.0  # of densities over what they should be, and of weights, in a gradient


def check_own(own: float) -> None:
    """See that the share of own draws is one.

    Raises
    ------
    DataError
        If not.
    """
    if not 0 <= own < 1:
        raise DataError(expected("own", "a share from 0 to below 1", own))


@torch.no_grad()
def own_draws(flow: Proposal, target: Target, size: int, source: torch.Generator) -> dict[str, Tensor]:
    r"""Draws of the flow, their weights :math:`p / \pi` of mean one, and the logarithm of their density π."""
    x, log_q = settled(*flow.sample(size, seed=source))
    return {"own_x": x, "own_weights": mean_one(-target.reduced_energy(x).double() - log_q), "own_log_pi": log_q}


def settled(
    x: Float[Tensor, "draws dimension"], log_q: Float[Tensor, " draws"]
) -> tuple[Float[Tensor, "draws dimension"], Float[Tensor, " draws"]]:
    """Draws, with those that a young flow has thrown out of all bounds replaced, their log-density −∞.

    Affine couplings multiply what they get, and far from all samples one layer drives the next: a few draws in ten
    thousand are not numbers, or have a log-density hundreds of nats below the others.

    Raises
    ------
    ConvergenceError
        If none is left.
    """
    log_q = log_q.double()
    usable = torch.isfinite(x).all(1) & torch.isfinite(log_q)
    if not bool(usable.any()):
        raise ConvergenceError(expected("flow", "draws that are numbers", "none", "lower the rate of its training"))
    usable &= log_q > log_q[usable].median() - _LOST
    return torch.where(usable[:, None], x, x[usable][0]), log_q.masked_fill(~usable, -math.inf)


def mean_one(log_weights: Float[Tensor, "*groups draws"]) -> Float[Tensor, "*groups draws"]:
    """Weights with mean one in each group; zero where there is no density, and for a group that has none at all."""
    known = torch.where(torch.isfinite(log_weights), log_weights, -math.inf)
    return known.softmax(-1).nan_to_num(0.0) * known.shape[-1]


def remembered(data: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
    """Data with the own draws of a round, and those of the rounds before it, of which the oldest are forgotten.

    Those without a density, see :func:`settled`, are left out.
    """
    most = _ROUNDS * len(new["own_x"])
    usable = torch.isfinite(new["own_log_pi"])
    new = {name: x[usable] for name, x in new.items()}
    return data | {name: torch.cat([data[name], x])[-most:] if name in data else x for name, x in new.items()}


def mixed(
    samples: dict[str, Tensor], data: dict[str, Tensor], share: float, size: int, source: torch.Generator
) -> tuple[int, list[Tensor]]:
    """A batch: how many samples, and columns of these and, for a share of it, own draws, where ``data`` has any."""
    count = round(share * size) if len(data.get("own_x", ())) else 0
    columns = _some(list(samples.values()), size - count, source)
    if count:
        own = _some([data[f"own_{name}"] for name in samples], count, source)
        columns = [torch.cat([one, other.to(one)]) for one, other in zip(columns, own, strict=True)]
    return size - count, columns


def _some(columns: list[Tensor], size: int, source: torch.Generator) -> list[Tensor]:
    index = torch.randint(len(columns[0]), (size,), generator=source, device=columns[0].device)
    return [column[index] for column in columns]


def balanced_loss(
    log_q: Float[Tensor, " rows"], weights: Float[Tensor, " rows"], log_pi: Float[Tensor, " rows"], samples: int
) -> Float[Tensor, ""]:
    r"""Forward divergence whose gradient is zero at each row, and not only in the mean, where the flow is right.

    .. math:: \nabla \mathrm{KL}(p \| q_\theta) = \big\langle (v - w)\, \nabla \log q_\theta \big\rangle_\pi, \qquad
              w = p / \pi, \quad v = q_\theta / \pi

    for rows from any law π, because the mean of the score under :math:`q_\theta` is zero. What likelihood alone would
    learn by heart, more density for each row than the target has there, is pushed down again.

    Parameters
    ----------
    weights, log_pi
        Of own draws w and log π, the log-density with which they were drawn. Of samples, for which π is p itself, by
        how much they count and log p up to a constant, which is found from the mean of v over the batch, 1.
    samples
        How many of the rows are samples; they come first. If all are, this is plain likelihood: where the flow has its
        density elsewhere is seen by own draws alone.

    Returns
    -------
    loss
        Its value is :math:`-\sum_i w_i \log q_\theta(x_i) / n` of the samples; v and w are clipped in its gradient,
        which leaves the minimum where it is.

    References
    ----------
    Constrained Mass Transport, arXiv:2510.18460 (2025) (the divergence on own draws).
    """
    if samples == len(log_q):
        return -(weights.to(log_q) * log_q).mean()
    now = log_q.detach().to(log_pi)
    (head, rest), (counted, w) = ((column[:samples], column[samples:]) for column in (now - log_pi, weights))
    counted = counted.masked_fill(~torch.isfinite(head), 0.0)
    head = torch.where(counted > 0, head, 0.0)
    constant = (head + counted.log()).logsumexp(0) - counted.sum().log()
    excess = counted * ((head - constant).exp().clamp(max=_CLIP) - 1)
    pull = torch.cat([excess, rest.exp().clamp(max=_CLIP) - w.clamp(max=_CLIP)]).to(log_q)
    value = -(weights * now)[:samples].mean()
    return value.to(log_q) + (pull * (log_q - log_q.detach())).mean()
