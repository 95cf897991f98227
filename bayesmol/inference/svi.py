"""Variational posteriors of a vector of parameters; the only file that imports Pyro."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import pyro
import torch
from jaxtyping import Float
from pyro.distributions import Delta, LowRankMultivariateNormal, MultivariateNormal, Normal
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.inference.low_rank import LowRankNormal
from bayesmol.inference.random import generator
from bayesmol.inference.targets import Target
from bayesmol.progress import progress

__all__ = ["Variational", "VariationalFit"]

_FORMS = ("diagonal", "low-rank", "dense")


@dataclass(frozen=True, eq=False)
class VariationalFit:
    """The normal distribution that was found.

    Attributes
    ----------
    posterior
        Of the parameters.
    bound
        Estimate of the evidence lower bound at each step, in nats: flat at the end if the steps were enough.
    """

    posterior: LowRankNormal
    bound: Float[Tensor, " steps"]


@dataclass(frozen=True)
class Variational:
    r"""Stochastic variational inference of a normal distribution.

    .. math:: \max_q \; \mathbb E_q[\ln \pi(w)] + \mathbb H[q], \qquad q = \mathcal N(m, S)

    S is diagonal, diagonal plus low rank, or dense. On a normal posterior with precision P a dense S is exact, and a
    diagonal one has the variances :math:`1 / P_{ii}`, which are at most the true ones :math:`(P^{-1})_{ii}`.
    The density of q is differentiated along its draws only, so that the gradient is without noise where q is exact.

    Attributes
    ----------
    covariance
        Form of S.
    rank
        Number of directions of a ``"low-rank"`` S.
    steps, rate
        Of Adam, on parameters in units of their scales; the rate falls to a hundredth.
    draws
        Of q for each step.
    initial
        Standard deviation of q at the start, in units of the scales.

    References
    ----------
    Kucukelbir et al., J. Mach. Learn. Res. 18, 14 (2017); Roeder, Wu, Duvenaud, NeurIPS 2017 (the gradient);
    Blei, Kucukelbir, McAuliffe, J. Am. Stat. Assoc. 112, 859 (2017), section 2.3 (too small variances).
    """

    covariance: Literal["diagonal", "low-rank", "dense"] = "diagonal"
    rank: int = 10
    steps: int = 2000
    rate: float = 0.02
    draws: int = 1
    initial: float = 0.01

    def __post_init__(self) -> None:
        if self.covariance not in _FORMS:
            raise DataError(expected("covariance", f"one of {', '.join(_FORMS)}", repr(self.covariance)))
        if not (self.steps >= 1 and self.draws >= 1 and self.rank >= 1 and self.rate > 0 and self.initial > 0):
            raise DataError(expected("steps, draws, rank, rate, initial", "positive numbers", self))

    def fit(
        self,
        target: Target,
        start: Float[Tensor, " parameters"],
        *,
        scales: Float[Tensor, " parameters"] | None = None,
        seed: int | torch.Generator,
    ) -> VariationalFit:
        """Maximise the bound from a mean at ``start``, such as the weights of a trained network.

        Parameters
        ----------
        scales
            Typical posterior deviation of each parameter, by default the prior one. With good scales, an ``initial`` of
            about one and a start near the mode, some hundred steps do.

        Raises
        ------
        ShapeError
            If ``start`` or ``scales`` do not fit the prior.
        ConvergenceError
            If the bound is not finite.
        """
        source, scales = generator(seed, start.device), target.prior.scale if scales is None else scales
        if not start.shape == scales.shape == target.prior.mean.shape:
            shapes = (tuple(start.shape), tuple(scales.shape))
            raise ShapeError(expected("start, scales", f"shape {tuple(target.prior.mean.shape)}", shapes))
        devices = [start.device] if start.device.type == "cuda" else []
        first = int(torch.randint(2**31, (), generator=source, device=source.device))
        with pyro.get_param_store().scope(), pyro.validation_enabled(False), torch.random.fork_rng(devices=devices):
            torch.manual_seed(first)
            # A short memory of the squares: gradients fall by orders of magnitude on the way to the optimum.
            options = {"lr": self.rate, "betas": (0.9, 0.95), "lrd": 0.01 ** (1 / self.steps), "clip_norm": math.inf}
            optimiser = pyro.optim.ClippedAdam(options)
            objective = pyro.infer.Trace_ELBO(num_particles=self.draws)
            model, guide = _model(target, start.detach(), scales), self._guide(torch.zeros_like(start))
            inference = pyro.infer.SVI(model, guide, optimiser, objective)
            bound = self._climbed(inference, target.batches(source))
            parts = {name: pyro.param(name).detach().clone() for name in ("mean", "log_scale", "factor")}
        mean, diagonal, factor = self._moments(**parts)
        found = LowRankNormal(start + scales * mean, scales.square() * diagonal, scales[:, None] * factor)
        return VariationalFit(found, torch.tensor(bound, dtype=torch.float64))

    def _climbed(self, inference: pyro.infer.SVI, batches: Iterator[Tensor]) -> list[float]:
        """Make all steps; the bound at each."""
        bound = []
        with progress("variational inference", self.steps) as advance, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Encountered (NaN|\\+inf|-inf)", UserWarning)  # raised as an error below
            for _ in range(self.steps):
                bound.append(-inference.step(next(batches)))
                if not math.isfinite(bound[-1]):
                    raise ConvergenceError(expected("bound", "finite numbers", bound[-1], "lower the rate"))
                advance()
        return bound

    def _guide(self, centre: Tensor) -> Callable:
        """Draws of q whose density is differentiated along the draw alone."""
        rank = {"diagonal": 0, "low-rank": self.rank, "dense": len(centre)}[self.covariance]
        spread = torch.full_like(centre, math.log(self.initial))
        factor = 0.01 * torch.randn(len(centre), rank, dtype=centre.dtype, device=centre.device)

        def guide(rows: Tensor) -> None:
            mean, log_scale = pyro.param("mean", centre.clone()), pyro.param("log_scale", spread)
            parts = (mean, log_scale, pyro.param("factor", factor))
            value = self._law(*parts).rsample()
            fixed = self._law(*(part.detach() for part in parts))
            pyro.sample("weights", Delta(value, fixed.log_prob(value), event_dim=1))

        return guide

    def _moments(self, mean: Tensor, log_scale: Tensor, factor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, diagonal and factor of q; columns of the factor are in units of the scale of each parameter."""
        scale = log_scale.exp()
        if self.covariance == "dense":
            unit = factor.tril(-1) + torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
            return mean, torch.zeros_like(mean), scale[:, None] * unit
        return mean, scale.square(), scale[:, None] * factor

    def _law(self, mean: Tensor, log_scale: Tensor, factor: Tensor) -> torch.distributions.Distribution:
        mean, diagonal, factor = self._moments(mean, log_scale, factor)
        if self.covariance == "dense":
            return MultivariateNormal(mean, scale_tril=factor)
        if self.covariance == "low-rank":
            return LowRankMultivariateNormal(mean, factor, diagonal)
        return Normal(mean, diagonal.sqrt()).to_event(1)


def _model(target: Target, start: Tensor, scales: Tensor) -> Callable:
    """Parameters from their start in units of their scales, and the likelihood of a batch."""
    prior = Normal((target.prior.mean - start) / scales, target.prior.scale / scales).to_event(1)

    def model(rows: Tensor) -> None:
        weights = pyro.sample("weights", prior)
        pyro.factor("likelihood", target.scaled_log_likelihood(start + scales * weights, rows))

    return model
