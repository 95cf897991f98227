"""Stochastic-gradient Hamiltonian Monte Carlo: Langevin dynamics of the parameters with gradients from batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.inference.chains import Chains
from bayesmol.inference.random import generator
from bayesmol.inference.targets import Target
from bayesmol.progress import progress

__all__ = ["StochasticHamiltonian"]


@dataclass(frozen=True)
class StochasticHamiltonian:
    r"""Langevin dynamics in the potential :math:`-\ln\pi(w)`, one gradient of one batch a step.

    .. math:: dq = v\,dt, \qquad dv = s \nabla_w \ln\pi(m + s q)\,dt - \gamma v\,dt + \sqrt{2\gamma}\,dW

    with constant scales s of the parameters. A step of length h is the symmetric splitting BAOAB, with
    :math:`e^{-\gamma h}` the ``momentum``; at momentum zero it is a stochastic-gradient Langevin step of size
    :math:`h^2/2`. On a normal posterior with precision :math:`\lambda` (in units of s) and the gradient of all data the
    variance is exactly :math:`1/\lambda` for any stable h < :math:`2/\sqrt\lambda`. Independent batches add noise of
    variance V to the gradient, and for short steps the variance becomes

    .. math:: \frac{1}{\lambda} \left(1 + \frac{h V}{2 \gamma} \right), \quad\text{at momentum zero}\quad
              \frac{1}{\lambda} \left(1 + \frac{h^2 V}{4} \right),

    so the posterior is too wide by a factor that falls with the square of h: halve the step until nothing changes.
    Batches that pass once through all data, as here, make less noise than independent ones.

    Attributes
    ----------
    step
        h, of parameters in units of their scales: about a fifth of the narrowest posterior deviation or less.
    momentum
        Share of the velocity that survives a step.
    warmup, draws, thin
        Steps that are dropped, draws that are kept of each chain, and steps from one draw to the next.
    chains
        Number of chains.
    cycle
        Number of steps of a cycle in which the step falls from h to h/10 by half a cosine, to reach several modes;
        draws are taken in the second half of each cycle. A constant step if ``None``.

    References
    ----------
    Chen, Fox, Guestrin, ICML 2014 (arXiv:1402.4102); Leimkuhler, Matthews, Appl. Math. Res. Express 2013, 34 (BAOAB);
    Zhang, Li, Zhang, Chen, Wilson, ICLR 2020 (arXiv:1902.03932) (cycles); Welling, Teh, ICML 2011 (momentum zero).
    """

    step: float = 0.1
    momentum: float = 0.9
    warmup: int = 1000
    draws: int = 100
    thin: int = 20
    chains: int = 2
    cycle: int | None = None

    def __post_init__(self) -> None:
        if not (self.step > 0 and 0 <= self.momentum < 1):
            raise DataError(expected("step, momentum", "a positive number and one in [0, 1)", self))
        if min(self.draws, self.thin, self.chains) < 1 or self.warmup < 0:
            raise DataError(expected("draws, thin, chains, warmup", "positive counts", self))
        if self.cycle is not None and self.cycle < 2 * self.thin:
            raise DataError(expected("cycle", f"at least two times thin, {2 * self.thin}", self.cycle))

    def fit(
        self,
        target: Target,
        start: Float[Tensor, "*chains parameters"],
        *,
        scales: Float[Tensor, " parameters"] | None = None,
        seed: int | torch.Generator,
    ) -> Chains:
        """Draws of the parameters.

        Parameters
        ----------
        start
            One vector, or one for each chain.
        scales
            Typical posterior deviation of each parameter, such as that of a variational posterior; by default the prior
            one. Scales change the speed and no result.

        Raises
        ------
        ShapeError
            If ``start`` or ``scales`` do not fit the prior.
        ConvergenceError
            If the step is too long, so that a chain leaves all bounds.
        """
        scales = target.prior.scale if scales is None else scales
        parameters = len(target.prior.mean)
        if start.shape not in ((parameters,), (self.chains, parameters)) or scales.shape != (parameters,):
            shapes = (tuple(start.shape), tuple(scales.shape))
            raise ShapeError(expected("start, scales", f"({parameters},), or ({self.chains}, {parameters})", shapes))
        source = generator(seed, start.device)
        lengths, kept = self._schedule()
        starts = start.expand(self.chains, parameters)
        with progress("stochastic-gradient Hamiltonian Monte Carlo", self.chains * len(lengths)) as advance:
            values = [self._chain(target, first, scales, lengths, kept, source, advance) for first in starts]
        return Chains(torch.stack(values), gradients=self.chains * (len(lengths) + 1))

    def _schedule(self) -> tuple[list[float], list[bool]]:
        """Length of each step, and after which a draw is kept."""
        lengths: list[float] = []
        kept: list[bool] = []
        while sum(kept) < self.draws:
            k = len(lengths)
            phase = 1.0 if self.cycle is None else (k % self.cycle) / self.cycle
            shrunk = 1.0 if self.cycle is None else 0.1 + 0.45 * (1 + math.cos(math.pi * phase))
            lengths.append(self.step * shrunk)
            kept.append(k >= self.warmup and phase >= 0.5 and (k + 1 - self.warmup) % self.thin == 0)
        return lengths, kept

    def _chain(
        self,
        target: Any,
        start: Tensor,
        scales: Tensor,
        lengths: list[float],
        kept: list[bool],
        source: torch.Generator,
        advance: Callable[[], None],
    ) -> Float[Tensor, "draws parameters"]:
        place, batches, found = start.detach().clone(), target.batches(source), []
        noise: dict[str, Any] = {"generator": source, "dtype": place.dtype, "device": place.device}
        speed = torch.randn(place.shape, **noise)
        force = scales * target.gradient(place, next(batches))
        for length, keep in zip(lengths, kept, strict=True):
            decay = self.momentum ** (length / self.step)
            speed = speed + 0.5 * length * force
            place = place + 0.5 * length * scales * speed
            speed = decay * speed + math.sqrt(1 - decay**2) * torch.randn(place.shape, **noise)
            place = place + 0.5 * length * scales * speed
            force = scales * target.gradient(place, next(batches))
            speed = speed + 0.5 * length * force
            if keep:
                _check(place)
                found.append(place)
            advance()
        return torch.stack(found)


def _check(place: Tensor) -> None:
    if not bool(torch.isfinite(place).all()):
        raise ConvergenceError(expected("chain", "finite parameters", "NaN or infinity", "shorten the step"))
