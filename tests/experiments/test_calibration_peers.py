"""Peers agree where both define a quantity; a missing one is named; turns alternate."""

import pytest
import torch


@pytest.fixture
def peers(study):
    return study("calibration_peers")


@pytest.fixture
def pairs(peers):
    return peers.Pairs.simulated(400, 0)


def test_pairs_are_what_they_say(peers):
    pairs = peers.Pairs.simulated(20_000, 1)
    z = (pairs.truth - pairs.mean) / pairs.stddev
    assert float(z.square().mean()) == pytest.approx(1.21, rel=0.04)
    assert torch.allclose(pairs.stddev.sort().values.diff(), torch.tensor(1 / 19_999, dtype=torch.float64))
    first, second = pairs.halves
    assert torch.equal(torch.cat([first.truth, second.truth]), pairs.truth)


def test_own_sides(peers, pairs):
    found = peers.report(pairs)
    assert found["mae"] == pytest.approx(float((pairs.truth - pairs.mean).abs().mean()), rel=1e-12)
    density = torch.distributions.Normal(pairs.mean, pairs.stddev).log_prob(pairs.truth)
    assert found["nll"] == pytest.approx(-float(density.mean()), rel=1e-12)
    ends = peers.conformal(pairs)
    assert ends["lower"] < float(pairs.halves[1].mean.sum()) < ends["upper"]


@pytest.mark.parametrize("name", ["uncertainty_toolbox", "netcal", "crepes"])
def test_installed_peers_agree(peers, pairs, name):
    pytest.importorskip(name)
    side, own = peers.PEERS[name]
    ours = {"report": peers.report, "conformal": peers.conformal}[own](pairs)
    for figure, value in side(pairs).items():
        tolerance = 0.01 if figure == "miscalibration_area" else 1e-6  # a grid of 100 levels there
        assert ours[figure] == pytest.approx(value, rel=tolerance, abs=1e-3 * (figure == "miscalibration_area"))


def test_turns_alternate_and_the_missing_are_named(peers, pairs):
    calls = []

    def absent(pairs):
        raise ImportError("no such package")

    def side(name):
        return lambda given: calls.append((name, len(given.mean))) or {"crps": 1.0}

    before = torch.get_num_threads()
    times, figures, missing = peers.in_turns({"a": side("a"), "x": absent, "b": side("b")}, pairs, 2, 1)
    assert calls == [("a", 200), ("a", 400), ("b", 200), ("b", 400), ("a", 400), ("b", 400)]
    assert times.keys() == figures.keys() == {"a", "b"} and missing == {"x": "no such package"}
    assert torch.get_num_threads() == before


def test_ratios_are_of_the_same_work(peers, monkeypatch):
    from bayesmol.report import Study

    def absent(pairs):
        raise ImportError("no such package")

    fake = {"uncertainty_toolbox": (lambda pairs: {"crps": 2.0}, "report"), "netcal": (absent, "report")}
    monkeypatch.setattr(peers, "PEERS", fake)
    monkeypatch.setattr(peers, "SIDES", {"report": lambda pairs: {"crps": 1.0}})
    study = Study("calibration", "peers")
    peers.measure(study, rows=300, repeats=1)
    assert study.figures["uncertainty_toolbox_crps_difference"].value == 0.5
    assert "ratio_to_uncertainty_toolbox" in study.figures and "ratio_to_netcal" not in study.figures
    assert any("netcal is missing" in note for note in study.notes)
