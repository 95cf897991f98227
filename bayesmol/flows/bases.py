"""Base densities of flows: Gaussian on lines, uniform on circles."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator

__all__ = ["GaussianUniform"]


class GaussianUniform(nn.Module):
    r"""Independent standard normal numbers, and angles that are uniform on :math:`[-\pi, \pi)`.

    Parameters
    ----------
    circular
        Which coordinates are angles.
    """

    circular: Tensor

    def __init__(self, circular: Bool[Tensor, " dimension"]) -> None:
        super().__init__()
        if circular.ndim != 1 or not len(circular):
            raise DataError(expected("circular", "one truth value for each coordinate", tuple(circular.shape)))
        self.dimension = len(circular)
        self.register_buffer("circular", circular.clone())
        angles = int(circular.sum())
        self._constant = -angles * math.log(2 * math.pi) - (self.dimension - angles) / 2 * math.log(2 * math.pi)

    def log_prob(self, z: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        """Log-density of each row; angles are taken modulo :math:`2\\pi`."""
        return self._constant - torch.where(self.circular, 0.0, z.square()).sum(1) / 2

    def sample(
        self, size: int, *, seed: int | torch.Generator, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "size dimension"]:
        """Independent rows."""
        device, source = self.circular.device, generator(seed, self.circular.device)
        shape = (size, self.dimension)
        normal = torch.randn(shape, generator=source, device=device, dtype=dtype)
        angles = (2 * torch.rand(shape, generator=source, device=device, dtype=dtype) - 1) * math.pi
        return torch.where(self.circular, angles, normal)
