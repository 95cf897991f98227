"""Plots show what they are given: axes, units, lines, and areas that count electrons and pairs."""

import numpy as np
import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.posterior import Estimate
from bayesmol.wavefunctions import plots
from bayesmol.wavefunctions.energy import Energy
from bayesmol.wavefunctions.extrapolation import ZeroVarianceExtrapolation

LINES = {"Hartree–Fock": -7.987, "exact": -8.0705}


def energy(seed=0, memory=0.6):
    """Correlated local energies with a tail like that of nodes."""
    source = np.random.default_rng(seed)
    noise = source.standard_normal((32, 300))
    for draw in range(1, noise.shape[1]):
        noise[:, draw] = memory * noise[:, draw - 1] + np.sqrt(1 - memory**2) * noise[:, draw]
    local = -8.068 + 0.1 * noise + 0.02 * source.standard_t(3, noise.shape)
    kinetic = 8 + 0.5 * noise
    return Energy.of(local, kinetic, kinetic + 0.01 * source.standard_normal(noise.shape), local - kinetic,
                     acceptance=0.6, steps=10)  # fmt: skip


def texts(panel):
    return [text.get_text() for text in panel.get_legend().get_texts()]


def areas(panel):
    """Integral under each curve of steps."""
    found = [patch.get_data() for patch in panel.patches]
    return [float(np.sum(data.values * np.diff(data.edges))) for data in found]


def test_training_shows_averages_and_lines():
    x = np.arange(1, 1001)
    energies = -8.07 + 0.08 * np.exp(-x / 50) + 1e-3 * np.random.default_rng(0).standard_normal(1000)
    figure = plots.training(energies, 0.5 * np.exp(-x / 200) + 0.01, seconds=0.1 * x, lines=LINES)
    left, right = figure.axes
    assert texts(left) == ["steps", "running average", *LINES]
    assert left.get_ylim()[0] < LINES["exact"] < LINES["Hartree–Fock"] < left.get_ylim()[1]
    average = left.lines[1].get_ydata()
    assert np.allclose(average[-1], energies[-100:].mean())
    assert "s" in left.get_xlabel() and "Ha²" in right.get_ylabel()
    assert "step" in plots.training(energies, energies**2).axes[0].get_xlabel()


def test_training_of_nothing_is_refused():
    with pytest.raises(DataError, match="energies, variances"):
        plots.training([], [])


def test_histogram_is_a_density_and_shows_the_tail():
    left, right = plots.histogram(energy(), lines=LINES).axes
    assert sum(patch.get_height() * patch.get_width() for patch in left.patches) == pytest.approx(1)
    assert right.get_xscale() == right.get_yscale() == "log"
    share = right.lines[0].get_ydata()
    assert share[0] == pytest.approx(1 / (32 * 300))


def test_histogram_of_an_eigenstate():
    flat = np.full((4, 8), -0.5)
    same = Energy.of(flat, -flat, -flat, 2 * flat, acceptance=1.0)
    assert "equal" in plots.histogram(same).axes[1].texts[0].get_text()


def test_extrapolation_shows_points_band_and_end():
    one = torch.ones(4, dtype=torch.float64)
    variances = Estimate(torch.tensor([0.02, 0.05, 0.1, 0.2]).double(), 1e-3 * one, one, "Ha²")
    energies = Estimate(-8.0705 + 0.1 * variances.value, 3e-4 * one, one, "Ha")
    found = ZeroVarianceExtrapolation().fit(energies, variances)
    panel = plots.extrapolation(found, lines={"exact": -8.0705}).axes[0]
    assert {"wavefunctions", "95 % band", "at variance zero", "exact"} == set(texts(panel))
    assert panel.get_xlim()[0] < 0
    middle = next(line.get_ydata() for line in panel.lines if len(line.get_ydata()) == 60)
    assert abs(float(middle[0]) - float(found.energy.quantile(0.5))) < 2e-4


def test_refused_extrapolation_says_why():
    none = torch.zeros(0, dtype=torch.float64)
    found = ZeroVarianceExtrapolation().fit(Estimate(none, none, none, "Ha"), Estimate(none, none, none, "Ha²"))
    assert "no wavefunction" in plots.extrapolation(found).axes[0].get_title()


def test_densities_count_electrons_and_pairs():
    positions = np.random.default_rng(0).standard_normal((400, 5, 3))
    nuclei = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    left, right = plots.densities(positions, nuclei, 3, symbols=("Li", "H")).axes
    assert np.allclose(areas(left), 5, rtol=3e-3)
    assert np.allclose(areas(right), [6, 4], rtol=3e-3)  # 3 · 2 pairs of different spins, 3 + 1 of the same one
    assert texts(left) == ["Li 1", "H 2"]
    assert texts(right) == ["different spins", "same spin"]


def test_densities_of_one_electron():
    right = plots.densities(np.random.default_rng(0).standard_normal((10, 1, 3)), np.zeros((1, 3)), 1).axes[1]
    assert "one electron" in right.texts[0].get_text()


def test_cusps_show_the_limits():
    x = np.geomspace(1e-3, 1, 10)
    figure = plots.cusps(x, {"electron and Li": (-3 + x, -3.0), "electrons of different spins": (0.5 - x, 0.5)})
    assert [panel.get_title() for panel in figure.axes] == ["electron and Li", "electrons of different spins"]
    assert texts(figure.axes[0]) == ["exact at 0: -3"]


def test_autocorrelation_of_known_memory():
    found = energy(memory=0.8)
    left, right = plots.autocorrelation(found).axes
    rho = left.lines[1].get_ydata()
    assert rho[0] == 1
    assert rho[1] == pytest.approx(0.8 * 0.01 / (0.01 + 3 * 0.02**2), abs=0.05)
    assert texts(right) == ["between walkers", "effective sample size", "blocks of the mean"]
