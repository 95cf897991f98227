"""Correlated draws in blocks: how long blocks must be, covariances of sums, and the block bootstrap."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior.estimate import effective_sample_size

__all__ = ["block_bootstrap", "block_length", "summed_covariance"]


def block_length(values: Float[Tensor, "chain draw *event"]) -> int:
    r"""Length of blocks that are about independent: twice the largest autocorrelation time :math:`\hat\tau`.

    1 if no entry is correlated, as far as that can be told from the draws: :math:`\hat\tau \le 1.2`.

    Raises
    ------
    DataError
        If a chain has fewer than four draws.
    ConvergenceError
        If the chains are shorter than ten such blocks.
    """
    total = values.shape[0] * values.shape[1]
    tau = float((total / effective_sample_size(values.double())).max())
    length = 1 if tau <= 1.2 else math.ceil(2 * tau)
    if total < 10 * length:
        raise ConvergenceError(expected("values", f"at least {10 * length} draws", total, "sample longer"))
    return length


def summed_covariance(terms: Float[Tensor, "draws entries"], block: int) -> Float[Tensor, "entries entries"]:
    r"""Covariance of the sum over draws of terms of mean zero, :math:`\frac{B}{B-1} \sum_b t_b t_b^\top`.

    The term :math:`t_b` of a block is the sum of ``block`` consecutive ones; infinite from less than two blocks.

    Raises
    ------
    DataError
        If ``block`` is not positive.
    """
    if block < 1:
        raise DataError(expected("block", "a positive length", block))
    full = -len(terms) % block
    sums = torch.cat([terms, terms.new_zeros(full, terms.shape[1])]).unflatten(0, (-1, block)).sum(1)
    if len(sums) < 2:
        return torch.full((terms.shape[1],) * 2, math.inf, dtype=terms.dtype, device=terms.device)
    return sums.mT @ sums * (len(sums) / (len(sums) - 1))


def block_bootstrap(
    values: Float[Tensor, "chain draw *event"],
    statistic: Callable[[Tensor], Tensor],
    *,
    seed: int | torch.Generator,
    replicates: int = 500,
    block: int | None = None,
) -> Float[Tensor, " replicates *shape"]:
    """Statistic of resampled draws: blocks of consecutive draws, chosen with replacement, chains closed to rings.

    Parameters
    ----------
    statistic
        Function of draws ``(points, *event)``, as many as there are.
    block
        Length of the blocks; by default :func:`block_length` of the values.

    Raises
    ------
    DataError, ConvergenceError
        See :func:`block_length`; or if ``block`` is not from 1 to the length of a chain.

    References
    ----------
    Künsch, Ann. Statist. 17, 1217 (1989); Politis, Romano, in Exploring the Limits of Bootstrap (1992) (circular).
    """
    chains, draws = values.shape[:2]
    length = block_length(values) if block is None else block
    if not 1 <= length <= draws:
        raise DataError(expected("block", f"from 1 to {draws}", length))
    source, device = generator(seed, values.device), values.device
    count, found = math.ceil(chains * draws / length), []
    for _ in range(replicates):
        chain = torch.randint(chains, (count, 1), generator=source, device=device)
        first = torch.randint(draws, (count, 1), generator=source, device=device)
        place = chain * draws + (first + torch.arange(length, device=device)) % draws
        found.append(statistic(values.flatten(0, 1)[place.flatten()[: chains * draws]]))
    return torch.stack(found)
