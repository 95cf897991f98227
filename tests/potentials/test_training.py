import copy
from dataclasses import replace

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError
from bayesmol.potentials.network_equivariant import Equivariant
from bayesmol.potentials.neural_data import Batch
from bayesmol.potentials.neural_energy import NeuralEnergy, force_scale, references_of
from bayesmol.potentials.training import Training, score, trained
from bayesmol.potentials.training_loss import error_loss


@pytest.fixture(scope="module")
def parts(ethanol):
    data, judged = ethanol[0], ethanol[1][:4]
    source = torch.Generator().manual_seed(0)
    network = Equivariant(channels=4, width=4, radial=4).network((1, 6, 8), seed=source)
    energy = NeuralEnergy(network, references_of(network, data), force_scale(data), 1, source)
    return energy, Batch.of(energy, data), Batch.of(energy, judged)


SCHEDULE = Training(epochs=3, batch=4, checks=4, decay=0.9)


def equal(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_training_lowers_the_loss_and_leaves_its_start(parts):
    energy, data, judged = parts
    before, loss = copy.deepcopy(energy), error_loss(1.0)
    found = trained(energy, data, judged, SCHEDULE, seed=0)
    assert score(found, judged, loss) < 0.95 * score(energy, judged, loss)
    assert equal(before, energy)


def test_same_seed_same_weights(parts):
    one, two, other = (trained(*parts, SCHEDULE, seed=seed) for seed in (1, 1, 2))
    assert equal(one, two) and not equal(one, other)


def test_a_stopped_training_goes_on_to_the_same_weights(parts, tmp_path, monkeypatch):
    energy, data, judged = parts
    whole = trained(energy, data, judged, SCHEDULE, seed=0)
    file, steps = tmp_path / "run.ckpt", []
    from bayesmol.potentials import training

    step = training._step

    def killed(*args):
        if len(steps) == 5:
            raise KeyboardInterrupt
        steps.append(1)
        return step(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "_step", killed)
        trained(energy, data, judged, SCHEDULE, seed=0, checkpoint=file)
    assert equal(trained(energy, data, judged, SCHEDULE, seed=0, checkpoint=file), whole)
    assert equal(trained(energy, data, judged, SCHEDULE, seed=0, checkpoint=file), whole)  # from the end as well


def test_the_best_average_is_kept(parts):
    energy, data, judged = parts
    wild = replace(SCHEDULE, rate=0.3)
    found = trained(energy, data, judged, wild, seed=0)
    assert score(found, judged, error_loss(1.0)) < float("inf")


def test_patience_ends_a_training(parts, monkeypatch):
    from bayesmol.potentials import training

    monkeypatch.setattr(training, "score", lambda *args: 1.0)
    calls, step = [], training._step
    monkeypatch.setattr(training, "_step", lambda *args: calls.append(1) or step(*args))
    trained(*parts, replace(SCHEDULE, epochs=8, checks=8, patience=2), seed=0)
    assert len(calls) == 9  # one improvement over infinity, then two without


def test_a_loss_that_is_not_finite(parts):
    energy, data, judged = parts
    bad = replace(data, energies=data.energies * float("nan"))
    with pytest.raises(ConvergenceError, match="loss"):
        trained(energy, bad, judged, SCHEDULE, seed=0)


def test_rate_rises_and_falls():
    rates = [SCHEDULE.rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(SCHEDULE.rate / 5) and max(rates) == SCHEDULE.rate and rates[-1] < 0.01 * rates[5]
    assert Training(epochs=3, batch=5).steps(11) == 9


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"rate": -1.0}, {"decay": 1.0}, {"energy_weight": -0.1}])
def test_bad_schedules(bad):
    with pytest.raises(DataError):
        Training(**bad)
