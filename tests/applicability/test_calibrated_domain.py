import json
import math

import pytest
import torch
from scipy import stats

from bayesmol.applicability.calibrated_domain import CalibratedDomain
from bayesmol.applicability.domain import Domain
from bayesmol.applicability.scores import SPECIFICATIONS
from bayesmol.applicability.tolerance import tolerance_rank
from bayesmol.errors import ApplicabilityError, DataError, FormatError, ShapeError
from bayesmol.representation.atomic import AtomicFeatures


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def atoms(structures, seed=0):
    species = torch.tensor([8, 6, 1, 1]).repeat(structures)
    return AtomicFeatures(uniform(len(species), 3, seed=seed), species, torch.arange(structures + 1) * 4)


def read_again(domain, **options):
    header, arrays = domain.state()
    copies = {name: value.clone() for name, value in arrays.items()}
    return CalibratedDomain.from_state(json.loads(json.dumps(header)), copies, **options)


def test_p_values_by_hand_with_ties_and_infinity():
    domain = Domain(level=0.5, confidence=0.5).calibrate(torch.tensor([3.0, 1.0, 2.0, 2.0]))
    verdict = domain.assess(torch.tensor([0.0, 1.0, 2.0, 2.5, 3.0, 4.0, math.inf]))
    assert torch.allclose(verdict.p_value * 5, torch.tensor([5.0, 5, 4, 2, 2, 1, 1], dtype=torch.float64))
    rank = tolerance_rank(4, 0.5, 0.5)
    assert domain.threshold == [3.0, 2.0, 2.0, 1.0][rank - 1]
    assert torch.equal(verdict.inside, verdict.score <= domain.threshold)
    assert not bool(verdict.inside[-1])


def test_p_values_hold_their_level():
    # p ≤ 1/10 happens with probability 10/100 exactly, for n = 99 continuous scores; repetitions are independent
    repetitions, hits = 1000, 0
    for seed in range(repetitions):
        scores = uniform(100, seed=seed)
        domain = CalibratedDomain(lambda features: features, scores[:99].sort().values, 0.1, 0.9)
        hits += float(domain.assess(scores[99:]).p_value) <= 0.1
    low, high = stats.binom.ppf([0.001, 0.999], repetitions, 0.1)
    assert low <= hits <= high


def test_guarantee_says_its_numbers_and_its_unit():
    sentence = Domain(level=0.05).calibrate(uniform(250)).guarantee
    assert "at most 5 % of in-domain rows are flagged, with 95 % confidence (n = 250, rank 7)" in sentence
    by_species = Domain("leverage", level=0.05, by_species=True).fit(atoms(60)).calibrate(atoms(59, seed=1)).guarantee
    assert "in-domain structures are flagged" in by_species and "rank 1" in by_species
    assert "for an atom of its species drawn at random from a new structure" in by_species
    pooled = Domain("leverage", level=0.05).fit(atoms(60)).calibrate(atoms(59, seed=1)).guarantee
    assert "for an atom drawn at random" in pooled
    weighted = Domain(level=0.05).calibrate(uniform(250), weights=torch.ones(250)).guarantee
    assert "worth 250" in weighted and "approximate" in weighted and "confidence" not in weighted


def test_a_guard_puts_rows_outside():
    domain = Domain(level=0.1).calibrate(uniform(100), guard=torch.zeros(100))
    verdict = domain.assess(torch.zeros(3), guard=torch.tensor([0.0, math.inf, 0.0]))
    assert verdict.inside.tolist() == [True, False, True] and float(verdict.p_value[1]) == pytest.approx(1 / 101)
    with pytest.raises(ShapeError, match="guard"):
        domain.assess(torch.zeros(3), guard=torch.zeros(2))


def test_weights_shift_the_verdict():
    # Calibration scores uniform; new ones have density 2s, and a row of score s the weight 2s.
    calibration, new = uniform(4000, seed=1), uniform(4000, seed=2).sqrt()
    plain = Domain(level=0.1).calibrate(calibration).assess(new)
    domain = Domain(level=0.1).calibrate(calibration, weights=2 * calibration)
    verdict = domain.assess(new, weights=2 * new)
    assert float((~plain.inside).double().mean()) > 0.15
    assert float((~verdict.inside).double().mean()) == pytest.approx(0.1, abs=0.02)
    with pytest.raises(ApplicabilityError, match="use p_value"):
        _ = domain.threshold
    with pytest.raises(DataError, match="one of the two"):
        domain.assess(new)
    with pytest.raises(DataError, match="one of the two"):
        Domain(level=0.1).calibrate(calibration).assess(new, weights=new)


def test_what_the_weights_cannot_judge_is_not_called_inside():
    domain = Domain(level=0.1).calibrate(uniform(50), weights=torch.ones(50))
    weights = torch.tensor([1.0, 5.0, 6.0, math.inf], dtype=torch.float64)
    verdict = domain.assess(torch.full((4,), 0.1), weights=weights)
    assert verdict.inside.tolist() == [True, True, False, False]  # 5/55 < 0.1 < 6/56
    assert float(verdict.p_value[3]) == 1.0


@pytest.mark.parametrize("score", SPECIFICATIONS)
def test_every_named_score_survives_its_state(score):
    domain = Domain(score, level=0.05).fit(uniform(200, 4, seed=1)).calibrate(uniform(100, 4, seed=2))
    again, new = read_again(domain), uniform(20, 4, seed=3)
    assert torch.equal(again.assess(new).score, domain.assess(new).score)
    assert again.threshold == domain.threshold and again.guarantee == domain.guarantee


@pytest.mark.parametrize("by_species", [False, True])
@pytest.mark.parametrize("score", ["leverage", "knn", "maxvol"])
def test_domains_of_atoms_survive_their_state(score, by_species):
    domain = Domain(score, level=0.05, by_species=by_species, strongest=2).fit(atoms(80)).calibrate(atoms(60, seed=1))
    ours, theirs = domain.assess(atoms(9, seed=2)), read_again(domain).assess(atoms(9, seed=2))
    for one, other in ((ours, theirs), (ours.atoms, theirs.atoms)):
        assert torch.equal(one.score, other.score) and torch.equal(one.inside, other.inside)
        assert torch.equal(one.p_value, other.p_value)
    assert read_again(domain).guarantee == domain.guarantee


def test_weights_and_groups_survive_their_state():
    weighted = Domain(level=0.1).calibrate(uniform(50), weights=uniform(50, seed=1))
    new = uniform(9, seed=2)
    ours, theirs = (domain.assess(new, weights=new).p_value for domain in (weighted, read_again(weighted)))
    assert torch.equal(ours, theirs)
    grouped = Domain(level=0.1).calibrate(uniform(200), groups=torch.arange(200) % 40)
    assert read_again(grouped).guarantee == grouped.guarantee


def test_a_function_is_a_score():
    def distance(features):
        return features.norm(dim=1)

    domain = Domain(distance, level=0.1).fit(uniform(3, 2)).calibrate(uniform(100, 2))
    assert domain.state()[0]["score"] == "function"
    with pytest.raises(FormatError, match="give it as score="):
        read_again(domain)
    again = read_again(domain, score=distance)
    assert torch.equal(again.assess(uniform(9, 2)).inside, domain.assess(uniform(9, 2)).inside)
    of_atoms = Domain(distance, level=0.1).calibrate(atoms(50))
    again = read_again(of_atoms, score=distance)
    assert torch.equal(again.assess(atoms(9)).score, of_atoms.assess(atoms(9)).score)


def test_files_of_the_first_version_are_read():
    header = {"score": "identity", "level": 0.05, "confidence": 0.95}
    domain = CalibratedDomain.from_state(header, {"scores": uniform(100).sort().values})
    assert domain.unit == "row" and domain.assess(uniform(5)).atoms is None


@pytest.mark.parametrize(
    "change",
    [
        {"level": 1.5},
        {"level": "0.1"},
        {"confidence": None},
        {"score": "nonsense"},
        {"score": ["identity"]},
        {"score": "leverage"},
        {"unit": "frame"},
        {"score": {"scores": ["identity"], "strongest": 1}},
    ],
)
def test_malformed_headers_are_refused(change):
    header, arrays = Domain(level=0.1).calibrate(uniform(100)).state()
    with pytest.raises(FormatError):
        CalibratedDomain.from_state(header | change, arrays)


@pytest.mark.parametrize("by_species", [False, True])
def test_malformed_arrays_are_refused(by_species):
    header, arrays = Domain("knn", level=0.1, by_species=by_species).fit(atoms(60)).calibrate(atoms(60, seed=1)).state()
    required = {name for name in arrays if not name.startswith("atoms.")}
    for name, array in arrays.items():
        broken = [array * math.nan] if array.is_floating_point() else []
        if array.ndim and not name.startswith("score.0.") and name[6:8] not in ("1.", "2."):
            broken += [array[None], *([] if name == "scores" else [array[:-1]])]
        for wrong in broken:
            with pytest.raises(FormatError):
                CalibratedDomain.from_state(header, arrays | {name: wrong})
    for name in required | {"atoms.scores"}:
        with pytest.raises(FormatError):
            CalibratedDomain.from_state(header, {key: value for key, value in arrays.items() if key != name})
    with pytest.raises(FormatError):
        CalibratedDomain.from_state(header, arrays | {"scores": arrays["scores"].flip(0)})
    with pytest.raises(FormatError):
        CalibratedDomain.from_state(header, arrays | {"weights": torch.ones(3)})


def test_bad_input():
    domain = Domain().calibrate(uniform(200))
    with pytest.raises(DataError, match="NaN"):
        domain.assess(torch.tensor([0.1, math.nan]))
    with pytest.raises(ShapeError, match="one score a row"):
        domain.assess(uniform(5, 2))


def test_a_domain_of_atoms_refuses_plain_rows():
    domain = Domain("leverage", level=0.05).fit(atoms(60)).calibrate(atoms(59, seed=1))
    with pytest.raises(DataError, match="AtomicFeatures"):
        domain.assess(uniform(10, 3))


def test_verdicts_on_groups_are_those_of_their_strangest_row():
    scores, groups = uniform(200, seed=3), torch.arange(200) % 40
    domain = Domain(level=0.1).calibrate(scores, groups=groups)
    new, owner = uniform(12, seed=4), torch.tensor([7, 2, 9]).repeat_interleave(4)
    verdict = domain.assess(new, groups=owner)
    rows = domain.assess(new)
    for place, group in enumerate((2, 7, 9)):
        assert verdict.score[place] == new[owner == group].max()
        assert verdict.p_value[place] == rows.p_value[owner == group].min()
    assert torch.equal(verdict.inside, verdict.score <= domain.threshold)
    with pytest.raises(ShapeError, match="groups"):
        domain.assess(new, groups=owner[:3])
    with pytest.raises(DataError, match="calibrate with groups"):
        Domain(level=0.1).calibrate(scores).assess(new, groups=owner)
