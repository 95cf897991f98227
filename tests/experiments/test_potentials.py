"""The studies of potentials run, and their figures are the right ones."""

import json

import pytest
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


@pytest.mark.parametrize("command", ["learn", "scorecard", "gpu"])
def test_help_teaches(potentials, command):
    found = CliRunner().invoke(potentials.app, [command, "--help"], env={"COLUMNS": "200"})
    assert found.exit_code == 0 and "--json" in found.output and "--seed" in found.output
    assert len(found.output.splitlines()) > 20


def test_a_network_has_options_that_others_refuse(potentials):
    result = CliRunner().invoke(potentials.app, ["learn", *map(str, SMALL), "--posterior", "laplace"])
    assert isinstance(result.exception, DataError) and "--posterior" in str(result.exception)


@pytest.mark.slow
def test_learn_a_network(figures, tmp_path):
    options = ("--model", "schnet", "--posterior", "laplace", "--epochs", 2, "--checkpoint", tmp_path / "run.ckpt")
    sizes = ("--validation-size", 4, "--calibration-size", 160)
    content = figures("learn", *SMALL, *sizes, *options)
    assert content["settings"]["validation_frames"] == 4 and content["figures"]["force_conformal_90"] > 0.7
    again = figures("learn", *SMALL, *sizes, *options)["figures"]  # from the checkpoint: the same weights
    assert again["force_mae"] == content["figures"]["force_mae"]
