import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from bayesmol.calibration.drift import ConformalMartingale, Jumper, PowerMixture
from bayesmol.errors import DataError, ShapeError
from bayesmol.testing import assert_calibrated

STRATEGIES = [Jumper(), PowerMixture()]


def by_ranks(betting, ranks, count):
    """Logarithm of the martingale after ranks among ``count``, or among the number of each."""
    capital, counts = betting.initial(), itertools.repeat(count) if isinstance(count, int) else count
    for rank, number in zip(ranks, counts, strict=False):
        capital = betting.updated(capital, rank, rank, number)
    return betting.log_martingale(capital)


@pytest.mark.parametrize(("steps", "power"), [(1, 1), (5, 1), (40, 1), (40, 0.3), (40, 3), (2000, 1)])
def test_power_mixture_is_the_integral(steps, power, source):
    ranks = (1000 * torch.rand(steps, generator=source, dtype=torch.float64).pow(power)).ceil().long().tolist()
    total = -sum(math.log(rank / 1000) for rank in ranks)
    top = min(1.0, steps / total)
    largest = steps * math.log(top) + total * (1 - top)

    def product(e):
        return math.exp(steps * math.log(e) + total * (1 - e) - largest) if e else 0.0

    exact, _ = integrate.quad(product, 0, 1, points=[top] if top < 1 else None, epsabs=1e-13, epsrel=1e-10)
    assert by_ranks(PowerMixture(), ranks, 1000) == pytest.approx(largest + math.log(exact), abs=1e-6)
    assert by_ranks(PowerMixture(), [9] * 3, 9) == pytest.approx(-math.log(4))


def test_power_mixture_does_not_underflow():
    # a long stream of scores smaller than before: only ε near one is left, and the martingale falls like 1/n
    found = by_ranks(PowerMixture(), [600, 500] * 10_000, 1000)
    assert -math.log(20_000) < found < -math.log(20_000) + 2


def test_jumper_by_hand(source):
    rate, ranks = 0.1, torch.randint(1, 21, (30,), generator=source).tolist()
    capital = {-1: 1 / 3, 0: 1 / 3, 1: 1 / 3}
    for rank in ranks:
        total = sum(capital.values())
        capital = {e: (1 - rate) * c + rate * total / 3 for e, c in capital.items()}
        capital = {e: c * (1 + e * ((rank - 0.5) / 20 - 0.5)) for e, c in capital.items()}
    assert by_ranks(Jumper(rate), ranks, 20) == pytest.approx(math.log(sum(capital.values())))


@pytest.mark.parametrize("betting", STRATEGIES, ids=repr)
def test_a_bet_wins_nothing_on_average(betting):
    # the mean of the martingale over all equally likely sequences of three ranks
    def mean(counts):
        every = itertools.product(*(range(1, count + 1) for count in counts))
        return np.mean([math.exp(by_ranks(betting, ranks, counts)) for ranks in every])

    if betting == Jumper():
        assert mean((5, 6, 7)) == pytest.approx(1, abs=1e-12)
    else:  # upper ends of p-values: less than one, and the less so the more scores there are
        assert mean((5, 6, 7)) < mean((20, 21, 22)) < mean((10_000,)) < 1


def test_p_values_are_ranks_and_uniform(normal):
    calibration, stream = normal(30), normal(5000)
    path = ConformalMartingale().start(calibration).run(stream)
    for t in (0, 1, 17, 400):
        before = torch.cat([calibration, stream[:t]])
        assert float(path.p_values[t]) == pytest.approx(float((before >= stream[t]).sum() + 1) / (31 + t))
    assert stats.kstest(path.p_values.numpy(), "uniform").pvalue > 0.01
    # each is independent of the one before
    assert abs(float(torch.corrcoef(torch.stack([path.p_values[1:], path.p_values[:-1]]))[0, 1])) < 0.05


@pytest.mark.parametrize("betting", STRATEGIES, ids=repr)
def test_false_alarms_and_power(betting, normal):
    streams, rate = 400, 0.05
    start = ConformalMartingale(betting, false_alarms=rate)
    alarms = [start.start(normal(60)).run(normal(150)).alarm is not None for _ in range(streams)]
    # Ville's bound: not significantly more than the nominal rate
    assert sum(alarms) <= stats.binom(streams, rate).ppf(0.999)
    with pytest.raises(AssertionError):
        assert_calibrated(streams // 2, streams, rate)
    delays = [start.start(normal(200)).run(normal(60) + 1.5).alarm for _ in range(100)]
    assert all(delay is not None for delay in delays) and np.median(delays) < 25


def test_ties_raise_no_false_alarms(source):
    spec = ConformalMartingale(false_alarms=0.05)
    alarms = 0
    for _ in range(200):
        scores = torch.randint(3, (200,), generator=source).double()
        alarms += spec.start(scores[:50]).run(scores[50:]).alarm is not None
    assert alarms <= stats.binom(200, 0.05).ppf(0.999)
    assert spec.start(torch.zeros(50)).run(torch.zeros(300)).alarm is None


def test_late_changes(normal):
    quiet, strange = normal(1500), normal(300) + 1.5
    delays = {}
    for betting in STRATEGIES:
        path = ConformalMartingale(betting).start(normal(200)).run(torch.cat([quiet, strange]))
        delays[betting] = 300 if path.alarm is None else path.alarm - 1500
    assert 0 < delays[Jumper()] < 80 < delays[PowerMixture()]


def test_smaller_scores_are_a_change_for_the_jumper_only(normal):
    calibration, stream = normal(200), normal(200) - 1.5
    assert ConformalMartingale(Jumper()).start(calibration).run(stream).alarm is not None
    assert ConformalMartingale(PowerMixture()).start(calibration).run(stream).alarm is None


def test_blocks_of_correlated_frames(normal):
    def correlated(steps):
        values = normal(steps).tolist()
        for t in range(1, steps):
            values[t] = 0.95 * values[t - 1] + math.sqrt(1 - 0.95**2) * values[t]
        return torch.tensor(values)

    alarms = {1: 0, 100: 0}
    for _ in range(20):
        calibration, stream = correlated(3000), correlated(1000)
        for block in alarms:
            path = ConformalMartingale(false_alarms=0.05, block=block).start(calibration).run(stream)
            alarms[block] += path.alarm is not None
    assert alarms[1] > 15 and alarms[100] <= stats.binom(20, 0.05).ppf(0.999)


def test_states_are_immutable_and_blocks_wait(normal):
    spec = ConformalMartingale(PowerMixture(), false_alarms=0.1, block=3)
    start = spec.start(normal(300))
    stream = normal(20) + 5
    path, state = start.run(stream), start
    assert len(start.pool) == 100 and start.steps == 0 and start.log_martingale == 0
    for t, score in enumerate(stream.tolist()):
        before = state
        state = state.update(score)
        assert before.steps == t and state.log_martingale == pytest.approx(float(path.log_martingale[t]))
        if (t + 1) % 3:
            assert state.log_martingale == before.log_martingale and state.waiting
    assert len(path.p_values) == 6 and len(state.pool) == 106
    assert path.alarm == 6 == state.alarm  # one block with p = 1/101 is not enough
    assert "≤ 0.1" in state.guarantee and "blocks of 3 scores" in state.guarantee
    assert float(path.log_martingale[5]) >= -math.log(0.1) > float(path.log_martingale[2])


def test_infinite_scores_are_the_largest(normal):
    path = ConformalMartingale().start(normal(99)).run(torch.tensor([math.inf, -math.inf]))
    assert path.p_values.tolist() == pytest.approx([0.01, 1.0])


def test_bad_input(normal):
    for arguments in ({"false_alarms": 1.0}, {"block": 0}):
        with pytest.raises(DataError, match=next(iter(arguments))):
            ConformalMartingale(**arguments)
    with pytest.raises(DataError, match="rate"):
        Jumper(0.0)
    with pytest.raises(ShapeError, match="scores"):
        ConformalMartingale().start(normal(3, 1))
    with pytest.raises(DataError, match="one block"):
        ConformalMartingale(block=4).start(normal(3))
    with pytest.raises(DataError, match="NaN"):
        ConformalMartingale().start(normal(3)).update(math.nan)
    with pytest.raises(DataError, match="NaN"):
        ConformalMartingale().start(torch.tensor([math.nan]))
