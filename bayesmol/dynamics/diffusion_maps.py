"""Diffusion maps: slow coordinates of the shape of a cloud of frames, whatever their order in time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.weights import bandwidth, block_weights
from bayesmol.errors import ApplicabilityError, DataError, expected
from bayesmol.posterior import Draws
from bayesmol.posterior.estimate import effective_sample_size
from bayesmol.representation.basis import checked_rows

__all__ = ["DiffusionMap", "FittedDiffusionMap", "kernel_scale"]

_REACH = 18.0  # exponent of the kernel at six of its standard deviations, beyond which nothing is known
_TOLERANCE = 0.02  # of a slope that is read from finite differences


def kernel_scale(squared: Float[Tensor, "points points"]) -> tuple[float, int]:
    r"""Scale :math:`\varepsilon` of the kernel :math:`e^{-|x-y|^2/4\varepsilon}`, and the dimension of the cloud.

    On a manifold of dimension d, :math:`S(\varepsilon) = \sum_{ij} e^{-|x_i-x_j|^2/4\varepsilon}` grows as
    :math:`\varepsilon^{d/2}`. d is the integer nearest to twice the largest slope of :math:`\ln S` against
    :math:`\ln\varepsilon`, and :math:`\varepsilon` the smallest one at which the slope has come to d/2 (or its maximum,
    where noise or ends keep it below): smaller kernels see single points, larger ones the curvature. So that no point
    is alone, which would make a coordinate of its own, :math:`4 \varepsilon` is at least the largest squared distance
    of a point from its nearest neighbour.

    Raises
    ------
    DataError
        If all points are the same.

    References
    ----------
    Coifman, Shkolnisky, Sigworth, Singer, IEEE Trans. Image Process. 17, 1891 (2008), for the slope;
    Berry, Harlim, Appl. Comput. Harmon. Anal. 40, 68 (2016), who take the largest one.
    """
    nearest = squared.masked_fill(squared == 0, math.inf).min(1).values
    if not bool(torch.isfinite(nearest).all()):
        raise DataError(expected("points", "frames that differ", "equal ones"))
    low, high = math.log(float(nearest.median()) / 40), math.log(float(squared.max()) * 4)
    scales = torch.linspace(low, high, math.ceil((high - low) / 0.2) + 3).to(squared)
    sums = torch.stack([torch.exp(squared / (-4 * scale.exp())).sum() for scale in scales]).log()
    slope = (sums[2:] - sums[:-2]) / (scales[2:] - scales[:-2])
    dimension = max(1, round(2 * float(slope.max())))
    wanted = min(dimension / 2, float(slope.max())) * (1 - _TOLERANCE)
    return max(float(scales[1 + int((slope >= wanted).nonzero()[0])].exp()), float(nearest.max()) / 4), dimension


@dataclass(frozen=True)
class DiffusionMap:
    r"""Eigenfunctions of a random walk between frames that are near to each other.

    .. math:: K_{ij} = e^{-|x_i - x_j|^2 / 4 \varepsilon}, \quad q_i = \sum_j K_{ij}, \quad
              P_{ij} = \frac{K_{ij} q_i^{-\alpha} q_j^{-\alpha}}{\sum_k K_{ik} q_i^{-\alpha} q_k^{-\alpha}},
              \quad P \psi = e^{-\varepsilon \kappa} \psi

    For many points and small :math:`\varepsilon` the :math:`\kappa` are eigenvalues of minus the Laplacian for
    :math:`\alpha = 1`, whatever the density of the frames, and for :math:`\alpha = 1/2` and frames from
    :math:`e^{-V/kT}` of minus the generator of overdamped Langevin dynamics with D = 1. They say nothing about the time
    that the system takes: for that, fit ``TICA`` with this map as its basis.

    Attributes
    ----------
    coordinates
        How many functions besides the constant one.
    scale
        ε, in the unit of the features squared; by default :func:`kernel_scale`.
    alpha
        How much of the density is divided out.
    points
        Most frames on which the walk is made, evenly spaced among all; others follow by the Nyström extension.

    References
    ----------
    Coifman, Lafon, Appl. Comput. Harmon. Anal. 21, 5 (2006); Bengio et al., Advances in Neural Information Processing
    Systems 16 (2003), for the extension.
    """

    coordinates: int = 2
    scale: float | None = None
    alpha: float = 1.0
    points: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.coordinates < self.points:
            raise DataError(expected("coordinates", f"from 1 to points − 1 = {self.points - 1}", self.coordinates))
        if not (self.scale is None or self.scale > 0) or not 0 <= self.alpha <= 1:
            raise DataError(expected("scale, alpha", "a positive number, and one from 0 to 1", self))

    def fit(self, data: Any, *, seed: int | torch.Generator = 0) -> FittedDiffusionMap:
        """Solve for frames (frames, features) or trajectories; nothing is random.

        Raises
        ------
        ShapeError, DataError
            If the data are no finite features, are all equal, or fewer than the coordinates ask.
        """
        trajectories = Trajectories.of(data)
        frames = checked_rows(torch.cat(trajectories.parts))
        stride = math.ceil(len(frames) / self.points)
        points = frames[::stride]
        if len(points) <= self.coordinates + 1:
            raise DataError(expected("data", f"more than {self.coordinates + 1} frames", len(points)))
        lengths = torch.tensor(trajectories.lengths, device=frames.device)
        owner = torch.repeat_interleave(torch.arange(len(lengths), device=frames.device), lengths)[::stride]
        squared = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").square()
        scale = self.scale or kernel_scale(squared)[0]
        values, functions, roots = _solved(torch.exp(squared / (-4 * scale)), self.alpha)
        kept = slice(4 * self.coordinates + 10)
        return FittedDiffusionMap(self, points, owner, scale, values[kept], functions[:, kept], roots)


@dataclass(frozen=True, eq=False)
class FittedDiffusionMap:
    """Coordinates of frames; a fitted basis without the constant function.

    Attributes
    ----------
    points, owner
        Frames of the walk, in the order of time, and which trajectory each is of.
    scale
        ε.
    values, vectors
        Eigenvalues of P from the largest on, and its eigenfunctions at the points, of mean square one under the
        stationary density of the walk. The first is the constant; a few more than asked serve :meth:`rates`.
    roots
        :math:`q^{-\\alpha}` at the points.
    """

    spec: DiffusionMap
    points: Float[Tensor, "points features"]
    owner: Int[Tensor, " points"]
    scale: float
    values: Float[Tensor, " kept"]
    vectors: Float[Tensor, "points kept"]
    roots: Float[Tensor, " points"]
    constant: bool = False

    @property
    def functions(self) -> int:
        """Number of coordinates."""
        return self.spec.coordinates

    def __call__(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows coordinates"]:
        r"""Nyström extension :math:`\psi(x) = \lambda^{-1} \sum_j P(x, x_j) \psi(x_j)`; exact at the points.

        Raises
        ------
        ApplicabilityError
            If a frame is further than six standard deviations of the kernel from all points.
        """
        squared = torch.cdist(checked_rows(x, self.points.shape[1]), self.points).square() / (4 * self.scale)
        if beyond := int((squared.min(1).values > _REACH).sum()):
            wanted = f"frames within {math.sqrt(4 * _REACH * self.scale):.3g} of a point of the map"
            raise ApplicabilityError(expected("x", wanted, f"{beyond} beyond", "fit the map with such frames"))
        weights = torch.exp(-squared) * self.roots
        kept = slice(1, self.spec.coordinates + 1)
        return weights @ self.vectors[:, kept] / weights.sum(1, keepdim=True) / self.values[kept]

    def rates(self, draws: int = 200, *, seed: int | torch.Generator) -> Draws:
        r"""Eigenvalues :math:`\kappa = -\ln\lambda / \varepsilon`, with what the choice of frames does to them.

        The frames get random weights in the kernel sums, which are correlated in time over the correlation time of the
        coordinates. Each draw is solved in the span of the leading eigenfunctions of the estimate, which is exact to
        first order in its weights. In one over the unit of the features squared; ε is held fixed, so its bias is not in
        the spread.

        Raises
        ------
        ConvergenceError
            If the frames are fewer than about ten times their correlation.
        """
        kept = slice(1, self.spec.coordinates + 1)
        total = len(self.points)
        effective = float(effective_sample_size(self.vectors[None, :, kept]).min())
        wide = bandwidth(1, total / effective / 2, total)
        weights = block_weights(self.owner, 1.0, wide, draws, seed=seed).values
        squared = torch.cdist(self.points, self.points).square()
        kernel = torch.exp(squared / (-4 * self.scale))
        values = torch.cat([self._perturbed(kernel, part) for part in weights.split(20)])
        return Draws((-values[:, kept].log() / self.scale)[None], unit="")

    def _perturbed(self, kernel: Tensor, weights: Float[Tensor, "draws points"]) -> Float[Tensor, "draws kept"]:
        """Rayleigh–Ritz values of the walk on weighted points."""
        r = weights * (weights @ kernel).pow(-self.spec.alpha)
        scaled = r[..., None] * self.vectors
        total = (r * (r @ kernel))[..., None] * self.vectors
        factor = torch.linalg.cholesky(self.vectors.mT @ total)
        half = torch.linalg.solve_triangular(factor, scaled.mT @ (kernel @ scaled), upper=False)
        full = torch.linalg.solve_triangular(factor, half.mT, upper=False)
        return torch.linalg.eigvalsh((full + full.mT) / 2).flip(-1)


def _solved(kernel: Float[Tensor, "points points"], alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Leading eigenvalues, eigenfunctions, and the density to the power −α, all from the symmetric form of P."""
    roots = kernel.sum(1).pow(-alpha)
    normalised = kernel * roots * roots[:, None]
    degree = normalised.sum(1)
    values, vectors = torch.linalg.eigh(normalised * degree.rsqrt() * degree.rsqrt()[:, None])
    functions = vectors * (degree.sum() / degree).sqrt()[:, None]
    return values.flip(0), functions.flip(1), roots
