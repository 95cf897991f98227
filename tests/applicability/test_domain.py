import math

import pytest
import torch
from scipy import stats

from bayesmol.applicability import CalibratedDomain, Domain, Leverage, Nearest, tolerance_rank
from bayesmol.errors import ApplicabilityError, DataError, FormatError, ShapeError


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("level", "count", "rank"),
    [
        (0.1, 50, 2),
        (0.1, 100, 5),
        (0.1, 250, 17),
        (0.1, 1000, 85),
        (0.1, 10_000, 951),
        (0.05, 100, 2),
        (0.05, 250, 7),
        (0.05, 1000, 39),
        (0.05, 10_000, 464),
    ],
)
def test_published_ranks(level, count, rank):
    assert tolerance_rank(count, level, 0.95) == rank
    assert stats.beta.ppf(0.95, rank, count + 1 - rank) <= level < stats.beta.ppf(0.95, rank + 1, count - rank)


@pytest.mark.parametrize(("level", "confidence"), [(0.05, 0.95), (0.02, 0.95), (0.1, 0.9), (0.01, 0.99)])
def test_too_few_rows_name_the_least_number(level, confidence):
    needed = math.ceil(math.log(1 - confidence) / math.log(1 - level))
    assert tolerance_rank(needed, level, confidence) == 1
    with pytest.raises(ApplicabilityError, match=f"at least {needed} rows .* got {needed - 1}"):
        tolerance_rank(needed - 1, level, confidence)
    with pytest.raises(ApplicabilityError, match=f"at least {needed} rows"):
        Domain(level=level, confidence=confidence).calibrate(uniform(needed - 1))


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
    repetitions, hits = 2000, 0
    for seed in range(repetitions):
        scores = uniform(100, seed=seed)
        domain = CalibratedDomain(lambda features: features, scores[:99].sort().values, 0.1, 0.9)
        hits += float(domain.assess(scores[99:]).p_value) <= 0.1
    low, high = stats.binom.ppf([0.001, 0.999], repetitions, 0.1)
    assert low <= hits <= high


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


@pytest.mark.parametrize("score", ["leverage", "knn", Leverage(ridge=1e-3), Nearest(neighbours=1)])
def test_fitted_scores_flag_what_is_far_and_survive_their_state(score):
    training, calibration = uniform(300, 4, seed=1), uniform(300, 4, seed=2)
    domain = Domain(score, level=0.05).fit(training).calibrate(calibration)
    far = domain.assess(uniform(50, 4, seed=3) + 10)
    near = domain.assess(uniform(500, 4, seed=4))
    assert not bool(far.inside.any()) and torch.allclose(far.p_value, torch.tensor(1 / 301, dtype=torch.float64))
    assert float((~near.inside).double().mean()) < 0.08
    again = CalibratedDomain.from_state(*domain.state())
    assert torch.equal(again.assess(calibration).score, domain.assess(calibration).score)
    assert again.threshold == domain.threshold and again.guarantee == domain.guarantee


def test_a_function_is_a_score():
    def distance(features):
        return features.norm(dim=1)

    domain = Domain(distance, level=0.1).fit(uniform(3, 2)).calibrate(uniform(100, 2))
    header, arrays = domain.state()
    assert header["score"] == "function"
    with pytest.raises(FormatError, match="give it as score="):
        CalibratedDomain.from_state(header, arrays)
    again = CalibratedDomain.from_state(header, arrays, score=distance)
    assert torch.equal(again.assess(uniform(9, 2)).inside, domain.assess(uniform(9, 2)).inside)


def test_guarantee_says_its_numbers():
    sentence = Domain().calibrate(uniform(200)).guarantee
    assert all(part in sentence for part in ("0.95", "200", "2 %"))


def test_bad_input():
    with pytest.raises(DataError, match="level"):
        Domain(level=2)
    with pytest.raises(DataError, match="score"):
        Domain("kde")
    with pytest.raises(ApplicabilityError, match="call fit"):
        Domain("leverage").calibrate(uniform(200, 3))
    with pytest.raises(DataError, match="infinity"):
        Domain().calibrate(torch.cat([uniform(200), torch.tensor([math.inf])]))
    with pytest.raises(DataError, match="NaN"):
        Domain().calibrate(uniform(200) * math.nan)
    domain = Domain().calibrate(uniform(200))
    with pytest.raises(DataError, match="NaN"):
        domain.assess(torch.tensor([0.1, math.nan]))
    with pytest.raises(ShapeError, match="one score a row"):
        domain.assess(uniform(5, 2))
    with pytest.raises(ShapeError, match="one number a row"):
        Domain(lambda features: features.norm()).calibrate(uniform(200, 2))
    with pytest.raises(FormatError):
        CalibratedDomain.from_state({"score": "identity"}, {})
