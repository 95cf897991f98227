"""What is to be inferred: the log-density of a vector of parameters, from all data or from a batch of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator

__all__ = ["NormalPrior", "Target"]


@dataclass(frozen=True, eq=False)
class NormalPrior:
    """Independent normal parameters.

    Attributes
    ----------
    mean, scale
        Mean and standard deviation of each parameter.

    Raises
    ------
    ShapeError, DataError
        If the shapes differ or a standard deviation is not positive.
    """

    mean: Float[Tensor, " parameters"]
    scale: Float[Tensor, " parameters"]

    def __post_init__(self) -> None:
        if self.scale.shape != self.mean.shape:
            raise ShapeError(expected("scale", f"shape {tuple(self.mean.shape)}", tuple(self.scale.shape)))
        if not bool((torch.isfinite(self.scale) & (self.scale > 0)).all()):
            raise DataError(expected("scale", "positive finite standard deviations", "others"))

    @classmethod
    def centred(cls, scale: Float[Tensor, " parameters"]) -> NormalPrior:
        """Mean zero and these standard deviations."""
        return cls(torch.zeros_like(scale), scale)

    def log_density(self, vector: Float[Tensor, "*draws parameters"]) -> Float[Tensor, "*draws"]:
        """Log-density in nats."""
        white = (vector - self.mean) / self.scale
        constant = self.scale.log().sum() + 0.5 * len(self.scale) * math.log(2 * math.pi)
        return -0.5 * white.square().sum(-1) - constant

    def sample(self, size: int, *, seed: int | torch.Generator) -> Float[Tensor, "size parameters"]:
        """Independent draws."""
        source = generator(seed, self.mean.device)
        shape = (size, len(self.mean))
        normal = torch.randn(shape, generator=source, dtype=self.mean.dtype, device=self.mean.device)
        return self.mean + self.scale * normal


@dataclass(frozen=True, eq=False)
class Target:
    r"""Posterior of a vector of parameters up to a constant.

    .. math:: \ln \pi(w) = \ln p(w) + \sum_{i=1}^{N} \ln p(y_i \mid w)
              \approx \ln p(w) + \frac{N}{|B|} \sum_{i \in B} \ln p(y_i \mid w)

    Attributes
    ----------
    log_likelihood
        Function of a vector and the numbers of the data in a batch: the sum of their log-likelihoods, in nats. A datum
        is what is independent of the others given the parameters, such as a structure with all its labels.
    prior
        Of the vector.
    size
        Number of data N.
    batch
        Number of data in a batch; all if ``None``.
    """

    log_likelihood: Callable[[Tensor, Tensor], Tensor]
    prior: NormalPrior
    size: int
    batch: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= (self.batch or self.size) <= self.size:
            raise DataError(expected("batch", f"from 1 to the {self.size} data", self.batch))

    def batches(self, source: torch.Generator) -> Iterator[Int[Tensor, " batch"]]:
        """Batches without end: the data in a new random order for each pass, each datum once a pass."""
        device = self.prior.mean.device
        while True:
            if self.batch in (None, self.size):
                yield torch.arange(self.size, device=device)
            else:
                yield from torch.randperm(self.size, generator=source, device=device).split(self.batch)

    def scaled_log_likelihood(self, vector: Float[Tensor, " parameters"], rows: Int[Tensor, " batch"]) -> Tensor:
        """Estimate of the log-likelihood of all data from a batch, in nats."""
        return self.log_likelihood(vector, rows) * (self.size / len(rows))

    def log_density(
        self, vector: Float[Tensor, " parameters"], rows: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, ""]:
        """Log-density up to a constant, in nats; of all data, or estimated from a batch."""
        if rows is None:
            rows = torch.arange(self.size, device=vector.device)
        return self.prior.log_density(vector) + self.scaled_log_likelihood(vector, rows)

    def gradient(
        self, vector: Float[Tensor, " parameters"], rows: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, " parameters"]:
        """Gradient of :meth:`log_density`."""
        leaf = vector.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.log_density(leaf, rows), leaf)[0]
