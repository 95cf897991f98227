"""The study of learning on the fly on a small scale, and its parts against hand and closed form."""

import numpy as np
import pytest
import torch

from bayesmol.data import load
from bayesmol.potentials import BayesianACE, MixingSchedule
from bayesmol.report import Study


@pytest.fixture
def script(study):
    return study("active_learning_on_the_fly")


def test_torsions_are_those_of_ase(script):
    frames = load("rmd17/ethanol")[:20].structures
    positions = frames.positions.view(20, 9, 3)
    quadruples = [*script.TORSIONS["ccoh"], *script.TORSIONS["hcco"]]
    found = script.torsions(positions, quadruples)
    want = [[atoms.get_dihedral(*quadruple) for quadruple in quadruples] for atoms in frames.to_ase()]
    np.testing.assert_allclose(np.mod(found.numpy(), 360), want, atol=1e-8)


def test_divergence(script):
    first, second = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.5, 0.5])
    assert script.divergence(first, first) == 0
    assert script.divergence(first, second) == pytest.approx(0.5 * np.log(2), rel=1e-6)
    assert float(script.histogram(torch.tensor([-179.0, 179.0, 1.0, 2.0])).max()) == 0.5


def test_sampled_dynamics_have_the_temperature(script):
    """Independent springs: the variance of a coordinate is kT / k."""
    from ase import units

    like = load("rmd17/ethanol")[0].structures
    start = type(like).concatenate([like] * 40)
    rest = start.positions.clone()
    run = script.sampled(lambda s: -20.0 * (s.positions - rest), start, 600, 300.0, timestep=2.0, seed=1)
    spread = (run.positions[40:] - rest.view(40, 9, 3)).square().mean()
    assert float(spread) == pytest.approx(units.kB * 300 / 20, rel=0.05)
    assert run.positions.shape == (120, 40, 9, 3) and run.cost > 0


def test_pulled_bonds_grow(script):
    learned = type("L", (), {})()
    learned.accepted = torch.arange(4)
    frames = load("rmd17/ethanol")[:4].structures
    learned.trace = type("T", (), {"structures": lambda self, index: frames[index]})()
    for trial, (one, two) in enumerate(script.BONDS.values()):
        positions = script._pulled(learned, trial, 0).positions.view(-1, 9, 3)
        lengths = (positions[:, two] - positions[:, one]).norm(dim=1)
        torch.testing.assert_close(lengths - lengths[0], 0.02 * torch.arange(60).double())


def test_the_study_runs(script, tmp_path, monkeypatch):
    small = BayesianACE(cutoffs=(4.5,), channels=(4, 4, 2), mixing=MixingSchedule(steps=0))
    pytest.importorskip("tblite")
    monkeypatch.setattr(script, "POTENTIAL", small)
    study = Study("active_learning", "on-the-fly")
    sizes = {"steps": 60, "replicas": 2, "sampling": 10, "trials": 1, "seeds": 2}
    figures = script.on_the_fly(study, tmp_path, tolerance=2.0, **sizes)
    wanted = {"reference_call_fraction", "accepted_within_tolerance", "js_ccoh", "js_hcco", "cost_ratio"}
    assert wanted | {"heated_stopped_in_time", "pulled_stopped_in_time", "biased_deviation_gain"} <= set(study.figures)
    assert set(figures) == {"on_the_fly", "torsions"}
