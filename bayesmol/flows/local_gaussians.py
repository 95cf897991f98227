"""Gaussians fitted to groups of rows: a rough local density of a region that has just been found."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["LocalGaussians", "clusters"]

_APART = 0.75  # distance of centres, in units of the deviation of a row


def clusters(rows: Float[Tensor, "rows dimension"], most: int = 6) -> list[Tensor]:
    """Rows in groups about centres that are far from each other, in units of the deviations; none smaller than 2."""
    scaled = rows / rows.std(0).clamp_min(1e-12)
    chosen = [0]
    while len(chosen) < min(most, len(rows)):
        distance = torch.cdist(scaled, scaled[chosen]).amin(1)
        if float(distance.max()) < _APART * math.sqrt(rows.shape[1]):
            break
        chosen.append(int(distance.argmax()))
    labels = torch.cdist(scaled, scaled[chosen]).argmin(1)
    groups = [rows[labels == k] for k in range(len(chosen))]
    kept = [group for group in groups if len(group) > 1]
    return kept or [rows]


class LocalGaussians(NamedTuple):
    """Equal mixture of Gaussians, each with its Cholesky factor."""

    means: Float[Tensor, "groups dimension"]
    factors: Float[Tensor, "groups dimension dimension"]

    @classmethod
    def of(cls, groups: list[Tensor]) -> LocalGaussians:
        """One for each group, its covariance widened, and shrunk to its diagonal where there are few rows."""
        covariances = []
        for group in groups:
            few = group.shape[1] / (group.shape[1] + len(group))
            covariance = torch.cov(group.mT).reshape(group.shape[1], group.shape[1])
            diagonal = covariance.diagonal().clamp_min(1e-4 * float(covariance.diagonal().max()) + 1e-12)
            covariances.append(1.5 * ((1 - few) * covariance + few * diagonal.diag()) + 0.1 * diagonal.diag())
        means = torch.stack([group.mean(0) for group in groups])
        return cls(means, torch.linalg.cholesky(torch.stack(covariances)))

    def sample(self, size: int, source: torch.Generator) -> Float[Tensor, "size dimension"]:
        """Independent rows."""
        device = self.means.device
        which = torch.randint(len(self.means), (size,), generator=source, device=device)
        noise = torch.randn(size, self.means.shape[1], generator=source, device=device, dtype=self.means.dtype)
        return self.means[which] + torch.einsum("sij,sj->si", self.factors[which], noise)

    def log_prob(self, rows: Float[Tensor, "rows dimension"]) -> Float[Tensor, " rows"]:
        """Log-density of each row."""
        laws = torch.distributions.MultivariateNormal(self.means, scale_tril=self.factors, validate_args=False)
        return laws.log_prob(rows.unsqueeze(1)).logsumexp(1) - math.log(len(self.means))
