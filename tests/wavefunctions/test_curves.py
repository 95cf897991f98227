import contextlib
from dataclasses import dataclass
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.units import convert
from bayesmol.wavefunctions import curves as module
from bayesmol.wavefunctions import fitted
from bayesmol.wavefunctions.ansatz import Trial
from bayesmol.wavefunctions.curves import RefusedLabelsError, _labelled, _Point, curve, stretched
from bayesmol.wavefunctions.energy import Energy
from bayesmol.wavefunctions.fermi_net import FermiNet
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.pauli_net import PauliNet
from bayesmol.wavefunctions.training import Training

HYDROGEN = Molecule.named("H2")


@dataclass(frozen=True)
class Small:
    """An ansatz with one parameter."""

    training = Training()

    def build(self, molecule, *, seed):
        return Trial(molecule, None, {"a": np.ones(1)})


def point(molecule, value, verdict="ok", text=""):
    return _Point(molecule, value, 1e-3, verdict, text or str(value), {}, 0)


def test_stretched_keeps_centre_and_axis():
    found = stretched(Molecule(np.array([1, 3]), np.array([[1.0, 1, 0], [1.0, 3, 0]])), 3.0)
    np.testing.assert_allclose(found.positions, [[1, 0.5, 0], [1, 3.5, 0]])
    assert found.spin == 0
    with pytest.raises(DataError, match="two nuclei, got 1"):
        stretched(Molecule.named("He"), 1.0)
    with pytest.raises(DataError, match="positive"):
        stretched(HYDROGEN, 0.0)


def test_labels_are_in_electronvolt_and_angstrom():
    found = _labelled([point(stretched(HYDROGEN, length), -1.0 - length) for length in (1.4, 2.0)])
    assert found.energies.tolist() == pytest.approx([convert(-2.4, "Ha", "eV"), convert(-3.0, "Ha", "eV")])
    assert found.energy_errors.tolist() == pytest.approx([convert(1e-3, "Ha", "eV")] * 2)
    lengths = found.structures.positions.reshape(2, 2, 3).diff(dim=1).norm(dim=2)[:, 0]
    torch.testing.assert_close(lengths, convert(torch.tensor([1.4, 2.0], dtype=torch.float64), "bohr", "Å"))


def test_refused_energies_are_no_labels():
    points = [point(HYDROGEN, -1.1), point(stretched(HYDROGEN, 2.0), -1.0, "refused", "walkers disagree")]
    with pytest.raises(RefusedLabelsError, match="geometry 1: walkers disagree") as caught:
        _labelled(points)
    assert len(caught.value.labelled) == 1
    assert caught.value.refused == {1: "walkers disagree"}
    with pytest.raises(RefusedLabelsError) as caught:
        _labelled(points[1:])
    assert caught.value.labelled is None


def test_suspect_energies_are_labels_with_a_warning():
    with pytest.warns(UserWarning, match="geometry 0 has a suspect energy: why"):
        assert len(_labelled([point(HYDROGEN, -1.1, "suspect", "why")])) == 1


def test_geometries_must_belong_together():
    with pytest.raises(DataError, match="lengths in bohr"):
        curve(HYDROGEN, seed=0)
    with pytest.raises(DataError, match="None for a sequence"):
        curve([HYDROGEN], [1.4], seed=0)
    with pytest.raises(DataError, match="2 kinds"):
        curve([HYDROGEN, Molecule.named("He")], seed=0)
    with pytest.raises(DataError, match="at least one"):
        curve(HYDROGEN, [], seed=0)


class Pretended:
    """In place of training and evaluation: the energy is the bond length, the parameters count the warm starts."""

    def __init__(self, ansatz, trial, trained, seed):
        self.trained, self.parameters = trained, trained.parameters
        self.length = float(np.ptp(trial.molecule.positions))

    def energy(self, draws, seed):
        source = np.random.default_rng(seed)
        local = -self.length + 1e-3 * source.normal(size=(32, 64))
        return Energy.of(local, *np.abs(source.normal(size=(2, 32, 64))), local, acceptance=0.5)


@pytest.fixture
def pretended(monkeypatch):
    """The names of the folders' files at each training."""
    calls = []

    def train(trial, molecule, settings, *, seed, minutes, checkpoint):
        calls.append((minutes, None if checkpoint is None else checkpoint.name))
        if checkpoint is not None:
            checkpoint.write_text("under way")
        parameters = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, trial.parameters)
        return SimpleNamespace(parameters=parameters, walkers=np.ones((4, 2, 3)))

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(fitted, "FittedWavefunction", Pretended)
    return calls


def test_a_killed_curve_goes_on_where_it_was(tmp_path, pretended):
    options = {"seed": 0, "draws": 64, "minutes": 3.0}
    whole = curve(HYDROGEN, [1.4, 1.5, 1.6], Small(), **options)
    assert [minutes for minutes, _ in pretended] == [3.0, 1.0, 1.0]
    first = curve(HYDROGEN, [1.4, 1.5], Small(), checkpoint=tmp_path / "new", **options)
    again = curve(HYDROGEN, [1.4, 1.5, 1.6], Small(), checkpoint=tmp_path / "new", **options)
    assert len(pretended) == 3 + 2 + 1
    assert torch.equal(first.energies, whole.energies[:2])
    assert torch.equal(again.energies, whole.energies)
    assert torch.equal(again.energy_errors, whole.energy_errors)
    assert not list((tmp_path / "new").glob("*.training"))
    with pytest.raises(DataError, match="draws"):
        curve(HYDROGEN, [1.4], Small(), checkpoint=tmp_path / "new", **{**options, "draws": 65})


def test_each_geometry_starts_from_the_nearest(monkeypatch, pretended):
    starts, original = [], module.warm_start
    monkeypatch.setattr(module, "warm_start", lambda *rest: starts.append(rest) or original(*rest))
    curve(HYDROGEN, [1.4, 3.0, 1.5], Small(), seed=0, draws=64)
    nearest = [np.ptp(neighbour.molecule.positions) for _, neighbour, _, _ in starts]
    np.testing.assert_allclose(nearest, [1.4, 1.4])
    assert all(np.array_equal(walkers, np.ones((4, 2, 3))) for *_, walkers in starts)


def test_a_neighbour_is_as_built_and_not_as_warmed(monkeypatch, tmp_path, pretended):
    """The second geometry was itself warmed; read from its file it is built anew, and the third must see the same."""
    starts = []

    def warmed(trial, neighbour, parameters, walkers):
        starts.append(neighbour.parameters["a"].item())
        return Trial(trial.molecule, None, {"a": np.asarray(parameters["a"]) + 10.0})

    monkeypatch.setattr(module, "warm_start", warmed)
    for lengths in ([1.4, 1.8, 2.3], [1.4, 1.8, 2.3, 2.9]):
        curve(HYDROGEN, lengths, Small(), seed=0, draws=64, checkpoint=tmp_path)
    assert starts == [1.0, 1.0, 1.0]


@pytest.mark.slow
def test_curve_of_hydrogen_with_learned_orbitals(tmp_path):
    training = Training(walkers=128, steps=150, minutes=None)
    ansatz = FermiNet(determinants=1, width=8, layers=1, functions=2, training=training)
    found = curve(HYDROGEN, [1.4, 1.6], ansatz, seed=0, draws=200, checkpoint=tmp_path)
    exact = convert(-1.174476, "Ha", "eV")  # the lowest, at 1.4 bohr
    assert np.all(found.energies.numpy() > exact - 3 * found.energy_errors.numpy())
    assert np.all(found.energies.numpy() < exact + 1.0)
    kept = curve(HYDROGEN, [1.4, 1.6], ansatz, seed=0, draws=200, checkpoint=tmp_path)
    assert torch.equal(kept.energies, found.energies)


@pytest.mark.filterwarnings("ignore:geometry .* has a suspect energy")  # no wonder after six steps
@pytest.mark.slow
@pytest.mark.parametrize("determinants", [1, 2])
def test_a_curve_that_was_killed_goes_on_as_if_it_had_not_been(determinants, tmp_path):
    """The third geometry starts from the second, which itself started from the first."""
    training = Training(walkers=16, steps=6, minutes=None, burn_in=20, moves=2)
    ansatz = PauliNet(determinants=determinants, width=4, layers=1, basis="sto-3g", training=training)
    options = {"seed": 0, "draws": 40, "checkpoint": tmp_path}
    with contextlib.suppress(RefusedLabelsError):
        curve(HYDROGEN, [1.4, 1.8, 2.3], ansatz, **options)
    whole = {path.name: path.read_bytes() for path in tmp_path.glob("*.point")}
    newest = max(tmp_path.glob("*.point"), key=lambda path: path.stat().st_mtime_ns)
    newest.unlink()
    with contextlib.suppress(RefusedLabelsError):
        curve(HYDROGEN, [1.4, 1.8, 2.3], ansatz, **options)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.point")} == whole
