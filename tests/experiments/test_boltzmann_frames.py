"""Frames of small molecules in equilibrium, in a few seconds."""

import math

import ase.build
import numpy as np
import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.report import Study


@pytest.fixture
def frames(study):
    return study("boltzmann_frames")


@pytest.fixture
def data(tmp_path):
    atoms = ase.build.molecule("H2O")
    np.savez(tmp_path / "start.npz", Z_water=atoms.numbers, xyz_nm_water=atoms.positions[None] / 10)
    return tmp_path / "start.npz"


def test_forces_vanish_at_equilibrium_and_gradients_are_slopes(frames, data):
    _, species, start = frames.starts(data)[0]
    target = frames.TightBinding(species)
    least = frames.equilibrium(target, start)
    assert float(target.reduced_gradient(least[None])[1].abs().max()) < 0.05
    direction = torch.randn(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    line = torch.stack([start + 1e-3 * direction, start - 1e-3 * direction])
    slope = float(target.reduced_energy(line).diff()) / -2e-3
    assert slope == pytest.approx(float(target.reduced_gradient(start[None])[1][0] @ direction), rel=1e-3)
    assert float(target.reduced_energy(0 * least[None])) == np.inf


def test_frames_have_the_energy_of_their_temperature(frames, data, tmp_path, monkeypatch):
    """Water is nearly harmonic: half a kT for each of its 3N − 6 coordinates."""
    run = Study("boltzmann", "frames")
    monkeypatch.setattr(frames, "_WALKERS", 10)
    frames.generate(run, data, tmp_path / "out.npz", draws=120, seed=0)
    (found,) = frames.read(tmp_path / "out.npz")
    assert (found.name, found.species.tolist(), found.rows.shape) == ("water", [8, 1, 1], (120, 9))
    target = frames.TightBinding(found.species)
    above = target.reduced_energy(found.rows) - target.reduced_energy(found.equilibrium[None])
    assert float(above.min()) > 0
    assert float(above.mean()) == pytest.approx(1.5, abs=5 * float(above.std()) / math.sqrt(120))
    assert run.figures["energy_r_hat_largest"].value < 1.2


def test_bad_input(frames, data, tmp_path):
    with pytest.raises(DataError, match=r"boltzmann\.py frames"):
        frames.read(data)
    np.savez(tmp_path / "empty.npz", x=np.zeros(3))
    with pytest.raises(DataError, match="xyz_nm"):
        frames.starts(tmp_path / "empty.npz")
