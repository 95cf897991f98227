"""Flows: a base density seen through an invertible map."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from nflows.transforms.base import Transform
from torch import Tensor, nn

from bayesmol.flows.bases import GaussianUniform

__all__ = ["Flow"]


class Flow(nn.Module):
    r"""Density of :math:`x = f^{-1}(z)` with z from the base.

    .. math:: \log q(x) = \log q_0(f(x)) + \log |\det \partial f / \partial x|

    Parameters
    ----------
    base
        Density of the latent rows.
    transform
        The map f from configurations to latent rows, with its log-determinant, in the form of nflows.

    References
    ----------
    Papamakarios, Nalisnick, Rezende, Mohamed, Lakshminarayanan, J. Mach. Learn. Res. 22, 57 (2021), equation 3.
    """

    base: Any  # GaussianUniform, or another density of latent rows

    def __init__(self, base: GaussianUniform, transform: Transform) -> None:
        super().__init__()
        self.base, self.transform = base, transform

    @property
    def dimension(self) -> int:
        """Numbers in a row."""
        return self.base.dimension

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the flow computes: that of its parameters."""
        return next((p.dtype for p in self.parameters()), torch.get_default_dtype())

    def log_prob(
        self, x: Float[Tensor, "points dimension"], context: Float[Tensor, "points context"] | None = None
    ) -> Float[Tensor, " points"]:
        """Log-density of each row, in nats; given the rows of ``context`` if the transform is conditional."""
        z, volume = self.transform(x, context)
        return self.base.log_prob(z) + volume

    def push(
        self, z: Float[Tensor, "points dimension"], context: Float[Tensor, "points context"] | None = None
    ) -> tuple[Float[Tensor, "points dimension"], Float[Tensor, " points"]]:
        """Configurations of latent rows, and their log-density; differentiable in the parameters."""
        x, volume = self.transform.inverse(z, context)
        return x, self.base.log_prob(z) - volume

    def sample(
        self, size: int, *, seed: int | torch.Generator, context: Float[Tensor, "size context"] | None = None
    ) -> tuple[Float[Tensor, "size dimension"], Float[Tensor, " size"]]:
        """Independent configurations and their log-density; differentiable in the parameters."""
        return self.push(self.base.sample(size, seed=seed, dtype=self.dtype), context)
