"""Conformal rules: quantiles of calibration scores, and the intervals and guarantees that they make.

A rule is elementwise: the interval of an entry depends on no other entry, so it also holds for a slice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.calibration.reference import conformal_rank
from bayesmol.calibration.scores import Absolute, Central, Normalised, Score
from bayesmol.errors import DataError, FormatError, ShapeError, expected
from bayesmol.posterior import Interval, Posterior
from bayesmol.posterior.interval import checked_level

__all__ = ["ConformalRule", "Sample", "Source", "Target", "needed", "sentence"]

Source = Literal["calibration", "leave-one-out"]
Target = Literal["entry", "component", "structure"]

_SCORES: dict[str, type[Score]] = {"absolute": Absolute, "normalised": Normalised, "quantile": Central}
_SUBJECTS = {
    "entry": "a new label",
    "component": "a random component of a new structure",
    "structure": "all components of a new structure together",
}


@dataclass(frozen=True, eq=False)
class Sample:
    """Scores of the calibration.

    Attributes
    ----------
    scores
        Ascending.
    weights
        Probability of each score; ``None`` for equal ones.
    count
        Number of units that are taken for exchangeable: scores, or structures where there are weights.
    structures
        Number of structures that the scores come from; less than ``count`` where their entries are pooled.
    """

    scores: Float[Tensor, " scores"]
    weights: Float[Tensor, " scores"] | None
    count: int
    structures: int

    @classmethod
    def of(cls, scores: Float[Tensor, " entries"], owner: Int[Tensor, " entries"], target: Target) -> Sample:
        """Sample of the scores of entries; ``owner`` is the structure of each.

        Single scores (``"entry"``), scores with the weight :math:`1/((G+1) N_g)` (``"component"``), or the largest
        score of each structure (``"structure"``).
        """
        _, owner, counts = owner.unique(return_inverse=True, return_counts=True)
        structures = len(counts)
        if target == "structure":
            largest = scores.new_full((structures,), -math.inf).scatter_reduce(0, owner, scores, "amax")
            return cls(largest.sort().values, None, structures, structures)
        ordered, order = scores.sort()
        if target == "entry":
            return cls(ordered, None, len(scores), structures)
        weights = 1.0 / ((structures + 1) * counts.double())
        return cls(ordered, weights[owner[order]], structures, structures)

    def radius(self, level: float) -> float:
        r"""The :math:`\lceil (n+1)\,\mathrm{level} \rceil`-th smallest score, or weighted quantile; else infinite."""
        if self.count < needed(level):
            return math.inf
        if self.weights is None:
            return float(self.scores[conformal_rank(self.count, level) - 1])
        reached = self.weights.cumsum(0) >= level - 1e-12
        return float(self.scores[reached][0]) if bool(reached.any()) else float(self.scores[-1])


@dataclass(frozen=True, eq=False)
class ConformalRule:
    """Fitted rule: makes the intervals of any posterior of the quantity that it was calibrated on.

    Attributes
    ----------
    score
        How a radius becomes an interval.
    samples
        Scores of the calibration, of each category where there are categories or bins.
    target
        What the level is the probability of: one ``"entry"``, a random ``"component"`` of a structure, or all
        components of a ``"structure"`` together.
    source
        As in :class:`~bayesmol.calibration.Conformal`.
    categories
        Category of each sample, ascending; ``None`` without categories.
    edges
        Standard deviations between the bins, in the unit of the posterior; ``None`` without bins.
    remark
        What the sentence of the guarantee should add.
    """

    score: Score
    samples: tuple[Sample, ...]
    target: Target
    source: Source = "calibration"
    categories: Int[Tensor, " samples"] | None = None
    edges: Float[Tensor, " edges"] | None = None
    remark: str = ""

    @property
    def count(self) -> int:
        """Number of exchangeable units, in the smallest category."""
        return min(sample.count for sample in self.samples)

    def radii(self, level: float) -> Float[Tensor, " samples"]:
        """Radius of each category; infinite if it has fewer units than :func:`needed`."""
        checked_level(level)
        if isinstance(self.score, Central) and not math.isclose(level, self.score.level):
            remedy = "ask the rule that Conformal.fit returned for another level"
            raise DataError(expected("level", f"{self.score.level:g}, of the quantile scores", level, remedy))
        radii = [sample.radius(level) for sample in self.samples]
        return torch.tensor(radii, dtype=torch.float64, device=self.samples[0].scores.device)

    def interval(
        self, posterior: Posterior, level: float, *, categories: Int[Tensor, " rows"] | None = None
    ) -> Interval:
        """Interval of each entry with its guarantee; infinite where the calibration cannot give the level.

        Parameters
        ----------
        categories
            Category of each row, for a rule with categories; one that the calibration lacks has infinite intervals.
        """
        radii = self.radii(level)
        unknown = radii.new_full((1,), math.inf)
        radius = torch.cat([radii, unknown]).to(posterior.mean)[self._places(posterior, categories)]
        return Interval(*self.score.ends(posterior, radius), level, posterior.unit, self.guarantee(level))

    def guarantee(self, level: float) -> str:
        """The sentence that holds for an interval at ``level``."""
        names = None if self.categories is None else self.categories.tolist()
        subject = _SUBJECTS[self.target]
        return sentence(self.samples, level, subject, self.source, self._parts(), names) + self.remark

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header (JSON) and arrays that :meth:`from_state` reads back."""
        name = next(name for name, kind in _SCORES.items() if isinstance(self.score, kind))
        header: dict[str, Any] = {
            "score": name,
            "parameters": asdict(self.score),
            "target": self.target,
            "source": self.source,
        }
        header |= {"remark": self.remark, "sizes": [len(sample.scores) for sample in self.samples]}
        header["counts"] = [[sample.count, sample.structures] for sample in self.samples]
        arrays = {"scores": torch.cat([sample.scores for sample in self.samples])}
        if self.target == "component":
            arrays["weights"] = torch.cat([sample.weights for sample in self.samples if sample.weights is not None])
        extra = {"categories": self.categories, "edges": self.edges}
        return header, arrays | {name: array for name, array in extra.items() if array is not None}

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> ConformalRule:
        """Rule from :meth:`state`; raises :class:`FormatError` if a part is missing or contradictory."""
        parts = {"score", "parameters", "target", "source", "remark", "sizes", "counts"}
        if (
            not parts <= set(header)
            or "scores" not in arrays
            or header["score"] not in _SCORES
            or (header["target"] == "component") != ("weights" in arrays)
            or sum(header["sizes"]) != len(arrays["scores"])
        ):
            found = [*header, *arrays]
            raise FormatError(expected("state", f"{sorted(parts)} with scores", found, "calibrate and save again"))
        sizes = header["sizes"]
        weights = arrays["weights"].split(sizes) if "weights" in arrays else [None] * len(sizes)
        columns = zip(arrays["scores"].split(sizes), weights, header["counts"], strict=True)
        samples = tuple(Sample(scores, part, *counts) for scores, part, counts in columns)
        score = _SCORES[header["score"]](**header["parameters"])
        options = {name: header[name] for name in ("target", "source", "remark")}
        return cls(score, samples, categories=arrays.get("categories"), edges=arrays.get("edges"), **options)

    def _places(self, posterior: Posterior, categories: Tensor | None) -> Tensor:
        """Sample of each entry; one past the last for an unknown category."""
        if (categories is None) != (self.categories is None):
            remedy = "call interval(posterior, level, categories=…) of the rule itself, or calibrate with bins"
            got, aim = ("none", "one category a row") if categories is None else ("some", "none for this rule")
            raise DataError(expected("categories", aim, got, remedy))
        if self.edges is not None:
            edges = self.edges.to(posterior.mean.device)
            return torch.searchsorted(edges, posterior.stddev.double().contiguous(), right=True)
        if categories is None or self.categories is None:
            return torch.zeros(posterior.shape, dtype=torch.long, device=posterior.mean.device)
        if categories.shape != posterior.shape[:1]:
            raise ShapeError(expected("categories", f"shape {tuple(posterior.shape[:1])}", tuple(categories.shape)))
        known = self.categories.to(categories)
        place = torch.searchsorted(known, categories.contiguous()).clamp_max(len(known) - 1)
        place = torch.where(known[place] == categories, place, len(known)).to(posterior.mean.device)
        return place.reshape(-1, *[1] * (len(posterior.shape) - 1)).expand(posterior.shape)

    def _parts(self) -> str:
        if self.edges is not None:
            return f"each of {len(self.samples)} bins of the predicted standard deviation"
        return "" if self.categories is None else "each category"


def needed(level: float) -> int:
    r"""Least number of units for a finite interval, :math:`\lceil \mathrm{level}/(1-\mathrm{level}) \rceil`."""
    return math.ceil(checked_level(level) / (1 - level) - 1e-9)


def sentence(
    samples: Sequence[Sample],
    level: float,
    subject: str,
    source: Source,
    parts: str = "",
    names: Sequence[int] | None = None,
) -> str:
    """What holds for conformal regions at ``level``, and under which assumption.

    Parameters
    ----------
    subject
        What is covered, such as ``"a new label"``.
    parts
        Where each sample holds, such as ``"each category"``; empty for a single sample.
    names
        Of the samples; numbers from 1 if ``None``.
    """
    counts, least = [sample.count for sample in samples], needed(level)
    enough = [count for count in counts if count >= least]
    if not enough:
        return f"infinite: level {level:g} needs n ≥ {least}, got {max(counts)}"
    span = f"{min(enough)}" if min(enough) == max(enough) else f"{min(enough)} to {max(enough)}"
    size, where = f"n = {span}, needs n ≥ {least}", f" in {parts}" if parts else ""
    named = zip(names or range(1, len(counts) + 1), counts, strict=True)
    few = [f"{name} (n = {count})" for name, count in named if count < least]
    rest = f"; infinite in {', '.join(few[:5])}{' and others' if len(few) > 5 else ''}" if few else ""
    if any(sample.count > sample.structures for sample in samples):
        structures = max(sample.structures for sample in samples)
        return (
            f"covers about {level:g} of all entries{where}, without a bound for a new structure: entries of "
            f"{structures} structures are pooled ({size}), but entries of one structure are not exchangeable with "
            f"those of another, nor are those of one structure covered together; use unit='structure'{rest}"
        )
    if source == "leave-one-out":
        return (
            f"covers {subject} with probability about {level:g}{where}: jackknife on residuals of left-out structures "
            f"({size}); approximate, no distribution-free bound{rest}"
        )
    condition = f"if calibration and new structures are exchangeable ({size})"
    return f"covers {subject} with probability ≥ {level:g}{where} {condition}{rest}"
