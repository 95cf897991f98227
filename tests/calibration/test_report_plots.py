import torch

from bayesmol.calibration import evaluate
from bayesmol.posterior import Gaussian


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def figure(count=400, **options):
    posterior = Gaussian(normal(count), (0.4 * normal(count, seed=1)).exp().square(), unit="eV")
    truth = posterior.mean + 1.3 * posterior.stddev * normal(count, seed=2)
    return evaluate(posterior, truth, **options).plot()


def test_each_panel_names_what_it_shows(tmp_path):
    drawn = figure(condition_on=("stddev", "mean"))
    shown = [panel for panel in drawn.axes if panel.axison]
    assert len(shown) == 8
    assert all(panel.get_xlabel() and panel.get_title() for panel in shown)
    assert "over-confident" in drawn.get_suptitle()
    drawn.savefig(tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 10_000


def test_categories_are_named_on_the_axis():
    drawn = figure(condition_on=(), conditions={"species": torch.arange(400) % 2 * 5 + 1})
    labels = [text.get_text() for text in drawn.axes[6].get_xticklabels()]
    assert labels == ["H", "C"]


def test_without_conditions_there_are_six_panels():
    assert len([panel for panel in figure(condition_on=()).axes if panel.axison]) == 6
