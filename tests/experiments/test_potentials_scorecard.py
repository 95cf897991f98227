"""Scorecards by one command; what cannot be scored has a reason; earlier runs join the front."""

import json
import math

import pytest
from ase.build import bulk
from typer.testing import CliRunner

import bayesmol as bm
from bayesmol.errors import DataError
from bayesmol.report import Study
from bayesmol.scorecards import Budget

OPTIONS = ("--train-size", 12, "--validation-size", 4, "--calibration-size", 160, "--test-size", 30, "--seconds", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("scorecard")


def test_one_command(study, folder):
    arguments = ["scorecard", "--model", "gradient-gp", *OPTIONS, "--figures", folder, "--json", folder / "card.json"]
    result = CliRunner().invoke(study("potentials").app, list(map(str, arguments)))
    assert result.exit_code == 0, (result.output, result.exception)
    content = json.loads((folder / "card.json").read_text())
    card = content["settings"]["scorecards"]["gradient-gp"]
    assert card["scalable"]["verdict"] == card["transferable"]["verdict"] == "not possible"
    assert "molecule" in card["scalable"]["sentence"] and "gradient-gp_exponent" not in content["figures"]
    figures = content["figures"]
    assert figures["gradient-gp_microseconds_with_uncertainty"] > 0 and figures["gradient-gp_train_cpu_seconds"] > 0
    assert figures["gradient-gp_force_mae"] == card["accurate"]["scores"]["force_mae"]["value"]
    assert content["targets"]["gradient-gp_energy_mae"][1] == pytest.approx(0.25 * 0.0433641, rel=1e-4)
    assert (folder / "front.png").exists()
    scores = study("potentials_scorecard").earlier(folder / "card.json")["gradient-gp"]
    assert scores["force_mae"].value == figures["gradient-gp_force_mae"]
    assert scores["microseconds"].upper in (math.inf, pytest.approx(scores["microseconds"].upper))


def test_what_cannot_be_fitted_is_a_note(study):
    frames = bm.data.load("rmd17/ethanol/train").split(8, 4, 160)
    found = Study("potentials", "scorecard")
    test, options = bm.data.load("rmd17/ethanol/test")[:20], {"budget": Budget(0.5), "seed": 0}
    drawn = study("potentials_scorecard").scorecards(found, ["no-such-model"], frames, test, None, **options)
    assert drawn == {} and not found.figures
    assert any("no-such-model is not scored" in note for note in found.notes)


def test_defaults_follow_the_frames(study):
    scorecard = study("potentials_scorecard")
    assert "GFN2-xTB" in scorecard.defaults(bm.data.load("rmd17/ethanol")[:2])
    assert "chgnet" not in scorecard.defaults(bm.data.load("rmd17/ethanol")[:2])
    crystal = bm.data.Structures.from_ase(bulk("Si"))
    assert "chgnet" in scorecard.defaults(bm.data.Labelled(crystal, crystal.positions.new_zeros(1)))


def test_a_file_without_cards_is_refused(study, tmp_path):
    (tmp_path / "other.json").write_text('{"settings": {}}')
    with pytest.raises(DataError, match="--join"):
        study("potentials_scorecard").earlier(tmp_path / "other.json")
