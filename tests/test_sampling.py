"""The ``sample`` command: from a system to a file of weighted configurations, and on after a kill."""

from functools import partial

import numpy as np
import pytest
import torch
from rich.console import Console

import bayesmol as bm
from bayesmol import sampling
from bayesmol.checkpoints import read_tensors
from bayesmol.errors import DataError
from bayesmol.flows import fitted
from bayesmol.flows.autoregressive import Autoregressive
from bayesmol.flows.discovery import Discovery
from bayesmol.flows.fitted import FittedGenerator
from bayesmol.flows.force_field import ForceField
from bayesmol.flows.molecular_coordinates import molecular
from bayesmol.flows.training import Training
from bayesmol.report import Study

NOTHING = torch.zeros(0, dtype=torch.float64)


def water():
    """Two stiff bonds and an angle."""
    x = torch.tensor([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]], dtype=torch.float64)
    return ForceField(
        torch.tensor([8, 1, 1]),
        torch.tensor([16.0, 1.0, 1.0]).double(),
        *(torch.zeros(3).double() for _ in range(3)),
        torch.tensor([[0, 1], [0, 2]]),
        torch.tensor([0.96, 0.96]).double(),
        torch.tensor([40.0, 40.0]).double(),
        torch.tensor([[1, 0, 2]]),
        torch.tensor([1.82]).double(),
        torch.tensor([4.0]).double(),
        torch.zeros(0, 4).long(),
        NOTHING.long(),
        NOTHING,
        NOTHING,
        torch.zeros(0, 2).long(),
        NOTHING,
        NOTHING,
        NOTHING,
        14.4,
        positions=x,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A generator that is nearly right without training, as the molecule is nearly harmonic."""
    density = bm.flows.from_force_field(water(), 300.0, name="water")
    system = molecular(density, seed=0)
    architecture = Autoregressive(width=4, bins=4)
    flow = architecture.build(system.circular, seed=1).double().requires_grad_(False)
    path = tmp_path_factory.mktemp("sampling") / "water.bm"
    bm.save(FittedGenerator(density, system, (flow,), (Training(0, 0, "not trained"),), architecture, (1,)), path)
    return path


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Short chains in the trust report: what it says is tested elsewhere."""
    chains = Discovery(walkers=16, trajectories=5, leapfrogs=3)
    monkeypatch.setattr(fitted, "diagnose", partial(fitted.diagnose, discovery=chains))


def run(source, out, **options):
    study = Study("bayesmol", "sample", {"seed": 3, "device": "cpu"}, console=Console(quiet=True))
    return sampling.sample(study, str(source), out, **options)


def test_draws_with_weights_and_a_verdict(saved, tmp_path):
    study = run(saved, tmp_path / "out.npz", size=5000)
    with np.load(tmp_path / "out.npz") as found:
        assert found["positions"].shape == (5000, 3, 3)
        assert found["species"].tolist() == [8, 1, 1]
        assert str(found["verdict"]) in ("green", "amber")
        weights = np.exp(found["log_weights"] - found["log_weights"].max())
        bonds = np.linalg.norm(found["positions"][:, 0] - found["positions"][:, 1], axis=1)
    # k (r − r0)² / 2 has a mean of nearly kT / 2.
    spread = np.average((bonds - 0.96) ** 2, weights=weights)
    assert spread == pytest.approx(0.025852 / 40, rel=0.15)
    assert study.figures["ess_fraction"].value > 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_a_killed_run_goes_on_and_gives_the_same(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "CHUNK", 100)
    run(saved, tmp_path / "whole.npz", size=2050)
    weighted, calls = FittedGenerator.weighted, []

    def killed(self, size, *, seed):
        calls.append(size)
        if len(calls) == 19:
            raise KeyboardInterrupt
        return weighted(self, size, seed=seed)

    monkeypatch.setattr(FittedGenerator, "weighted", killed)
    with pytest.raises(KeyboardInterrupt):
        run(saved, tmp_path / "out.npz", size=2050)
    assert (tmp_path / "out.npz.part").exists()
    assert not (tmp_path / "out.npz").exists()
    run(saved, tmp_path / "out.npz", size=2050)
    assert len(calls) == 19 + 21 - 16  # sixteen chunks were kept
    with np.load(tmp_path / "out.npz") as found, np.load(tmp_path / "whole.npz") as whole:
        assert np.array_equal(found["positions"], whole["positions"])
        assert np.array_equal(found["log_weights"], whole["log_weights"])


def test_draws_of_another_temperature_are_not_taken_over(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "CHUNK", 100)
    monkeypatch.setattr(sampling, "_tell", interrupt)
    for temperature in (300.0, 320.0):
        with pytest.raises(KeyboardInterrupt):
            run(saved, tmp_path / "out.npz", size=1000, temperature=temperature)
    _, part = read_tensors(tmp_path / "out.npz.part", {})
    x, log_weights = part["x"], part["log_weights"]
    warm = bm.load(saved).at(320.0)
    assert len(x) == 800
    torch.testing.assert_close(log_weights, -warm.density.reduced_energy(x) - warm.log_prob(x), rtol=1e-6, atol=1e-4)


def interrupt(*_):
    raise KeyboardInterrupt


def test_another_temperature(saved, tmp_path):
    run(saved, tmp_path / "out.npz", size=500, temperature=320.0)
    with np.load(tmp_path / "out.npz") as found:
        assert float(found["temperature"]) == 320.0


def test_bad_sources(saved, tmp_path):
    with pytest.raises(DataError, match="--structure"):
        run("system.xml", tmp_path / "out.npz")
    (tmp_path / "water.xyz").write_text("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n", encoding="utf-8")
    with pytest.raises(DataError, match="SOURCE"):
        run("water.tpr", tmp_path / "out.npz", structure=tmp_path / "water.xyz")


def test_frames_of_unlike_molecules_are_refused(tmp_path):
    path = tmp_path / "frames.xyz"
    path.write_text("1\n\nH 0 0 0\n2\n\nH 0 0 0\nH 0 0 0.74\n", encoding="utf-8")
    with pytest.raises(DataError, match="--samples"):
        sampling._frames(path)


def test_training_is_kept(tmp_path, monkeypatch):
    fits = []

    class Quick(bm.flows.BoltzmannGenerator):
        def fit(self, density, samples=None, *, seed, checkpoint=None):
            fits.append(checkpoint)
            system = molecular(density, seed=0)
            architecture = Autoregressive(width=4, bins=4)
            flow = architecture.build(system.circular, seed=1).double().requires_grad_(False)
            return FittedGenerator(density, system, (flow,), (Training(0, 0, ""),), architecture, (1,))

    monkeypatch.setattr(bm.flows, "BoltzmannGenerator", Quick, raising=False)
    monkeypatch.setattr(bm.flows, "alanine_dipeptide", lambda t: bm.flows.from_force_field(water(), t), raising=False)
    for _ in range(2):
        study = run("alanine-dipeptide", tmp_path / "out.npz", size=200)
    assert len(fits) == 1
    assert any("earlier run" in note for note in study.notes)


def test_a_kept_generator_of_another_system_is_refused(saved, tmp_path, monkeypatch):
    kept = tmp_path / "out.npz.bm"
    kept.write_bytes(saved.read_bytes())
    monkeypatch.setattr(bm.flows, "alanine_dipeptide", lambda t: bm.flows.from_force_field(water(), t), raising=False)
    with pytest.raises(DataError, match=r"generator of this system"):
        run("alanine-dipeptide", tmp_path / "out.npz", size=10, temperature=350.0)
    assert kept.exists()
