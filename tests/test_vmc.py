"""The ``vmc`` command: from a molecule to an energy, or to the reasons why there is none, and on after a kill."""

import json
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

from bayesmol import vmc as command
from bayesmol.errors import DataError
from bayesmol.options import commands
from bayesmol.posterior import Draws
from bayesmol.report import Study
from bayesmol.wavefunctions.ansatz import Trial
from bayesmol.wavefunctions.energy import Energy
from bayesmol.wavefunctions.history import History
from bayesmol.wavefunctions.log_psi import LogPsi
from bayesmol.wavefunctions.molecule import Molecule


def log_psi(parameters, r):
    return LogPsi(jnp.ones(()), -2 * jnp.sum(jnp.linalg.norm(r, axis=-1)))


def local(mean, spread, draws, seed=0, stuck=False):
    noise = np.random.default_rng(seed).standard_normal((32, draws))
    if stuck:
        noise = 0.1 * noise + np.random.default_rng(1).standard_normal((32, 1))
    kinetic = 2.9 + 0.1 * noise
    energies = mean + spread * noise
    return Energy.of(energies, kinetic, kinetic, energies - kinetic, log_density=noise, acceptance=0.57, steps=10)


class Evaluation:
    def energy(self, parameters, walkers, draws, *, seed):
        return local(-2.88 + float(parameters["x"]) * 0.01, 0.1 + float(parameters["x"]) / 10, draws, seed)


class Helium:
    """What the command asks of a wavefunction, with energies of a normal distribution."""

    evaluation = Evaluation()

    def __init__(self, stuck=False):
        self.stuck, self.asked = stuck, []
        x = np.arange(1.0, 51.0)
        history = History(x, -2.89 + 1 / x, 1 / x, 0 * x + 0.6, 0 * x, x.astype(int) * 0, x > 0)
        self.trained = SimpleNamespace(history=history, snapshots=np.array([[1.0], [2.0], [3.0]]), reason="over")
        self.molecule, self.ansatz, self.parameters = Molecule.named("He"), "an ansatz", {"x": np.array(0.0)}
        self.trial = Trial(self.molecule, log_psi, self.parameters)

    def energy(self, draws=2000, *, seed, walkers=None):
        self.asked.append(draws)
        return local(-2.9, 0.1, draws, seed, self.stuck)

    def sample(self, draws, *, seed):
        return Draws(torch.randn(16, draws, 2, 3, dtype=torch.float64), unit="bohr")


class Ansatz:
    """Trains nothing, and is killed when asked to."""

    killed = False

    def __init__(self, stuck=False):
        self.stuck, self.fits = stuck, []

    def __repr__(self):
        return "Ansatz()"

    def fit(self, molecule, *, seed, minutes, checkpoint):
        self.fits.append((molecule, seed, minutes, checkpoint.exists()))
        checkpoint.write_bytes(b"state")
        if Ansatz.killed:
            raise KeyboardInterrupt
        return Helium(self.stuck)


@pytest.fixture
def ansatz(monkeypatch, tmp_path):
    found = Ansatz()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "specification", lambda name, determinants: found)
    monkeypatch.setattr(command.bm, "save", lambda model, path: path.write_bytes(b"model"), raising=False)
    monkeypatch.setattr(Ansatz, "killed", False)
    return found


def run(source="He", seed=0, device="cpu", **options):
    study = Study("bayesmol", "vmc", {"seed": seed, "device": device}, console=Console(quiet=True))
    return command.vmc(study, source, **options)


def test_energy_with_error_and_what_is_known_beside(ansatz):
    study = run(minutes=0.05, draws=400)
    value = {name: figure.value for name, figure in study.figures.items()}
    assert value["energy_hartree"] == pytest.approx(-2.9, abs=5 * value["standard_error_hartree"])
    assert value["energy_error_mha"] == pytest.approx(1000 * (value["energy_hartree"] + 2.903724377))
    assert value["correlation_fraction"] == pytest.approx((-2.86168 - value["energy_hartree"]) / 0.042044, rel=1e-4)
    assert value["iterations"] == 50
    assert value["iterations_per_second"] == pytest.approx(1)
    assert study.title.startswith("He: -2.90")
    assert ansatz.fits[0][2] == pytest.approx(0.75 * 0.05)


def test_json_has_numbers_and_reasons(ansatz, tmp_path):
    study = run(minutes=0.05, draws=400)
    study.finish(tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    wanted = {"energy_hartree", "standard_error_hartree", "variance", "r_hat", "kinetic_gap_z", "acceptance"}
    assert wanted <= set(content["figures"])
    assert content["units"]["energy_hartree"] == "Ha"


def test_a_refused_energy_is_no_number(ansatz, tmp_path):
    ansatz.stuck = True
    study = run(minutes=0.05, draws=400)
    study.finish(tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["figures"]["energy_hartree"] is None
    assert "energy_error_mha" not in content["figures"]
    assert "refused" in study.title
    assert any(note.startswith("refused:") for note in study.notes)


def test_a_killed_run_goes_on_and_leaves_nothing(ansatz, tmp_path, monkeypatch):
    monkeypatch.setattr(Ansatz, "killed", True)
    with pytest.raises(KeyboardInterrupt):
        run(minutes=0.05, draws=60)
    assert len(list(tmp_path.glob("He.*.training"))) == 1
    monkeypatch.setattr(Ansatz, "killed", False)
    study = run(minutes=0.1, draws=60)
    assert ansatz.fits[-1][3]
    assert any("goes on" in note for note in study.notes)
    assert list(tmp_path.glob("*.training")) == []


def test_each_training_has_a_checkpoint_of_its_own(ansatz):
    def name(source, seed):
        return command._checkpoint(source, None, Molecule.named(source), ansatz, seed)

    assert len({name("He", 0), name("He", 1), name("H2", 0)}) == 3
    assert name("He", 0) == name("He", 0)


def test_page_and_wavefunction_are_written(ansatz, tmp_path):
    out, page = tmp_path / "he.bm", tmp_path / "he.html"
    study = run(minutes=0.05, draws=100, out=out, report=page)
    text = page.read_text()
    assert text.count("<img") == 6
    assert "Hartree" not in study.title
    assert out.exists()
    assert {f"written: {out}", f"written: {page}"} <= set(study.notes)
    page.write_text("mine")
    with pytest.raises(DataError, match="--report"):
        run(minutes=0.05, draws=100, report=page)


def test_minutes_decide_on_the_draws(ansatz):
    wavefunction = Helium()
    command.evaluated(wavefunction, None, -5.0, 0)
    command.evaluated(wavefunction, None, 1e6, 0)
    assert wavefunction.asked == [command.LEAST, command.MOST]


@pytest.mark.parametrize(("charge", "spin", "wanted"), [(0, None, (2, 0)), (1, None, (1, 1)), (0, 2, (2, 2))])
def test_electrons(charge, spin, wanted):
    molecule = command.molecule_of("He", charge, spin)
    assert (molecule.electrons, molecule.spin) == wanted


def test_geometry_from_a_file(tmp_path):
    path = tmp_path / "h2.xyz"
    Molecule.named("H2").to_ase().write(path)
    assert np.ptp(command.molecule_of(str(path), 0, None).positions[:, 2]) == pytest.approx(1.4, abs=1e-6)


def test_unknown_names_are_refused():
    with pytest.raises(DataError, match="name"):
        command.molecule_of("Unobtainium", 0, None)


def test_names_of_the_ansatz():
    assert command.specification("paulinet", 2).determinants == 2
    assert not command.specification("slater-jastrow", None).backflow
    assert type(command.specification("ferminet", None)).__name__ == "FermiNet"


def test_the_shell_command(ansatz, tmp_path):
    app = typer.Typer()
    commands(app)(epilog="Next: read the page.")(command.vmc)
    found = CliRunner().invoke(app, ["He", "--minutes", "0.05", "--draws", "60", "--json", str(tmp_path / "he.json")])
    assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "he.json").read_text())["command"] == "vmc"
    assert "determinants" in CliRunner().invoke(app, ["--help"]).output
