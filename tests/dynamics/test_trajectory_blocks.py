import numpy as np
import pytest
import torch
from scipy.stats import betabinom

from bayesmol.applicability import Domain, select_outside
from bayesmol.data.exact_chains import LinearProcess
from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.linear import TICA
from bayesmol.dynamics.trajectory_blocks import time_blocks
from bayesmol.errors import ConvergenceError, DataError

PROCESS = LinearProcess.autoregressive(0.95, 0.8, 0.3)


@pytest.fixture(scope="module")
def koopman():
    return TICA(lag=2, draws=20).fit(PROCESS.simulate(20000, seed=0), seed=0)


def calibrated(score, blocks, kind, level=0.1):
    rows, owner = getattr(blocks, kind)
    return Domain(score, level=level).calibrate(rows, groups=owner)


def judged(domain, blocks, kind):
    rows, owner = getattr(blocks, kind)
    return domain.assess(rows, groups=owner)


def test_blocks_are_consecutive_frames_with_gaps(koopman):
    line = torch.arange(1000.0)[:, None].expand(1000, 3)
    blocks = time_blocks(koopman, [line, line[:70]], length=50)
    gap = int(np.ceil(koopman.weights.bandwidth))
    assert blocks.gap == gap and gap >= 3 * 2
    starts = blocks.values[:, 0, 0].tolist()
    assert starts == [*range(0, 951, 50 + gap), 0]
    assert bool((blocks.values[:, :, 0].diff(dim=1) == 1).all())
    assert f"{gap} apart" in blocks.guarantee


def test_rows_and_pairs_of_blocks(koopman):
    line = torch.arange(1000.0)[:, None].expand(1000, 3)
    blocks = time_blocks(koopman, line, length=50)
    frames, owner = blocks.frames
    assert torch.equal(frames.reshape(len(blocks), 50, 3), blocks.values) and owner.bincount().unique().tolist() == [50]
    pairs, owner = blocks.pairs
    assert bool((pairs[:, 1] - pairs[:, 0] == 2).all()) and owner.bincount().unique().tolist() == [48]
    assert torch.equal(owner, owner.sort().values) and int(owner[-1]) == len(blocks) - 1


@pytest.mark.parametrize(("score", "kind"), [("leverage", "frames"), ("residual", "pairs")])
def test_the_rate_of_false_alarms_is_in_its_exact_band(koopman, score, kind):
    """99 calibration blocks, 300 new ones: the number with p ≤ 0.1 is Beta-Binomial(300, 10, 90)."""
    gap = int(np.ceil(koopman.weights.bandwidth))
    frames = PROCESS.simulate(400 * 2 * gap, seed=3).parts[0]
    blocks = time_blocks(koopman, frames)
    values = blocks.values
    domain = calibrated(getattr(koopman, score), type(blocks)(values[:99], 2, gap), kind)
    p_value = judged(domain, type(blocks)(values[99:399], 2, gap), kind).p_value
    assert len(p_value) == 300
    lower, upper = betabinom.ppf([0.005, 0.995], 300, 10, 90)
    assert lower <= int((p_value <= 0.1).sum()) <= upper


def test_frames_as_if_they_were_exchangeable_would_give_false_alarms(koopman):
    """What the blocks are for: a stretch of frames that are all strange together, far above the level."""
    domain = Domain(koopman.leverage, level=0.1).calibrate(PROCESS.simulate(20000, seed=4).parts[0])
    rates = [
        float((domain.assess(PROCESS.simulate(100, seed=seed).parts[0]).p_value <= 0.1).double().mean())
        for seed in range(5, 105)
    ]
    assert np.std(rates) > 2 * np.sqrt(0.1 * 0.9 / 100)


def test_a_moved_trajectory_is_flagged(koopman):
    calibration = time_blocks(koopman, PROCESS.simulate(30000, seed=5))
    usual = PROCESS.simulate(3000, seed=6).parts[0]
    faster = LinearProcess.autoregressive(0.6, 0.2, -0.5).simulate(3000, seed=6).parts[0]
    for score, kind, strange in (("leverage", "frames", usual + 4), ("residual", "pairs", 2 * faster)):
        domain = calibrated(getattr(koopman, score), calibration, kind)
        for frames, outside in ((usual, False), (strange, True)):
            verdict = judged(domain, time_blocks(koopman, frames), kind)
            chosen = select_outside(verdict.p_value, 0.1, calibration=len(calibration)).outside
            assert bool(chosen.any()) == outside


def test_too_few_blocks_are_refused(koopman):
    from bayesmol.errors import ApplicabilityError

    with pytest.raises(ApplicabilityError, match="at least 29"):
        calibrated(koopman.leverage, time_blocks(koopman, PROCESS.simulate(3000, seed=7)), "frames")


def test_bad_input(koopman):
    frames = PROCESS.simulate(50, seed=8).parts[0]
    with pytest.raises(ConvergenceError, match="sample longer"):
        time_blocks(koopman, frames)
    with pytest.raises(DataError, match="longer than the lag"):
        time_blocks(koopman, frames, length=2)
    with pytest.raises(DataError, match="states"):
        time_blocks(koopman, Trajectories.of(torch.zeros(500, dtype=torch.long)))
