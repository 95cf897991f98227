import math

import pytest
import torch

from bayesmol.calibration.controllers import ACI, PID, DynamicACI, pool_quantile, pool_tails
from bayesmol.calibration.reference import conformal_rank
from bayesmol.errors import DataError


def run(controller, pool, scores, target=0.1):
    """Share of misses, thresholds, and the last control, with a fixed pool."""
    control, misses, thresholds = controller.initial(target, pool), [], []
    for score in scores:
        thresholds.append(controller.threshold(control, pool))
        misses.append(float(score > thresholds[-1]))
        control = controller.updated(control, pool, score[None], misses[-1], target)
    return misses, thresholds, control


@pytest.mark.parametrize("count", [5, 9, 10, 57, 200])
def test_pool_quantile_is_the_conformal_one(count, normal):
    pool = normal(count, 1)
    for level in (0.3, 0.55, 0.9):
        rank = conformal_rank(count, level)
        want = float(pool.flatten().sort().values[rank - 1]) if rank <= count else math.inf
        assert pool_quantile(pool, 1 - level) == want
    assert pool_quantile(pool, 0.0) == math.inf and pool_quantile(pool, -0.2) == math.inf
    assert pool_quantile(pool, 1.0) == -math.inf and pool_quantile(pool[:0], 0.1) == math.inf


def test_tails_are_where_the_quantile_just_misses(normal):
    pool, scores = normal(7, 3), normal(50)
    scores[:5] = pool.flatten()[:5]
    tails = pool_tails(pool, scores)
    for score, tail in zip(scores, tails.tolist(), strict=True):
        assert float(score) > pool_quantile(pool, tail + 1e-9)
        assert float(score) <= pool_quantile(pool, tail - 1e-9)


def test_aci_by_hand(normal):
    pool = torch.arange(1.0, 20.0, dtype=torch.float64)[:, None]
    misses, thresholds, control = run(ACI(0.05), pool, torch.tensor([100.0, 0.0, 18.5]).double())
    # 0.1 → quantile 18; missed: 0.055 → ⌈18.9⌉ = 19; covered: 0.06 → ⌈18.8⌉ = 19; covered: 0.065
    assert misses == [1, 0, 0] and thresholds == [18, 19, 19]
    assert float(control[0]) == pytest.approx(0.065)


@pytest.mark.parametrize("controller", [ACI(0.01), ACI(0.2), PID(), PID(0.01, 0.5)], ids=repr)
@pytest.mark.parametrize("kind", ["huge", "tiny", "switching", "growing", "hostile"])
def test_bounds_hold_for_any_sequence(controller, kind, normal):
    pool, steps = normal(100, 1).abs(), 400
    growing = torch.arange(steps).double().exp().clamp_max(1e300)
    huge = torch.full((steps,), 1e6).double()
    sequences = {
        "huge": huge,
        "tiny": 0 * huge,
        "switching": huge * (torch.arange(steps) // 50 % 2),
        "growing": growing,
    }
    if kind == "hostile":  # sees the threshold: misses for ever until it cannot
        control, misses = controller.initial(0.1, pool), []
        for _ in range(steps):
            above = controller.threshold(control, pool) < math.inf
            misses.append(float(above))
            control = controller.updated(control, pool, huge[:1] * above, misses[-1], 0.1)
    else:
        misses, _, _ = run(controller, pool, sequences[kind])
    share = torch.tensor(misses).double().cumsum(0) / torch.arange(1, steps + 1)
    bound = torch.tensor([controller.bound(0.1, t) for t in range(1, steps + 1)])
    assert bool(((share - 0.1).abs() <= bound + 1e-12).all())
    assert controller.bound(0.1, 0) == math.inf
    assert f"at most {controller.bound(0.1, steps):.3g}" in controller.guarantee(0.1, steps)
    assert "tends to 0.1" in controller.guarantee(0.1, 0)


def test_bounds_are_not_idle(normal):
    # without a pool that follows and without adaptation, a sequence of huge scores is missed for ever
    misses, _, _ = run(ACI(1e-9), normal(100, 1).abs(), torch.full((400,), 1e6).double())
    assert sum(misses) == 400
    misses, _, _ = run(ACI(0.05), normal(100, 1).abs(), torch.full((400,), 1e6).double())
    assert sum(misses) / 400 <= 0.1 + ACI(0.05).bound(0.1, 400) < 0.15


def test_dynamic_aci_by_brute_force(normal):
    target, horizon, rates = 0.1, 50, (0.01, 0.05, 0.2)
    pool, scores = normal(40, 1).abs(), 2 * normal(60).abs()
    _, thresholds, _ = run(DynamicACI(rates, horizon), pool, scores, target)
    ordered = sorted(pool.flatten().tolist())
    eta = math.sqrt(3 / horizon * (math.log(3 * horizon) + 2) / (0.9**2 * 0.1**3 + 0.1**2 * 0.9**3))
    sigma, alphas, weights = 1 / (2 * horizon), [target] * 3, [1.0] * 3
    for score, threshold in zip(scores.tolist(), thresholds, strict=True):
        mean = sum(w * a for w, a in zip(weights, alphas, strict=True)) / sum(weights)
        rank = math.ceil((1 - mean) * 41 - 1e-9)
        assert threshold == (ordered[rank - 1] if 1 <= rank <= 40 else math.copysign(math.inf, rank))
        beta = 1 - sum(one < score for one in ordered) / 41
        losses = [target * (beta - a) - min(0.0, beta - a) for a in alphas]
        bars = [w * math.exp(-eta * loss) for w, loss in zip(weights, losses, strict=True)]
        weights = [(1 - sigma) * bar + sigma * sum(bars) / 3 for bar in bars]
        alphas = [a + g * (target - (a >= beta)) for a, g in zip(alphas, rates, strict=True)]


def test_default_learning_rate_of_the_mixture():
    # the value of the paper's code for six rates and a horizon of 500
    assert DynamicACI((0.001, 0.002, 0.004, 0.008, 0.016, 0.032))._eta(0.1) == pytest.approx(2.72, abs=0.005)


def test_mixture_prefers_fast_rates_after_a_change(normal):
    pool = normal(200, 1).abs()
    quiet, shifted = normal(500).abs(), 4 * normal(100).abs()
    rates = torch.tensor(DynamicACI().rates).double()

    def mean_rate(scores):
        return float(run(DynamicACI(), pool, scores)[2].chunk(2)[1] @ rates)

    assert mean_rate(torch.cat([quiet, shifted])) > 2 * mean_rate(quiet)


def test_pid_follows_the_scale_of_the_scores(normal):
    pool = normal(200, 1).abs()
    _, thresholds, _ = run(PID(), pool, torch.cat([normal(500).abs(), 5 * normal(1500).abs()]))
    thresholds = torch.tensor(thresholds)
    assert float(thresholds[300:500].median()) == pytest.approx(1.645, abs=0.4)
    assert float(thresholds[-300:].median()) == pytest.approx(5 * 1.645, abs=2)
    assert float(thresholds.isinf().double().mean()) < 0.01


def test_bad_input(normal):
    for make in (lambda: ACI(0.0), lambda: ACI(math.nan), lambda: PID(saturation=-1.0), lambda: DynamicACI(())):
        with pytest.raises(DataError, match="rate"):
            make()
    with pytest.raises(DataError, match="horizon"):
        DynamicACI(horizon=0)
    with pytest.raises(DataError, match=r"at least 9 calibration steps for PID, got 8"):
        PID().initial(0.1, normal(8, 1))
