import math

import pytest
import torch
from scipy import stats

from bayesmol.applicability.domain import Domain, tolerance_rank
from bayesmol.applicability.linear import Leverage
from bayesmol.applicability.nearest import Nearest
from bayesmol.applicability.scores import SPECIFICATIONS
from bayesmol.errors import ApplicabilityError, DataError, ShapeError
from bayesmol.representation.atomic import AtomicFeatures
from bayesmol.testing import assert_calibrated


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def atoms(structures, seed=0, width=3, shift=0.0):
    """Structures of one O, two C and four H whose features depend on each other within a structure."""
    source = torch.Generator().manual_seed(seed)
    species = torch.tensor([8, 6, 6, 1, 1, 1, 1]).repeat(structures)
    values = (
        torch.randn(len(species), width, generator=source, dtype=torch.float64) * (1 + species.double() / 4)[:, None]
    )
    common = (
        torch.randn(structures, 1, width, generator=source, dtype=torch.float64).expand(-1, 7, -1).reshape(-1, width)
    )
    return AtomicFeatures(values + common + shift, species, torch.arange(structures + 1) * 7)


@pytest.mark.parametrize(("level", "confidence"), [(0.05, 0.95), (0.1, 0.9)])
def test_too_few_rows_name_the_least_number(level, confidence):
    needed = math.ceil(math.log(1 - confidence) / math.log(1 - level))
    with pytest.raises(ApplicabilityError, match=f"at least {needed} rows"):
        Domain(level=level, confidence=confidence).calibrate(uniform(needed - 1))
    assert Domain(level=level, confidence=confidence).calibrate(uniform(needed)).threshold == float(
        uniform(needed).max()
    )


def test_false_alarms_keep_to_the_level_with_the_confidence():
    # Uniform scores: the rate of false alarms is one minus the threshold, exactly.
    repetitions, level, confidence = 1000, 0.05, 0.9
    broken = sum(
        1 - Domain(level=level, confidence=confidence).calibrate(uniform(150, seed=seed)).threshold > level
        for seed in range(repetitions)
    )
    rank = tolerance_rank(150, level, confidence)
    exact = stats.beta.sf(level, rank, 151 - rank)
    assert exact <= 1 - confidence
    low, high = stats.binom.ppf([0.001, 0.999], repetitions, exact)
    assert low <= broken <= high


@pytest.mark.parametrize("score", [*SPECIFICATIONS, Leverage(ridge=1e-3), Nearest(neighbours=1)])
def test_every_named_score_flags_what_is_far(score):
    training, calibration = uniform(300, 4, seed=1), uniform(300, 4, seed=2)
    domain = Domain(score, level=0.05).fit(training).calibrate(calibration)
    far, near = domain.assess(uniform(50, 4, seed=3) + 10), domain.assess(uniform(500, 4, seed=4))
    assert not bool(far.inside.any()) and torch.allclose(far.p_value, torch.tensor(1 / 301, dtype=torch.float64))
    assert float((~near.inside).double().mean()) < 0.08
    assert near.atoms is None


def test_a_structure_is_as_strange_as_its_strangest_atom():
    domain = Domain("leverage", level=0.1).fit(atoms(200, seed=1)).calibrate(atoms(100, seed=2))
    verdict = domain.assess(atoms(30, seed=3))
    assert verdict.score.shape == (30,) and verdict.atoms.score.shape == (210,)
    assert torch.equal(verdict.score, verdict.atoms.score.reshape(30, 7).amax(1))
    assert torch.equal(verdict.inside, verdict.atoms.inside.reshape(30, 7).all(1))
    mean = Domain("leverage", level=0.1, strongest=3).fit(atoms(200, seed=1)).calibrate(atoms(100, seed=2))
    found = mean.assess(atoms(30, seed=3))
    assert torch.allclose(found.score, verdict.atoms.score.reshape(30, 7).topk(3).values.mean(1))


@pytest.mark.parametrize("by_species", [False, True])
def test_structures_of_atoms_are_calibrated_and_so_is_a_random_atom_of_each(by_species):
    # One threshold and one set of p-values a draw of the calibration; repetitions are independent.
    flagged, small, of_atoms, repetitions, level = 0, 0, 0, 300, 0.1
    fitted = Domain("leverage", level=level, confidence=0.9, by_species=by_species).fit(atoms(100, seed=10_000))
    for seed in range(repetitions):
        domain = fitted.calibrate(atoms(99, seed=2 * seed))
        verdict = domain.assess(atoms(1, seed=2 * seed + 1))
        drawn = 0 if by_species else int(torch.randint(7, (), generator=torch.Generator().manual_seed(seed)))
        flagged += not bool(verdict.inside)
        small += float(verdict.p_value) <= level
        of_atoms += float(verdict.atoms.p_value[drawn]) <= level
    rank = tolerance_rank(99, level, 0.9)
    assert_calibrated(flagged, repetitions, rank / 100)  # the threshold of rank k is exceeded with probability k/(n+1)
    assert_calibrated(small, repetitions, 0.1)
    assert of_atoms <= stats.binom.ppf(0.999, repetitions, level)
    if by_species:  # one oxygen a structure: its p-value is exactly uniform
        assert_calibrated(of_atoms, repetitions, 0.1)


def test_each_species_has_its_own_reference():
    # Oxygen spreads 2.4 times as wide as hydrogen: a hydrogen in the range of oxygen is strange only by species.
    training, calibration, new = atoms(300, seed=1), atoms(200, seed=2), atoms(40, seed=3)
    new.values[3::7] = atoms(40, seed=4).values[0::7] * 1.5
    pooled = Domain("leverage", level=0.05).fit(training).calibrate(calibration).assess(new)
    by_species = Domain("leverage", level=0.05, by_species=True).fit(training).calibrate(calibration).assess(new)
    assert float(by_species.atoms.p_value[3::7].median()) < float(pooled.atoms.p_value[3::7].median()) / 2
    # every species is among the strangest atoms of calibration structures, though one has four times as many atoms
    own = Domain("leverage", level=0.05, by_species=True).fit(training)
    strangest = own.score.atoms(calibration).reshape(200, 7).argmax(1)
    assert min(float((strangest == 0).double().mean()), float((strangest > 2).double().mean())) > 0.1


def test_an_unknown_species_is_outside():
    for by_species in (False, True):
        domain = Domain("leverage", by_species=by_species, level=0.1).fit(atoms(60)).calibrate(atoms(60, seed=1))
        new = atoms(3, seed=2)
        new.species[7] = 9
        verdict = domain.assess(new)
        assert verdict.score.isinf().tolist() == [False, True, False] and not bool(verdict.inside[1])
        assert verdict.atoms.score.isinf().nonzero().tolist() == [[7]]
        assert float(verdict.atoms.p_value[7]) == pytest.approx(1 / 61) == pytest.approx(float(verdict.p_value[1]))


def test_groups_are_judged_by_their_strangest_row():
    scores, groups = uniform(400, seed=1), torch.arange(400) % 40
    domain = Domain(level=0.1).calibrate(scores, groups=groups)
    assert domain.unit == "group" and "groups have any row flagged" in domain.guarantee
    assert torch.equal(domain.scores, torch.stack([scores[groups == g].max() for g in range(40)]).sort().values)


def test_groups_keep_the_level_where_rows_do_not():
    # Rows of a group are copies of each other up to a little noise: 40 groups of 50 are no 2000 rows.
    level, repetitions, alarms = 0.1, 200, {True: 0, False: 0}
    for seed in range(repetitions):
        noise = 1e-3 * uniform(2000, seed=seed)
        scores = uniform(40, seed=10_000 + seed).repeat_interleave(50) + noise
        groups = torch.arange(40).repeat_interleave(50)
        for grouped in alarms:
            threshold = Domain(level=level).calibrate(scores, groups=groups if grouped else None).threshold
            alarms[grouped] += 1 - threshold > level
    assert alarms[True] <= stats.binom.ppf(0.999, repetitions, 0.05)
    assert alarms[False] > 2 * stats.binom.ppf(0.999, repetitions, 0.05)


def test_groups_of_structures_count_once_for_their_atoms():
    domain = Domain("leverage", level=0.1).fit(atoms(60)).calibrate(atoms(60, seed=1), groups=torch.arange(60) % 30)
    assert len(domain.scores) == 30 and int(domain.atoms.total) == 30
    assert domain.assess(atoms(1, seed=5, shift=50.0)).atoms.p_value.tolist() == [pytest.approx(1 / 31)] * 7


def test_weights_of_the_calibration_follow_its_scores():
    scores, weights = torch.tensor([3.0, 1.0, 2.0] * 10).double() + uniform(30), uniform(30, seed=1)
    domain = Domain(level=0.2).calibrate(scores, weights=weights)
    assert torch.equal(domain.scores, scores.sort().values)
    assert torch.equal(domain.weights, weights[scores.argsort()])
    with pytest.raises(ApplicabilityError, match="worth at least 19"):
        Domain(level=0.05).calibrate(scores, weights=torch.eye(30, dtype=torch.float64)[0])
    with pytest.raises(DataError, match="one of the two"):
        Domain(level=0.2).calibrate(scores, weights=weights, groups=torch.arange(30))


def test_bad_input():
    with pytest.raises(DataError, match="level"):
        Domain(level=2)
    with pytest.raises(DataError, match="score"):
        Domain("nonsense")
    with pytest.raises(DataError, match="strongest"):
        Domain(strongest=0)
    with pytest.raises(ApplicabilityError, match="call fit"):
        Domain("leverage").calibrate(uniform(200, 3))
    with pytest.raises(ApplicabilityError, match="call fit"):
        Domain(lambda rows: rows[:, 0], by_species=True).calibrate(atoms(200))
    for wrong in (Domain("knn", by_species=True), Domain("knn", strongest=2)):
        with pytest.raises(DataError, match="AtomicFeatures"):
            wrong.fit(uniform(200, 3))
    with pytest.raises(DataError, match="AtomicFeatures"):
        Domain("knn").fit(atoms(30)).calibrate(uniform(200, 3))
    with pytest.raises(DataError, match="infinity"):
        Domain().calibrate(torch.cat([uniform(200), torch.tensor([math.inf])]))
    with pytest.raises(DataError, match="infinity"):
        Domain().calibrate(uniform(200), guard=torch.full((200,), math.inf, dtype=torch.float64))
    with pytest.raises(DataError, match="NaN"):
        Domain().calibrate(uniform(200) * math.nan)
    with pytest.raises(ShapeError, match="one number a row"):
        Domain(lambda features: features.norm()).calibrate(uniform(200, 2))
    with pytest.raises(ShapeError, match="one number an atom"):
        Domain(lambda features: features).calibrate(atoms(60))
    with pytest.raises(ShapeError, match="groups"):
        Domain().calibrate(uniform(200), groups=torch.arange(3))
