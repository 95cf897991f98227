"""The loop: budget, averages, looks, skips."""

import math
from dataclasses import dataclass, field

import pytest
import torch

from bayesmol.errors import ConvergenceError, FormatError
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.training import train


@dataclass(frozen=True)
class Downhill:
    """A loss with known slopes: half the square of the weights."""

    optimisation: Optimisation
    rounds: int = 3
    bad: tuple[int, ...] = ()
    seen: list = field(default_factory=list, repr=False)

    def refresh(self, flow, target, data, turn, source):
        self.seen.append(("round", turn))
        return {"turn": torch.tensor(turn)}

    def loss(self, flow, target, data, source):
        self.seen.append(int(data["turn"]))
        square = sum(p.square().sum() for p in flow.parameters()) / 2
        steps = sum(isinstance(entry, int) for entry in self.seen)
        return square * (math.nan if steps in self.bad else 1.0), square.new_tensor(0.5)


def settings(**options):
    return Optimisation(**{"steps": 30, "rate": 0.1, "average": 0.0, "checks": 3} | options)


def test_rounds_share_the_budget(affine, gaussian):
    objective = Downhill(settings())
    training = train(objective, affine([1.0], [1.0]), gaussian, seed=0)
    assert [entry for entry in objective.seen if isinstance(entry, tuple)] == [("round", i) for i in range(3)]
    assert [objective.seen.count(i) for i in range(3)] == [10, 10, 10]
    assert training.steps == 30 and training.reason == "the budget was used up"
    assert [step for step, _ in training.loss] == [10, 20, 30] and training.reverse_ess[0] == (10, 0.5)
    assert training.loss[-1][1] < training.loss[0][1]


def test_weights_go_down_and_are_averaged(affine, gaussian):
    plain, averaged = affine([1.0], [1.0]), affine([1.0], [1.0])
    train(Downhill(settings(rate=0.02)), plain, gaussian, seed=0)
    train(Downhill(settings(rate=0.02, average=1000.0)), averaged, gaussian, seed=0)
    first, second = (float(flow.transform.shift.detach()) for flow in (plain, averaged))
    assert abs(first) < second < 1


def test_steps_that_are_not_finite_are_skipped(affine, gaussian):
    flow = affine([1.0], [1.0])
    training = train(Downhill(settings(), bad=(3, 4)), flow, gaussian, seed=0)
    assert training.skipped == 2 and training.steps == 30 and math.isfinite(float(flow.transform.shift.detach()))
    with pytest.raises(ConvergenceError, match="5 in a row"):
        train(Downhill(settings(skips=5), bad=tuple(range(3, 20))), flow, gaussian, seed=0)


def test_the_best_look_is_kept_and_training_stops_without_a_better_one(affine, gaussian):
    """The optimum of the loss is not that of the target, so held-out draws become less likely."""
    flow = affine([0.5, -1.0], [math.log(0.7), math.log(1.5)])
    options = settings(checks=30, patience=4, warmup=0.0)
    held_out = lambda target, source: gaussian.sample(200)  # noqa: E731
    training = train(Downhill(options), flow, gaussian, held_out=held_out, seed=0)
    assert training.steps < 30 and "no better likelihood" in training.reason
    assert training.energy_evaluations == 200
    values = [value for _, value in training.forward_ess]
    assert len(values) == 5 and values[0] == max(values)
    assert float(flow.transform.shift[0].detach()) == pytest.approx(0.4, abs=0.02), "the weights after one step"


def test_minutes_end_the_training(affine, gaussian):
    training = train(Downhill(settings(steps=None, minutes=0.3 / 60)), affine([1.0], [1.0]), gaussian, seed=0)
    assert training.steps > 1 and 0.3 <= training.cpu_seconds < 3


def test_finished_checkpoint_gives_the_same_again(tmp_path, affine, gaussian):
    path = tmp_path / "state"
    first, again = affine([1.0], [1.0]), affine([3.0], [0.0])
    done = train(Downhill(settings()), first, gaussian, seed=0, checkpoint=path)
    objective = Downhill(settings())
    assert train(objective, again, gaussian, seed=0, checkpoint=path) == done
    assert objective.seen == [] and torch.equal(first.transform.shift, again.transform.shift)
    path.write_bytes(b"damaged")
    with pytest.raises(FormatError):
        train(objective, again, gaussian, seed=0, checkpoint=path)
