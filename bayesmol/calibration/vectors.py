"""Conformal regions of vectors, such as forces: balls and ellipsoids that turn with the frame of reference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.calibration.observed import paired
from bayesmol.calibration.rules import Sample, Source, Target, sentence
from bayesmol.data import Labelled
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Gaussian, Posterior
from bayesmol.posterior.interval import checked_level

__all__ = ["ConformalRegion", "Region", "RegionRule"]

Shape = Literal["ball", "ellipsoid"]


@dataclass(frozen=True)
class ConformalRegion:
    r"""Conformal regions of vectors, one an atom; structures are the exchangeable units.

    Attributes
    ----------
    shape
        ``"ball"``: :math:`\|F - \mu\| \le r s` with :math:`s^2 = \operatorname{tr}\Sigma / 3`, which needs no more
        than variances. ``"ellipsoid"``: :math:`(F - \mu)^\top \Sigma^{-1} (F - \mu) \le r^2` with the
        :math:`3 \times 3` blocks of the covariance of a Gaussian. Both turn with the frame; boxes do not.
    simultaneous
        Whether the regions of all atoms of a new structure shall hold together; else that of a random atom.
    source
        As in :class:`~bayesmol.calibration.Conformal`.

    References
    ----------
    Braun, Berta, Jordan, Bach, arXiv:2507.20941 (Mahalanobis norms as scores). Lee, Barber, Willett,
    arXiv:2306.06342, theorem 1 (structures).
    """

    shape: Shape = "ball"
    simultaneous: bool = False
    source: Source = "calibration"

    def __post_init__(self) -> None:
        for name, allowed in {"shape": Shape, "source": Source}.items():
            if getattr(self, name) not in get_args(allowed):
                raise DataError(expected(name, f"one of {get_args(allowed)}", repr(getattr(self, name))))

    def fit(
        self, posterior: Posterior, truth: Tensor | Labelled | Posterior, *, groups: Int[Tensor, " atoms"] | None = None
    ) -> RegionRule:
        """Rule from posteriors of calibration structures and their labels, shape ``(atoms, 3)``.

        Parameters
        ----------
        truth
            Labels in the unit of the posterior, or labelled structures (which know the structure of each atom).
        groups
            Structure of each atom; by default each is one of its own.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a label is not finite, a scale is zero, or an ellipsoid has no covariance.
        """
        posterior, observed = paired(posterior, truth, groups=groups)
        scale, root = _frames(posterior, self.shape)
        scores = _norms(observed.values - posterior.mean, root).double() / scale.double()
        target: Target = "structure" if self.simultaneous else "component"
        return RegionRule(self.shape, Sample.of(scores, observed.groups, target), target, self.source)


@dataclass(frozen=True, eq=False)
class RegionRule:
    """Fitted rule: makes the region of each vector of a posterior.

    Attributes
    ----------
    shape, source
        As in :class:`ConformalRegion`.
    sample
        Scores of the calibration.
    target
        What the level is the probability of: a random ``"component"``, here a vector, or the whole ``"structure"``.
    """

    shape: Shape
    sample: Sample
    target: Target
    source: Source = "calibration"

    def region(self, posterior: Posterior, level: float) -> Region:
        """Region of each vector with its guarantee; infinite if the calibration cannot give the level."""
        scale, root = _frames(posterior, self.shape)
        radius = self.sample.radius(checked_level(level)) * scale
        return Region(posterior.mean, radius, root, level, posterior.unit, self.guarantee(level))

    def guarantee(self, level: float) -> str:
        """The sentence that holds for regions at ``level``."""
        together = self.target == "structure"
        subject = (
            "all vectors of a new structure together" if together else "the vector of a random atom of a new structure"
        )
        return sentence([self.sample], level, subject, self.source)


@dataclass(frozen=True, eq=False)
class Region:
    r"""Ball or ellipsoid :math:`\{c + L u : \|u\| \le r\}` of each vector.

    Attributes
    ----------
    centre
        In ``unit``.
    radius
        Infinite where the calibration cannot give the level; in ``unit`` for balls, a number for ellipsoids.
    root
        Lower triangular L with :math:`L L^\top = \Sigma`, in ``unit``; ``None`` for balls, whose L is one.
    level
        Probability, strictly between 0 and 1.
    guarantee
        The sentence that holds: under which assumption, for which average, the level is true.
    """

    centre: Float[Tensor, "atoms 3"]
    radius: Float[Tensor, " atoms"]
    root: Float[Tensor, "atoms 3 3"] | None
    level: float
    unit: str
    guarantee: str

    def contains(self, value: Float[Tensor, "atoms 3"]) -> Bool[Tensor, " atoms"]:
        """Whether each vector, in ``unit``, lies inside; the surface belongs to the region."""
        if value.shape != self.centre.shape:
            raise ShapeError(expected("value", f"shape {tuple(self.centre.shape)}", tuple(value.shape)))
        if bool(torch.isnan(value).any()):
            raise DataError(expected("value", "numbers", "NaN", "remove the vectors without a label first"))
        return _norms(value - self.centre, self.root) <= self.radius

    def covered(self, value: Float[Tensor, "atoms 3"]) -> float:
        """Fraction of the vectors that lie inside."""
        return float(self.contains(value).double().mean())

    @property
    def volume(self) -> Float[Tensor, " atoms"]:
        r"""Volume :math:`\tfrac{4}{3} \pi r^3 \det L`, in ``unit`` cubed."""
        stretch = 1.0 if self.root is None else self.root.diagonal(dim1=1, dim2=2).prod(1)
        return 4 / 3 * math.pi * self.radius**3 * stretch

    def __str__(self) -> str:
        shape = "balls" if self.root is None else "ellipsoids"
        return f"{len(self.centre)} {shape} at {100 * self.level:g} % in {self.unit} ({self.guarantee})"


def _frames(posterior: Posterior, shape: Shape) -> tuple[Tensor, Tensor | None]:
    """Scale of each vector and root of its covariance: those of a ball, or one and the root of an ellipsoid."""
    if len(posterior.shape) != 2 or posterior.shape[1] != 3:
        raise ShapeError(expected("posterior", "vectors of shape (atoms, 3)", tuple(posterior.shape)))
    if shape == "ball":
        scale, root = posterior.variance.mean(1).sqrt(), None
        singular = not bool((scale > 0).all())
    else:
        root, failed = torch.linalg.cholesky_ex(_blocks(posterior))
        scale, singular = posterior.mean.new_ones(len(posterior)), bool(failed.any())
    if singular:
        raise DataError(expected("posterior", "a positive variance in each direction", "none for some atoms"))
    return scale, root


def _blocks(posterior: Posterior) -> Float[Tensor, "atoms 3 3"]:
    """Covariance of each vector with itself."""
    covariance = posterior.covariance if isinstance(posterior, Gaussian) else None
    if covariance is None:
        remedy = "predict(…, covariance=True), or take shape='ball'"
        raise DataError(expected("posterior", "a Gaussian with a covariance", f"{posterior!r} without", remedy))
    parts = covariance if isinstance(covariance, tuple) else (covariance,)
    if any(len(part) % 3 for part in parts):
        raise ShapeError(expected("covariance", "blocks of whole vectors", [len(part) for part in parts]))
    cut = [part.unflatten(0, (-1, 3)).unflatten(2, (-1, 3)).diagonal(dim1=0, dim2=2) for part in parts]
    return torch.cat(cut, dim=2).movedim(2, 0)


def _norms(residual: Tensor, root: Tensor | None) -> Tensor:
    """Euclidean norm, or Mahalanobis norm with the root of a covariance."""
    if root is not None:
        residual = torch.linalg.solve_triangular(root, residual.unsqueeze(2), upper=False).squeeze(2)
    return torch.linalg.vector_norm(residual, dim=1)
