"""Bayesian flows: a posterior of the weights of a flow from samples, and its predictive density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmol.errors import DataError, expected
from bayesmol.flows.elementwise import Marginals
from bayesmol.flows.flow import Flow
from bayesmol.flows.mixture import Ensemble
from bayesmol.flows.objectives import checked_samples
from bayesmol.inference.low_rank import LowRankNormal
from bayesmol.inference.parameters import Flattened
from bayesmol.inference.random import generator
from bayesmol.inference.targets import NormalPrior
from bayesmol.inference.targets import Target as Posterior

__all__ = ["Bayesian", "BayesianFlow"]


class _Density(nn.Module):
    """The log-density of a flow as a module that is called, so that its weights can be replaced."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x)


@dataclass(frozen=True, eq=False)
class BayesianFlow:
    """A flow and the posterior of some of its weights.

    Attributes
    ----------
    flow
        With the weights at which inference started; those outside of the posterior stay as they are.
    weights
        Order of the weights in the vector.
    posterior
        Of the vector.
    bound
        Evidence lower bound at each step, in nats: flat at the end if the steps were enough.
    """

    flow: Flow
    weights: Flattened
    posterior: LowRankNormal
    bound: Float[Tensor, " steps"]

    def ensemble(self, members: int, *, seed: int | torch.Generator) -> Ensemble:
        r"""Posterior predictive density :math:`\ln q(x) = \ln \frac1M \sum_m q_{\theta_m}(x)`, by draws of the weights.

        Its members differ as much as the samples leave the weights open: see
        :func:`~bayesmol.flows.mixture.disagreement`.
        """
        vectors = self.posterior.sample(members, seed=generator(seed, self.posterior.mean.device))
        module = _Density(self.flow)
        flows: list[Any] = [self.weights.module(module, vector).flow for vector in vectors]
        return Ensemble([flow.requires_grad_(False) for flow in flows])


@dataclass(frozen=True)
class Bayesian:
    r"""Posterior of the weights of a flow, given samples, by variational inference.

    .. math:: \ln \pi(\theta) = \ln \mathcal N(\theta; 0, s^2) + \frac{n_{\mathrm{eff}}}{n} \sum_{i=1}^{n}
              \ln q_\theta(x_i)

    The prior is centred at the base density: weights of zero in the last layers are the identity. Without samples the
    predictive density is therefore about the base, and broader.

    The posterior speaks of the density of the flow itself. Expectations with importance weights are right for any flow
    in the limit of many draws, whatever its weights.

    Attributes
    ----------
    weights
        ``"last"``: the last layer of each conditioner and the splines of the marginals, from which all maps are made;
        ``"all"``: all that require a gradient.
    scale
        Prior standard deviation of the sum that a unit receives; that of a weight is this over the root of its fan-in.
    engine
        With ``fit(posterior, start, seed=) -> .posterior, .bound``; :class:`~bayesmol.inference.svi.Variational` by
        default.
    batch
        Samples in a step; all if ``None``.

    References
    ----------
    Blundell, Cornebise, Kavukcuoglu, Wierstra, ICML (2015) (weights with a normal posterior by batches).
    """

    weights: Literal["last", "all"] = "last"
    scale: float = 1.0
    engine: Any = None
    batch: int | None = 512

    def __post_init__(self) -> None:
        if self.weights not in ("last", "all") or not self.scale > 0:
            raise DataError(expected("weights, scale", "'last' or 'all', a positive number", self))

    def fit(
        self,
        flow: Flow,
        samples: Float[Tensor, "points dimension"],
        *,
        effective: float | None = None,
        seed: int | torch.Generator,
    ) -> BayesianFlow:
        """Posterior about the weights of a trained flow, which is not changed.

        Parameters
        ----------
        effective
            Number of independent samples that these are worth, such as the effective sample size of a trajectory; as
            many as there are by default.

        Raises
        ------
        DataError, ShapeError
            If samples do not fit the flow, or it has no such weights.
        ConvergenceError
            If the bound is not finite.
        """
        x = checked_samples(samples, flow)
        share = 1.0 if effective is None else effective / len(x)
        if not 0 < share <= 1:
            raise DataError(expected("effective", f"a number up to the {len(x)} samples", effective))
        module = _Density(flow)
        flattened = Flattened.of(module, _chosen(flow) if self.weights == "last" else None)

        def log_likelihood(vector: Tensor, rows: Tensor) -> Tensor:
            return share * flattened.call(module, vector, x[rows]).sum()

        batch = None if self.batch is None or self.batch >= len(x) else self.batch
        prior = NormalPrior.centred(flattened.scales(module, self.scale))
        target = Posterior(log_likelihood, prior, len(x), batch)
        found = self._engine().fit(target, flattened.vector(module), seed=seed)
        return BayesianFlow(flow, flattened, found.posterior, found.bound)

    def _engine(self) -> Any:
        if self.engine is not None:
            return self.engine
        from bayesmol.inference.svi import Variational

        return Variational()


def _chosen(flow: Flow) -> Callable[[str], bool]:
    """Whether a weight, by its name in the module of the density, is of a last layer or of marginal maps."""
    marginal = {f"flow.{name}.weight" for name, part in flow.named_modules() if isinstance(part, Marginals)}
    return lambda name: name in marginal or ".last." in name
