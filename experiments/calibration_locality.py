"""Where the errors of a potential are, and whether its standard deviations know it.

The question of every figure: how do local error and predictive spread relate on real forces, beyond what one number, or
one number for each element, would say?
"""

from collections.abc import Callable

import torch
from ase.data import chemical_symbols
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.calibration.claim import ascending_order, midranks
from bayesmol.calibration.conditional import Skill, conditional_calibration
from bayesmol.calibration.conditional import locality as field_skill
from bayesmol.calibration.locality import ErrorField
from bayesmol.calibration.subgroups import SubgroupSearch
from bayesmol.data import Labelled, Structures
from bayesmol.inference.random import generator
from bayesmol.posterior import Estimate, Prediction
from bayesmol.potentials import BayesianACE
from bayesmol.progress import progress
from bayesmol.report import Study
from bayesmol.representation.neighbours import neighbours

RESAMPLES, TREES = 200, 100
CUTOFF = 5.0  # Å, of the descriptors
UNITS = {"force": "eV/Å", "nearest distance": "Å", "distance to O": "Å", "distance to centre": "Å"}


def locality(study: Study, train: Labelled, test: Labelled, *, seed: int) -> None:
    """Fit to ``train``, predict ``test``, and fill in how errors and standard deviations of the forces relate."""
    with study.stage("train"):
        fitted = BayesianACE().fit(train, seed=seed)
    with study.stage("predict"):
        prediction = fitted.predict(test.structures, covariance=True)
    with study.stage("rank correlations"):
        rank_correlations(study, prediction, test, seed=seed)
        species(study, prediction, test, seed=seed)
    with study.stage("subgroups"):
        subgroups(study, prediction, test, seed=seed)
    with study.stage("error fields"):
        fields(study, prediction, test, seed=seed)


def rank_correlations(study: Study, prediction: Prediction, test: Labelled, *, seed: int, draws: int = 40) -> None:
    """Spearman correlation of |error| and standard deviation: of components, atoms (vectors), structures, energies.

    Each has a reference, the same of labels drawn from the posterior itself with all correlations within a structure;
    the standard error of a reference is the spread between single such data sets.
    """
    owner, forces = test.structures.structure_index, prediction.forces
    simulated = forces.sample(draws, seed=seed) - forces.mean
    for name, reduced in _LEVELS.items():
        spread, unit = reduced(forces.stddev, owner)
        error = reduced(test.forces - forces.mean, owner)[0]
        study.add(f"rank_correlation{name}", bootstrapped(spearman, (error, spread), owner[unit], seed))
        perfect = torch.stack([spearman(reduced(noise, owner)[0], spread) for noise in simulated])
        study.add(f"rank_correlation{name}_reference", float(perfect.mean()), error=float(perfect.std()))
    if test.energies is not None:
        energy, frames = prediction.energy, torch.arange(len(test))
        error = (test.energies - energy.mean).abs()
        study.add("rank_correlation_energy", bootstrapped(spearman, (error, energy.stddev), frames, seed))
        drawn = (energy.sample(draws, seed=seed) - energy.mean).abs()
        perfect = torch.stack([spearman(one, energy.stddev) for one in drawn])
        study.add("rank_correlation_energy_reference", float(perfect.mean()), error=float(perfect.std()))


def species(study: Study, prediction: Prediction, test: Labelled, *, seed: int) -> None:
    """How much of the relation is between the elements, and how much within each.

    Gains are in log-density of a force component under normal laws with zero mean, against one variance for all: one
    variance for each element, variances proportional to the predicted ones, and these with a factor for each element.
    """
    structures, forces = test.structures, prediction.forces
    owner = structures.structure_index.repeat_interleave(3)
    kind = structures.species.unique(return_inverse=True)[1].repeat_interleave(3)
    error, spread = (test.forces - forces.mean).flatten().abs(), forces.stddev.flatten()
    for place, number in enumerate(structures.species.unique().tolist()):
        rows = kind == place
        pair = error[rows], spread[rows]
        study.add(f"rank_correlation_{chemical_symbols[number]}", bootstrapped(spearman, pair, owner[rows], seed))
    columns = (error, spread, kind)
    study.add("rank_correlation_within_species", bootstrapped(_within, columns, owner, seed))
    study.add("rank_correlation_of_species_alone", bootstrapped(_between, columns, owner, seed))
    study.add("gain_of_species", bootstrapped(_gain(by_kind=True, by_spread=False), columns, owner, seed, "nat"))
    study.add("gain_of_stddev", bootstrapped(_gain(by_kind=False, by_spread=True), columns, owner, seed, "nat"))
    study.add("gain_of_both", bootstrapped(_gain(by_kind=True, by_spread=True), columns, owner, seed, "nat"))


def subgroups(study: Study, prediction: Prediction, test: Labelled, *, seed: int) -> None:
    """Atoms with low errors in words, found in one half of the structures and judged in the other.

    Once for |error| of the force vector, with what the standard deviation says of the same atoms; once for |error| in
    units of the standard deviation, where a true uncertainty leaves nothing to find.
    """
    owner, table = test.structures.structure_index, descriptors(test.structures, prediction)
    size = (test.forces - prediction.forces.mean).norm(dim=1)
    spread = prediction.forces.variance.sum(1).sqrt()
    for name, errors in {"subgroup": size, "subgroup_beyond_stddev": size / spread}.items():
        found = SubgroupSearch().fit(table, errors, units=UNITS, groups=owner, seed=seed)
        study.add(f"{name}_coverage", found.coverage)
        study.add(f"{name}_relative_error", found.relative_error)
        study.add(f"{name}_relative_error_in_training", found.training_relative_error)
        low, high = float(found.reduction.lower), float(found.reduction.upper)
        study.notes.append(f"{name}: {found}; reduction {low:.2f} to {high:.2f} ({found.reduction.guarantee})")
        if name == "subgroup":
            inside = found.subgroup.contains(table)
            study.add("subgroup_relative_stddev", bootstrapped(_relative, (spread, inside), owner, seed))


def fields(study: Study, prediction: Prediction, test: Labelled, *, seed: int, frames: int = 500) -> None:
    """Error fields of the first ``frames`` structures: by descriptors, by the standard deviation, and beyond it.

    The target is the mean |error| of the three components of an atom; beyond the standard deviation it is the mean
    :math:`z^2`, and a gain is then what multiplying the variance by the field would bring: by the descriptors, does
    knowing where help after all; by the standard deviation itself, is it too timid.
    """
    rows = (test.structures.structure_index < frames).nonzero()[:, 0]
    owner, forces = test.structures.structure_index[rows], prediction.forces[rows]
    error = (test.forces[rows] - forces.mean).abs().mean(1)
    table = torch.stack(list(descriptors(test.structures, prediction).values()), 1)[rows]
    spread = forces.variance.sum(1, keepdim=True).sqrt()
    sets = {"": table, "_of_stddev": spread, "_of_both": torch.cat([table, spread], 1)}
    options = {"groups": owner, "seed": seed}
    with progress("error fields", total=5) as advance:
        for name, features in sets.items():
            _told(study, f"locality{name}", field_skill(features, error, field=ErrorField(trees=TREES), **options))
            advance()
        wide = ErrorField(trees=TREES, leaf=20)
        for name, features in {"": table, "_of_stddev": spread}.items():
            skill = conditional_calibration(forces, test.forces[rows], features, field=wide, **options)
            _told(study, f"locality_beyond_stddev{name}", skill)
            advance()


def descriptors(structures: Structures, prediction: Prediction) -> dict[str, Float[Tensor, " atoms"]]:
    """What a chemist would name of each atom: element, surroundings, and the force that the model predicts."""
    edges = neighbours(structures, CUTOFF)
    length = edges.vectors.norm(dim=1)
    empty = length.new_full((len(structures.species),), CUTOFF)
    oxygen = structures.species[edges.second] == 8
    count = torch.zeros_like(empty).index_add_(0, edges.first, (-(length / 1.5).square()).exp())
    owner = structures.structure_index
    centre = torch.zeros(len(structures), 3).to(structures.positions).index_add_(0, owner, structures.positions)
    centre = (centre / structures.counts.unsqueeze(1))[owner]
    named = {
        "atomic number": structures.species.to(length),
        "nearest distance": empty.scatter_reduce(0, edges.first, length, "amin"),
        "distance to O": empty.scatter_reduce(0, edges.first[oxygen], length[oxygen], "amin"),
        "crowding": count,
        "distance to centre": (structures.positions - centre).norm(dim=1),
        "force": prediction.forces.mean.norm(dim=1),
    }
    return {name: values for name, values in named.items() if float(values.std()) > 0}


def spearman(one: Float[Tensor, " entries"], other: Float[Tensor, " entries"]) -> Float[Tensor, ""]:
    """Rank correlation, ties at their mean rank; zero if one of them is constant."""
    ranks = torch.stack([midranks(values, ascending_order(values)) for values in (one, other)]).double()
    ranks = ranks - ranks.mean(1, keepdim=True)
    scale = ranks.square().sum(1).prod().sqrt()
    return ranks.prod(0).sum() / scale if float(scale) > 0 else scale


def bootstrapped(
    statistic: Callable[..., Tensor],
    columns: tuple[Tensor, ...],
    owner: Int[Tensor, " rows"],
    seed: int,
    unit: str = "",
) -> Estimate:
    """``statistic(*columns)`` with its standard error by a bootstrap over structures."""
    order = torch.argsort(owner, stable=True)
    counts = owner.unique(return_counts=True)[1]
    starts, structures = counts.cumsum(0) - counts, len(counts)
    source, values = generator(seed), []
    for _ in range(RESAMPLES):
        drawn = torch.randint(structures, (structures,), generator=source)
        sizes = counts[drawn]
        within = torch.arange(int(sizes.sum())) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        rows = order[starts[drawn].repeat_interleave(sizes) + within]
        values.append(statistic(*(column[rows] for column in columns)))
    value = statistic(*columns).double()
    return Estimate(value, torch.stack(values).double().std(), value.new_tensor(float(structures)), unit)


def _components(values: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    return values.abs().flatten(), torch.arange(len(owner)).repeat_interleave(3)


def _atoms(values: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    return values.norm(dim=1), torch.arange(len(owner))


def _structures(values: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    squares = values.new_zeros(int(owner.max()) + 1).index_add_(0, owner, values.square().mean(1))
    first = torch.searchsorted(owner, torch.arange(len(squares)))
    return (squares / owner.bincount()).sqrt(), first


# Name → size of the errors, or of standard deviations, and an atom of each entry.
_LEVELS = {"": _components, "_atom": _atoms, "_structure": _structures}


def _within(error: Tensor, spread: Tensor, kind: Tensor) -> Tensor:
    """Mean of the rank correlations within each element, weighted by its entries."""
    parts = [kind == place for place in kind.unique()]
    return sum(spearman(error[rows], spread[rows]) * rows.double().mean() for rows in parts)


def _between(error: Tensor, spread: Tensor, kind: Tensor) -> Tensor:
    """Rank correlation if all that is known is the element: the mean standard deviation of its components."""
    mean = kind.bincount(spread) / kind.bincount().clamp_min(1)
    return spearman(error, mean[kind])


def _gain(*, by_kind: bool, by_spread: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Gain in log-density of normal laws whose variances have these forms, their factors of maximal likelihood."""

    def gain(error: Tensor, spread: Tensor, kind: Tensor) -> Tensor:
        shape = spread.square() if by_spread else torch.ones_like(spread)
        label = kind if by_kind else torch.zeros_like(kind)
        factor = label.bincount(error.square() / shape) / label.bincount().clamp_min(1)
        return 0.5 * (error.square().mean().log() - (factor[label] * shape).log().mean())

    return gain


def _relative(values: Tensor, inside: Tensor) -> Tensor:
    return values[inside].mean() / values.mean()


def _told(study: Study, name: str, skill: Skill) -> None:
    study.add(f"{name}_skill", skill.r2)
    study.add(f"{name}_gain", skill.gain)
    study.add(f"{name}_p_value", skill.p_value)
