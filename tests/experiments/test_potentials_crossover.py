"""The study of crossings runs, measures both models on the same subsets, and says what it found."""

import math

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError
from bayesmol.report import Study


@pytest.fixture
def crossing(study):
    return study("potentials_crossover")


class Law:
    """A model with a given learning curve."""

    def __init__(self, factor, power):
        self.factor, self.power, self.seen = factor, power, []


@pytest.fixture
def frames():
    return bm.data.load("rmd17/ethanol/train")[:64], bm.data.load("rmd17/ethanol/test")[:4]


def test_known_curves_cross_where_they_must(crossing, frames, monkeypatch):
    laws = {"ace": Law(0.1, 0.5), "gradient-gp": Law(0.1 * 16**0.5, 1.0)}
    monkeypatch.setattr(crossing, "specification", lambda name: laws[name])

    def error(law, subset, test, seed):
        law.seen.append(subset.energies)
        return law.factor * len(subset) ** -law.power * math.exp(0.01 * math.sin(seed + 7 * law.power * len(subset)))

    monkeypatch.setattr(crossing, "_error", error)
    study = Study("potentials", "crossover")
    figure = crossing.cross(study, *frames, (4, 8, 16, 32, 64), seeds=4)
    found = {name: figure.value for name, figure in study.figures.items()}
    name = "crossover_ace_gradient-gp"
    assert found[f"{name}_lower"] < found[name] < found[f"{name}_upper"]
    assert found[name] == pytest.approx(16, rel=0.1)
    assert found["exponent_ace"] == pytest.approx(0.5, abs=0.02)
    assert found["probability_best_gradient-gp"] > 0.95
    for first, second in zip(laws["ace"].seen, laws["gradient-gp"].seen, strict=True):
        assert torch.equal(first, second), "the same subsets"
    assert torch.equal(laws["ace"].seen[0], laws["ace"].seen[1][:4]), "small ones are parts of large ones"
    assert any("beyond it gradient-gp is better" in note for note in study.notes)
    assert len(figure.axes) == 1


def test_real_models(crossing, frames):
    train, test = frames
    curve = crossing.learning_curve("gradient-gp", train, test, (6, 12), seeds=1, seed=0)
    assert curve.errors.shape == (1, 2) and bool((curve.errors[:, 1] < curve.errors[:, 0]).all())
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    model = crossing.specification("gradient-gp").fit(train[order[:6]], seed=0)
    want = (model.predict(test.structures).forces.mean - test.forces).abs().mean()
    torch.testing.assert_close(curve.errors[0, 0], want)


def test_bad_settings_are_refused(crossing, frames):
    study = Study("potentials", "crossover")
    with pytest.raises(DataError, match="models, sizes"):
        crossing.cross(study, *frames, (4, 100))
    with pytest.raises(DataError, match="models, sizes"):
        crossing.cross(study, *frames, (4, 8), models=("ace",))
