import math

import numpy as np
import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.posterior.estimate import kish
from bayesmol.report import Study


@pytest.fixture
def particles(study):
    return study("boltzmann_particles")


@pytest.fixture
def filled():
    return Study("boltzmann", "particles")


def test_the_distance_of_shifted_energies_is_the_shift(particles, normal):
    energy = normal(500)
    assert particles.energy_w2(energy, energy + 2) == pytest.approx(2)
    assert particles.energy_w2(energy, energy[:250]) > 0


def test_the_next_rung_has_the_overlap(particles, normal):
    energy, log_w = 20 * normal(4000).square(), torch.zeros(4000, dtype=torch.float64)
    new = particles.next_rung(energy, log_w, 0.3, 0.9)
    assert float(kish(-(new - 0.3) * energy)) / 4000 == pytest.approx(0.9, abs=1e-6)
    assert particles.next_rung(0.01 * energy, log_w, 0.9, 0.9) == 1.0


def test_annealing_makes_a_wide_proposal_right(particles, filled, normal):
    """A harmonic energy in 9 dimensions, from a Gaussian of twice its deviation: <u> = 9/2."""
    density = BoltzmannDensity(lambda x: x.square().sum(1) / 2, 9)
    x = 2 * normal(1000, 9)
    log_q = -x.square().sum(1) / 8 - 9 * math.log(2) - 4.5 * math.log(2 * math.pi)
    x, log_w = particles.annealed(filled, density, x, log_q, moves=10, seed=0)
    mean = float(log_w.softmax(0) @ density.reduced_energy(x))
    assert mean == pytest.approx(4.5, abs=0.3)
    assert filled.figures["smc_first_ess_fraction"].value > 0.9 and filled.figures["smc_rungs"].value > 1
    assert 0.1 < filled.figures["smc_families"].value / 1000 < 0.9
    assert 0.3 < filled.figures["ess_fraction"].value < 1.1
    assert filled.figures["virial"].value == pytest.approx(9, abs=5 * filled.figures["virial"].standard_error)


def test_held_out_rows_are_not_training_rows(particles, filled, normal, monkeypatch):
    monkeypatch.setattr(particles, "_TRAINING", 6)
    rows = normal(10, 39)
    rows[8] = rows[2]
    train, held_out = particles.split(rows, 39, filled)
    assert len(train) == 6 and len(held_out) == 3 and filled.notes[0].startswith("1 ")
    with pytest.raises(DataError, match="39"):
        particles.split(rows[:, :9], 39, filled)


def test_the_study_of_lj13_fills_its_figures(particles, filled, tmp_path, monkeypatch):
    monkeypatch.setattr(particles, "_TRAINING", 60)
    start = particles.lennard_jones(particles=13).start
    rows = start + 0.02 * torch.randn(100, 39, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    np.save(tmp_path / "rows.npy", rows.float().numpy())
    particles.lj13(filled, tmp_path / "rows.npy", minutes=0.005, seed=0, draws=24, steps=2, moves=10)
    names = {
        "raw_ess_fraction",
        "forward_ess_fraction",
        "ess_fraction",
        "virial",
        "energy_w2",
        "energy_w2_floor",
        "chains_energy_w2",
    }
    assert names <= set(filled.figures)
    assert all(math.isfinite(figure.value) for figure in filled.figures.values())


def test_the_study_of_dw4_knows_the_partition_function(particles, filled, monkeypatch):
    matching = particles.FlowMatching
    chains = particles.MALA(warmup=20, draws=4, thin=2)
    monkeypatch.setattr(particles, "MALA", lambda **_: chains)
    monkeypatch.setattr(particles, "FlowMatching", lambda optimisation: matching(optimisation, size=400, chains=chains))
    particles.dw4_continuous(filled, minutes=0.01, seed=0, draws=100)
    assert {"ess_fraction", "log_partition_error", "energy_evaluations"} <= set(filled.figures)
