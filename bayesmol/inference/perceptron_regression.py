"""Bayesian regression by perceptrons that are observed in sums of their values and in rows of their derivatives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.inference.chains import Chains
from bayesmol.inference.perceptron import Perceptron, library
from bayesmol.inference.random import generator
from bayesmol.progress import progress

__all__ = ["PerceptronFit", "PerceptronRegression", "PerceptronRows"]


@dataclass(frozen=True, eq=False)
class PerceptronRows:
    r"""Inputs of groups of equal size, and what is observed of each group.

    The model of a group s with members i is

    .. math:: y_s = \sum_{i \in s} f(x_i) + \sigma_y \varepsilon, \qquad
              d_s = \sum_{i \in s} J_i^\top \nabla f(x_i) + \sigma_d \varepsilon.

    Attributes
    ----------
    inputs
        x; of order one.
    kinds
        Which perceptron each member belongs to.
    jacobians
        J: derivatives of the inputs of each member along the observed directions; with minus the derivatives by the
        positions of the atoms of a structure, d are forces.
    sums, derivatives
        y and d.
    """

    inputs: Float[Tensor, "groups members features"]
    kinds: Int[Tensor, "groups members"]
    jacobians: Float[Tensor, "groups members features directions"]
    sums: Float[Tensor, " groups"]
    derivatives: Float[Tensor, "groups directions"]

    def __post_init__(self) -> None:
        groups, members, features = self.inputs.shape
        wanted = {
            "kinds": (groups, members),
            "jacobians": (groups, members, features, self.derivatives.shape[-1]),
            "sums": (groups,),
            "derivatives": (groups, self.derivatives.shape[-1]),
        }
        for name, shape in wanted.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ShapeError(expected(name, f"shape {shape}", tuple(getattr(self, name).shape)))

    def counts(self, kinds: int) -> tuple[int, ...]:
        """Number of members of each kind."""
        found = torch.bincount(self.kinds.reshape(-1), minlength=kinds).tolist()
        if len(found) > kinds:
            raise DataError(expected("kinds", f"numbers below {kinds}", int(self.kinds.max())))
        return tuple(found)

    def arrays(self) -> dict[str, Tensor]:
        """The same with the inputs sorted by kind, and ``back`` that undoes the order."""
        order = torch.argsort(self.kinds.reshape(-1), stable=True)
        return {
            "inputs": self.inputs.flatten(0, 1)[order],
            "back": torch.argsort(order),
            "jacobians": self.jacobians.flatten(1, 2),
            "sums": self.sums,
            "derivatives": self.derivatives,
        }


def _observed(perceptron: Perceptron, counts: tuple[int, ...], vector: Any, data: Any) -> tuple[Any, Any]:
    """Sums and derivatives of all groups."""
    values, slopes = perceptron.sorted_values(vector, data["inputs"], counts)
    groups = len(data["jacobians"])
    sums = values[data["back"]].reshape(groups, -1).sum(-1)
    own = slopes[data["back"]].reshape(groups, 1, -1)
    return sums, (own @ data["jacobians"])[:, 0]


@dataclass(frozen=True)
class _Density:
    """Log-density of (log-noise of sums, log-noise of derivatives, weights), all with standard normal priors."""

    perceptron: Perceptron
    counts: tuple[int, ...]
    noise: tuple[float, float]
    spread: float

    def __call__(self, vector: Any, data: Any) -> Any:
        found = _observed(self.perceptron, self.counts, vector[2:], data)
        total = -0.5 * (vector * vector).sum()
        for k, name in enumerate(("sums", "derivatives")):
            log_noise = math.log(self.noise[k]) + self.spread * vector[k]
            residuals = (data[name] - found[k]) * library(vector).exp(-log_noise)
            total = total - 0.5 * (residuals * residuals).sum() - math.prod(data[name].shape) * log_noise
        return total


@dataclass(frozen=True)
class PerceptronRegression:
    """Posterior of a perceptron and of its noise by the no-U-turn sampler.

    Attributes
    ----------
    noise
        Prior medians of the noise of sums and of derivatives, in their units.
    spread
        Prior standard deviation of the logarithm of each noise.
    warmup, draws, chains, depth
        Of the sampler, see :func:`bayesmol.inference.nuts.nuts`.
    climb
        Steps of the optimiser that finds the start of each chain, with the noise at its prior median.
    """

    perceptron: Perceptron
    noise: tuple[float, float]
    spread: float = 1.0
    warmup: int = 500
    draws: int = 500
    chains: int = 2
    depth: int = 8
    climb: int = 1000

    def fit(self, rows: PerceptronRows, *, limit: float | None = 1.1, seed: int | torch.Generator) -> PerceptronFit:
        r"""Sample the weights.

        Hidden units can change places, so agreement of the chains is judged by the sums and derivatives that they
        predict of the rows and by the noise, never by weights.

        Parameters
        ----------
        limit
            Largest :math:`\hat R` of a prediction or of the noise; ``None`` accepts any.

        Raises
        ------
        ConvergenceError
            If the chains do not agree.
        """
        from bayesmol.inference.nuts import nuts

        source = generator(seed, rows.inputs.device)
        data = {name: part.double() if part.is_floating_point() else part for name, part in rows.arrays().items()}
        density = _Density(self.perceptron, rows.counts(self.perceptron.kinds), self.noise, self.spread)
        start = torch.stack([self._climbed(density, data, source) for _ in range(self.chains)])
        options = {"warmup": self.warmup, "draws": self.draws, "depth": self.depth, "limit": None}
        chains = nuts(density, start, data=data, seed=source, **options)
        found = PerceptronFit(self.perceptron, chains, self.noise, self.spread)
        if limit is not None:
            chains.checked(
                limit,
                lambda vector: torch.cat(
                    [vector[:2], *(p.reshape(-1) for p in _observed(self.perceptron, density.counts, vector[2:], data))]
                ),
            )
        return found

    def _climbed(self, density: _Density, data: Any, source: torch.Generator) -> Tensor:
        """Weights of high density, from a draw of the prior."""
        kind = {"generator": source, "dtype": torch.float64, "device": source.device}
        weights = torch.randn(self.perceptron.parameters, **kind).requires_grad_()
        optimiser = torch.optim.Adam([weights], lr=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.climb)
        noise = weights.detach().new_zeros(2)
        with progress("starting a chain", self.climb) as advance:
            for _ in range(self.climb):
                optimiser.zero_grad()
                (-density(torch.cat([noise, weights]), data)).backward()
                optimiser.step()
                schedule.step()
                advance()
        if not bool(torch.isfinite(weights).all()):
            raise ConvergenceError(expected("start", "finite weights", "NaN", "scale inputs and targets to order one"))
        return torch.cat([noise, weights.detach()])


@dataclass(frozen=True, eq=False)
class PerceptronFit:
    """Draws of the weights of a perceptron.

    Attributes
    ----------
    chains
        Draws of the two whitened log-noises and the weights.
    """

    perceptron: Perceptron
    chains: Chains
    noise: tuple[float, float]
    spread: float

    @property
    def weights(self) -> Float[Tensor, "draws parameters"]:
        """Draws of the vector that :meth:`Perceptron.values` takes, chain after chain."""
        return self.chains.values.flatten(0, 1)[:, 2:]

    @property
    def noise_draws(self) -> Float[Tensor, "draws 2"]:
        """Draws of the noise of sums and of derivatives, in their units."""
        white = self.chains.values.flatten(0, 1)[:, :2]
        return torch.tensor(self.noise).to(white) * (self.spread * white).exp()

    def predict(
        self,
        inputs: Float[Tensor, "groups members features"],
        kinds: Int[Tensor, "groups members"],
        jacobians: Float[Tensor, "groups members features directions"],
        *,
        size: int | None = None,
    ) -> tuple[Float[Tensor, "draws groups"], Float[Tensor, "draws groups directions"]]:
        """Sums and derivatives without noise for each draw, or for ``size`` draws at equal distances."""
        groups, directions = len(inputs), jacobians.shape[-1]
        empty = jacobians.new_zeros(groups), jacobians.new_zeros(groups, directions)
        rows = PerceptronRows(inputs, kinds, jacobians, *empty)
        data, counts = rows.arrays(), rows.counts(self.perceptron.kinds)
        weights = self.weights if size is None else self.chains.thinned(size)[:, 2:]
        found = [_observed(self.perceptron, counts, vector.to(inputs), data) for vector in weights]
        return torch.stack([part[0] for part in found]), torch.stack([part[1] for part in found])
