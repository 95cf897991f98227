from dataclasses import replace

import pytest
import torch

from bayesmol.data import Labelled
from bayesmol.errors import DataError
from bayesmol.potentials.neural import POSTERIORS, NeuralPotential
from bayesmol.potentials.neural_last_layer import FrozenFeatures
from bayesmol.potentials.training import Training


def test_same_seed_same_potential(tiny, neural, ethanol):
    spec = replace(tiny, dtype=torch.float64)
    again, other = (spec.fit(ethanol[0], ethanol[1][:6], seed=seed) for seed in (0, 1))
    assert torch.equal(again.members[0].mean, neural.members[0].mean)
    assert not torch.equal(other.members[0].mean, neural.members[0].mean)


def test_a_tenth_validates_by_default(tiny, ethanol):
    fitted = tiny.fit(ethanol[1], seed=0)
    assert bool(fitted.trained(ethanol[1].structures).all())
    assert fitted.provenance["structures"] == 40


def test_labels_that_are_missing(tiny, ethanol):
    bare = Labelled(ethanol[0].structures)
    with pytest.raises(DataError, match="labelled"):
        tiny.fit(bare, ethanol[1])
    with pytest.raises(DataError, match="validation"):
        tiny.fit(ethanol[0], bare)
    with pytest.raises(DataError, match="eight or more"):
        tiny.fit(ethanol[0][:5])


def test_energies_alone(tiny, ethanol):
    data = Labelled(ethanol[1].structures, ethanol[1].energies)
    fitted = tiny.fit(data[:30], data[30:])
    assert bool(fitted.predict(data.structures[:2]).energy.variance.isfinite().all())


def test_validation_frames_are_no_training_frames(tiny, ethanol):
    with pytest.raises(DataError, match="validation"):
        tiny.fit(ethanol[0], ethanol[0][:4])


@pytest.mark.parametrize("bad", ["bayes", 3, None])
def test_an_unknown_posterior(tiny, ethanol, bad):
    with pytest.raises(DataError, match="posterior"):
        replace(tiny, posterior=bad).fit(ethanol[0], ethanol[1][:4])


def test_the_names_of_the_posteriors():
    assert {"deep-ensemble", "shallow-ensemble", "laplace", "mean-field", "swag", "hamiltonian"} <= set(POSTERIORS)
    assert NeuralPotential().posterior in POSTERIORS


def test_a_run_alone_is_the_training_of_a_fit(tiny, neural, ethanol):
    spec = replace(tiny, dtype=torch.float64)
    run = spec.run(ethanol[0], ethanol[1][:6], seed=0)
    (member,) = FrozenFeatures().members(run)
    assert torch.equal(member.mean, neural.members[0].mean)
    assert len(run.labelled) == 12 and len(run.held_out) == len(run.validation) == 6


def test_a_run_splits_and_refuses_as_a_fit(tiny, ethanol):
    run = replace(tiny, architecture="atomic", training=Training(epochs=1)).run(ethanol[1][:10])
    assert (len(run.labelled), len(run.held_out)) == (6, 4) and run.labelled.structures.positions.dtype == torch.float64
    with pytest.raises(DataError, match="validation"):
        tiny.run(ethanol[0], ethanol[0][:4])
    with pytest.raises(DataError, match="architecture"):
        replace(tiny, architecture="bayes").run(ethanol[0], ethanol[1])
