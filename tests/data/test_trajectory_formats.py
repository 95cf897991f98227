"""Formats of trajectories: a frame has the bytes that MDTraj writes, and bonds are kept only if they are all known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bayesmol.data.trajectory_formats import FORMATS, pieces_of
from bayesmol.errors import FormatError


@pytest.fixture
def write(tmp_path):
    mdtraj = pytest.importorskip("mdtraj")

    def save(name, frames, atoms, cell=False):
        topology = mdtraj.Topology()
        chain = topology.add_chain()
        for _ in range(atoms):
            topology.add_atom("AR", mdtraj.element.argon, topology.add_residue("AR", chain))
        x = np.random.default_rng(0).uniform(size=(frames, atoms, 3)).astype(np.float32)
        box = {"unitcell_lengths": np.full((frames, 3), 2.0), "unitcell_angles": np.full((frames, 3), 90.0)}
        mdtraj.Trajectory(x, topology, **(box if cell else {})).save(str(tmp_path / name))
        return tmp_path / name, topology, 10 * x

    return save


def read(path, topology, stride=1):
    pieces = list(pieces_of(Path(path), topology, stride, 3))
    return np.concatenate([piece.values for piece in pieces]), pieces[0]


@pytest.mark.parametrize("cell", [False, True])
@pytest.mark.parametrize("atoms", [3, 9, 10, 57])
@pytest.mark.parametrize("suffix", ["xtc", "trr", "dcd"])
def test_whole_files_pass_and_cut_ones_do_not(write, suffix, atoms, cell):
    path, topology, x = write(f"run.{suffix}", 7, atoms, cell)
    values, _ = read(path, topology)
    np.testing.assert_allclose(values, x, atol=0.011 if suffix == "xtc" else 1e-5)
    content = path.read_bytes()
    for cut in (1, 4, 13, len(content) // 20):
        path.write_bytes(content[:-cut])
        with pytest.raises(FormatError, match="whole frames"):
            read(path, topology)


@pytest.mark.parametrize("suffix", ["xtc", "trr"])
def test_a_file_of_something_else(write, suffix):
    path, topology, _ = write(f"run.{suffix}", 2, 4)
    path.write_bytes(b"#" * 400)
    with pytest.raises(FormatError, match=f"a frame of {suffix}"):
        read(path, topology)


def test_bonds_are_all_known_or_none(write, tmp_path):
    mdtraj = pytest.importorskip("mdtraj")
    path, topology, _ = write("run.xtc", 2, 4)
    assert read(path, topology)[1].topology.bonds is None
    topology = mdtraj.Topology()
    residue = topology.add_residue("ALA", topology.add_chain())
    carbons = [topology.add_atom(f"C{k}", mdtraj.element.carbon, residue) for k in range(4)]
    for k in range(2):
        topology.add_bond(carbons[k], carbons[k + 1])
    assert read(path, topology)[1].topology.bonds is None  # the last atom has none
    topology.add_bond(carbons[2], carbons[3])
    found = read(path, topology)[1].topology
    assert torch.equal(found.bonds, torch.tensor([[0, 1], [1, 2], [2, 3]]))
    assert found.species.tolist() == [6, 6, 6, 6]


def test_molecules_across_a_boundary_are_made_whole(tmp_path):
    mdtraj = pytest.importorskip("mdtraj")
    topology = mdtraj.Topology()
    residue = topology.add_residue("ETH", topology.add_chain())
    carbons = [topology.add_atom(f"C{k}", mdtraj.element.carbon, residue) for k in range(2)]
    topology.add_bond(*carbons)
    x = np.array([[[0.05, 1, 1], [1.95, 1, 1]]] * 3, dtype=np.float32)
    box = {"unitcell_lengths": np.full((3, 3), 2.0), "unitcell_angles": np.full((3, 3), 90.0)}
    mdtraj.Trajectory(x, topology, **box).save(str(tmp_path / "run.xtc"))
    values, first = read(tmp_path / "run.xtc", topology)
    np.testing.assert_allclose(np.linalg.norm(values[:, 0] - values[:, 1], axis=1), 1.0, atol=0.02)
    assert float((first.topology.reference[0] - first.topology.reference[1]).norm()) == pytest.approx(1.0, abs=0.02)


def test_formats_are_named():
    assert {".xtc", ".dcd", ".npz", ".extxyz", ".csv"} <= set(FORMATS)
    assert ".h5" not in FORMATS
