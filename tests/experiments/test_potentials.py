"""The studies of potentials run, and their figures are the right ones."""

import json

import pytest
import torch
from typer.testing import CliRunner

import bayesmol as bm
from bayesmol.errors import DataError


@pytest.fixture
def potentials(study):
    return study("potentials")


@pytest.fixture
def figures(potentials, tmp_path):
    """Content of the JSON file that a command writes."""

    def run(*arguments):
        out = tmp_path / "out.json"
        result = CliRunner().invoke(potentials.app, [*map(str, arguments), "--json", str(out)])
        assert result.exit_code == 0, (result.output, result.exception)
        return json.loads(out.read_text())

    return run


SMALL = ("--train", "rmd17/ethanol/train", "--test", "rmd17/ethanol/test", "--train-size", 10, "--test-size", 30)


def test_learn(figures, tmp_path):
    plots = ("--figures", tmp_path / "plots", "--probe", "ethanol/h-removal")
    content = figures("learn", "--model", "gradient-gp", *SMALL, "--calibration-size", 160, *plots)
    found = content["figures"]
    wanted = {f"{q}_{n}" for q in ("energy", "force") for n in ("mae", "rmse", "coverage_90", "conformal_90", "nll")}
    wanted |= {"auroc", "false_alarm_rate", "probe_flagged", "energy_rmse_per_atom", "train_cpu_seconds"}
    assert wanted | {"predict_cpu_milliseconds", "force_miscalibration_area", "force_crps"} <= found.keys()
    assert found["energy_mae_per_atom"] == pytest.approx(found["energy_mae"] / 9)
    assert 0.05 < found["force_mae"] < 0.5 and 0.8 < found["force_conformal_90"] < 0.98
    assert found["auroc"] > 0.9 and found["false_alarm_rate"] < 0.2
    assert content["settings"]["calibration_frames"] == 160 and content["settings"]["train_frames"] == 10
    assert len(list((tmp_path / "plots").glob("*.png"))) == 4


def test_learn_is_reproducible_and_equals_the_package(figures):
    options = ("learn", "--model", "gradient-gp", *SMALL, "--calibration-size", 160, "--shuffle", "--seed", 3)
    first, second = figures(*options)["figures"], figures(*options)["figures"]
    times = {"train_cpu_seconds", "predict_cpu_milliseconds"}
    assert {k: v for k, v in first.items() if k not in times} == {k: v for k, v in second.items() if k not in times}
    train = bm.data.load("rmd17/ethanol/train").shuffle(seed=3)[:10]
    test = bm.data.load("rmd17/ethanol/test")[:30]
    prediction = bm.potentials.GradientGP().fit(train, seed=3).predict(test.structures)
    assert first["force_mae"] == pytest.approx(float((prediction.forces.mean - test.forces).abs().mean()))


def test_noisy_labels(figures):
    found = figures("noisy-labels")["figures"]
    assert 0 < found["chi_square_per_dof"] < 10
    gain = found["energy_nll_constant_noise"] - found["energy_nll"]
    assert found["energy_nll_gain"] == pytest.approx(gain)


def test_parts_follow_each_other(potentials):
    frames = bm.data.load("rmd17/ethanol/train")
    fitting, calibration = potentials.parts(frames, 50, None)
    assert len(calibration) == 250
    assert torch.equal(fitting.energies, frames.energies[:50])
    assert torch.equal(calibration.energies, frames.energies[50:300])
    assert potentials.parts(frames, None, None)[1] is None and potentials.parts(frames, 50, 0)[1] is None
    assert len(potentials.parts(frames, 900, None)[1]) == 100
    with pytest.raises(DataError, match="at most 1000 frames"):
        potentials.parts(frames, 900, 200)


def test_published_energies_are_those_that_ship(potentials, tmp_path):
    shipped = bm.data.load("qmc/graphene")
    path = tmp_path / "qmc.csv"
    path.write_text("disregistry,d,energy,energy_err\n0.0,3.0,-154.5,0.001\n0.66667,3.5,-154.25,0.002\n")
    found = potentials.monte_carlo(str(path))
    torch.testing.assert_close(found.energies, torch.tensor([-618.0, -617.0]).double())
    torch.testing.assert_close(found.energy_errors, torch.tensor([0.004, 0.008]).double())
    torch.testing.assert_close(found.structures.cell[0], shipped.structures.cell[0])
    assert torch.equal(found.structures.pbc, shipped.structures.pbc[:2])


def test_length_scale(potentials):
    assert potentials.specification("gradient-gp", "learned").length_scale == "learned"
    assert potentials.specification("gradient-gp", "4").length_scale == 4.0
    with pytest.raises(DataError, match="--length-scale"):
        potentials.specification("gradient-gp", "long")
