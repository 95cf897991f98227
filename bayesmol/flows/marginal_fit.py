"""A start for training: the marginal maps of a new flow, fitted alone."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.flows.elementwise import Marginals
from bayesmol.flows.flow import Flow
from bayesmol.inference.random import generator

__all__ = ["fit_marginals"]

_STEPS, _BATCH, _RATE = 300, 1024, 5e-2


def fit_marginals(flow: Flow, rows: Float[Tensor, "points dimension"], *, seed: int | torch.Generator) -> None:
    """Fit the first layer of a new flow in place, where it is a layer of marginal maps, to the marginals of a sample.

    The layers after it are the identity, so its density is a product, and a step costs a hundredth of one of the whole
    flow. Peaks and wells of single coordinates are then in place before any network has learned.
    """
    first = next(iter(flow.transform.children()))[0]
    if not isinstance(first, Marginals):
        return
    source = generator(seed, rows.device)
    adam = torch.optim.Adam(first.parameters(), _RATE)
    for step in range(_STEPS):
        for group in adam.param_groups:
            group["lr"] = _RATE * (1 + math.cos(math.pi * step / _STEPS)) / 2
        batch = rows[torch.randint(len(rows), (_BATCH,), generator=source, device=rows.device)]
        z, volume = first(batch)
        loss = -(flow.base.log_prob(z) + volume).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
