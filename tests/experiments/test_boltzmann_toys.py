"""Studies on densities with exact answers, in a few seconds."""

import math
import sys

import pytest
import torch

from bayesmol.report import Study


@pytest.fixture
def boltzmann_toys(study):
    return study("boltzmann_toys")


@pytest.fixture
def run():
    return Study("boltzmann", "train")


def test_training_fills_the_figures(boltzmann_toys, run):
    boltzmann_toys.double_well(run, minutes=1 / 60, seed=0, draws=2000)
    wanted = {"ess_fraction", "forward_ess_fraction", "k_hat", "free_energy_error_kt", "log_partition_error"}
    assert wanted | {"energy_evaluations", "population_distance"} <= run.figures.keys()
    assert 0 < run.figures["ess_fraction"].value <= 1
    assert any("steps of training" in note for note in run.notes)


@pytest.mark.parametrize("name", ["double_well_density", "mueller_brown_density"])
def test_draws_are_of_the_density(boltzmann_toys, name):
    density = getattr(boltzmann_toys, name)()
    rows = boltzmann_toys.exact_rows(density, 40_000, 0)
    shares = torch.bincount(density.states(rows), minlength=2).double() / len(rows)
    torch.testing.assert_close(shares, torch.tensor(density.known().populations).double(), atol=0.01, rtol=0)
    energy = density.reduced_energy(rows).mean()
    assert float(energy) == pytest.approx(density.known().mean_energy, abs=0.03)


def test_a_sampler_that_is_right_and_one_that_misses_a_mode(boltzmann_toys, run):
    density = boltzmann_toys.double_well_density()
    right = density.known()

    def exact(size, source):
        rows = boltzmann_toys.exact_rows(density, size, int(torch.randint(2**31, (), generator=source)))
        return rows, -density.reduced_energy(rows) - right.log_partition

    boltzmann_toys.judge(run, density, exact, 20_000, 0)
    assert run.figures["ess_fraction"].value == pytest.approx(1)
    assert abs(run.figures["log_partition_error"].value) < 1e-9
    assert abs(run.figures["free_energy_error_kt"].value) < 0.15

    def left(size, source):
        rows, log_q = exact(size, source)
        return torch.cat([-rows[:, :1].abs(), rows[:, 1:]], 1), log_q

    boltzmann_toys.judge(run, density, left, 20_000, 0, prefix="left_")
    assert run.figures["left_free_energy_error_kt"].value == math.inf


def test_missing_peers_are_said_to_be_missing(boltzmann_toys, run, monkeypatch):
    for name in boltzmann_toys.PEERS:
        monkeypatch.setitem(sys.modules, name, None)
    boltzmann_toys.peers(run, seconds=0.5, draws=2000)
    assert sum("not installed" in note for note in run.notes) == 2
    assert "bayesmol_ess_fraction" in run.figures and "zuko_ess_fraction" not in run.figures
