"""The quickstart, small: it writes its three files, and its figures are those of the model that it saved."""

import base64
import io
import json
import re

import pytest
import torch
from rich.console import Console

import bayesmol as bm
from bayesmol.errors import DataError
from bayesmol.quickstart import FILES, Assessed, check_folder, next_structures, quickstart
from bayesmol.report import Study

SIZES = (10, 150, 12, 20)
FIGURES = {
    "energy_mae", "energy_rmse", "force_mae", "force_rmse", "energy_coverage_90", "force_coverage_90",
    "energy_conformal_90", "force_conformal_90", "energy_z_std", "force_z_std", "energy_nll", "force_nll",
    "energy_miscalibration_area", "force_miscalibration_area", "force_crps", "auroc", "false_alarm_rate",
    "train_cpu_seconds", "predict_cpu_milliseconds",
}  # fmt: skip


def run(folder):
    console = Console(file=io.StringIO(), record=True, width=120)
    study = Study("bayesmol", "quickstart", {"seed": 0, "device": "cpu"}, console=console)
    assert quickstart(folder, study, sizes=SIZES, batch=3) is study
    study.finish(folder / "figures.json")
    return study, console.export_text()


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    return folder, *run(folder)


def test_it_has_the_figures_of_all_studies(outcome):
    folder, study, _ = outcome
    content = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    assert set(content["figures"]) >= FIGURES
    assert all(content["figures"][name] is not None for name in FIGURES)
    assert content["settings"]["train_frames"] == SIZES[0]
    assert set(content["cpu_seconds"]) >= {"train", "certify", "predict", "evaluate", "probe", "acquire"}
    assert study.figures["train_cpu_seconds"].value == content["cpu_seconds"]["train"]


def test_the_saved_model_gives_the_figures(outcome):
    folder, study, _ = outcome
    certified = bm.load(folder / FILES["model"])
    test = bm.data.load("rmd17/ethanol").split(*SIZES)[2]
    prediction = certified.predict(test.structures)
    assert study.figures["force_mae"].value == pytest.approx(float((prediction.forces.mean - test.forces).abs().mean()))
    covered = prediction.energy.interval(0.9).covered(test.energies)
    assert study.figures["energy_conformal_90"].value == pytest.approx(covered)
    assert study.figures["false_alarm_rate"].value == pytest.approx(float((~prediction.inside).double().mean()))


def test_torn_molecules_are_stranger_than_test_frames(outcome):
    assert outcome[1].figures["auroc"].value > 0.9
    assert outcome[1].figures["dimers_flagged"].value > 0.9


def test_chosen_structures_are_candidates_and_tell_more_than_random_ones(outcome):
    folder, study, text = outcome
    chosen = bm.data.read(folder / FILES["chosen"])
    pool = bm.data.load("rmd17/ethanol").split(*SIZES)[3]
    assert len(chosen) == 3
    for energy in chosen.energies:
        assert float((pool.energies - energy).abs().min()) < 1e-6
    assert study.figures["chosen_information"].value >= study.figures["random_information"].value
    assert "label these frames of rmd17/ethanol next" in text


def test_the_report_is_whole_in_itself(outcome):
    text = (outcome[0] / FILES["report"]).read_text(encoding="utf-8")
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(images) == 5
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert not re.search(r'(src|href)="(?!data:)', text)
    for part in ("CC0-1.0", "MIT", "Christensen", "Batatia", "guaranteed", "exchangeable", bm.__version__, "auroc"):
        assert part in text


@pytest.mark.slow
def test_a_second_run_replaces_the_first_with_the_same_figures(outcome):
    folder, first, _ = outcome
    second, _ = run(folder)
    for name in FIGURES - {"train_cpu_seconds", "predict_cpu_milliseconds"}:
        assert second.figures[name].value == first.figures[name].value
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES.values(), "figures.json"])


def test_files_of_others_are_not_replaced(tmp_path):
    check_folder(tmp_path / "new")
    check_folder(tmp_path)
    (tmp_path / "report.html").write_text("my report", encoding="utf-8")
    with pytest.raises(DataError, match=r"report\.html"):
        check_folder(tmp_path)
    with pytest.raises(DataError, match="folder"):
        check_folder(tmp_path / "report.html")


def test_wrong_and_outside_are_judged_by_energy_and_score():
    class Model:
        def strangeness(self, structures, prediction=None):
            return torch.tensor([0.0, 5.0]).double()

    class Certified:
        model = Model()
        domain = bm.applicability.Domain(level=0.1).calibrate(torch.linspace(0, 1, 100).double())

        def predict(self, structures):
            energy = bm.posterior.Gaussian(
                data.energies + torch.tensor([0.05, -0.2]), torch.ones(2).double(), unit="eV"
            )
            zeros = torch.zeros_like(structures.positions)
            return bm.posterior.Prediction(
                energy, bm.posterior.Gaussian(zeros, zeros + 1, unit="eV/Å"), structures.pointer
            )

    data = bm.data.load("ethanol/h-removal")[:2]
    assessed = Assessed(Certified(), data)
    assert assessed.wrong.tolist() == [False, True]
    assert assessed.outside.tolist() == [False, True]


def test_a_batch_is_compared_with_a_random_one():
    class Model:
        noise_force = 1.0

        def force_factor(self, structures, rank=512, seed=0):
            return [torch.eye(6, 2).double() * float(p[1, 0]) for p in structures.positions.view(-1, 2, 3)]

        def strangeness(self, structures, prediction=None):
            return torch.zeros(len(structures)).double()

    from ase import Atoms

    pool = [Atoms("H2", [[0, 0, 0], [x, 0, 0]]) for x in (1.0, 3.0, 2.0)]
    study = Study("a", "b")
    selection = next_structures(study, Model(), pool, 1, seed=0)
    assert selection.indices.tolist() == [1]
    assert study.figures["chosen_information"].value == pytest.approx(torch.tensor(10.0).log().item())
    factor = (1.0, 3.0, 2.0)[int(selection.random_indices)]
    assert study.figures["random_information"].value == pytest.approx(torch.tensor(1 + factor**2).log().item())
