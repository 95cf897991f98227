"""Each command does what its help says, and answers bad input with one line and exit code 2."""

import json
import shlex

import ase.io
import pytest
import torch
from typer.testing import CliRunner

import bayesmol as bm
from bayesmol.cli import app

COMMANDS = ["fit", "certify", "predict", "evaluate", "acquire", "quickstart"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a fitted and a certified model."""
    folder = tmp_path_factory.mktemp("models")
    for line in (
        f"fit rmd17/ethanol --model gradient-gp --train-size 12 --out {folder}/model.bm --json {folder}/fit.json",
        f"certify {folder}/model.bm rmd17/ethanol@50:90 --level 0.8 --false-alarms 0.1 --out {folder}/certified.bm",
    ):
        assert run(line).exit_code == 0
    return folder


def run(line):
    return CliRunner().invoke(app, shlex.split(line), env={"COLUMNS": "200", "TERM": "dumb"})


def refused(line, *parts):
    """The command ends with code 2 and one line that has these parts."""
    result = run(line)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    assert result.stdout == ""
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command):
    result = run(f"{command} --help")
    assert result.exit_code == 0
    assert f"bayesmol {command} " in result.output
    for option in ("--json", "--seed", "--device", "--force"):
        assert option in result.output


def test_help_lists_the_commands_and_the_version():
    result = run("--help")
    assert all(command in result.output for command in COMMANDS)
    assert run("--version").output.strip() == f"bayesmol {bm.__version__}"


def test_evaluate_judges_what_predict_wrote(folder):
    assert run(f"predict {folder}/certified.bm rmd17/ethanol@100:130 --out {folder}/p.extxyz").exit_code == 0
    result = run(f"evaluate {folder}/p.extxyz --json -")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert {"energy_crps", "force_crps", "force_energy_score", "energy_coverage_90"} <= set(content["figures"])
    assert set(content["settings"]["reports"]["force"]["local"]) == {"stddev", "mean", "species"}
    refused(f"evaluate {folder}/certified.bm", "TEST", "labelled frames")


def test_fit_reports_what_leaving_out_says(folder):
    content = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
    assert (content["study"], content["command"]) == ("bayesmol", "fit")
    assert content["figures"]["train_frames"] == 12
    assert 0 < content["figures"]["leave_one_out_force_mae"] < 1
    assert content["settings"]["model"] == "gradient-gp"
    assert any("CC0-1.0" in note for note in content["notes"])


def test_a_fit_by_name_equals_a_fit_in_a_script(folder):
    train, rest = bm.data.load("rmd17/ethanol").split(12, 3)
    here = bm.potentials.GradientGP().fit(train, seed=0).predict(rest.structures)
    there = bm.load(folder / "model.bm").predict(rest.structures)
    torch.testing.assert_close(here.forces.mean, there.forces.mean)


def test_predict_writes_what_a_script_would(folder):
    out = folder / "predicted.extxyz"
    result = run(f"predict {folder}/certified.bm rmd17/ethanol@100:105 --level 0.8 --out {out} --json -")
    assert result.exit_code == 0
    content = json.loads(result.stdout)
    assert content["figures"]["structures"] == 5
    frames = ase.io.read(out, ":")
    data = bm.data.load("rmd17/ethanol")[100:105]
    prediction = bm.load(folder / "certified.bm").predict(data.structures)
    interval = prediction.energy.interval(0.8)
    for s, frame in enumerate(frames):
        assert frame.get_potential_energy() == pytest.approx(float(prediction.energy.mean[s]), abs=1e-6)
        assert frame.info["energy_lower"] == pytest.approx(float(interval.lower[s]), abs=1e-6)
        assert frame.info["inside"] == bool(prediction.inside[s])
        assert frame.info["REF_energy"] == pytest.approx(float(data.energies[s]), abs=1e-6)
        assert frame.arrays["forces_stddev"].shape == (9, 3)
    assert "covers a new label with probability ≥ 0.8" in " ".join(content["notes"])


def test_evaluate_has_the_figures_of_the_library(folder):
    result = run(f"evaluate {folder}/certified.bm rmd17/ethanol@100:130 --json -")
    found = json.loads(result.stdout)
    test = bm.data.load("rmd17/ethanol")[100:130]
    expected = bm.calibration.summary(bm.load(folder / "certified.bm").predict(test.structures), test)
    assert {name: float(estimate.value) for name, estimate in expected.items()}.items() <= found["figures"].items()
    assert found["standard_errors"]["force_mae"] == float(expected["force_mae"].standard_error)
    assert "false_alarm_rate" in found["figures"]
    assert "force_mae" in result.stderr


def test_a_model_without_certificate_predicts_and_evaluates(folder):
    result = run(f"evaluate {folder}/model.bm rmd17/ethanol@100:105 --json -")
    assert result.exit_code == 0
    assert not {"false_alarm_rate", "force_conformal_90"} & set(json.loads(result.stdout)["figures"])


def test_certify_without_frames_leaves_out_one_at_a_time(folder):
    result = run(f"certify {folder}/model.bm --false-alarms 0.3 --level 0.5 --out {folder}/alone.bm --json -")
    assert result.exit_code == 0, result.stderr
    assert "approximate" in " ".join(json.loads(result.stdout)["notes"])


def test_acquire_writes_the_chosen_frames_with_their_labels(folder):
    out = folder / "chosen.extxyz"
    result = run(f"acquire rmd17/ethanol@200:220 --model {folder}/certified.bm -n 3 --inside --out {out} --json -")
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    pool = bm.data.load("rmd17/ethanol")[200:220]
    chosen = bm.data.read(out)
    torch.testing.assert_close(chosen.energies, pool.energies[content["settings"]["chosen"]], atol=1e-6, rtol=0)
    assert content["figures"]["chosen_information"] >= content["figures"]["random_information"]


def test_the_same_seed_gives_the_same_figures(folder):
    line = f"acquire rmd17/ethanol@200:210 --model {folder}/model.bm -n 2 --force --out {folder}/s.xyz --json - --seed"
    first, second, other = (json.loads(run(f"{line} {seed}").stdout)["figures"] for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_existing_files_are_kept(folder):
    before = (folder / "model.bm").read_bytes()
    fit = f"fit rmd17/ethanol --model gradient-gp --train-size 5 --out {folder}/model.bm"
    refused(fit, "model.bm", "--force")
    assert (folder / "model.bm").read_bytes() == before
    mine = folder / "mine.json"
    mine.write_text('{"valuable": 1}', encoding="utf-8")
    evaluate = f"evaluate {folder}/model.bm rmd17/ethanol@100:103 --json"
    refused(f"{evaluate} {mine}", "mine.json", "--force")
    for _ in range(2):  # an earlier record is made again by the same command
        assert run(f"{evaluate} {folder}/record.json").exit_code == 0
    assert run(f"{evaluate} {mine} --force").exit_code == 0


def test_nothing_is_left_of_a_command_that_failed(folder):
    names = sorted(path.name for path in folder.iterdir())
    refused(f"acquire rmd17/ethanol@200:202 --model {folder}/model.bm -n 3 --out {folder}/none.extxyz", "size")
    assert sorted(path.name for path in folder.iterdir()) == names


def test_bad_input_is_answered_in_one_line(folder):
    refused(f"fit rmd17/etanol --out {folder}/x.bm", "rmd17/ethanol", "rmd17/etanol")
    refused(f"fit rmd17/ethanol@9000: --out {folder}/x.bm", "frames")
    refused(f"fit rmd17/ethanol --train-size 9000 --out {folder}/x.bm", "2000")
    refused(f"fit rmd17/ethanol --out {folder}/nowhere/x.bm", "--out")
    refused(f"fit rmd17/ethanol --out {folder}", "--out")
    refused("fit rmd17/ethanol --out --json", "--out", "./--json")
    refused(f"fit rmd17/ethanol --device cuda:99 --out {folder}/x.bm", "device", "cuda:99")
    refused(f"predict {folder}/absent.bm rmd17/ethanol --out {folder}/x.xyz", "absent.bm")
    refused(f"predict {folder}/fit.json rmd17/ethanol --out {folder}/x.xyz", "model file")
    refused(f"predict {folder}/model.bm rmd17/ethanol@:2 --level 1.5 --out {folder}/x.xyz", "level")
    refused(f"evaluate {folder}/model.bm ethanol/dimers")
    refused(f"acquire rmd17/ethanol@:9 --model {folder}/model.bm --inside --out {folder}/x.xyz", "certify")
    refused(f"certify {folder}/model.bm rmd17/ethanol@50:90 --out {folder}/x.bm", "149")
    (folder / "taken").mkdir()
    (folder / "taken" / "ethanol.bm").write_text("mine", encoding="utf-8")
    refused(f"quickstart --out {folder}/taken", "ethanol.bm")


def test_a_name_that_is_no_text_is_printed_all_the_same(folder):
    found = run(f"predict {folder}/model.bm rmd17/ethanol@:2 --out '{folder}/caf\udce9.xyz'")
    assert found.exit_code == 0 and "udce9" in found.output
    assert (folder / "caf\udce9.xyz").exists()


def test_a_truncated_file_is_named(folder):
    whole = folder / "whole.extxyz"
    bm.data.write(whole, bm.data.load("rmd17/ethanol")[:3])
    (folder / "cut.extxyz").write_bytes(whole.read_bytes()[:-300])
    refused(f"evaluate {folder}/model.bm {folder}/cut.extxyz", "cut.extxyz")


def test_missing_options_are_named():
    assert run("fit rmd17/ethanol").exit_code == 2
    assert run("nonsense").exit_code == 2
