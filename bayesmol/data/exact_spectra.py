"""Exact spectra of diffusions: of the generator, of the chain that a simulation runs, and of its projections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from bayesmol.data.exact import Landscape
from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["ExactChain", "GeneratorSpectrum", "euler_chain", "generator_spectrum"]

# Up to so many points all eigenvalues are computed, beyond only the slowest.
_DENSE, _SLOWEST = 1000, 12


@dataclass(frozen=True, eq=False)
class GeneratorSpectrum:
    r"""The slowest processes of a reversible diffusion in continuous time.

    Attributes
    ----------
    axes
        Coordinates of the cells along each axis.
    density
        Stationary probability of each cell, in row-major order.
    rates
        :math:`\kappa_1 = 0 < \kappa_2 \le \dots`, per time.
    values
        Eigenfunctions at the cells, of variance one under the density.
    """

    axes: tuple[Tensor, ...]
    density: Float[Tensor, " cells"]
    rates: Float[Tensor, " processes"]
    values: Float[Tensor, "cells processes"]

    @property
    def timescales(self) -> Float[Tensor, " relaxations"]:
        r""":math:`1 / \kappa_i` from the slowest on, without the stationary process, in units of time."""
        return 1 / self.rates[1:]

    def eigenvalues(self, time: float) -> Float[Tensor, " processes"]:
        r""":math:`e^{-\kappa_i t}`."""
        return torch.exp(-self.rates * time)

    def eigenfunctions(self, points: Float[Tensor, "points dims"]) -> Float[Tensor, "points processes"]:
        """Eigenfunctions between the cells, by cubic splines; the first is one."""
        return _interpolated(self.axes, self.values, points)


def generator_spectrum(landscape: Landscape, count: int = 5, *, cells: int | None = None) -> GeneratorSpectrum:
    r"""Spectrum of the generator by finite volumes, with an error of second order in the width of a cell.

    The rate from a cell to its neighbour at the distance w is :math:`(D / w^2) e^{-(V_{j} - V_i) / 2kT}`, which obeys
    detailed balance exactly; walls reflect.

    Parameters
    ----------
    count
        Number of processes, the stationary one included.
    cells
        Along each axis; 4000 on a line and 200 in the plane if ``None``.

    References
    ----------
    Lie, Fackeldey, Weber, SIAM J. Matrix Anal. Appl. 34, 738 (2013): the square-root approximation of the generator.
    """
    from scipy import sparse
    from scipy.sparse.linalg import eigsh

    cells = cells or (4000 if landscape.dims == 1 else 200)
    pairs = list(zip(landscape.lower, landscape.upper, strict=True))
    widths = [(high - low) / cells for low, high in pairs]
    axes = tuple(
        low + w * (torch.arange(cells, dtype=torch.float64) + 0.5) for (low, _), w in zip(pairs, widths, strict=True)
    )
    points = torch.cartesian_prod(*axes).reshape(-1, landscape.dims)
    half = landscape.energy(points).numpy() / (2 * landscape.temperature)
    hops = sparse.diags_array([np.ones(cells - 1)] * 2, offsets=[-1, 1])
    links = hops * (landscape.diffusion / widths[0] ** 2)
    for width in widths[1:]:
        links = sparse.kronsum(hops * (landscape.diffusion / width**2), links)
    links = links.tocoo()
    # Symmetrised by the root of the density: the couplings keep their size, the diagonal carries the exits.
    leaving = np.bincount(links.row, links.data * np.exp(half[links.row] - half[links.col]), len(half))
    symmetric = (sparse.diags_array(leaving) - links).tocsc()
    # The shift lies below zero, where the matrix is not singular, and is tiny beside the first rate.
    rates, vectors = eigsh(
        symmetric, k=count, sigma=-1e-3 * landscape.diffusion, which="LM", v0=np.exp(half.min() - half)
    )
    order, density = np.argsort(rates), landscape.boltzmann(points)
    rates = torch.as_tensor(np.maximum(rates[order], 0.0))
    rates[0] = 0.0
    values = torch.as_tensor(vectors[:, order]) / density.sqrt()[:, None]
    return GeneratorSpectrum(axes, density, rates, _normalised(values, density))


@dataclass(frozen=True, eq=False)
class ExactChain:
    r"""A stationary Markov chain on points, as exact as a quadrature: the truth for estimators from frames.

    Attributes
    ----------
    axes
        Coordinates of the points along each axis; their product in row-major order are the points.
    operator
        Probabilities :math:`K_{ab}` to go from point a to point b within one frame.
    stationary
        :math:`\pi = \pi K`.
    """

    axes: tuple[Tensor, ...]
    operator: Float[Tensor, "points points"]
    stationary: Float[Tensor, " points"]

    @cached_property
    def points(self) -> Float[Tensor, "points dims"]:
        """Coordinates of the points."""
        return torch.cartesian_prod(*self.axes).reshape(-1, len(self.axes))

    @cached_property
    def _decomposition(self) -> tuple[Tensor, Tensor]:
        from scipy.sparse.linalg import eigs

        if len(self.operator) <= _DENSE:
            values, vectors = torch.linalg.eig(self.operator)
        else:
            # A fixed start makes it reproducible; one without symmetry meets every process.
            start = np.cos(np.arange(len(self.operator)) ** 1.5)
            pairs = eigs(self.operator.numpy(), k=_SLOWEST, which="LM", v0=start, tol=1e-11)
            values, vectors = map(torch.as_tensor, pairs)
        order = values.abs().argsort(descending=True)
        return values[order], vectors[:, order]

    def eigenvalues(self, count: int = 5) -> Complex[Tensor, " count"]:
        """Eigenvalues of one frame by falling modulus, the first is one; of more than 1000 points at most 12."""
        values = self._decomposition[0]
        if not 1 <= count <= len(values):
            raise DataError(expected("count", f"1 to {len(values)}", count))
        return values[:count]

    def timescales(self, count: int = 3) -> Float[Tensor, " count"]:
        r""":math:`-1 / \ln |\lambda_i|` from the slowest on, in frames."""
        return -1 / self.eigenvalues(count + 1)[1:].abs().log()

    def eigenfunctions(self, points: Float[Tensor, "points dims"], count: int = 4) -> Float[Tensor, "points count"]:
        """Real eigenfunctions between the points, by cubic splines, of variance one; the first is one.

        Raises
        ------
        DataError
            If one of them is complex.
        """
        values, vectors = self.eigenvalues(count), self._decomposition[1][:, :count]
        if bool((values.imag.abs() > 1e-9).any()):
            raise DataError(expected("count", "as many processes as have real eigenvalues", count))
        # An eigenvector has an arbitrary phase; its largest entry is made real.
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        return _interpolated(self.axes, _normalised((vectors / largest).real, self.stationary), points)

    def moments(
        self, features: Float[Tensor, "points features"], lag: int
    ) -> tuple[Float[Tensor, "features features"], Float[Tensor, "features features"]]:
        r""":math:`E[f(x_t) f(x_t)^T]` and :math:`E[f(x_t) f(x_{t + \mathrm{lag}})^T]` of functions known at the points.

        The means are not removed. Smooth functions give an error as small as that of the quadrature.
        """
        if len(features) != len(self.operator) or features.ndim != 2:
            wanted = f"({len(self.operator)}, features), the values at .points"
            raise ShapeError(expected("features", wanted, tuple(features.shape)))
        weighted, later = features * self.stationary[:, None], features
        for _ in range(lag):
            later = self.operator @ later
        return weighted.mT @ features, weighted.mT @ later

    def koopman_matrix(
        self, features: Float[Tensor, "points features"], lag: int
    ) -> Float[Tensor, "features features"]:
        r""":math:`C_0^{-1} C_\tau`: what EDMD and TICA on these functions estimate at this lag."""
        instant, lagged = self.moments(features, lag)
        return torch.linalg.solve(instant, lagged)

    def transition_matrix(self, states: Int[Tensor, " points"], lag: int) -> Float[Tensor, "states states"]:
        r""":math:`P_{ij} = \langle 1_i, K^\tau 1_j \rangle_\pi / \pi_i`: what a Markov state model estimates.

        It is as exact as the quadrature if the borders of the states are among the ``breaks`` of the chain.

        Raises
        ------
        ShapeError, DataError
            If there is not one state a point, or a state has no point.
        """
        if states.shape != (len(self.operator),):
            raise ShapeError(expected("states", f"one for each of {len(self.operator)} points", tuple(states.shape)))
        if int(states.min()) < 0 or bool((torch.bincount(states) == 0).any()):
            raise DataError(expected("states", "indices 0, 1, … each with a point", "an empty state", "merge some"))
        return self.koopman_matrix(torch.nn.functional.one_hot(states).double(), lag)


def euler_chain(
    landscape: Landscape,
    *,
    step: float = 1e-4,
    steps: int = 50,
    breaks: Sequence[Any] = (),
    resolution: float = 3.0,
) -> ExactChain:
    r"""The chain that :meth:`Landscape.simulate` runs, of ``steps`` Euler–Maruyama steps a frame.

    One step has the kernel :math:`N(y; x - (D h / kT) \nabla V(x), 2 D h)`, sampled at Gauss–Legendre points, which
    converges faster than any power of their distance.

    Parameters
    ----------
    breaks
        For each axis the places at which states meet: no panel of the quadrature crosses them.
    resolution
        Points for each standard deviation :math:`\sqrt{2 D h}` of a step, at least 2.

    Raises
    ------
    DataError
        If more than 4000 points were needed; take a longer step.
    """
    width = (2 * landscape.diffusion * step) ** 0.5
    borders = list(breaks) + [()] * (landscape.dims - len(breaks))
    lines = zip(landscape.lower, landscape.upper, borders, strict=True)
    rules = [_gauss_legendre(low, high, inner, width, resolution) for low, high, inner in lines]
    total = int(np.prod([len(nodes) for nodes, _ in rules]))
    if total > 4000:
        raise DataError(expected("step", "at most 4000 points", f"{total} points", "take a longer step"))
    axes = tuple(nodes for nodes, _ in rules)
    points = torch.cartesian_prod(*axes).reshape(-1, landscape.dims)
    target = points + step * landscape.drift(points)
    parts = [
        torch.exp(-0.5 * ((nodes - target[:, k, None]) / width).square()) * weights
        for k, (nodes, weights) in enumerate(rules)
    ]
    kernel = reduce(lambda left, right: (left[:, :, None] * right[:, None, :]).flatten(1), parts)
    single = kernel / kernel.sum(1, keepdim=True)
    return ExactChain(axes, torch.linalg.matrix_power(single, steps), _stationary(single))


def _gauss_legendre(low: float, high: float, inner: Any, width: float, resolution: float) -> tuple[Tensor, Tensor]:
    """Nodes and weights on panels of about three widths that end at the borders."""
    inside = [float(b) for b in inner if low < float(b) < high]
    edges, order = [low, *sorted(inside), high], max(4, round(3 * resolution))
    cuts = [np.linspace(a, b, int(np.ceil((b - a) / (3 * width))) + 1)[:-1] for a, b in pairwise(edges)]
    ends = np.append(np.concatenate(cuts), high)
    nodes, weights = np.polynomial.legendre.leggauss(order)
    half, middle = np.diff(ends)[:, None] / 2, ((ends[1:] + ends[:-1]) / 2)[:, None]
    return torch.as_tensor((middle + half * nodes).ravel()), torch.as_tensor((half * weights).ravel())


def _stationary(operator: Tensor) -> Tensor:
    """Left eigenvector for the eigenvalue one, from the linear system with one equation replaced by the sum."""
    system = operator.mT - torch.eye(len(operator), dtype=operator.dtype)
    system[-1] = 1.0
    right = torch.zeros(len(operator), dtype=operator.dtype)
    right[-1] = 1.0
    return torch.linalg.solve(system, right)


def _normalised(values: Tensor, weights: Tensor) -> Tensor:
    """Functions of second moment one, positive at the last point where they are more than half their largest size."""
    values = values / (weights[:, None] * values.square()).sum(0).sqrt()
    ordinary = weights > 1e-12
    strong = (values.abs() > 0.5 * values[ordinary].abs().amax(0)) & ordinary[:, None]
    last = len(values) - 1 - strong.flip(0).to(torch.uint8).argmax(0, keepdim=True)
    return values * values.gather(0, last).sign()


def _interpolated(axes: tuple[Tensor, ...], values: Tensor, points: Tensor) -> Tensor:
    from scipy.interpolate import RegularGridInterpolator
    from scipy.sparse.linalg import spsolve

    grid = values.numpy().reshape(*map(len, axes), -1)
    # The iterative solver that SciPy would take stops at an error of 1e-6.
    spline = RegularGridInterpolator([a.numpy() for a in axes], grid, method="cubic", solver=spsolve)
    low, high = torch.stack([a[0] for a in axes]), torch.stack([a[-1] for a in axes])
    return torch.as_tensor(spline(points.cpu().double().clamp(low, high).numpy())).to(points.device)
