"""Trajectories from files: what was written comes back, in pieces as at once, and bad files are refused."""

import warnings

import numpy as np
import pytest
import torch

from bayesmol.data.trajectory_files import chunks, read_trajectories
from bayesmol.data.trajectory_formats import Topology
from bayesmol.errors import BayesmolError, DataError, FormatError, ShapeError
from bayesmol.representation.torsions import heavy_distances

pytestmark = pytest.mark.filterwarnings("ignore:Warning. The 'netCDF4' Python package:UserWarning")

NUMBERS = [6, 6, 6, 6, 1]


def positions(frames, seed=0):
    """A crooked chain of five atoms that trembles, in Å."""
    chain = np.array([[0, 0, 0], [1.5, 0, 0], [2.0, 1.4, 0], [3.4, 1.6, 0.4], [3.7, 2.6, 0.2]])
    return chain + 0.05 * np.random.default_rng(seed).normal(size=(frames, 5, 3))


def ends(x, topology):
    """Distance between the first and the last heavy atom, and from the first to the second."""
    return torch.stack([(x[:, 0] - x[:, 3]).norm(dim=1), (x[:, 0] - x[:, 1]).norm(dim=1)], 1)


def expected(x):
    return ends(torch.from_numpy(x), None)


@pytest.fixture
def md(tmp_path):
    """MDTraj, a pdb file of the atoms, and a function that writes frames."""
    mdtraj = pytest.importorskip("mdtraj")
    topology = mdtraj.Topology()
    residue = topology.add_residue("LIG", topology.add_chain())
    for k, z in enumerate(NUMBERS):
        topology.add_atom(f"A{k}", mdtraj.element.Element.getByAtomicNumber(z), residue)

    def write(name, x, time=None):
        frames = mdtraj.Trajectory((x / 10).astype(np.float32), topology, time=time)
        frames.save(str(tmp_path / name))
        return tmp_path / name

    return write, write("atoms.pdb", positions(1))


def extxyz(path, x, numbers=NUMBERS):
    import ase
    import ase.io

    ase.io.write(path, [ase.Atoms(numbers, frame) for frame in x], format=path.suffix[1:])
    return path


@pytest.mark.parametrize("suffix", ["xtc", "trr", "nc"])
def test_molecular_dynamics_with_times(md, suffix):
    write, pdb = md
    x = positions(23)
    path = write(f"run.{suffix}", x, time=100 + 0.2 * np.arange(23))
    found = read_trajectories(path, topology=pdb, features=ends)
    torch.testing.assert_close(found.parts[0], expected(x), rtol=0, atol=0.02)
    assert (found.unit, found.lengths) == ("ps", [23]) and found.time_step == pytest.approx(0.2, rel=1e-3)
    third = read_trajectories(path, topology=pdb, features=ends, stride=3)
    torch.testing.assert_close(third.parts[0], found.parts[0][::3])
    assert third.time_step == pytest.approx(0.6, rel=1e-3)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("suffix", ["xtc", "dcd", "pdb"])
def test_pieces_are_the_whole(md, suffix, stride):
    write, pdb = md
    path = write(f"run.{suffix}", positions(17))
    options = {"topology": None if suffix == "pdb" else pdb, "features": ends, "stride": stride}
    whole = read_trajectories(path, **options)
    pieces = [list(parts) for parts in chunks([path, path], frames=4, **options)]
    assert len(pieces) == 2 and max(len(part) for parts in pieces for part in parts) <= 4
    again = torch.cat(pieces[1])
    torch.testing.assert_close(again, whole.parts[0])
    assert len(again) == len(range(0, 17, stride))


def test_formats_without_times_count_frames(md):
    write, pdb = md
    path = write("run.dcd", positions(6))
    found = read_trajectories(path, topology=pdb, features=ends, stride=2)
    assert (found.unit, found.time_step) == ("frames", 2.0)
    named = read_trajectories(path, topology=str(pdb), features=ends, stride=2, time_step=0.5, unit="ns")
    assert (named.unit, named.time_step) == ("ns", 1.0)


def test_features_know_the_atoms(md):
    write, pdb = md
    found = read_trajectories(write("run.xtc", positions(5)), topology=pdb, features=heavy_distances)
    assert found.parts[0].shape == (5, 1)  # of four carbons in a row, one pair is three bonds apart


def test_times_with_a_gap_are_refused(md):
    write, pdb = md
    path = write("run.xtc", positions(6), time=np.array([0.0, 1, 2, 2, 3, 4]))
    with pytest.raises(DataError, match="equally far apart"):
        read_trajectories(path, topology=pdb, features=ends)
    assert read_trajectories(path, topology=pdb, features=ends, time_step=1.0).unit == "ps"
    other = write("other.xtc", positions(6), time=2.0 * np.arange(6))
    good = write("good.xtc", positions(6), time=1.0 * np.arange(6))
    with pytest.raises(DataError, match="one time step"):
        read_trajectories([good, other], topology=pdb, features=ends)


def test_topology_and_features_are_asked_for(md):
    write, pdb = md
    path = write("run.xtc", positions(3))
    with pytest.raises(DataError, match=r'topology="system.pdb"'):
        read_trajectories(path, features=ends)
    with pytest.raises(DataError, match=r"bayesmol\.representation\.torsions"):
        read_trajectories(path, topology=pdb)
    with pytest.raises(ShapeError, match="features"):
        read_trajectories(path, topology=pdb, features=lambda x, _: x.mean((1, 2)))


@pytest.mark.parametrize("suffix", ["xtc", "trr", "dcd", "nc"])
@pytest.mark.parametrize("share", [0.5, 0.7, 0.93])
def test_a_cut_file_of_dynamics(md, suffix, share):
    write, pdb = md
    path = write(f"run.{suffix}", positions(40))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content)) + 1])
    with pytest.raises(FormatError, match="run"):
        read_trajectories(path, topology=pdb, features=ends)


def test_files_of_other_atoms(md, tmp_path):
    write, pdb = md
    path = write("run.xtc", positions(3))
    other = extxyz(tmp_path / "one.pdb.xyz", positions(1)[:, :4], NUMBERS[:4])
    with pytest.raises(DataError, match="5 atoms of the first frame"):
        read_trajectories([path, other], topology=pdb, features=ends)
    with pytest.raises(FormatError, match="topology"):
        read_trajectories(path, topology=tmp_path / "absent.pdb", features=ends)


@pytest.mark.parametrize("suffix", ["extxyz", "traj"])
def test_files_of_ase(tmp_path, suffix):
    x = positions(11)
    path = extxyz(tmp_path / f"run.{suffix}", x)
    found = read_trajectories(path, features=ends, stride=2)
    torch.testing.assert_close(found.parts[0], expected(x[::2]), rtol=0, atol=1e-6)
    assert [len(part) for parts in chunks(path, features=ends, frames=4) for part in parts] == [4, 4, 3]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FormatError, match="run"):
        read_trajectories(path, features=ends)


def test_frames_of_ase_with_other_atoms(tmp_path):
    path = extxyz(tmp_path / "run.extxyz", positions(2))
    path.write_text(path.read_text() + extxyz(tmp_path / "b.extxyz", positions(2), [8, 6, 6, 6, 1]).read_text())
    with pytest.raises(DataError, match="same atoms"):
        read_trajectories(path, features=ends)
    with pytest.raises(DataError, match="of the first frame"):
        [list(parts) for parts in chunks(path, features=ends, frames=2)]


def test_arrays(tmp_path):
    x = np.random.default_rng(0).normal(size=(10, 3))
    np.save(tmp_path / "run2.npy", x.astype(">f4"))
    np.savez(tmp_path / "run10.npz", features=x[:4], time_step_ps=0.5)
    found = read_trajectories(tmp_path / "run2.npy")
    torch.testing.assert_close(found.parts[0], torch.from_numpy(x.astype(np.float32)).double())
    timed = read_trajectories(tmp_path / "run10.npz", stride=2)
    assert (timed.time_step, timed.unit, timed.lengths) == (1.0, "ps", [2])
    both = read_trajectories(str(tmp_path / "run*.np?"))
    assert both.lengths == [10, 4] and both.unit == "frames"
    assert [len(part) for parts in chunks(tmp_path / "run2.npy", frames=2, stride=2) for part in parts] == [2, 2, 1]


def test_states_and_positions_in_arrays(tmp_path):
    np.save(tmp_path / "states.npy", np.array([0, 2, 1], dtype=np.uint8))
    found = read_trajectories(tmp_path / "states.npy")
    assert found.discrete and found.parts[0].tolist() == [0, 2, 1]
    np.save(tmp_path / "x.npy", positions(4))
    topology = Topology(torch.tensor(NUMBERS), torch.from_numpy(positions(1)[0]))
    found = read_trajectories(tmp_path / "x.npy", features=ends, topology=topology)
    torch.testing.assert_close(found.parts[0], expected(positions(4)))
    with pytest.raises(DataError, match="topology"):
        read_trajectories(tmp_path / "x.npy", features=ends)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "phi,psi\n1,2\n3,4\n"),
        ("a.txt", "# phi psi\n1 2\n3 4\n"),
        ("a.dat", "1 2\n3 4\n"),
        ("a.colvar", "#! FIELDS time phi psi\n0.0 1 2\n0.5 3 4\n"),
    ],
)
def test_tables(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = read_trajectories(tmp_path / name)
    assert found.parts[0].tolist() == [[1, 2], [3, 4]]
    assert (found.time_step, found.unit) == ((0.5, "ps") if name == "a.colvar" else (1.0, "frames"))


@pytest.mark.parametrize("text", ["", "phi,psi\n", "1,2\n3\n", "1,2\n3,4\n1,", "1,2\n3,nan\n", "1,2\nx,y\n"])
def test_bad_tables(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=r"a\.csv"):
        read_trajectories(tmp_path / "a.csv")


def test_files_that_could_run_code(tmp_path):
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return ran.write_text, ("x",)

    np.save(tmp_path / "bomb.npy", np.array([Bomb(), 1], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "bomb.npz", features=np.array([Bomb(), 1], dtype=object))
    for name in ("bomb.npy", "bomb.npz"):
        with pytest.raises(FormatError, match="bomb"):
            read_trajectories(tmp_path / name)
    for name in ("run.pkl", "run.h5"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(DataError, match="run code"):
            read_trajectories(tmp_path / name)
    assert not ran.exists()


def test_bad_arrays(tmp_path):
    np.save(tmp_path / "nan.npy", np.array([[1.0], [2.0], [np.nan]]))
    with pytest.raises(DataError, match="frame 2"):
        [list(parts) for parts in chunks(tmp_path / "nan.npy", frames=2)]
    np.save(tmp_path / "cut.npy", np.zeros((100, 3)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-8])
    with pytest.raises(FormatError, match="truncated"):
        read_trajectories(tmp_path / "cut.npy")
    np.savez(tmp_path / "two.npz", a=np.zeros(3), b=np.zeros(3))
    with pytest.raises(DataError, match="called features"):
        read_trajectories(tmp_path / "two.npz")
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    with pytest.raises(ShapeError, match="real numbers"):
        read_trajectories(tmp_path / "text.npy")
    np.save(tmp_path / "none.npy", np.zeros((0, 2)))
    with pytest.raises(FormatError, match="at least one frame"):
        read_trajectories(tmp_path / "none.npy")


def test_bad_paths(tmp_path):
    with pytest.raises(DataError, match="at least one file"):
        read_trajectories(str(tmp_path / "*.xtc"))
    with pytest.raises(DataError, match="existing"):
        read_trajectories(tmp_path / "absent.xtc")
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(DataError, match="xtc"):
        read_trajectories(tmp_path / "a.docx")
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match="stride"):
        read_trajectories(tmp_path / "x.npy", stride=0)


@pytest.mark.parametrize("kind", ["xtc", "dcd", "pdb"])
@pytest.mark.parametrize("count", [60, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_a_damaged_trajectory_is_read_or_refused_in_words(kind, count, tmp_path, damaged):
    mdtraj = pytest.importorskip("mdtraj")
    topology = mdtraj.Topology()
    residue = topology.add_residue("ALA", topology.add_chain())
    for name in ("N", "CA", "C", "O", "CB"):
        topology.add_atom(name, mdtraj.element.carbon, residue)
    places = np.random.default_rng(0).normal(size=(30, 5, 3)).astype(np.float32)
    whole = mdtraj.Trajectory(places, topology, time=np.arange(30.0))
    whole.save(str(tmp_path / f"valid.{kind}"))
    whole[0].save(str(tmp_path / "topology.pdb"))
    options = {"topology": tmp_path / "topology.pdb", "features": lambda x, _: x.flatten(1)[:, :3]}
    assert len(read_trajectories(tmp_path / f"valid.{kind}", **options).parts[0]) == 30
    refused, path = 0, tmp_path / f"damaged.{kind}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for content in damaged((tmp_path / f"valid.{kind}").read_bytes(), count):
            path.write_bytes(content)
            try:
                read_trajectories(path, **options)
            except BayesmolError:
                refused += 1
    assert refused > count / 10
