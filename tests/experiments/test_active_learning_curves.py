"""Labels saved: known answers of the arithmetic, pairing, and a run that goes on where it stopped."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.report import Study


@pytest.fixture
def curves(study):
    return study("active_learning_curves")


def test_savings_of_power_laws(curves):
    sizes = [10, 20, 40, 80]
    by_chance = [n**-0.5 for n in sizes]
    assert curves.saved(sizes, by_chance, by_chance) == 0
    half = [(2 * n) ** -0.5 for n in sizes]  # each error with half of the labels
    assert curves.saved(sizes, half, by_chance) == pytest.approx(0.5)
    assert curves.saved(sizes, by_chance, half) == pytest.approx(-1.0), "twice as many"


def test_an_error_that_rises_has_to_fall_again(curves):
    sizes = [10, 20, 40, 80]
    assert curves.saved(sizes, [1.0, 0.2, 0.6, 0.5], [1.0, 0.9, 0.8, 0.5]) == pytest.approx(0)
    assert curves.saved(sizes, [1.0, 0.5, 0.4, 0.3], [0.9, 2.0, 1.5, 1.0]) == pytest.approx(7 / 8), "a lucky first fit"
    assert curves.saved(sizes, [1.0] * 4, [1.0, 0.9, 0.5, 0.3]) == 0, "nothing but the first error is common"


def test_savings_have_an_interval(curves):
    study = Study("active_learning", "curves")
    curves._report(study, "labels_saved_global", [0.1, 0.2, 0.3])
    figures = {name: figure.value for name, figure in study.figures.items()}
    half = 4.302652729911275 * 0.1 / np.sqrt(3)
    assert figures["labels_saved_global"] == pytest.approx(0.2)
    assert figures["labels_saved_global_lower"] == pytest.approx(0.2 - half)
    assert figures["labels_saved_global_upper"] == pytest.approx(0.2 + half)
    curves._report(study, "one", [0.1])
    assert study.figures["one_lower"].value == -np.inf


def test_a_budget_is_checked(curves):
    with pytest.raises(DataError, match="budget"):
        curves.Budget(start=16, batch=16, end=40)


def test_rules_share_the_first_fit_and_never_ask_twice(curves, tmp_path, monkeypatch):
    budget = curves.Budget(4, 4, 12, curves.Pools(pool=24, test=6))
    pool, test = curves.pools(budget.pools, "global", 0, tmp_path)
    asked = []

    def first(model, candidates, size, **options):
        asked.append(candidates)
        assert options["random_fraction"] == 0.25
        return SimpleNamespace(indices=torch.arange(size))

    monkeypatch.setattr(curves, "select", first)
    errors = curves.curve(pool, test, {"random_fraction": 0.25}, budget, seed=0)
    assert len(errors) == 3 and [len(one) for one in asked] == [len(pool) - 4, len(pool) - 8]
    gone = set(map(str, asked[0][:4].positions.tolist()))
    assert not gone & set(map(str, asked[1].positions.tolist()))
    assert errors[0] == curves.curve(pool, test, curves.RULES["random"], budget, seed=0)[0]


def test_a_run_goes_on_where_it_stopped(curves, tmp_path, monkeypatch):
    budget = curves.Budget(4, 4, 8, curves.Pools(pool=24, test=6))
    study = Study("active_learning", "curves")
    figure = curves.curves(study, folder=tmp_path, seeds=range(2), budget=budget)
    names = {f"labels_saved_{task}{end}" for task in ("targeted", "global") for end in ("", "_lower", "_upper")}
    assert names <= study.figures.keys()
    assert len(figure.axes) == 2 and all(len(axis.lines) == 2 for axis in figure.axes)
    files = sorted((tmp_path / "curves").rglob("*.json"))
    assert len(files) == 8
    lost = json.loads(files[0].read_text())
    files[0].unlink()
    calls = []
    monkeypatch.setattr(curves, "curve", lambda *a, **k: calls.append(k["seed"]) or lost)
    again = Study("active_learning", "curves")
    curves.curves(again, folder=tmp_path, seeds=range(2), budget=budget)
    assert len(calls) == 1, "only what was lost is computed"
    assert again.figures == study.figures
