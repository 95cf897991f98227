"""The front is that of brute force, and the plots show what they are given."""

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.scorecard_lines import Score
from bayesmol.scorecard_plots import front, growth_plot, pareto
from bayesmol.scorecard_timing import Growth, Timing


def test_pareto_is_that_of_brute_force(normal):
    costs = (3 * normal(60, 3)).round()
    found = pareto(costs)
    for row, kept in zip(costs, found.tolist(), strict=True):
        beaten = any(bool((other <= row).all()) and bool((other < row).any()) for other in costs)
        assert kept is not beaten
    assert pareto(torch.tensor([[1.0, 1.0], [1.0, 1.0]])).tolist() == [True, True]  # equals do not beat each other


SCORES = {
    "good": {"force_mae": Score(0.03, 0.02, 0.04), "microseconds": Score(100.0, 90.0, 120.0)},
    "best": {"force_mae": Score(0.01, 0.009, 0.011), "microseconds": Score(900.0), "force_coverage": Score(0.9)},
    "bad": {"force_mae": Score(0.05), "microseconds": Score(500.0), "microseconds_with_uncertainty": Score(700.0)},
    "unfinished": {"force_mae": Score(0.01)},
}


def test_front_has_axes_models_and_the_line_of_the_best(tmp_path):
    figure = front(SCORES)
    panel, bar = figure.axes
    assert panel.get_xscale() == panel.get_yscale() == "log"
    assert "µs" in panel.get_xlabel() and "meV/Å" in panel.get_ylabel() and "90 %" in bar.get_xlabel()
    names = [text.get_text() for text in panel.get_legend().get_texts()]
    assert {"good", "bad", "best (90 %)", "front"} == set(names)
    line = next(line for line in panel.lines if line.get_label() == "front")
    assert line.get_xdata().tolist() == [100.0, 900.0] and line.get_ydata().tolist() == pytest.approx([30.0, 10.0])
    figure.savefig(tmp_path / "front.png")
    with pytest.raises(DataError, match="force error and a time"):
        front({"unfinished": SCORES["unfinished"]})


def test_growth_plot_names_the_exponent(tmp_path):
    timings = tuple(Timing(size, (1e-5 * size, 2e-5 * size, 3e-5 * size)) for size in (100, 1000))
    figure = growth_plot({"ace": Growth(timings, Score(1.0), 1.0, 0.0, "")})
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["ace: $N^{1.00}$"]
    figure.savefig(tmp_path / "growth.png")
