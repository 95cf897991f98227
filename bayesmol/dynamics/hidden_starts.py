"""Where the estimation of a hidden Markov model starts: metastable sets, blurred and disturbed."""

from __future__ import annotations

import contextlib

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.clustering import KMeans
from bayesmol.dynamics.counts import block_counts
from bayesmol.dynamics.pcca import pcca
from bayesmol.dynamics.reversible import largest_connected_set, reversible_estimate
from bayesmol.errors import ConvergenceError

__all__ = ["starting_memberships"]

_CLUSTERS = 12  # a hidden state
_BLUR = (0.1, 0.5)  # of the first start, and of the others


def starting_memberships(
    trajectories: Trajectories, lag: int, states: int, starts: int, *, seed: torch.Generator
) -> Float[Tensor, "starts frames states"]:
    """Guesses of the hidden states of all frames.

    A Markov model of the states of the trajectories, or of clusters of their features, gives metastable sets. Their
    memberships are mixed with the uniform ones in the first start, and with random ones in the others: a probability
    that starts at zero would stay there.
    """
    discrete = trajectories
    if not trajectories.discrete:
        distinct = len(torch.cat(trajectories.parts).unique(dim=0))
        discrete = KMeans(min(_CLUSTERS * states, distinct)).fit(trajectories, seed=seed).discretise(trajectories)
    names, places = torch.cat(discrete.parts).unique(return_inverse=True)
    even = torch.ones(starts, len(names), states, dtype=torch.float64, device=names.device)
    random = torch._sample_dirichlet(even, generator=seed)
    sets = _metastable(discrete, names, lag, random[0])
    random[0] = 1 / states
    blur = torch.tensor([_BLUR[0]] + [_BLUR[1]] * (starts - 1)).to(sets)[:, None, None]
    return ((1 - blur) * sets + blur * random)[:, places]


def _metastable(
    discrete: Trajectories, names: Int[Tensor, " symbols"], lag: int, otherwise: Float[Tensor, "symbols states"]
) -> Float[Tensor, "symbols states"]:
    """Memberships of the symbols in metastable sets; ``otherwise`` for symbols, or data, without such sets."""
    counts = block_counts(discrete, lag)
    kept = largest_connected_set(counts.total()) if len(counts.states) > 1 else names[:0]
    if len(kept) < otherwise.shape[1]:
        return otherwise.clone()
    memberships, matrix = otherwise.clone(), reversible_estimate(counts.restricted(kept).total()).transition
    with contextlib.suppress(ConvergenceError):
        memberships[torch.searchsorted(names, counts.states[kept])] = pcca(matrix, otherwise.shape[1]).memberships
    return memberships
