import pytest
import safetensors.torch
import torch

from bayesmol.errors import DataError, FormatError
from bayesmol.potentials.network_equivariant import Equivariant
from bayesmol.potentials.neural_energy import NeuralEnergy
from bayesmol.potentials.training import Training
from bayesmol.potentials.training_state import TrainingState


def started(seed=0):
    network = Equivariant(channels=2, width=2, radial=2).network((1, 8), seed=0)
    energy = NeuralEnergy(network, torch.zeros(2), 1.0, 1, torch.Generator().manual_seed(0))
    return TrainingState.start(energy, Training(), seed)


def advanced(state, steps=3):
    for _ in range(steps):
        for parameter in state.energy.parameters():
            parameter.grad = torch.ones_like(parameter)
        state.optimiser.step()
        state.advance(0.5)
    state.judge(1.5)
    return state


def test_everything_comes_back(tmp_path):
    one, two = advanced(started()), started()
    one.save(tmp_path / "a")
    two.restore(tmp_path / "a")
    assert (two.step, two.unimproved, two.best_score) == (3, 0, 1.5)
    again, more = advanced(one), advanced(two)
    for name in ("energy", "average", "best"):
        pairs = zip(getattr(again, name).parameters(), getattr(more, name).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_average_is_the_moving_one():
    state = advanced(started(), 1)
    pairs = zip(state.average.parameters(), state.energy.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)  # the first step forgets the start
    advanced(state, 1)
    pairs = zip(state.average.parameters(), state.energy.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_another_training_is_refused(tmp_path):
    advanced(started()).save(tmp_path / "a")
    with pytest.raises(DataError, match="a state of seed 1"):
        started(seed=1).restore(tmp_path / "a")


@pytest.mark.parametrize("content", [b"", b"nonsense" * 10, safetensors.torch.save({"x": torch.zeros(1)})])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(FormatError, match="checkpoint"):
        started().restore(tmp_path / "a")
