"""Replicas of alanine dipeptide: temperature, resumption, and the format of the other program."""

import numpy as np
import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.molecule import bundled
from bayesmol.report import Study


@pytest.fixture
def module(study):
    return study("kinetics_replicas")


@pytest.fixture
def tiny(module):
    return module.Dynamics(step=2.0, hydrogen_mass=3.0, every=0.02, piece=3, equilibration=1)


def run(module, out, pieces, tiny, seed=1):
    table = Study("kinetics", "generate")
    module.generate(table, out, pieces * 3 * 4 * 0.02e-3, seed, replicas=4, dynamics=tiny)
    return table


def test_masses_are_moved_and_not_made(module):
    field = bundled(module.FIELD)
    masses = module.heavy_hydrogens(field, 3.0)
    assert float(masses.sum()) == pytest.approx(float(field.masses.sum()))
    assert bool((masses[field.species == 1] == 3).all())
    with pytest.raises(DataError, match="hydrogen_mass"):
        module.heavy_hydrogens(field, 5.5)


def test_bonds_have_the_temperature(module):
    """Of positions; that of velocities is too low by the square of the step, as it must be with BAOAB."""
    field = bundled(module.FIELD)
    replicas = module.Replicas(field, module.Dynamics(step=2.0, hydrogen_mass=3.0, friction=20.0, every=0.1), 64)
    state = module.State(field.positions.float().expand(64, -1, 3), torch.zeros(64, 22, 3))
    frames, _ = replicas.run(state, 18, 0)
    first, second = field.bonds.T
    length = torch.from_numpy(np.linalg.norm(frames[9:, :, first] - frames[9:, :, second], axis=-1))
    strain = (field.bond_constants * length.flatten(0, 1).double().var(0)).mean() / module.BOLTZMANN
    assert float(strain) == pytest.approx(300, abs=20)


def test_a_killed_run_goes_on_bit_by_bit(module, tiny, tmp_path):
    run(module, tmp_path / "whole", 2, tiny)
    run(module, tmp_path / "killed", 1, tiny)
    for path in sorted((tmp_path / "whole").rglob("piece_00000.npz")):
        assert path.read_bytes() == (tmp_path / "killed" / path.relative_to(tmp_path / "whole")).read_bytes()
    (tmp_path / "killed" / "trajectory_000" / "piece_00001.npz").write_bytes(b"not the last of a piece")
    table = run(module, tmp_path / "killed", 2, tiny)
    for path in (tmp_path / "whole").rglob("*.npz"):
        assert path.read_bytes() == (tmp_path / "killed" / path.relative_to(tmp_path / "whole")).read_bytes()
    assert table.figures["nanoseconds"].value == pytest.approx(6 * 4 * 0.02e-3)
    assert table.figures["trajectories"].value == 4


def test_other_settings_are_refused(module, tiny, tmp_path):
    run(module, tmp_path, 1, tiny)
    with pytest.raises(DataError, match="settings"):
        run(module, tmp_path, 1, tiny, seed=2)
    with pytest.raises(DataError, match="replicas"):
        module.generate(Study("kinetics", "generate"), tmp_path, 1.0, 0, replicas=1)
