"""The quickstart: a certified potential of ethanol from 50 frames, judged on 1000 others and on torn molecules."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import bayesmol as bm
from bayesmol.calibration import coverage_band, plots, separation, summary
from bayesmol.data import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.files import made
from bayesmol.posterior import Prediction
from bayesmol.report import Study, page, proportion, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Plot

    from bayesmol.acquisition import Selection
    from bayesmol.certified import CertifiedModel

__all__ = ["FILES", "Assessed", "check_folder", "next_structures", "quickstart"]

LEVEL = 0.9
TOLERANCE = 0.1  # eV; an energy that is off by more is wrong
FILES = {"report": "report.html", "model": "ethanol.bm", "chosen": "chosen.extxyz"}
EXPECTATIONS: dict[str, dict[str, Any]] = {
    "energy_mae": {"upper": 0.0067, "reference": "MACE 6.7, linear ACE 8.6, NequIP 8.7, sGDML 16"},
    "force_mae": {"upper": 0.034, "reference": "MACE 32.6, NequIP 40.2, linear ACE 43.0, sGDML 82.5"},
    "force_coverage_90": {"lower": 0.88, "upper": 0.92},
    "force_miscalibration_area": {"upper": 0.01},
    "force_nll": {"upper": -1.8},
    "force_conformal_90": {"reference": "guaranteed: 0.9 on average over calibration sets"},
    "auroc": {"lower": 0.99},
    "false_alarm_rate": {"upper": 0.01},
    "train_cpu_seconds": {"upper": 60.0},
    "predict_cpu_milliseconds": {"upper": 10.0},
}


@dataclass(frozen=True, eq=False)
class Assessed:
    """Labelled structures with what a certified model says of them."""

    certified: CertifiedModel
    data: Labelled

    @cached_property
    def prediction(self) -> Prediction:
        """Energies, forces and verdicts."""
        return self.certified.predict(self.data.structures)

    @cached_property
    def scores(self) -> Float[Tensor, " structures"]:
        """Strangeness of each structure."""
        return self.certified.model.strangeness(self.data.structures, self.prediction)

    @property
    def outside(self) -> Bool[Tensor, " structures"]:
        """Which structures lie outside of the domain."""
        return ~self.certified.domain.assess(self.scores).inside

    @property
    def wrong(self) -> Bool[Tensor, " structures"]:
        """Which energies are off by more than ``TOLERANCE``."""
        return (self.prediction.energy.mean - self.data.given("energies")).abs() > TOLERANCE


def quickstart(
    folder: Path, study: Study, *, sizes: tuple[int, int, int, int] = (50, 200, 1000, 750), batch: int = 10
) -> Study:
    """Fit, certify, predict, probe and choose; write report, model and chosen structures into ``folder``.

    Parameters
    ----------
    study
        Its settings have ``seed`` and ``device``; it is filled and returned.
    sizes
        Frames of rMD17 ethanol to train, calibrate and test on, and candidates to choose from.
    batch
        Number of structures to choose.

    Raises
    ------
    DataError
        If ``folder`` holds files of these names that no quickstart has written.
    """
    check_folder(folder)
    seed, device = study.settings["seed"], study.settings["device"]
    names = ("train_frames", "calibration_frames", "test_frames", "candidates")
    study.settings |= dict(zip(names, sizes, strict=True)) | {"level": LEVEL}
    study.expectations = _expectations(sizes)
    study.title = f"ethanol, {sizes[0]} training and {sizes[2]} test frames (references in meV and meV/Å)"
    frames = bm.data.load("rmd17/ethanol").to(device)
    train, calibration, unseen, pool = frames.split(*sizes)
    with study.stage("train", f"fitted a potential to the forces and energies of {sizes[0]} frames"):
        model = bm.potentials.BayesianACE().fit(train, seed=seed)
    with study.stage("certify", f"certified it on {sizes[1]} others"):
        certified = bm.certify(model, calibration, level=LEVEL)
    test = Assessed(certified, unseen)
    with study.stage("predict", f"predicted {sizes[2]} unseen frames with intervals"):
        _ = test.prediction
    with study.stage("evaluate", "compared them with their labels"):
        for name, estimate in summary(test.prediction, unseen, seed=seed).items():
            study.add(name, estimate)
    probes = {name: Assessed(certified, bm.data.load(f"ethanol/{name}").to(device)) for name in ("h-removal", "dimers")}
    with study.stage("probe", "asked where the model may be trusted"):
        _judge(study, test, probes)
    with study.stage("acquire", f"chose the {batch} of {len(pool)} candidates to label next"):
        selection = next_structures(study, model, pool, batch, seed=seed)
    listed = ", ".join(str(sum(sizes[:3]) + index) for index in selection.indices.tolist())
    study.notes.append(f"label these frames of rmd17/ethanol next: {listed}")
    study.add("train_cpu_seconds", study.cpu_seconds["train"], "s")
    study.add("predict_cpu_milliseconds", 1000 * study.cpu_seconds["predict"] / len(unseen), "ms/structure")
    with study.stage("write", f"wrote {', '.join(FILES.values())} into {folder}"):
        made(folder)
        bm.save(certified, folder / FILES["model"])
        bm.data.write(folder / FILES["chosen"], pool[selection.indices.to(pool.structures.pointer.device)])
        rows = _chosen_rows(certified, selection, sum(sizes[:3]))
        write_text(folder / FILES["report"], _page(study, train, test, probes, rows))
    return study


def check_folder(folder: Path) -> None:
    """Raise :class:`DataError` if a quickstart would replace files that are not from a quickstart."""
    report = folder / FILES["report"]
    if folder.exists() and not folder.is_dir():
        raise DataError(expected("--out", "a folder", f"the file {folder}"))
    ours = report.is_file() and 'name="generator" content="bayesmol' in report.read_text(
        encoding="utf-8", errors="replace"
    )
    if not ours and (taken := [name for name in FILES.values() if (folder / name).exists()]):
        raise DataError(expected("--out", "a folder of its own", f"{folder} with {', '.join(taken)}", "name another"))


def next_structures(study: Study, model: Any, pool: Any, size: int, **options: Any) -> Selection:
    """Choose a batch, and keep the joint information of its forces and that of a random batch as figures."""
    selection = bm.acquisition.select(model, pool, size, **options)
    structures = bm.data.Structures.coerce(pool)
    for name, indices in {"chosen": selection.indices, "random": selection.random_indices}.items():
        batch = bm.acquisition.select(model, structures[indices], len(indices), seed=options["seed"])
        study.add(f"{name}_information", float(batch.gains.sum()), "nat")
    return selection


def _expectations(sizes: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    lower, upper = coverage_band(sizes[1], sizes[2], LEVEL)
    band = {"energy_conformal_90": {"reference": f"99 % band of the guarantee: {lower:.3g} to {upper:.3g}"}}
    return EXPECTATIONS | band


def _judge(study: Study, test: Assessed, probes: dict[str, Assessed]) -> None:
    """Figures of the domain: alarms on test frames and on probes, and whether the scores separate them."""
    study.add("false_alarm_rate", proportion(int(test.outside.sum()), len(test.data)))
    removal, wrong = probes["h-removal"], probes["h-removal"].wrong
    if bool(wrong.any()):
        study.add("auroc", separation(removal.scores[wrong], test.scores))
        study.add("h_removal_wrong_flagged", proportion(int((removal.outside & wrong).sum()), int(wrong.sum())))
    study.add("dimers_flagged", proportion(int(probes["dimers"].outside.sum()), len(probes["dimers"].data)))
    energies = removal.data.given("energies")
    lowest = energies.argmin()
    offset = float(removal.prediction.energy.mean[lowest] - energies[lowest])
    bond, seen = _bond(removal.data), ~removal.outside
    trusted = (
        f"inside at distances of {bond[seen].min():.2f} to {bond[seen].max():.2f} Å"
        if bool(seen.any())
        else "none inside"
    )
    study.notes += [
        f"outside of the domain: {int(removal.outside.sum())} of {len(bond)} frames in which an O–H bond is torn "
        f"({trusted}), and {int(probes['dimers'].outside.sum())} of {len(probes['dimers'].data)} pairs of atoms",
        f"{int(wrong.sum())} of the torn molecules have an energy that is off by more than {TOLERANCE:g} eV; scan and "
        f"training data are PBE/def2-SVP with one zero, and at the minimum of the scan the model is off by "
        f"{1000 * offset:.0f} meV",
    ]


def _chosen_rows(certified: CertifiedModel, selection: Selection, first: int) -> list[dict[str, str]]:
    prediction = certified.predict(selection.structures)
    rows = []
    for order, index in enumerate(selection.indices.tolist()):
        one = prediction[order]
        rows.append(
            {
                "order": str(order + 1),
                "frame of rmd17/ethanol": str(first + index),
                "information (nat)": f"{float(selection.gains[order]):.1f}",
                "energy, standard deviation (meV)": f"{1000 * float(one.energy.stddev[0]):.1f}",
                "largest of a force (meV/Å)": f"{1000 * float(one.forces.stddev.max()):.0f}",
                "inside the domain": "yes" if one.inside is None or bool(one.inside[0]) else "no",
            }
        )
    return rows


def _page(
    study: Study, train: Labelled, test: Assessed, probes: dict[str, Assessed], chosen: list[dict[str, str]]
) -> str:
    facts = {"training set, SHA-256": train.fingerprint}
    for name, source in {"rMD17": train.source, "probes": probes["dimers"].data.source}.items():
        if source is not None:
            facts[name] = f"{source.citation}. {source.url}. Licence: {source.licence}"
    lead = (
        f"A Bayesian potential of ethanol from {len(train)} frames of the revised MD17 set, certified on frames "
        f"that it has not seen, and judged on {len(test.data)} others."
    )
    certified = test.certified
    parts = {"guarantees": certified.guarantees, "facts": facts, "chosen": chosen}
    return page(study, "bayesmol quickstart: ethanol", lead, _plots(test, probes), **parts)


def _plots(test: Assessed, probes: dict[str, Assessed]) -> list[tuple[str, Plot]]:
    quantities = plots.quantities(test.prediction, test.data)
    removal, dimers = probes["h-removal"], probes["dimers"]
    scores = {
        f"test frames ({len(test.data)})": (test.scores, test.wrong),
        f"O–H bond torn ({len(removal.data)})": (removal.scores, removal.wrong),
        f"two atoms ({len(dimers.data)})": (dimers.scores, None),
    }
    path = _bond(removal.data), removal.prediction.energy, removal.data.given("energies"), ~removal.outside
    captions = {
        "Prediction against label with conformal 90 % intervals; below, the error.": plots.parity(
            *quantities, level=LEVEL
        ),
        "Observed against nominal coverage on the test frames; the diagonal is the truth.": plots.reliability(
            *quantities
        ),
        "Error against predicted standard deviation, in bins; the diagonal is the truth.": plots.width(*quantities),
        "Strangeness of test frames and probes; right of the line a structure is outside of the domain.": (
            plots.domain_scores(scores, test.certified.domain.threshold)
        ),
        "Energy while the hydroxyl hydrogen is pulled off, and what the domain says of each frame.": (
            plots.scan(*path, xlabel="distance O–H (Å)", level=LEVEL)
        ),
    }
    return list(captions.items())


def _bond(scan: Labelled) -> Float[Tensor, " structures"]:
    """Distance in Å between the atom that moves in a scan and the heavy atom that is nearest at the minimum."""
    structures = scan.structures
    positions = structures.positions.view(len(scan), -1, 3)
    moved = int((positions - positions[:1]).norm(dim=2).amax(0).argmax())
    lowest = positions[int(scan.given("energies").argmin())]
    distances = (lowest - lowest[moved]).norm(dim=1)
    partner = int(distances.masked_fill(structures.species[: positions.shape[1]] == 1, torch.inf).argmin())
    return (positions[:, moved] - positions[:, partner]).norm(dim=1)
