"""Recalibration: new posteriors whose uncertainty is as large as the errors that were seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.calibration.curves import affine, isotonic, probabilities, scale
from bayesmol.calibration.observed import paired
from bayesmol.data import Labelled
from bayesmol.errors import DataError, FormatError, ShapeError, UnitError, expected
from bayesmol.posterior import Draws, Gaussian, Mixture, Posterior
from bayesmol.posterior.location_scale import LocationScale
from bayesmol.posterior.quantiles import Quantiles
from bayesmol.posterior.recalibrated import Recalibrated

__all__ = ["Recalibration", "Recalibrator"]

Method = Literal["scale", "affine", "isotonic", "cdf"]
Unit = Literal["entry", "structure"]


@dataclass(frozen=True)
class Recalibration:
    r"""How standard deviations, or probabilities, are corrected by the errors :math:`r = y - \mu` that were seen.

    Attributes
    ----------
    method
        ``"scale"``: :math:`\sigma' = a \sigma` with :math:`a^2 = \langle r^2/\sigma^2 \rangle`. ``"affine"``:
        :math:`\sigma' = a \sigma + b` with :math:`a, b \ge 0` of the largest normal likelihood.
        ``"isotonic"``: :math:`\sigma'^2` is the non-descending function of :math:`\sigma` closest to :math:`r^2`,
        linear between its steps and constant beyond; its lowest and its highest step rest on 20 entries or more.
        ``"cdf"``: :math:`F'(y) = R(F(y))`, R ascending and linear between knots, which also corrects bias, skewness
        and tails; :math:`R(p) = (n \hat P(F(y) \le p) + p)/(n + 1)` at :math:`\lceil \sqrt n \rceil` knots, 100 at
        most, so that the old distribution weighs as much as one label.
    unit
        What counts once: each ``"entry"``, or each ``"structure"``, however many entries it has. n is the number of
        structures in either case.

    References
    ----------
    Palmer et al., npj Comput. Mater. 8, 115 (2022) (affine). Busk et al., Mach. Learn.: Sci. Technol. 3, 015012
    (2022) (isotonic). Kuleshov, Fenner, Ermon, ICML 2018 (cdf).
    """

    method: Method = "scale"
    unit: Unit = "entry"

    def __post_init__(self) -> None:
        for name, allowed in {"method": Method, "unit": Unit}.items():
            if getattr(self, name) not in get_args(allowed):
                raise DataError(expected(name, f"one of {get_args(allowed)}", repr(getattr(self, name))))

    def fit(
        self,
        posterior: Posterior,
        truth: Tensor | Labelled | Posterior,
        *,
        groups: Int[Tensor, " rows"] | None = None,
        categories: Int[Tensor, " rows"] | None = None,
    ) -> Recalibrator:
        """Recalibrator from posteriors and labels that the model has not seen: held out, or left out.

        Parameters
        ----------
        truth
            Labels in the unit of the posterior, or labelled structures (which know the structure of each row). The
            squares of known errors of the labels are taken off the squared residuals.
        groups
            Structure of each row; by default each row is one of its own.
        categories
            Category of each row, such as its chemical element; each has its own correction.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a label is not finite, a standard deviation is not positive and finite, there are too few
            labels or only zero errors, or the method cannot deal with this posterior or with errors of the labels.
        """
        unit = posterior.unit
        posterior, observed = paired(posterior, truth, groups=groups)
        if categories is not None and categories.shape != observed.groups.shape:
            aim = f"one for each of the {len(observed.groups)} rows with a label"
            raise ShapeError(expected("categories", aim, tuple(categories.shape)))
        noise = None if observed.errors is None or not bool((observed.errors > 0).any()) else observed.errors.square()
        if noise is not None and self.method in ("affine", "cdf"):
            remedy = "use 'scale' or 'isotonic'"
            raise DataError(expected("truth", f"labels without errors for {self.method!r}", "errors", remedy))
        if self.method == "cdf" and categories is not None and isinstance(posterior, Quantiles):
            raise DataError(expected("categories", "none for 'cdf' of Quantiles", "some", "fit one of each category"))
        place, kinds = torch.zeros_like(observed.groups), None
        if categories is not None:
            kinds, place = categories.to(place.device).unique(return_inverse=True)
        curves, counts = [], []
        for k in range(int(place.max()) + 1):
            rows = (place == k).nonzero()[:, 0]
            part = posterior if kinds is None else posterior[rows]
            known = None if noise is None else noise[rows]
            curves.append(self._curve(part, observed.values[rows], known, observed.groups[rows]))
            counts.append(len(observed.groups[rows].unique()))
        return Recalibrator(self.method, tuple(curves), unit, tuple(counts), kinds)

    def _curve(self, posterior: Posterior, truth: Tensor, noise: Tensor | None, groups: Tensor) -> Tensor:
        weights = _weights(groups, self.unit).reshape(-1, *[1] * (truth.ndim - 1)).expand(truth.shape)
        weights = (weights / weights.sum()).flatten()
        if self.method == "cdf":
            return probabilities(posterior, truth, weights, len(groups.unique()))
        sigma = _deviation(posterior).flatten()
        squares = (truth.double() - posterior.mean.double()).square()
        squares = (squares if noise is None else squares - noise).flatten()
        return {"scale": scale, "affine": affine, "isotonic": isotonic}[self.method](sigma, squares, weights)


@dataclass(frozen=True, eq=False)
class Recalibrator:
    """Fitted correction: makes new posteriors of the quantity that it was fitted on.

    Attributes
    ----------
    method
        As in :class:`Recalibration`.
    curves
        One of each category. Of ``"scale"`` and ``"affine"`` the numbers a and b; of ``"isotonic"`` the standard
        deviations before and the variances after; of ``"cdf"`` the probabilities before and after.
    unit
        Unit of the quantity.
    counts
        Number of structures behind each curve.
    categories
        Category of each curve, ascending; ``None`` without categories.
    """

    method: Method
    curves: tuple[Float[Tensor, "2 _"], ...]
    unit: str
    counts: tuple[int, ...]
    categories: Int[Tensor, " curves"] | None = None

    def __call__(self, posterior: Posterior, categories: Int[Tensor, " rows"] | None = None) -> Posterior:
        """The corrected posterior, without the interval rule of the old one.

        Raises
        ------
        UnitError, ShapeError, DataError
            If the unit is another, a category was not seen in the fit, a standard deviation is not positive and
            finite, or the posterior is of a kind that the method cannot deal with.
        """
        if posterior.unit != self.unit:
            raise UnitError(expected("posterior", f"one in {self.unit!r}", repr(posterior.unit), "convert it"))
        place = self._places(posterior, categories)
        if self.method == "cdf" and isinstance(posterior, Quantiles) and place is None:
            levels = torch.from_numpy(np.interp(posterior.levels.cpu(), *self.curves[0].cpu().numpy()))
            return Quantiles(levels, posterior.values, unit=self.unit)
        if self.method == "cdf":
            return Recalibrated(posterior, self.curves, place)
        old = _deviation(posterior)
        new = torch.empty_like(old)
        for k, curve in enumerate(self.curves):
            rows = slice(None) if place is None else place == k
            new[rows] = self._corrected(old[rows], curve)
        return _stretched(posterior, (new / old).to(posterior.mean))

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header (JSON) and arrays that :meth:`from_state` reads back."""
        arrays = {f"curve_{k}": curve for k, curve in enumerate(self.curves)}
        arrays |= {} if self.categories is None else {"categories": self.categories}
        return {"method": self.method, "unit": self.unit, "counts": list(self.counts)}, arrays

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> Recalibrator:
        """Recalibrator from :meth:`state`; raises :class:`FormatError` if a part is missing or contradictory."""
        counts, categories = tuple(header.get("counts", ())), arrays.get("categories")
        names = [f"curve_{k}" for k in range(len(counts))]
        parts = header.get("method") in get_args(Method) and "unit" in header and set(names) <= set(arrays)
        if not parts or not counts or len(counts) != (1 if categories is None else len(categories)):
            raise FormatError(expected("state", "method, unit, counts and a curve for each", [*header, *arrays]))
        return cls(header["method"], tuple(arrays[name] for name in names), header["unit"], counts, categories)

    def __str__(self) -> str:
        structures = ", ".join(f"{count}" for count in self.counts)
        return f"{self.method} recalibration in {self.unit} by {structures} structures"

    def _corrected(self, sigma: Tensor, curve: Tensor) -> Tensor:
        if self.method != "isotonic":
            a, b = curve[:, 0].tolist()
            return a * sigma + b
        return torch.from_numpy(np.interp(sigma.cpu(), *curve.cpu().numpy())).to(sigma).sqrt()

    def _places(self, posterior: Posterior, categories: Tensor | None) -> Tensor | None:
        """Number of the curve of each row."""
        if (categories is None) != (self.categories is None):
            got, aim = ("none", "one category a row") if categories is None else ("some", "none for this recalibrator")
            raise DataError(expected("categories", aim, got))
        if categories is None or self.categories is None:
            return None
        if not posterior.shape or categories.shape != posterior.shape[:1]:
            aim = f"one category for each row of {tuple(posterior.shape)}"
            raise ShapeError(expected("categories", aim, tuple(categories.shape)))
        known = self.categories.to(categories.device)
        place = torch.searchsorted(known, categories).clamp_max(len(known) - 1)
        strange = categories[known[place] != categories].unique().tolist()
        if strange:
            raise DataError(expected("categories", f"among {known.tolist()}", strange, "calibrate on these too"))
        return place


def _weights(groups: Tensor, unit: Unit) -> Float[Tensor, " rows"]:
    ones = torch.ones(len(groups), dtype=torch.float64, device=groups.device)
    if unit == "entry":
        return ones
    _, place, sizes = groups.unique(return_inverse=True, return_counts=True)
    return ones / sizes[place]


def _deviation(posterior: Posterior) -> Float[Tensor, "*shape"]:
    sigma = posterior.stddev.double()
    if not bool((torch.isfinite(sigma) & (sigma > 0)).all()):
        remedy = "include the noise of the labels, or use 'cdf' for infinite ones"
        raise DataError(expected("posterior", "positive finite standard deviations", "others", remedy))
    return sigma


def _stretched(posterior: Posterior, factor: Tensor) -> Posterior:
    """The same mean with standard deviations times ``factor``."""
    if isinstance(posterior, Gaussian | LocationScale):
        return posterior.scaled(factor)
    mean, unit = posterior.mean, posterior.unit
    if isinstance(posterior, Mixture):
        means, variances = mean + (posterior.means - mean) * factor, posterior.variances * factor.square()
        return Mixture(means, variances, posterior.weights, unit=unit)
    if isinstance(posterior, Draws):
        return Draws(mean + (posterior.values - mean) * factor, posterior.log_weights, unit=unit)
    if isinstance(posterior, Quantiles):
        return Quantiles(posterior.levels, mean + (posterior.values - mean) * factor, unit=unit)
    kinds = "Gaussian, StudentT, Laplace, Mixture, Draws or Quantiles"
    raise DataError(expected("posterior", kinds, type(posterior).__name__, "recalibrate the original once"))
