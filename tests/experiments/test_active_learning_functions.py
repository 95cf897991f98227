"""The figures of the acquisition functions, at small sizes."""

import math

import pytest
import torch

from bayesmol.acquisition.pareto import hypervolume
from bayesmol.report import Study


@pytest.fixture
def functions(study):
    return study("active_learning_functions")


def test_branin_has_its_three_minima(functions):
    places = torch.tensor([[-math.pi, 12.275], [math.pi, 2.275], [9.42478, 2.475]], dtype=torch.float64)
    unit = torch.stack([(places[:, 0] + 5) / 15, places[:, 1] / 15], 1)
    assert functions.branin(unit).tolist() == pytest.approx([functions.BRANIN_MINIMUM] * 3, abs=1e-5)
    grid = torch.cartesian_prod(*[torch.linspace(0, 1, 301, dtype=torch.float64)] * 2)
    assert float(functions.branin(grid).min()) > functions.BRANIN_MINIMUM - 1e-6


def test_a_search_improves_on_its_start_and_repeats_itself(functions):
    gaps = functions.search(seed=3, calls=16, scale=1.0)
    assert gaps.shape == (16,) and bool((gaps.diff() <= 0).all()) and bool((gaps > -1e-6).all())
    assert float(gaps[-1]) < 0.5 * float(gaps[5])
    assert torch.equal(gaps[:8], functions.search(seed=3, calls=8, scale=1.0))
    assert torch.equal(functions.search(seed=3, calls=6, scale=10.0), gaps[:6])


def test_figures(functions, monkeypatch):
    study = Study("active_learning", "functions")
    monkeypatch.setattr(functions, "SCALES", {"": 1.0, "_timid": 10.0})
    functions.functions(study, seed=0, runs=2, calls=8, draws=3000)
    found = {name: figure.value for name, figure in study.figures.items()}
    assert found["information_relative_error"] < 0.05
    assert found["hypervolume_improvement_error"] < 1e-3
    assert found["stream_batch_difference"] < 1e-8 and found["stream_update_ms"] > 0
    assert 0 < found["hypervolume_share_front"] <= 1 and found["global_error_variance"] > 0
    assert 0 <= found["regret"] < found["regret_timid"]
    assert {"branin_gap_median", "branin_calls_median_timid", "branin_p_value_timid"} <= found.keys()
    assert study.cpu_seconds.keys() == {"branin", "regret", "information", "pareto", "stream"}


def test_added_volume_is_a_difference_of_volumes(functions, normal):
    observed, points, reference = normal(5, 2), normal(8, 2), torch.tensor([-1.0, -1.2], dtype=torch.float64)
    found = functions.added(points, observed, reference)
    before = hypervolume(observed, reference, goals="maximise")
    both = [hypervolume(torch.cat([observed, point[None]]), reference, goals="maximise") for point in points]
    assert found.tolist() == pytest.approx([value - before for value in both], abs=1e-12)
