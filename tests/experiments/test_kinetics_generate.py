"""Molecular dynamics piece by piece: a killed run goes on bit by bit, files are complete, settings are kept."""

import json
import math

import numpy as np
import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.molecule import alanine_dipeptide
from bayesmol.report import Study

pytest.importorskip("openmm")


@pytest.fixture
def module(study):
    return study("kinetics_generate")


@pytest.fixture
def tiny(module):
    return module.Dynamics(every=0.02, piece=3, equilibration=1)


def run(module, out, frames, tiny, seed=1, trajectories=1):
    table = Study("kinetics", "generate")
    module.generate(table, out, frames * 0.02e-3, seed, trajectories=trajectories, dynamics=tiny)
    return table


def contents(folder):
    found = {}
    for path in sorted(folder.rglob("*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            found |= {(path.relative_to(folder).as_posix(), name): arrays[name] for name in arrays.files}
    return found


def test_a_killed_run_goes_on_bit_by_bit(module, tiny, tmp_path, monkeypatch):
    run(module, tmp_path / "whole", 18, tiny, trajectories=2)
    write, calls = module._write, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr(module, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        run(module, tmp_path / "killed", 18, tiny, trajectories=2)
    monkeypatch.setattr(module, "_write", write)
    assert len(list((tmp_path / "killed").rglob("*.npz"))) == 3
    run(module, tmp_path / "killed", 18, tiny, trajectories=2)
    one, two = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert one.keys() == two.keys() and len({name for name, _ in one}) == 6
    assert all(np.array_equal(one[key], two[key]) for key in one)


def test_pieces_join_and_the_seed_counts(module, tiny, tmp_path):
    table = run(module, tmp_path / "a", 6, tiny)
    assert table.figures["nanoseconds"].value == pytest.approx(6 * 0.02e-3)
    ((angles, positions),) = list(module.read(tmp_path / "a"))
    assert angles.shape == (6, 2) and positions.shape == (6, 10, 3) and np.isfinite(positions).all()
    # C-N-CA-C of the heavy atoms; 20 fs cannot move an atom by 1 Å, also not from one piece to the next
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=2)
    assert 0 < steps.min() and steps.max() < 1
    run(module, tmp_path / "b", 3, tiny, seed=2)
    assert not np.array_equal(next(iter(module.read(tmp_path / "b")))[1], positions[:3])


def test_a_longer_run_keeps_what_there_is(module, tiny, tmp_path):
    run(module, tmp_path, 3, tiny)
    first = contents(tmp_path)
    run(module, tmp_path, 6, tiny)
    again = contents(tmp_path)
    assert len(again) == 2 * len(first) and all(np.array_equal(again[key], first[key]) for key in first)


def test_other_settings_are_refused(module, tiny, tmp_path):
    run(module, tmp_path, 3, tiny)
    with pytest.raises(DataError, match="seed"):
        run(module, tmp_path, 3, tiny, seed=2)
    assert json.loads((tmp_path / "settings.json").read_text())["seed"] == 1
    with pytest.raises(DataError, match="run generate first"):
        list(module.read(tmp_path / "trajectory_000"))
    with pytest.raises(DataError, match="positive"):
        run(module, tmp_path, 0, tiny)


@pytest.mark.parametrize("wrong", [{"every": 0.001}, {"step": 3.0}, {"hydrogen_mass": 1.0}, {"piece": 0}])
def test_dynamics_that_cannot_be(module, wrong):
    with pytest.raises(DataError):
        module.Dynamics(**wrong)


def test_the_molecule_is_that_of_the_package(module):
    density = alanine_dipeptide()
    system, topology = module._system(1.5), module._topology()
    assert [atom.element.atomic_number for atom in topology.atoms()] == density.species.tolist()
    assert [k for k, z in enumerate(density.species.tolist()) if z > 1] == list(module.HEAVY)
    total = sum(system.getParticleMass(k)._value for k in range(22))
    assert total == pytest.approx(144.17, abs=0.02)  # C6 H12 N2 O2: mass moved, none was made
    assert system.getNumConstraints() == 12
    names = {type(force).__name__ for force in system.getForces()}
    assert names & {"CustomGBForce", "GBSAOBCForce"}


def test_saved_angles_are_those_of_saved_atoms(module, tiny, tmp_path):
    run(module, tmp_path, 3, tiny)
    ((angles, positions),) = list(module.read(tmp_path))
    from bayesmol.representation.internal import dihedral

    place = [[module.HEAVY.index(atom) for atom in atoms] for atoms in (module.PHI, module.PSI)]
    again = dihedral(torch.from_numpy(positions).double().flatten(1), torch.tensor(place))
    turn = torch.remainder(again - torch.from_numpy(angles) + math.pi, 2 * math.pi) - math.pi
    assert float(turn.abs().max()) < 1e-4
