"""Partition functions of small systems without sampling: by quadrature, by convolution, by transfer matrices."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.density import Exact

__all__ = ["line", "plane", "slope", "square"]

_NODES = 24  # of the Gauss–Legendre rule in each panel of a line


def line(
    energy: Callable[[Tensor], Tensor], edges: tuple[float, ...], temperature: float, panels: int = 100
) -> tuple[Float[Tensor, " intervals"], Float[Tensor, " intervals"]]:
    r"""Logarithm of :math:`\int e^{-U/T}\,dx` over each interval between two edges, and the mean of U / T in it.

    Gauss–Legendre rule in each of the ``panels`` of an interval.
    """
    ends = torch.tensor(edges, dtype=torch.float64)
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(_NODES))
    width = ends.diff() / panels
    starts = ends[:-1, None] + width[:, None] * torch.arange(panels)
    points = starts[..., None] + width[:, None, None] * (nodes + 1) / 2
    reduced = energy(points) / temperature
    terms = (-reduced + (width[:, None, None] * weights / 2).log()).flatten(1)
    total = terms.logsumexp(1)
    return total, ((terms - total[:, None]).exp() * reduced.flatten(1)).sum(1)


def plane(
    energy: Callable[[Float[Tensor, "points 2"]], Float[Tensor, " points"]],
    bounds: tuple[tuple[float, float], tuple[float, float]],
    temperature: float,
    states: Callable[[Float[Tensor, "points 2"]], Int[Tensor, " points"]],
    count: int,
    points: int = 1200,
) -> Exact:
    """Partition function, populations of ``count`` states and mean energy of two coordinates by the midpoint rule.

    The rule converges faster than any power of the spacing for what is smooth and vanishes at the bounds; populations
    feel the borders of the states, on which little density should lie.
    """
    axes = [(torch.arange(points, dtype=torch.float64) + 0.5) * (b - a) / points + a for a, b in bounds]
    cell = math.log(math.prod((b - a) / points for a, b in bounds))
    logs, means = [], []
    for part in axes[0].split(200):
        rows = torch.cartesian_prod(part, axes[1])
        reduced, labels = energy(rows) / temperature, states(rows)
        masked = torch.stack([torch.where(labels == s, -reduced, -torch.inf) for s in range(count)])
        logs.append(masked.logsumexp(1))
        total = logs[-1].logsumexp(0)
        means.append(total.exp() * ((-reduced - total).exp() * reduced).sum())
    parts = torch.stack(logs).logsumexp(0)
    total = parts.logsumexp(0)
    mean = torch.stack(means).sum() / total.exp()
    return Exact(float(total) + cell, tuple((parts - total).exp().tolist()), float(mean))


def slope(log_partition: Callable[[float], float], temperature: float, step: float = 0.01) -> float:
    r"""Mean reduced energy :math:`\langle u \rangle = d \ln Z / d \ln T`, by the five-point formula."""
    at = {k: log_partition(temperature * math.exp(k * step)) for k in (-2, -1, 1, 2)}
    return (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)


def square(pair: Callable[[Tensor], Tensor], reach: float, spacing: float) -> float:
    r"""Logarithm of the partition function of four particles in a plane that feel only their distances.

    .. math:: Z = \frac{2\pi}{N} \int_0^\infty r e^{-v(r)}\,dr \iint f_r(p)\,e^{-v(|p - q|)}\,f_r(q)\,dp\,dq, \quad
        f_r(p) = e^{-v(|p|) - v(|p - r e_x|)}, \; N = 4

    over centred configurations in orthonormal coordinates: relative positions, over :math:`N^{d/2} = N`. The double
    integral is a convolution, taken by Fourier transforms on a grid; all rules are trapezoidal and converge faster
    than any power of the spacing while the density vanishes where particles meet.

    Parameters
    ----------
    pair
        Reduced pair energy v of distances.
    reach
        Distance beyond which the density is nothing.
    spacing
        Of the grid.

    Raises
    ------
    DataError
        If the density of particles that meet is not negligible: the rule would not converge.
    """
    half = math.ceil(reach / spacing)
    distances = torch.arange(1, half + 1, dtype=torch.float64) * spacing
    lowest = float(pair(distances).min())
    if float(pair(torch.zeros(1, dtype=torch.float64))) - lowest < 30:
        raise DataError(expected("temperature", "one at which particles do not meet", "a higher one"))
    axis = torch.arange(-half, half + 1, dtype=torch.float64) * spacing
    x, y = axis[:, None], axis[None, :]
    padded = (3 * half + 2, 3 * half + 2)

    def weight(shift: float) -> Tensor:
        return (lowest - pair(((x - shift).square() + y.square()).sqrt())).exp()

    centre = weight(0.0)
    wide = torch.nn.functional.pad(centre, (0, half + 1, 0, half + 1))
    spectrum = torch.fft.rfft2(wide.roll((-half, -half), (0, 1)))
    values = []
    for distance in distances.tolist():
        density = centre * weight(distance)
        around = torch.fft.irfft2(torch.fft.rfft2(density, s=padded) * spectrum, s=padded)
        values.append((density * around[: len(axis), : len(axis)]).sum())
    # Rounding may leave a value below zero where the two first particles are too far apart for the others.
    inner = torch.stack(values).clamp_min(1e-300).log()
    terms = inner + distances.log() - pair(distances)
    return float(terms.logsumexp(0)) + 5 * math.log(spacing) - 5 * lowest + math.log(2 * math.pi) - math.log(4)
