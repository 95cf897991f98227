import math

import numpy as np
import pytest
import torch
from scipy import stats

from bayesmol.applicability.false_discovery import conditional_p_values, false_discovery_power, select_outside
from bayesmol.errors import ApplicabilityError, DataError


def conformal(calibration, scores):
    below = torch.searchsorted(calibration.sort().values, scores)
    return (1.0 + len(calibration) - below.double()) / (len(calibration) + 1)


def noncrossing(bounds):
    """P(U_(j) ≤ b_j for all j) of uniform order statistics, by the Markov chain of a Poisson process with n points."""
    count, before, first, kept = len(bounds), 0.0, 0, np.ones(1)
    for place, bound in enumerate(np.append(bounds, 1.0)):
        rate = count * (bound - before)
        kept = np.convolve(kept, stats.poisson.pmf(np.arange(count + 1), rate))
        drop = max(place + 1 - first, 0) if place < count else 0
        kept, first, before = kept[drop : count - first + 1], first + drop, bound
    return kept[count - first] / stats.poisson.pmf(count, count)


def test_the_oracle():
    assert noncrossing(np.array([0.3, 0.7])) == pytest.approx(0.3**2 + 2 * 0.3 * 0.4)
    assert noncrossing(np.full(5, 0.8)) == pytest.approx(0.8**5)


@pytest.mark.parametrize("level", [0.01, 0.1, 0.5])
def test_selection_is_that_of_benjamini_and_hochberg(level):
    p = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 3
    chosen = select_outside(p, level, calibration=100_000)
    assert torch.equal(chosen.outside, torch.from_numpy(stats.false_discovery_control(p.numpy()) <= level))
    assert chosen.threshold == (float(p[chosen.outside].max()) if bool(chosen.outside.any()) else 0.0)


def test_ranks_meet_their_own_limit():
    # 1/20 of 19 rows: with three rows, all of the smallest p-value, the limit is the level itself
    assert bool(select_outside(torch.full((3,), 1 / 20, dtype=torch.float64), 0.05, calibration=19).outside.all())


@pytest.mark.parametrize("count", [1, 2, 3, 20, 101])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_conditional_bounds_are_exact(count, confidence):
    p = torch.arange(1, count + 1).double() / (count + 1)
    bounds = conditional_p_values(p, count, confidence)
    assert noncrossing(bounds.numpy()) == pytest.approx(confidence, rel=1e-9)
    assert bool((bounds >= p).all()) and bool((bounds.diff() >= 0).all())
    assert float(conditional_p_values(torch.ones(1), count, confidence)) == 1.0


def test_false_discoveries_keep_to_the_level_times_the_fraction_inside():
    source = torch.Generator().manual_seed(1)
    repetitions, level, proportions, power = 1000, 0.2, [], []
    for _ in range(repetitions):
        scores = torch.randn(250, generator=source, dtype=torch.float64)
        scores[200:210] += 3.5
        chosen = select_outside(conformal(scores[:200], scores[200:]), level, calibration=200).outside
        proportions.append(int(chosen[10:].sum()) / max(1, int(chosen.sum())))
        power.append(float(chosen[:10].double().mean()))
    rate, error = np.mean(proportions), np.std(proportions) / math.sqrt(repetitions)
    assert rate <= level * 0.8 + 3 * error
    assert rate >= level * 0.8 - 0.04  # nearly all of the level is used
    assert np.mean(power) > 0.7


def test_given_its_calibration_set_a_domain_keeps_to_the_level_with_the_confidence():
    # All rows are inside, so that a false discovery is a selection, and given the calibration set its rate for small
    # batches is known exactly: of one row it is P(p ≤ level).
    source, level, confidence, broken = torch.Generator().manual_seed(2), 0.1, 0.9, {0.9: 0, None: 0}
    for _ in range(1000):
        calibration = torch.rand(100, generator=source, dtype=torch.float64).sort().values
        for given in broken:
            ranks = torch.arange(1, 102).double() / 101
            p = ranks if given is None else conditional_p_values(ranks, 100, given)
            largest = int((p <= level).sum())  # the largest rank that is selected
            broken[given] += float(1 - calibration[-largest]) > level if largest else 0
    assert broken[None] > 250
    assert broken[confidence] <= stats.binom.ppf(0.999, 1000, 1 - confidence)


def test_conditional_selection_is_stricter():
    source = torch.Generator().manual_seed(3)
    scores = torch.randn(1100, generator=source, dtype=torch.float64)
    scores[1000:1030] += 6
    p = conformal(scores[:1000], scores[1000:])
    plain, strict = (select_outside(p, 0.1, calibration=1000, confidence=c) for c in (None, 0.95))
    assert bool((plain.outside | ~strict.outside).all()) and bool(strict.outside[:30].all())
    assert "95 % confidence" in strict.guarantee and "on average over calibration sets" in plain.guarantee


def test_too_few_calibration_rows_have_no_power():
    assert false_discovery_power(100, 999, 0.1) == 1
    assert false_discovery_power(100, 58, 0.1) == 17  # 100 · 1/59 ÷ 0.1 = 16.9
    least = false_discovery_power(50, 99, 0.1)
    p = torch.full((50,), 0.5, dtype=torch.float64)
    for outside, found in ((least - 1, 0), (least, least)):
        p[:outside] = 1 / 100
        assert int(select_outside(p, 0.1, calibration=99).outside.sum()) == found
    with pytest.raises(ApplicabilityError, match="at least 9 calibration rows"):
        select_outside(p, 0.1, calibration=8)
    assert false_discovery_power(50, 9, 0.1) == 50
    with pytest.raises(ApplicabilityError, match="at least") as raised:
        false_discovery_power(50, 30, 0.1, 0.95)
    needed = int(str(raised.value).split("at least ")[1].split()[0])
    assert false_discovery_power(50, needed, 0.1, 0.95) <= 50
    with pytest.raises(ApplicabilityError):
        false_discovery_power(50, needed - 1, 0.1, 0.95)


def test_nothing_outside():
    chosen = select_outside(torch.full((5,), 0.9), 0.1, calibration=99)
    assert not bool(chosen.outside.any()) and chosen.threshold == 0.0


def test_bad_input():
    with pytest.raises(DataError, match="multiples of 1/101"):
        conditional_p_values(torch.tensor([0.0123]), 100)
    with pytest.raises(DataError, match="from 0 to 1"):
        select_outside(torch.tensor([1.2]), calibration=100)
    with pytest.raises(DataError, match="at least one row"):
        select_outside(torch.ones(0), calibration=100)
    with pytest.raises(DataError, match="level"):
        select_outside(torch.ones(1), 1.0, calibration=100)
    with pytest.raises(DataError, match="calibration"):
        conditional_p_values(torch.ones(1), 0)
