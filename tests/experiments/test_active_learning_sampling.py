"""Replicas have the temperature that they should, and torsions and their divergence are right."""

import numpy as np
import pytest
import torch

from bayesmol.data import load


@pytest.fixture
def script(study):
    return study("active_learning_sampling")


def test_torsions_are_those_of_ase(script):
    frames = load("rmd17/ethanol")[:20].structures
    positions = frames.positions.view(20, 9, 3)
    quadruples = [(1, 0, 2, 8), (5, 1, 0, 2), (6, 1, 0, 2)]
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


def test_dynamics_stop_and_are_kept(script, tmp_path):
    start = load("rmd17/ethanol")[0].structures
    calls = []
    run = script.sampled(
        lambda s: calls.append(1) or 0 * s.positions, start, 100, 300.0, stop=lambda: len(calls) > 11, seed=0
    )
    assert len(calls) == 12 and run.positions.shape == (2, 1, 9, 3)
    assert script.kept(tmp_path / "run.npz") is None
    np.savez(tmp_path / "run.npz", positions=run.positions.numpy(), cost=run.cost)
    again = script.kept(tmp_path / "run.npz")
    assert torch.equal(again.positions, run.positions) and again.cost == run.cost
