"""A calibrated domain: verdicts and p-values with a guarantee, and the domain as arrays of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.applicability.atoms import AtomicScore, AtomRanks
from bayesmol.applicability.score_state import checked_array, checked_number, score_from_state, score_state
from bayesmol.applicability.scores import Score
from bayesmol.applicability.tolerance import tolerance_rank
from bayesmol.applicability.weighted_p import checked_weights, effective_rows, weighted_p_values
from bayesmol.errors import ApplicabilityError, DataError, FormatError, ShapeError, expected
from bayesmol.representation.atomic import AtomicFeatures

__all__ = ["CalibratedDomain", "Verdict", "atom_kinds", "largest", "owners", "scored"]

UNITS = ("row", "structure", "group")


@dataclass(frozen=True)
class Verdict:
    """What the domain says of each row, or group of rows: its score, its conformal p-value, and whether it is inside.

    Attributes
    ----------
    atoms
        The same of each atom, where the features are those of atoms.
    """

    score: Float[Tensor, " rows"]
    p_value: Float[Tensor, " rows"]
    inside: Bool[Tensor, " rows"]
    atoms: Verdict | None = None


@dataclass(frozen=True, eq=False)
class CalibratedDomain:
    """Fitted domain.

    Attributes
    ----------
    scores
        Those of the calibration units, ascending.
    unit
        ``"row"``, ``"structure"`` (of atoms) or ``"group"``: what is exchangeable with what.
    atoms
        Ranks of the calibration atoms.
    weights
        Of the calibration units, where new rows are distributed otherwise.
    """

    score: Score
    scores: Float[Tensor, " calibration"]
    level: float
    confidence: float
    unit: str = "row"
    atoms: AtomRanks | None = None
    weights: Float[Tensor, " calibration"] | None = None

    @property
    def threshold(self) -> float:
        """Largest score inside: the calibration score of :func:`tolerance_rank` from above.

        Raises
        ------
        ApplicabilityError
            With weights: what is inside then depends on the weight of the new row.
        """
        if self.weights is not None:
            raise ApplicabilityError(expected("threshold", "a domain without weights", "one with", "use p_value"))
        return float(self.scores[-tolerance_rank(len(self.scores), self.level, self.confidence)])

    @property
    def guarantee(self) -> str:
        """The sentence that holds for ``inside``, and the assumption under which it does."""
        unit, units, count = self.unit, f"{self.unit}s", len(self.scores)
        if self.weights is not None:
            return (
                f"at most {100 * self.level:g} % of new {units} are flagged (n = {count}, worth "
                f"{effective_rows(self.weights):.4g} by their weights), apart from those whose own weight exceeds "
                f"{100 * self.level:g} % of the sum, which cannot be judged and are not called inside; if the weights "
                "are the true density ratio: a learned one makes it approximate"
            )
        rank = tolerance_rank(count, self.level, self.confidence)
        flagged, few = ("have any row flagged", "in") if unit == "group" else ("are flagged", "for")
        sentence = (
            f"at most {100 * self.level:g} % of in-domain {units} {flagged}, with {100 * self.confidence:g} % "
            f"confidence (n = {count}, rank {rank}), where in-domain means exchangeable with the calibration {units}; "
            f"a p-value is ≤ p {few} at most a fraction p of them"
        )
        if self.atoms is None:
            return sentence
        of_kind = " of its species" if isinstance(self.score, AtomicScore) and self.score.by_species else ""
        return f"{sentence}; that of an atom likewise, for an atom{of_kind} drawn at random from a new {unit}"

    def assess(
        self,
        features: Tensor | AtomicFeatures,
        *,
        groups: Int[Tensor, " rows"] | None = None,
        weights: Float[Tensor, " rows"] | None = None,
        guard: Float[Tensor, " rows"] | None = None,
    ) -> Verdict:
        r"""Verdict on each row, with the conformal p-value :math:`p = (1 + \#\{i : s_i \ge s\})/(n + 1)`.

        A score of infinity (a hard physical guard, an unknown element) is always outside. An atom is inside if its
        score is at most the threshold for structures, so that with the largest score as that of a structure a
        structure is inside when all its atoms are.

        Parameters
        ----------
        groups
            Group of each row, for a domain calibrated with groups: the verdict is then one on each group, in ascending
            order, by its largest score; new groups must be as large as those of the calibration.
        weights
            Density ratio of each new row, for a domain calibrated with weights; see
            :func:`~bayesmol.applicability.weighted_p.weighted_p_values`.
        guard
            Score of physical guards, added to that of the features.

        Raises
        ------
        DataError
            If a score is NaN, or there are weights here and not in calibration, or the other way round, or groups here
            and not in calibration.
        """
        if groups is not None and self.unit != "group":
            raise DataError(expected("groups", "none, as in calibration", "some", "calibrate with groups"))
        if (weights is None) != (self.weights is None):
            raise DataError(expected("weights", "those of new and of calibration rows", "one of the two"))
        score, own = scored(self.score, features, guard)
        score = score if groups is None else largest(score, owners(groups, score))
        if weights is not None:
            return self._weighted(score, checked_weights(weights, len(score), finite=False).to(score.device))
        atoms, below = None, torch.searchsorted(self.scores.to(score.device), score, right=False)
        p_value = (1.0 + len(self.scores) - below.double()) / (len(self.scores) + 1)
        if self.atoms is not None and own is not None:
            p_atoms = self.atoms.p_values(own, atom_kinds(self.score, features))
            atoms = Verdict(own, p_atoms, own <= self.threshold)
        return Verdict(score, p_value, score <= self.threshold, atoms)

    def _weighted(self, score: Tensor, weights: Tensor) -> Verdict:
        assert self.weights is not None, "see assess"
        p_value = weighted_p_values(self.scores, self.weights, score, weights)
        judged = weights <= self.level * (self.weights.sum() + weights)  # false for an infinite weight, too
        judged &= weights.isfinite()
        return Verdict(score, p_value, (p_value > self.level) & judged & score.isfinite())

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header (JSON) and arrays that :meth:`from_state` reads back; a function as score is left out."""
        header: dict[str, Any] = {"level": self.level, "confidence": self.confidence, "unit": self.unit}
        if isinstance(self.score, AtomicScore):
            header["score"], fitted = self.score.state()
        else:
            header["score"], fitted = score_state(self.score)
        arrays = {"scores": self.scores} | {f"score.{key}": value for key, value in fitted.items()}
        if self.atoms is not None:
            arrays |= {f"atoms.{key}": value for key, value in self.atoms.state().items()}
        return header, arrays if self.weights is None else arrays | {"weights": self.weights}

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, Tensor], score: Score | None = None
    ) -> CalibratedDomain:
        """Domain from :meth:`state`; ``score`` is needed if the score was a function.

        Raises
        ------
        FormatError
            If a part is missing or malformed.
        """
        level, confidence = (checked_number(header, name, 0, 1) for name in ("level", "confidence"))
        scores, unit, name = checked_array(arrays, "scores"), header.get("unit", "row"), header.get("score")
        if not len(scores) or not bool((scores.diff() >= 0).all()) or unit not in UNITS:
            raise FormatError(expected("state", f"ascending scores of a unit of {UNITS}", f"{len(scores)} of {unit}"))
        fitted, atoms = _under("score", arrays), _under("atoms", arrays)
        read: Any = AtomicScore.from_state if isinstance(name, Mapping) else score_from_state
        ranks = AtomRanks.from_state(atoms) if atoms else None
        if ranks is not None and not isinstance(name, Mapping):
            raise FormatError(expected("score", "the score of atoms, for there are ranks of atoms", name))
        weights = checked_array(arrays, "weights") if "weights" in arrays else None
        if weights is not None and (weights.shape != scores.shape or not bool((weights >= 0).all())):
            raise FormatError(expected("weights", "one ≥ 0 a score", tuple(weights.shape)))
        return cls(read(name, fitted, score), scores, level, confidence, unit, ranks, weights)


def _under(name: str, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}


def atom_kinds(score: Any, features: Any) -> Int[Tensor, " atoms"]:
    """Species where each has its own calibration, else 0 for all atoms."""
    return features.species if score.by_species else torch.zeros_like(features.species)


def owners(groups: Int[Tensor, " rows"], scores: Float[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """Groups counted from zero, in ascending order."""
    if groups.shape != scores.shape:
        raise ShapeError(expected("groups", f"one a row, shape ({len(scores)},)", tuple(groups.shape)))
    return groups.unique(return_inverse=True)[1]


def largest(scores: Float[Tensor, " rows"], owner: Int[Tensor, " rows"]) -> Float[Tensor, " groups"]:
    """Largest score of each group."""
    count = int(owner.max()) + 1
    return scores.new_zeros(count).scatter_reduce(0, owner.to(scores.device), scores, "amax", include_self=False)


def scored(
    score: Score, features: Tensor | AtomicFeatures, guard: Tensor | None
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " atoms"] | None]:
    """Scores of rows or structures with that of the guard, and of their atoms where there are some; no NaN."""
    if isinstance(score, AtomicScore):
        if not isinstance(features, AtomicFeatures):
            raise DataError(expected("features", "AtomicFeatures, as the score was fitted to", type(features).__name__))
        atoms = score.atoms(features)
        scores = score.gathered(atoms, features)
    else:
        atoms, scores = None, score(features)
    if scores.ndim != 1 or len(scores) != len(features):
        raise ShapeError(expected("score", f"one number a row, shape ({len(features)},)", tuple(scores.shape)))
    if guard is not None and guard.shape != scores.shape:
        raise ShapeError(expected("guard", f"one number a row, shape ({len(scores)},)", tuple(guard.shape)))
    scores = scores.detach().double()
    scores = scores if guard is None else scores + guard.to(scores.device)
    if bool(scores.isnan().any()):
        raise DataError(expected("features", "rows with a score", "NaN scores", "look for NaN in the features"))
    return scores, atoms
