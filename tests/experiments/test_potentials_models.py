"""Models by name; a network gets the epochs that fit into the time."""

import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

import bayesmol as bm
from bayesmol.errors import DataError
from bayesmol.potentials.training import Training


@pytest.fixture
def models(study):
    return study("potentials_models")


@dataclass(frozen=True)
class Network:
    """A network whose fit takes 2 s and 3 s an epoch of a clock that it turns."""

    training: Training = field(default_factory=Training)
    clock: list = field(default_factory=lambda: [0.0])

    def fit(self, training, validation, *, seed, checkpoint=None):
        self.clock[0] += 2.0 + 3.0 * self.training.epochs
        return SimpleNamespace(epochs=self.training.epochs, validation=validation, checkpoint=checkpoint)


def test_specifications(models):
    assert models.specification("gradient-gp", "learned").length_scale == "learned"
    assert models.specification("gradient-gp", "4").length_scale == 4.0
    assert isinstance(models.specification("ace"), bm.potentials.BayesianACE)
    with pytest.raises(DataError, match="--length-scale"):
        models.specification("gradient-gp", "long")
    with pytest.raises(DataError, match="--posterior, --epochs"):
        models.specification("ace", epochs=3)
    with pytest.raises(DataError, match="--model"):
        models.specification("mace")


def test_networks_by_name(models):
    found = models.specification("schnet", posterior="swag", epochs=7)
    assert (found.architecture, found.posterior, found.training.epochs) == ("schnet", "swag", 7)


def test_epochs_fit_into_the_minutes(models, monkeypatch, tmp_path):
    network = Network()
    monkeypatch.setattr(models.time, "perf_counter", lambda: network.clock[0])
    checkpoint = tmp_path / "run.pt"
    found = models.fit(network, None, "frames", seed=0, minutes=5.0, checkpoint=checkpoint)
    # one and three epochs take 5 s and 11 s; 300 s − 2 · 5 s − 11 s leave 93 epochs
    assert found.epochs == 93 and found.validation == "frames" and found.checkpoint == checkpoint
    assert network.clock[0] <= 300.0
    before = network.clock[0]
    assert models.fit(network, None, None, seed=0, minutes=60.0, checkpoint=checkpoint).epochs == 93  # as before
    assert network.clock[0] == before + 2.0 + 3.0 * 93


def test_others_learn_the_validation_frames_too(models):
    train, validation = bm.data.load("rmd17/ethanol/train").split(8, 4)
    found = models.fit(bm.potentials.GradientGP(), train, validation, seed=0)
    assert len(found.training) == 12
    with pytest.raises(DataError, match="--checkpoint, --minutes"):
        models.fit(bm.potentials.GradientGP(), train, seed=0, minutes=1.0)


def test_foundations_are_corrected_in_the_way_that_they_allow(models, monkeypatch):
    found = []

    class Layered:
        with_last_layer = None

    def origins(name):
        return Layered() if name == "chgnet" else object()

    def corrected(origin, train, way, rank, seed):
        found.append((way, len(train)))
        return origin

    monkeypatch.setitem(sys.modules, "potentials_foundation", SimpleNamespace(corrected=corrected, origins=origins))
    frames = bm.data.load("rmd17/ethanol/train").split(8, 4)
    for name in ("chgnet", "GFN2-xTB"):
        models.named_fit(name, *frames, seed=0)
    assert found == [("last-layer", 12), ("residual", 12)]
    with pytest.raises(DataError, match="--model"):
        models.named_fit("mace", *frames, seed=0)
