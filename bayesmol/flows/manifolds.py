"""Spheres and rotations in coordinates in which they are flat: any flow is then a density on them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.flows.coordinates import Coordinates

__all__ = ["Rotation", "Sphere"]


class Sphere(Coordinates):
    r"""Points of the unit sphere as a height and a longitude.

    .. math:: y_1 = \sqrt{2}\, \mathrm{erf}^{-1}(x_3), \qquad y_2 = \mathrm{atan2}(x_2, x_1)

    The area of a zone is proportional to its height (Archimedes), so :math:`dA = dx_3\, dy_2`, and normal numbers with
    uniform angles are uniform on the sphere: so is a new flow. Densities are those with respect to the area. The circle
    of longitudes shrinks to a point at the poles, where a density is continuous only if it does not depend on
    :math:`y_2`; its normalisation does not mind.
    """

    def __init__(self) -> None:
        super().__init__(3, torch.tensor([False, True]))

    def forward(
        self, inputs: Float[Tensor, "points 3"], context: Tensor | None = None
    ) -> tuple[Float[Tensor, "points 2"], Float[Tensor, " points"]]:
        """Height and longitude of each point, and :math:`\\log |\\partial y / \\partial A|`."""
        x = self._checked(inputs, 3, "x")
        normal = _normal(x[:, 2])
        return torch.stack([normal, torch.atan2(x[:, 1], x[:, 0])], 1), -_log_density(normal)

    def inverse(
        self, inputs: Float[Tensor, "points 2"], context: Tensor | None = None
    ) -> tuple[Float[Tensor, "points 3"], Float[Tensor, " points"]]:
        """Point of each height and longitude, and :math:`\\log |\\partial A / \\partial y|`."""
        y = self._checked(inputs, 2, "y")
        # 1 − erf² as a product, which does not cancel at the poles.
        scaled = y[:, 0] / math.sqrt(2)
        radius = torch.sqrt(torch.erfc(scaled) * torch.erfc(-scaled))
        point = torch.stack([radius * torch.cos(y[:, 1]), radius * torch.sin(y[:, 1]), torch.erf(scaled)], 1)
        return point, _log_density(y[:, 0])


class Rotation(Coordinates):
    r"""Rotation matrices, row by row, as a height and two angles: :math:`R = R_z(\alpha) R_y(\beta) R_z(\gamma)`.

    .. math:: y = (\sqrt{2}\, \mathrm{erf}^{-1}(\cos\beta),\ \alpha,\ \gamma)

    Densities are those with respect to :math:`d\alpha\, d\cos\beta\, d\gamma`, whose integral over all rotations is
    :math:`8 \pi^2`: Haar's measure. A new flow is uniform.
    """

    def __init__(self) -> None:
        super().__init__(9, torch.tensor([False, True, True]))

    def forward(
        self, inputs: Float[Tensor, "points 9"], context: Tensor | None = None
    ) -> tuple[Float[Tensor, "points 3"], Float[Tensor, " points"]]:
        """Coordinates of each rotation, and :math:`\\log |\\partial y / \\partial R|`."""
        matrix = self._checked(inputs, 9, "x").unflatten(1, (3, 3))
        normal = _normal(matrix[:, 2, 2])
        first = torch.atan2(matrix[:, 1, 2], matrix[:, 0, 2])
        last = torch.atan2(matrix[:, 2, 1], -matrix[:, 2, 0])
        return torch.stack([normal, first, last], 1), -_log_density(normal)

    def inverse(
        self, inputs: Float[Tensor, "points 3"], context: Tensor | None = None
    ) -> tuple[Float[Tensor, "points 9"], Float[Tensor, " points"]]:
        """Rotation of each row, and :math:`\\log |\\partial R / \\partial y|`."""
        y = self._checked(inputs, 3, "y")
        tilt = torch.acos(torch.erf(y[:, 0] / math.sqrt(2)))
        rotation = _about(y[:, 1], 2) @ _about(tilt, 1) @ _about(y[:, 2], 2)
        return rotation.flatten(1), _log_density(y[:, 0])


def _normal(height: Tensor) -> Tensor:
    """Normal number of a height; the poles themselves would be infinite."""
    largest = 1 - torch.finfo(height.dtype).eps
    return math.sqrt(2) * torch.erfinv(height.clamp(-largest, largest))


def _log_density(normal: Tensor) -> Tensor:
    """Logarithm of d(height)/d(normal number): twice the normal density."""
    return math.log(2) - 0.5 * math.log(2 * math.pi) - normal.square() / 2


def _about(angle: Tensor, axis: int) -> Float[Tensor, "points 3 3"]:
    """Rotations about the axis y (1) or z (2)."""
    cosine, sine, zero, one = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle), torch.ones_like(angle)
    rows = [cosine, zero, sine, zero, one, zero, -sine, zero, cosine]
    if axis == 2:
        rows = [cosine, -sine, zero, sine, cosine, zero, zero, zero, one]
    return torch.stack(rows, 1).unflatten(1, (3, 3))
