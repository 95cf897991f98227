"""The study of DMD fills in what it says, with the peer and the data where they are installed."""

import math

import pytest
import torch

from bayesmol.report import Study


@pytest.fixture
def module(study):
    return study("kinetics_dmd")


def test_figures(module, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    study = Study("kinetics", "dmd")
    module.dmd(study, repeats=6, sigmas=(0.1,), seed=0)
    value = {name: figure.value for name, figure in study.figures.items()}
    assert value["dmd_coverage_95"] == value["dmd_coverage_95_0.1"] >= 0.6
    assert value["dmd_coverage_95_complex"] >= 0.6
    assert 0.3 < value["dmd_relative_width"] < 3
    assert value["dmd_cpu_seconds"] < 1
    assert "dmd_ratio_to_pydmd" not in value and "PyDMD is not installed" in study.notes[0]


@pytest.mark.slow
def test_peer(module):
    pytest.importorskip("pydmd")
    study = Study("kinetics", "dmd")
    module.dmd(study, repeats=2, sigmas=(0.1,), seed=0)
    assert {"dmd_coverage_95_pydmd", "dmd_ratio_to_pydmd"} <= set(study.figures)


def test_toy(module):
    times, field = module.toy("complex")
    assert field.shape == (129, 65) and len(times) == 129
    torch.testing.assert_close(module.toy()[1], field.real)


def test_sea_surface(module):
    pytest.importorskip("statsmodels")
    study = Study("kinetics", "sea-surface")
    module.sea_surface(study, seed=0, surrogates=2)
    value = {name: figure.value for name, figure in study.figures.items()}
    assert abs(value["sea_surface_annual_period"] - 1) < 0.01
    assert value["sea_surface_annual_lower"] < value["sea_surface_annual_period"] < value["sea_surface_annual_upper"]
    assert 2 <= value["sea_surface_interannual_period"] <= 7
    assert 0 < value["sea_surface_interannual_p_value"] <= 1
    assert value["sea_surface_interannual_lower"] == 0, "two surrogates give no interval"


def test_ends_need_enough_surrogates(module):
    assert module._ends([3.0] * 38) == (0, math.inf)
    assert module._ends([float(k) for k in range(1, 100)]) == (2, 98)
    assert module._ends([math.nan] * 2 + [float(k) for k in range(1, 98)]) == (0, math.inf)


def test_surrogates_keep_variance_and_memory(module):
    source = module.generator(0)
    anomaly = module._red(torch.randn(4000, 1, dtype=torch.float64, generator=source).cumsum(0)[::50], source)
    copy = module._red(anomaly.repeat(40, 1), source)
    assert float(copy.std()) == pytest.approx(float(anomaly.std()), rel=0.3)
