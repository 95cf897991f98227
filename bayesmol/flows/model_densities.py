"""Model densities of the literature, most of them with exact answers: what samplers are tried on."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.flows.density import BoltzmannDensity, Exact
from bayesmol.flows.quadrature import line, plane

__all__ = [
    "double_well",
    "gaussian_mixture",
    "many_well",
    "mueller_brown",
]

_MUELLER_BROWN = (
    # height, curvatures along x, across and along y, centre
    (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
    (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
    (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
    (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
)
_MINIMA = ((-0.558224, 1.441726), (0.623499, 0.028038), (-0.050011, 0.466694))


def double_well(*, tilt: float = 1.0, temperature: float = 1.0) -> BoltzmannDensity:
    r"""Two wells in a plane, :math:`U = t\,x - 4 x^2 + x^4 + y^2/2`; states 0 on the left, 1 on the right of x = 0.

    Parameters
    ----------
    tilt
        t; the left well is the lower one where it is positive.
    """

    def well(x: Tensor) -> Tensor:
        return tilt * x - 4 * x.square() + x**4

    @cache
    def exact(temperature: float) -> Exact:
        logs, means = _quartic(well, temperature, 8 + abs(tilt))
        parts = logs.softmax(0)
        total = float(logs.logsumexp(0)) + 0.5 * math.log(2 * math.pi * temperature)
        return Exact(total, tuple(parts.tolist()), float((parts * means).sum()) + 0.5)

    start = torch.tensor([[-1.47, 0.0], [1.35, 0.0]], dtype=torch.float64)
    return BoltzmannDensity(
        lambda x: well(x[:, 0]) + x[:, 1].square() / 2,
        2,
        temperature,
        start=start,
        states=lambda x: (x[:, 0] > 0).long(),
        exact=exact,
        name="double well",
    )


def _quartic(well: Callable[[Tensor], Tensor], temperature: float, depth: float) -> tuple[Tensor, Tensor]:
    """:func:`~bayesmol.flows.quadrature.line` left and right of zero of a well that grows as the fourth power."""
    reach = 2 + (depth * depth + 50 * temperature) ** 0.25
    return line(well, (-reach, 0.0, reach), temperature)


def mueller_brown(*, scale: float = 0.05, temperature: float = 1.0) -> BoltzmannDensity:
    """Three wells on a bent path in a plane; the state is the nearest of the minima: upper left, lower right, middle.

    Parameters
    ----------
    scale
        Factor of the energies of the paper, so that the wells differ by some thermal energies.

    References
    ----------
    Müller, Brown, Theoret. Chim. Acta 53, 75 (1979).
    """

    def energy(x: Float[Tensor, "points 2"]) -> Float[Tensor, " points"]:
        total = torch.zeros_like(x[:, 0])
        for height, along, mixed, across, x0, y0 in _MUELLER_BROWN:
            a, b = x[:, 0] - x0, x[:, 1] - y0
            total = total + height * (along * a * a + mixed * a * b + across * b * b).exp()
        return scale * total

    def states(x: Float[Tensor, "points 2"]) -> Tensor:
        return torch.cdist(x, torch.tensor(_MINIMA, dtype=x.dtype, device=x.device)).argmin(1)

    @cache
    def exact(temperature: float) -> Exact:
        return plane(energy, ((-4.5, 3.0), (-2.0, 4.0)), temperature, states, 3)

    start = torch.tensor(_MINIMA, dtype=torch.float64)
    return BoltzmannDensity(energy, 2, temperature, start=start, states=states, exact=exact, name="Müller–Brown")


def many_well(*, dimension: int = 32, temperature: float = 1.0) -> BoltzmannDensity:
    r"""Independent pairs (a, b) of coordinates with two wells each, :math:`U = \sum a^4 - 6 a^2 - a/2 + b^2/2`.

    There are :math:`2^{d/2}` modes. The state is the number of pairs in the right-hand well: a number that a sampler
    gets wrong if it loses the wells of any pair, with few enough values to be estimated.

    References
    ----------
    Midgley, Stimper, Simm, Schölkopf, Hernández-Lobato, Flow annealed importance sampling bootstrap, ICLR (2023).
    """
    if dimension < 2 or dimension % 2:
        raise DataError(expected("dimension", "an even number", dimension))
    pairs = dimension // 2

    def well(a: Tensor) -> Tensor:
        return a**4 - 6 * a.square() - a / 2

    @cache
    def exact(temperature: float) -> Exact:
        logs, means = _quartic(well, temperature, 12.0)
        left, right = logs.softmax(0).tolist()
        counts = [math.comb(pairs, k) * right**k * left ** (pairs - k) for k in range(pairs + 1)]
        total = float(logs.logsumexp(0)) + 0.5 * math.log(2 * math.pi * temperature)
        mean = float((logs.softmax(0) * means).sum()) + 0.5
        return Exact(pairs * total, tuple(counts), pairs * mean)

    well_bottoms = torch.tensor([-1.7111, 1.7529], dtype=torch.float64)
    start = torch.stack([well_bottoms, torch.zeros(2, dtype=torch.float64)], 1).repeat(1, pairs)
    return BoltzmannDensity(
        lambda x: well(x[:, ::2]).sum(1) + x[:, 1::2].square().sum(1) / 2,
        dimension,
        temperature,
        start=start,
        states=lambda x: (x[:, ::2] > 0).sum(1),
        exact=exact,
        name=f"many-well {dimension}",
    )


def gaussian_mixture(
    means: Float[Tensor, "components dimension"],
    scales: Float[Tensor, " components"],
    weights: Float[Tensor, " components"],
    *,
    temperature: float = 1.0,
) -> BoltzmannDensity:
    r"""Mixture of round Gaussians, :math:`U = -\ln \sum_c w_c\,\mathcal N(x; m_c, s_c^2 1)`, with :math:`\sum w = 1`.

    The state is the component that most likely made the row. At T = 1 the partition function is one; populations, and
    other temperatures, are known in the plane only.
    """
    if means.ndim != 2 or scales.shape != (len(means),) or weights.shape != (len(means),):
        raise ShapeError(expected("means, scales, weights", "one row each", (means.shape, scales.shape)))
    if not bool((scales > 0).all() & (weights > 0).all()):
        raise DataError(expected("scales, weights", "positive numbers", "others"))
    dimension, shares = means.shape[1], weights / weights.sum()

    def components(x: Float[Tensor, "points dimension"]) -> Float[Tensor, "points components"]:
        centres, widths, parts = (value.to(x) for value in (means, scales, shares))
        square = (x[:, None] - centres).square().sum(2) / widths.square()
        return parts.log() - square / 2 - dimension * (widths.log() + 0.5 * math.log(2 * math.pi))

    def states(x: Float[Tensor, "points dimension"]) -> Tensor:
        return components(x).argmax(1)

    @cache
    def exact(temperature: float) -> Exact | None:
        if dimension != 2:
            return Exact(0.0) if temperature == 1 else None
        margin = 9 * float(scales.max()) * max(1.0, temperature**0.5)
        low, high = (means.amin(0) - margin).tolist(), (means.amax(0) + margin).tolist()
        bounds = (low[0], high[0]), (low[1], high[1])
        return plane(lambda x: -components(x).logsumexp(1), bounds, temperature, states, len(means))

    return BoltzmannDensity(
        lambda x: -components(x).logsumexp(1),
        dimension,
        temperature,
        start=means,
        states=states,
        exact=exact,
        name="Gaussian mixture",
    )
