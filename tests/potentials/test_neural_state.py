import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError, FormatError
from bayesmol.potentials.network_atomic import Atomic
from bayesmol.potentials.network_schnet import SchNet
from bayesmol.potentials.neural import NeuralPotential
from bayesmol.potentials.neural_state import architecture, from_state, state
from bayesmol.potentials.training import Training


def test_a_file_gives_the_same_predictions(neural, ethanol, tmp_path):
    bm.save(neural, tmp_path / "model")
    again = bm.load(tmp_path / "model")
    one, two = (p.predict(ethanol[2].structures[:3], covariance=True) for p in (neural, again))
    assert torch.equal(one.forces.mean, two.forces.mean) and torch.equal(one.energy.variance, two.energy.variance)
    assert again.provenance["posterior"]["kind"] == "FrozenFeatures"


@pytest.mark.parametrize("config", [Atomic(channels=2, hidden=(4,), width=3), SchNet(features=4, width=3)])
def test_every_architecture_is_saved(config, ethanol, tmp_path):
    spec = NeuralPotential(config, "laplace", Training(epochs=1, batch=6, checks=1))
    fitted = spec.fit(ethanol[0], ethanol[1][:5])
    bm.save(fitted, tmp_path / "model")
    one, two = (p.predict(ethanol[2].structures[:2]) for p in (fitted, bm.load(tmp_path / "model")))
    assert torch.equal(one.forces.mean, two.forces.mean) and torch.equal(one.forces.variance, two.forces.variance)


def test_missing_parts_are_refused(neural):
    header, arrays = state(neural)
    with pytest.raises(FormatError, match="neural potential"):
        from_state({k: v for k, v in header.items() if k != "species"}, arrays)
    with pytest.raises(FormatError, match="neural potential"):
        from_state(header, {k: v for k, v in arrays.items() if k != "members.0.energy.head"})


def test_architectures_by_name_and_by_configuration():
    assert type(architecture("atomic")) is Atomic and architecture(SchNet(features=8)).features == 8
    with pytest.raises(DataError, match="architecture"):
        architecture("transformer")
