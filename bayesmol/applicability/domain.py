"""Domain of applicability: any score of strangeness, calibrated to a verdict and a p-value with a guarantee."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.applicability.atoms import AtomicScore, AtomRanks
from bayesmol.applicability.calibrated_domain import CalibratedDomain, Verdict, atom_kinds, largest, owners, scored
from bayesmol.applicability.scores import SPECIFICATIONS, Score, Specification, identity
from bayesmol.applicability.tolerance import checked_probability, tolerance_rank
from bayesmol.applicability.weighted_p import checked_weights, effective_rows
from bayesmol.errors import ApplicabilityError, DataError, expected
from bayesmol.representation.atomic import AtomicFeatures

__all__ = ["CalibratedDomain", "Domain", "Verdict", "tolerance_rank"]


@dataclass(frozen=True)
class Domain:
    """Domain of applicability by a score ``features → (rows,)``, higher is stranger.

    ``Domain("knn").fit(training).calibrate(calibration).assess(new)``; a score that needs no fitting skips ``fit``.
    Features are a tensor with one row a configuration, or :class:`~bayesmol.representation.atomic.AtomicFeatures` with
    one row an atom: the structure is then the unit of calibration and verdict, and its atoms are judged beside.

    Attributes
    ----------
    score
        ``"identity"`` (the features are the scores), ``"leverage"``, ``"knn"`` or another name of
        :data:`~bayesmol.applicability.scores.SPECIFICATIONS`, a specification with its own settings, or any function
        of features.
    level
        Rate of false alarms: at most this fraction of rows like the calibration rows is called outside …
    confidence
        … with this probability over the draw of the calibration rows.
    by_species
        Whether atoms of each element have their own fitted score and their own calibration.
    strongest
        The score of a structure is the mean of this many largest scores of its atoms; 1: the largest.
    """

    score: str | Specification | Score = "identity"
    level: float = 0.02
    confidence: float = 0.95
    by_species: bool = False
    strongest: int = 1

    def __post_init__(self) -> None:
        checked_probability(level=self.level, confidence=self.confidence)
        if isinstance(self.score, str) and self.score not in ("identity", *SPECIFICATIONS):
            raise DataError(expected("score", ["identity", *SPECIFICATIONS], self.score))
        if self.strongest < 1:
            raise DataError(expected("strongest", "a number of atoms, at least 1", self.strongest))

    def fit(self, features: Tensor | AtomicFeatures) -> Domain:
        """The same domain with its score fitted to training features."""
        score = self._specification
        if isinstance(features, AtomicFeatures):
            fitted = AtomicScore.of(score, features, by_species=self.by_species, strongest=self.strongest)
            return replace(self, score=fitted)
        self._refuse_settings_of_atoms()
        return replace(self, score=score.fit(features)) if isinstance(score, Specification) else self

    def calibrate(
        self,
        features: Tensor | AtomicFeatures,
        *,
        groups: Int[Tensor, " rows"] | None = None,
        weights: Float[Tensor, " rows"] | None = None,
        guard: Float[Tensor, " rows"] | None = None,
    ) -> CalibratedDomain:
        """Domain with its threshold, from features of rows that neither model nor score has seen.

        Parameters
        ----------
        groups
            Group of each row where rows depend on each other, such as the trajectory of each frame. The unit is then
            the group, with the largest score of its rows: groups must be exchangeable, rows need not be.
        weights
            Density ratio of new to calibration rows at each row, up to a factor (such as those of
            :class:`~bayesmol.calibration.DensityRatio`), where new rows are distributed otherwise; :meth:`assess` then
            needs the weights of the new rows.
        guard
            Score of physical guards, added to that of the features; it must be finite here.

        Raises
        ------
        ApplicabilityError
            If the score is not fitted yet, or there are too few rows for the level at the confidence.
        DataError
            If a calibration score is not finite.
        """
        score = self._ready(features)
        scores, atoms = scored(score, features, guard)
        if not bool(torch.isfinite(scores).all()):
            raise DataError(expected("features", "calibration rows with finite scores", "infinity", "remove them"))
        unit, owner = "row" if atoms is None else "structure", None
        if groups is not None:
            if weights is not None:
                raise DataError(expected("groups, weights", "one of the two", "both", "give one row of each group"))
            unit, owner = "group", owners(groups, scores)
            scores = largest(scores, owner)
        if weights is not None:
            return self._weighted(score, scores, checked_weights(weights, len(scores)).to(scores.device), unit)
        tolerance_rank(len(scores), self.level, self.confidence)
        ranks = None if atoms is None else _ranks(score, features, atoms, owner)
        return CalibratedDomain(score, scores.sort().values, self.level, self.confidence, unit, ranks)

    def _weighted(self, score: Score, scores: Tensor, weights: Tensor, unit: str) -> CalibratedDomain:
        effective_rows(weights, self.level)
        scores, order = scores.sort()
        return CalibratedDomain(score, scores, self.level, self.confidence, unit, None, weights[order])

    @property
    def _specification(self) -> Specification | Score:
        named = SPECIFICATIONS | {"identity": identity}
        return named[self.score] if isinstance(self.score, str) else self.score

    def _ready(self, features: Tensor | AtomicFeatures) -> Score:
        """The fitted score for features of this kind."""
        score = self._specification
        if isinstance(score, Specification):
            raise ApplicabilityError(expected("score", "a fitted score", type(score).__name__, "call fit first"))
        if isinstance(features, AtomicFeatures):
            if isinstance(score, AtomicScore):
                return score
            if self.by_species:
                raise ApplicabilityError(expected("by_species", "scores of each species", "none", "call fit first"))
            return AtomicScore.of(score, features, by_species=False, strongest=self.strongest)
        self._refuse_settings_of_atoms()
        return score

    def _refuse_settings_of_atoms(self) -> None:
        if self.by_species or self.strongest != 1 or isinstance(self.score, AtomicScore):
            raise DataError(expected("features", "AtomicFeatures for a domain of atoms", "a tensor of rows"))


def _ranks(score: Score, features: Any, atoms: Tensor, owner: Tensor | None) -> AtomRanks:
    structures = features.structure_index
    return AtomRanks.of(atoms, atom_kinds(score, features), structures if owner is None else owner[structures])
