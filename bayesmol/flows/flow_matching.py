"""Equivariant flow matching: a velocity learned by regression, without integrating it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.flows.continuous import ContinuousFlow
from bayesmol.flows.counted import Counted
from bayesmol.flows.optimisation import Objective, Optimisation
from bayesmol.flows.proposal import Target
from bayesmol.flows.training import Training, train
from bayesmol.inference.metropolis import MALA
from bayesmol.inference.random import generator
from bayesmol.inference.trajectories import centred

__all__ = ["FlowMatching", "aligned"]


def aligned(
    latent: Float[Tensor, "points particles space"], x: Float[Tensor, "points particles space"], *, turns: int = 2
) -> Float[Tensor, "points particles space"]:
    r"""Each configuration with particles permuted, turned and perhaps mirrored so that it is near its latent one.

    The permutation is the best assignment :math:`\max_P \sum_i z_i \cdot x_{P i}`, the rotation that of Kabsch; they
    are found one after the other, ``turns`` times, so that the distance falls but need not become the least.

    References
    ----------
    Klein, Krämer, Noé, NeurIPS (2023), arXiv:2306.15030; Kabsch, Acta Crystallogr. A 32, 922 (1976).
    """
    from scipy.optimize import linear_sum_assignment

    for _ in range(turns):
        gain = (latent @ x.mT).cpu().numpy()
        order = torch.tensor([linear_sum_assignment(row, maximize=True)[1].tolist() for row in gain], device=x.device)
        x = x.gather(1, order.unsqueeze(2).expand_as(x))
        left, _, right = torch.linalg.svd(x.mT @ latent)
        x = x @ (left @ right)
    return x


@dataclass(frozen=True)
class FlowMatching:
    r"""Learn the velocity of a continuous flow from configurations, by regression on straight paths.

    .. math:: \mathbb E\, \bigl| v(t, (1 - t) z + t x) - (x - z) \bigr|^2

    with z from the base and x a configuration that is aligned to z. No energy is used: the flow learns the density of
    the samples. Without samples, Markov chains from ``target.start`` make them. In each further round draws of the
    flow are weighted, resampled and moved by the chains, and take the place of the samples: this corrects populations
    that short chains, or wrong samples, do not have right.

    Attributes
    ----------
    optimisation
        Budget and rates. No forward effective sample size is looked at, since a density costs as much as some hundred
        steps; look at it afterwards, on configurations that were not among the samples.
    rounds
        Number of sets of samples.
    size
        Configurations that are made for a round.
    chains
        How the chains that make them move. The first samples are ``size`` draws of all chains together, of the later
        ones each has its own chain, which moves for its warm-up.

    References
    ----------
    Klein, Krämer, Noé, NeurIPS (2023), arXiv:2306.15030; Lipman, Chen, Ben-Hamu, Nickel, Le, ICLR (2023),
    arXiv:2210.02747.
    """

    optimisation: Optimisation = field(default_factory=lambda: Optimisation(batch=256, rate=3e-3, average=500.0))
    rounds: int = 1
    size: int = 20_000
    chains: MALA = field(default_factory=lambda: MALA(warmup=1000, draws=40, thin=20))

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.size < self.chains.draws:
            raise DataError(expected("rounds, size", "at least 1, and as many as the draws of a chain", self))

    def fit(
        self,
        flow: ContinuousFlow,
        target: Target,
        samples: Float[Tensor, "points dimension"] | None = None,
        *,
        seed: int | torch.Generator,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Training:
        """Fit the velocity of ``flow`` in place.

        Raises
        ------
        ShapeError, DataError
            If samples do not fit the flow or are not finite, or there are neither samples nor ``target.start``.
        """
        source = generator(seed, next(flow.parameters()).device)
        resumed = checkpoint is not None and Path(checkpoint).exists()
        first, evaluations = ({}, 0) if resumed else self._first(flow, target, samples, source)
        matching = cast(Objective, _Matching(self, first))
        training = train(matching, flow, target, seed=source, checkpoint=checkpoint, spent=evaluations)
        note = "the flow learned the density of its samples; only weights make averages those of the energy"
        return replace(training, notes=(note,))

    def _first(
        self, flow: ContinuousFlow, target: Target, samples: Tensor | None, source: torch.Generator
    ) -> tuple[dict[str, Tensor], int]:
        """Data of the first round, which are centred samples, and their cost; sets the scale of the flow to theirs."""
        evaluations = 0
        if samples is None:
            if (start := getattr(target, "start", None)) is None:
                raise DataError(expected("samples", "configurations, or a density with start", "neither"))
            walkers = math.ceil(self.size / self.chains.draws)
            start = start.to(source.device).repeat(math.ceil(walkers / len(start)), 1)[:walkers]
            walk = self.chains.fit(target, start, seed=source)
            samples, evaluations = walk.values.flatten(0, 1), walk.evaluations
        if samples.ndim != 2 or samples.shape[1] != flow.dimension or len(samples) < 2:
            raise ShapeError(expected("samples", f"(points, {flow.dimension})", tuple(samples.shape)))
        if not bool(torch.isfinite(samples).all()):
            raise DataError(expected("samples", "finite numbers", "NaN or infinity"))
        base = flow.base
        rows = centred(samples.double(), base.space)
        freedom = (base.particles - 1) * base.space
        with torch.no_grad():
            flow.transform.log_scale.copy_((rows.square().sum(1).mean() / freedom).log() / 2)
        return {"x": rows}, evaluations


@dataclass(frozen=True, eq=False)
class _Matching:
    """Flow matching as the training loop sees it."""

    settings: FlowMatching
    first: dict[str, Tensor] = field(repr=False)

    @property
    def optimisation(self) -> Optimisation:
        return self.settings.optimisation

    @property
    def rounds(self) -> int:
        return self.settings.rounds

    def refresh(
        self, flow: ContinuousFlow, target: Counted, data: dict[str, Tensor], turn: int, source: torch.Generator
    ) -> dict[str, Tensor]:
        if turn == 0:
            return self.first
        with torch.no_grad():
            x, log_q = flow.sample(self.settings.size, seed=source)
        log_w = -target.reduced_energy(x.double()) - log_q.double()
        chosen = torch.multinomial(log_w.softmax(0), len(x), replacement=True, generator=source)
        walk = replace(self.settings.chains, draws=1, thin=1).fit(target.target, x[chosen].double(), seed=source)
        target.evaluations += walk.evaluations
        return {"x": walk.rows}

    def loss(
        self, flow: ContinuousFlow, target: Counted, data: dict[str, Tensor], source: torch.Generator
    ) -> tuple[Tensor, None]:
        base, batch = flow.base, self.settings.optimisation.batch
        rows = torch.randint(len(data["x"]), (batch,), generator=source, device=source.device)
        x = data["x"][rows].to(flow.dtype) * (-flow.transform.log_scale.detach()).exp()
        z = base.sample(batch, seed=source, dtype=flow.dtype)
        shape = (batch, base.particles, base.space)
        x = aligned(z.reshape(shape), x.reshape(shape)).flatten(1)
        t = torch.rand(batch, 1, generator=source, device=source.device, dtype=flow.dtype)
        velocity = flow.transform.field(t.squeeze(1), torch.lerp(z, x, t))
        return (velocity - (x - z)).square().mean(), None
