import math

import pytest
import torch

from bayesmol.calibration.comparison_plots import distributions, profiles, torsion_map
from bayesmol.errors import ShapeError


def test_distributions_show_shares_and_their_errors(normal):
    first, second = normal(400, 2), normal(300, 2)
    weights = torch.ones(400)
    figure = distributions(first, second, names=["energy (eV)", "φ (°)"], weights=weights, periodic=[False, True])
    figure.canvas.draw()
    energy, torsion = figure.axes
    assert (energy.get_xlabel(), torsion.get_xlim()) == ("energy (eV)", (-180, 180))
    y = energy.containers[0].lines[0].get_ydata()
    lower, upper = float(second[:, 0].min()), float(second[:, 0].max())
    width = (upper - lower) / 50
    inside = (first[:, 0] >= lower + 20 * width) & (first[:, 0] < lower + 21 * width)
    share = float(inside.double().mean())
    assert y[20] * width == pytest.approx(share)
    bars = energy.containers[0].lines[2][0].get_segments()
    assert (bars[20][1, 1] - bars[20][0, 1]) / 2 * width == pytest.approx(math.sqrt(share * (1 - share) / 400))
    assert len(energy.get_legend().get_texts()) == 2
    with pytest.raises(ShapeError, match="names"):
        distributions(first, second, names=["one"])


def test_map_has_the_free_energy_and_its_error(normal):
    angles = torch.tensor([[-2.0, 1.0]]).double().repeat(90, 1)
    angles[:30] = torch.tensor([2.0, -1.0]).double()
    groups = torch.arange(90) // 3
    figure = torsion_map(angles, groups=groups, count=8)
    figure.canvas.draw()
    energy, error = (panel.get_images()[0].get_array() for panel in figure.axes[:2])
    place = [int((angle + math.pi) / (2 * math.pi) * 8) for angle in (2.0, -1.0)]
    assert energy[place[1], place[0]] == pytest.approx(math.log(2))  # ψ upwards, φ to the right
    assert error[place[1], place[0]] == pytest.approx(math.sqrt(2 / 3 / 30 / (1 / 3)))
    assert int(energy.mask.sum()) == 62, "bins without rows are white"


def test_profiles_have_bands_and_gaps():
    x = torch.linspace(0, 1, 5)
    value = torch.tensor([0.0, 1.0, math.inf, 1.0, 0.0])
    figure = profiles(x, {"flow": (value, value - 1, value + 1), "reference": (value, None, None)}, xlabel="φ (°)")
    figure.canvas.draw()
    (panel,) = figure.axes
    assert len(panel.collections) == 1 and len(panel.get_lines()) == 2
    assert math.isnan(panel.get_lines()[0].get_ydata()[2])
    assert panel.get_ylim()[1] < 2
