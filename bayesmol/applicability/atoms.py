"""Scores of atoms: one a species where asked for, gathered to one of the structure, with p-values that hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.applicability.score_state import checked_array, score_from_state, score_state
from bayesmol.applicability.scores import Score, Specification
from bayesmol.errors import DataError, FormatError, ShapeError, expected
from bayesmol.representation.atomic import AtomicFeatures

__all__ = ["AtomRanks", "AtomicScore", "strongest_mean"]

FOLDS = 5
TAIL = 0.1  # share of the left-out scores of a species that sets its scale


def strongest_mean(
    values: Float[Tensor, " atoms"], pointer: Int[Tensor, " offsets"], size: int = 1
) -> Float[Tensor, " structures"]:
    """Mean of the ``size`` largest values of each structure (of all, where it has fewer); 1 is the maximum."""
    counts = pointer.diff()
    owner = torch.arange(len(counts), device=values.device).repeat_interleave(counts)
    order = values.argsort(descending=True)
    order = order[owner[order].argsort(stable=True)]
    kept = torch.arange(len(values), device=values.device) - pointer[:-1][owner] < size
    sums = values.new_zeros(len(counts)).index_add_(0, owner[kept], values[order][kept])
    return sums / counts.clamp(max=size)


@dataclass(frozen=True, eq=False)
class AtomicScore:
    r"""Score of structures from those of their atoms.

    By species, scores of different elements are made comparable by an affine map that is fixed before calibration:
    :math:`z = (s - u)/\beta + \ln 10`, where u is the 90 % quantile of the scores of left-out training atoms of the
    element and β their mean excess over it. For an exponential tail z is −ln of the fraction of atoms that are
    stranger, so it orders as ranks do, and atoms beyond all others are still ordered. Any fixed map leaves the
    calibration of structures exact; ranks among the calibration atoms themselves would not, because these know their
    own rank.

    Attributes
    ----------
    scores
        Fitted scores: one for all atoms, or one a species.
    species
        Known elements; atoms of others have an infinite score.
    centres, scales
        u − β ln 10 and β of each species; 0 and 1 for one score of all atoms.
    strongest
        The mean of this many largest scores is that of the structure.
    """

    scores: tuple[Score, ...]
    species: Int[Tensor, " species"]
    centres: Float[Tensor, " species"]
    scales: Float[Tensor, " species"]
    strongest: int = 1

    @classmethod
    def of(
        cls, specification: Specification | Score, features: AtomicFeatures, *, by_species: bool, strongest: int
    ) -> AtomicScore:
        """Score fitted to training atoms, all together or each species by itself.

        Raises
        ------
        DataError
            If a species has too few atoms for its score.
        """
        species = features.species.unique()
        if not by_species:
            zeros = torch.zeros(len(species), dtype=torch.float64, device=species.device)
            return cls((_fitted(specification, features.values),), species, zeros, zeros + 1, strongest)
        scores, centres, scales = [], [], []
        for number in species.tolist():
            chosen = features.species == number
            scores.append(_fitted(specification, features.values[chosen]))
            left_out = _left_out(specification, features.values[chosen], features.structure_index[chosen])
            high, width = _tail(left_out)
            centres.append(high - width * math.log(1 / TAIL))
            scales.append(width)
        centre, scale = (torch.tensor(part, dtype=torch.float64, device=species.device) for part in (centres, scales))
        return cls(tuple(scores), species, centre, scale, strongest)

    @property
    def by_species(self) -> bool:
        """Whether each species has its own score and its own calibration."""
        return len(self.scores) == len(self.species)

    def __call__(self, features: AtomicFeatures) -> Float[Tensor, " structures"]:
        """Score of each structure."""
        return self.gathered(self.atoms(features), features)

    def gathered(self, atoms: Float[Tensor, " atoms"], features: AtomicFeatures) -> Float[Tensor, " structures"]:
        """Scores of structures from those of their atoms."""
        return strongest_mean(atoms, features.pointer, self.strongest)

    def atoms(self, features: AtomicFeatures) -> Float[Tensor, " atoms"]:
        """Score of each atom; infinite for a species that was not trained."""
        found = torch.full((len(features.species),), torch.inf, dtype=torch.float64, device=features.values.device)
        known = self.species.tolist()
        kinds = zip(known, self.scores, strict=True) if self.by_species else [(known, self.scores[0])]
        for place, (numbers, score) in enumerate(kinds):
            chosen = torch.isin(features.species, torch.tensor(numbers, device=found.device))
            if bool(chosen.any()):
                own = score(features.values[chosen])
                if own.shape != (int(chosen.sum()),):
                    raise ShapeError(expected("score", f"one number an atom, {int(chosen.sum())}", tuple(own.shape)))
                found[chosen] = (own.double() - self.centres[place]) / self.scales[place]
        if bool(found.isnan().any()):
            raise DataError(expected("features", "atoms with a score", "NaN scores", "look for NaN in the features"))
        return found

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header (JSON) and arrays that :meth:`from_state` reads back."""
        arrays = {"species": self.species, "centres": self.centres, "scales": self.scales}
        names = []
        for place, score in enumerate(self.scores):
            name, own = score_state(score)
            names.append(name)
            arrays |= {f"{place}.{key}": value for key, value in own.items()}
        return {"scores": names, "strongest": self.strongest}, arrays

    @classmethod
    def from_state(
        cls, header: Mapping[str, Any], arrays: Mapping[str, Tensor], score: Score | None = None
    ) -> AtomicScore:
        """Score from :meth:`state`; ``score`` is needed if the scores are a function.

        Raises
        ------
        FormatError
            If a part is missing or malformed.
        """
        names, strongest = header.get("scores"), header.get("strongest")
        species, centres, scales = (checked_array(arrays, key) for key in ("species", "centres", "scales"))
        if not isinstance(names, list) or len(names) not in (1, len(species)) or type(strongest) is not int:
            raise FormatError(expected("state", "scores, one or one a species, and strongest", header))
        if not len(species) == len(centres) == len(scales) or not bool((scales > 0).all()) or strongest < 1:
            raise FormatError(expected("species, centres, scales", "one each, scales > 0", arrays))
        scores = []
        for place, name in enumerate(names):
            mine = {k.removeprefix(f"{place}."): v for k, v in arrays.items() if k.startswith(f"{place}.")}
            scores.append(score_from_state(name, mine, score))
        return cls(tuple(scores), species, centres, scales, strongest)


@dataclass(frozen=True, eq=False)
class AtomRanks:
    r"""Scores of calibration atoms, ascending within their kind, as p-values for atoms of new structures.

    Atoms of one structure depend on each other, so a structure counts once, its atoms sharing its weight:

    .. math:: p = \frac{1 + \sum_g N_g^{-1} \#\{a \in g : s_a \ge s\}}{G + 1}

    over the G calibration structures that have atoms of the kind (``N_g`` of them). It holds for one atom drawn at
    random from those of the kind in a new structure that is exchangeable with the calibration structures: for such
    atoms :math:`P(p \le a) \le a`. It does not hold for an atom chosen after looking, such as the strangest one of a
    structure: the p-value of the structure does.

    Attributes
    ----------
    kinds
        Species, or 0 where all atoms are of one kind.
    scores, above
        Of each calibration atom, in ascending order by kind: its score, and the weight of the atoms from it on.
    offsets, structures
        First atom of each kind; number of structures that have the kind.
    total
        Number of all calibration structures.

    References
    ----------
    Lee, Barber, Willett, arXiv:2306.06342 (hierarchical conformal prediction).
    """

    kinds: Int[Tensor, " kinds"]
    scores: Float[Tensor, " atoms"]
    above: Float[Tensor, " atoms"]
    offsets: Int[Tensor, " offsets"]
    structures: Int[Tensor, " kinds"]
    total: Int[Tensor, ""]

    @classmethod
    def of(
        cls, scores: Float[Tensor, " atoms"], kinds: Int[Tensor, " atoms"], owner: Int[Tensor, " atoms"]
    ) -> AtomRanks:
        """Ranks of atoms with these scores, kinds and structures (or groups of structures)."""
        owner = owner.unique(return_inverse=True)[1]
        names, parts, weights, sizes, structures = kinds.unique(), [], [], [], []
        for kind in names.tolist():
            chosen = (kinds == kind).nonzero()[:, 0]
            chosen = chosen[scores[chosen].argsort()]
            counts = owner[chosen].bincount()
            parts.append(scores[chosen].double())
            weights.append((1.0 / counts[owner[chosen]].double()).flip(0).cumsum(0).flip(0))
            sizes.append(len(chosen))
            structures.append(int((counts > 0).sum()))
        offsets = torch.tensor([0, *sizes], device=scores.device).cumsum(0)
        found = torch.tensor(structures, device=scores.device)
        total = torch.tensor(int(owner.max()) + 1, device=scores.device)
        return cls(names, torch.cat(parts), torch.cat(weights), offsets, found, total)

    def p_values(self, scores: Float[Tensor, " atoms"], kinds: Int[Tensor, " atoms"]) -> Float[Tensor, " atoms"]:
        """p-value of each atom: 1 for a kind that no calibration structure has, unless its score is infinite."""
        found = torch.ones_like(scores, dtype=torch.float64)
        places = zip(self.kinds.tolist(), self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True)
        for place, (kind, first, last) in enumerate(places):
            chosen = kinds == kind
            below = torch.searchsorted(self.scores[first:last], scores[chosen].double())
            tail = torch.cat([self.above[first:last], self.above.new_zeros(1)])[below]
            found[chosen] = (1 + tail) / (1 + self.structures[place])
        # No calibration atom of any kind has an infinite score, so all structures speak against it.
        return torch.where(scores.isinf(), 1.0 / (1 + self.total.double()), found)

    def state(self) -> dict[str, Tensor]:
        """Arrays that :meth:`from_state` reads back."""
        return dict(vars(self))

    @classmethod
    def from_state(cls, arrays: Mapping[str, Tensor]) -> AtomRanks:
        """Ranks from :meth:`state`; raises :class:`FormatError` if an array is missing or they do not fit."""
        sizes = {"kinds": 1, "scores": 1, "above": 1, "offsets": 1, "structures": 1, "total": 0}
        parts = {key: checked_array(arrays, key, axes) for key, axes in sizes.items()}
        offsets, kinds = parts["offsets"], len(parts["kinds"])
        fit = kinds > 0 and len(offsets) == kinds + 1 and len(parts["structures"]) == kinds and int(offsets[0]) == 0
        if not fit or int(offsets[-1]) != len(parts["scores"]) or len(parts["above"]) != len(parts["scores"]):
            raise FormatError(expected("atoms", "arrays that fit together", sorted(arrays)))
        rise = parts["scores"].diff() >= 0
        rise[offsets[1:-1] - 1] = True
        if bool((offsets.diff() < 1).any()) or not bool(rise.all()):
            raise FormatError(expected("atoms.scores", "ascending within each kind", "others"))
        return cls(**parts)


def _fitted(specification: Specification | Score, values: Tensor) -> Score:
    return specification.fit(values) if isinstance(specification, Specification) else specification


def _left_out(specification: Specification | Score, values: Tensor, owner: Tensor) -> Tensor:
    """Scores of training atoms by fits without their block of structures; in-sample where there is one structure."""
    place = owner.unique(return_inverse=True)[1]
    structures = int(place.max()) + 1
    folds = min(FOLDS, structures)
    if folds < 2 or not isinstance(specification, Specification):
        return _fitted(specification, values)(values).double()
    fold, found = place * folds // structures, torch.empty(len(values), dtype=torch.float64, device=values.device)
    for part in range(folds):
        found[fold == part] = specification.fit(values[fold != part])(values[fold == part]).double()
    return found


def _tail(scores: Tensor) -> tuple[float, float]:
    """Quantile at 1 − TAIL, and the mean excess over it (the spread of all, where there is none)."""
    scores = scores[scores.isfinite()].sort().values
    if not len(scores):
        raise DataError(expected("features", "training atoms with finite left-out scores", "none"))
    high = scores[min(int((1 - TAIL) * len(scores)), len(scores) - 1)]
    excess = scores[scores > high] - high
    widths = [float(excess.mean()) if len(excess) else 0.0, float(scores.std(correction=0)), float(high.abs()), 1.0]
    return float(high), next(width for width in widths if width > 0)
