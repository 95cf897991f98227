"""Helpers of the study on alanine dipeptide: torsions, files, divergences, budgets."""

import math

import numpy as np
import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.molecule import alanine_dipeptide
from bayesmol.report import Study


@pytest.fixture
def alanine(study):
    return study("boltzmann_alanine")


def test_torsions_of_the_geometry_that_ships(alanine):
    start = alanine_dipeptide().start
    phi, psi = alanine.torsions(start)[0].tolist()
    assert -math.pi <= phi <= math.pi and -math.pi <= psi <= math.pi
    mirrored = start.unflatten(1, (22, 3)) * torch.tensor([1.0, 1.0, -1.0])
    torch.testing.assert_close(alanine.torsions(mirrored.flatten(1)), -alanine.torsions(start))
    assert alanine.positive(torch.cat([start, mirrored.flatten(1)])).sum() == 1


@pytest.mark.parametrize(("name", "factor"), [("positions_nm", 0.1), ("positions", 1.0)])
def test_frames_of_files_are_in_angstrom(alanine, tmp_path, name, factor):
    frames = np.random.default_rng(0).normal(size=(3, 22, 3))
    np.savez(tmp_path / "frames.npz", **{name: factor * frames})
    found = alanine.configurations(tmp_path / "frames.npz")
    np.testing.assert_allclose(found.numpy(), frames.reshape(3, 66))


def test_files_without_positions(alanine, tmp_path):
    np.savez(tmp_path / "frames.npz", energies=np.zeros(3))
    with pytest.raises(DataError, match="positions"):
        alanine.configurations(tmp_path / "frames.npz")


def test_histograms_and_divergences(alanine):
    angles = torch.tensor([-math.pi, 0.0, 0.0, math.pi - 1e-9]).double()
    shares = alanine.histogram(angles)
    assert float(shares.sum()) == pytest.approx(1)
    assert float(shares[50]) == pytest.approx(0.5)
    assert alanine.divergence(shares, shares) == 0
    weighted = alanine.histogram(angles, torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert alanine.divergence(weighted, shares) == pytest.approx(0.5 * math.log(2))


def test_the_budget_is_kept(alanine):
    spec = alanine.exploration(10.0)
    cost = spec.walkers * spec.rungs * spec.leapfrogs * (spec.warmup + spec.draws)
    cost += spec.chains * spec.leapfrogs * (spec.length + 20)
    assert cost == pytest.approx(600 * 9000, rel=0.05)


def test_tempering_writes_frames_that_can_be_read(alanine, tmp_path):
    run = Study("boltzmann", "tempering")
    alanine.tempering(run, tmp_path / "frames.npz", minutes=0.01, seed=0)
    rows = alanine.configurations(tmp_path / "frames.npz")
    assert len(rows) == run.figures["frames"].value and rows.shape[1] == 66
    assert bool((alanine_dipeptide(300.0).reduced_energy(rows) < 100).all())
