"""The study of the guarantee counts what it says."""

import pytest
import torch

import bayesmol as bm
from bayesmol.applicability.tolerance import tolerance_confidence, tolerance_rank
from bayesmol.report import Study


@pytest.fixture
def guarantee(study):
    return study("applicability_guarantee")


def test_populations_have_the_rates_that_they_claim(guarantee):
    source = torch.Generator().manual_seed(0)
    for digits in (None, 0):
        sample, rate = guarantee._normal(digits)
        scores = sample(200_000, source)
        for threshold in (5.0, 15.0):
            assert rate(threshold) == pytest.approx(float((scores > threshold).double().mean()), abs=0.004)
    sample, rate = guarantee._resampled(torch.arange(10.0))
    assert rate(7.0) == pytest.approx(0.2) and set(sample(1000, source).tolist()) == set(map(float, range(10)))


def test_held_count_is_the_exact_one_in_a_known_case(guarantee):
    source = torch.Generator().manual_seed(0)
    sample = lambda n: torch.rand(n, generator=source, dtype=torch.float64)  # noqa: E731
    kept = guarantee.held_count(sample, lambda threshold: 1 - threshold, 100, 0.05, 400)
    exact = tolerance_confidence(100, tolerance_rank(100, 0.05, 0.95), 0.05)
    assert kept / 400 == pytest.approx(exact, abs=0.03)
    assert guarantee.held_count(sample, lambda threshold: 1.0, 100, 0.05, 10) == 0


def test_study(guarantee, monkeypatch):
    monkeypatch.setattr(guarantee, "SIZES", (60, 250))
    monkeypatch.setattr(guarantee, "SCORES", ("leverage",))
    found = Study("applicability", "guarantee")
    guarantee.held(found, bm.data.load("rmd17/ethanol")[:600], draws=60, training=100)
    names = {name for name in found.figures if name.startswith("held_")}
    assert names == {f"held_{p}_{n}_{a}" for p in ("normal", "ties", "leverage") for n in (60, 250) for a in (5, 10)}
    assert all(0.8 < figure.value <= 1 for figure in found.figures.values())
    assert found.figures["held_ties_250_5"].value >= found.figures["held_ties_250_5"].lower
