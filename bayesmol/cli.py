"""The ``bayesmol`` command and its subcommands, one a task."""

from pathlib import Path
from typing import Annotated, Any

import typer

import bayesmol as bm
from bayesmol import campaigning, judging, kinetics, sampling, vmc
from bayesmol import quickstart as story
from bayesmol.data import Labelled
from bayesmol.data.named import named
from bayesmol.errors import DataError, expected
from bayesmol.options import (
    Alarms,
    Batch,
    Commands,
    Configuration,
    Data,
    Fitted,
    Folder,
    Function,
    Inside,
    Judged,
    Known,
    Level,
    Name,
    Optional,
    Out,
    Pictures,
    Replay,
    Size,
    Target,
    Told,
    TrainSize,
    Units,
    commands,
)
from bayesmol.report import Study

__all__ = ["app"]

app = typer.Typer(cls=Commands, epilog="Start with: bayesmol quickstart", no_args_is_help=True, add_completion=False)
command = commands(app)


def _version(asked: bool) -> bool:
    if asked:
        typer.echo(f"bayesmol {bm.__version__}")
        raise typer.Exit()
    return asked


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback()
def _main(_: Version = False) -> None:
    """Bayesian machine learning for molecular simulation: every number with an error bar that holds."""


@command(epilog="Next: bayesmol certify MODEL CALIBRATION --out FILE")
def fit(
    study: Study, train: Data, out: Out, model: Name = "ace", train_size: TrainSize = None, units: Units = ""
) -> Study:
    """Fit a potential to energies and forces.

    Prints what leaving out one structure at a time says of its accuracy and of its error bars.

    Examples:

    \b
    bayesmol fit train.extxyz --out model.bm
    bayesmol fit rmd17/ethanol@:50 --out ethanol.bm
    bayesmol fit rmd17_aspirin.npz --train-size 100 --model gradient-gp --out aspirin.bm --json fit.json
    """
    labelled = _data(study, train, units)
    if train_size is not None:
        labelled = labelled.split(train_size)[0]
    specification = bm.potentials.BayesianACE() if model == "ace" else bm.potentials.GradientGP()
    with study.stage("train"):
        fitted = specification.fit(labelled, seed=study.settings["seed"])
    with study.stage("leave-one-out"):
        study.judge(fitted.leave_one_out(), labelled, seed=study.settings["seed"], prefix="leave_one_out_")
    bm.save(fitted, out)
    study.add("train_frames", len(labelled))
    study.add("train_cpu_seconds", study.cpu_seconds["train"], "s")
    study.notes += [f"trained on {_cited(labelled, train)}", f"written: {out}"]
    study.title = f"{model}, leaving out one structure at a time"
    return study


@command(epilog="Next: bayesmol predict FILE STRUCTURES --out predicted.extxyz")
def certify(
    study: Study,
    model: Fitted,
    out: Out,
    calibration: Optional = None,
    level: Level = 0.9,
    false_alarms: Alarms = 0.02,
    units: Units = "",
) -> Study:
    """Give a potential intervals that hold whatever the model, and a domain of applicability.

    CALIBRATION are labelled frames that the model has not seen, drawn like those to be predicted; 150 or more.
    Without them the training frames serve, each predicted by a model that leaves it out: the guarantees are then
    approximate.

    Examples:

    \b
    bayesmol certify model.bm calibration.extxyz --out certified.bm
    bayesmol certify ethanol.bm rmd17/ethanol@50:250 --out certified.bm --level 0.95
    """
    known = _model(_loaded(study, model))
    labelled = None if calibration is None else _data(study, calibration, units)
    with study.stage("certify"):
        domain = bm.applicability.Domain(level=false_alarms)
        certified = bm.certify(known, labelled, level=level, domain=domain)
    bm.save(certified, out)
    study.add("calibration_frames", 0 if labelled is None else len(labelled))
    study.notes += [*(f"{name}: {sentence}" for name, sentence in certified.guarantees.items()), f"written: {out}"]
    return study


@command(epilog="ase.io.read reads the file that is written.")
def predict(study: Study, model: Fitted, structures: Data, out: Out, level: Level = 0.9, units: Units = "") -> Study:
    """Predict energies and forces with standard deviations, intervals and the verdict of the domain.

    Writes extended xyz. Energy, forces and stress are the means; info has energy_stddev, energy_lower, energy_upper,
    level, inside and p_value; arrays has forces_stddev, forces_lower and forces_upper. Labels of the input become
    REF_energy and REF_forces.

    Examples:

    \b
    bayesmol predict certified.bm new.extxyz --out predicted.extxyz
    bayesmol predict certified.bm run.traj@-100: --out last.extxyz --level 0.95 --json -
    """
    known, given = _loaded(study, model), _data(study, structures, units)
    with study.stage("predict"):
        prediction = known.predict(given.structures)
    bm.data.write(out, given, prediction, level=level)
    study.add("structures", len(given))
    study.add("median_energy_stddev", float(prediction.energy.stddev.median()), "eV")
    study.add("median_force_stddev", float(prediction.forces.stddev.median()), "eV/Å")
    if prediction.inside is not None:
        study.add("outside", int((~prediction.inside).sum()))
    study.add("predict_cpu_milliseconds", 1000 * study.cpu_seconds["predict"] / len(given), "ms/structure")
    for name, posterior in {"energy": prediction.energy, "a force component": prediction.forces}.items():
        study.notes.append(f"interval of {name}: {posterior.interval(level).guarantee}")
    study.notes.append(f"written: {out}")
    return study


@command()
def evaluate(study: Study, model: Judged, test: Optional = None, units: Units = "", figures: Pictures = None) -> Study:
    """Compare predictions with labels: how accurate they are, and whether the error bars are true.

    Of a MODEL and labelled frames: figures with standard errors by a bootstrap over structures; coverages are those of
    90 % intervals. Of predictions alone, by any program: every statistic with its 95 % interval, with what it would be
    if the error bars were exactly true, and a verdict with 5 % false alarms. These are a csv with columns mean,
    stddev, truth, and, if there are any, error (of the label), group (of dependent rows) and what else to judge along;
    or structures with energy_stddev and REF_energy, forces_stddev and REF_forces, as predict writes them.

    Examples:

    \b
    bayesmol evaluate certified.bm test.extxyz
    bayesmol evaluate certified.bm rmd17/ethanol/test --json figures.json
    bayesmol evaluate predicted.extxyz --figures plots --json -
    bayesmol evaluate predictions.csv --units kcal/mol
    """
    if test is None:
        return judging.judge(study, model, unit=units, figures=figures)
    known, labelled = _loaded(study, model), _data(study, test, units)
    with study.stage("predict"):
        prediction = known.predict(labelled.structures)
    with study.stage("evaluate"):
        study.judge(prediction, labelled, seed=study.settings["seed"])
    if figures is not None:
        judging.draw(study, prediction, labelled, figures)
    study.add("predict_cpu_milliseconds", 1000 * study.cpu_seconds["predict"] / len(labelled), "ms/structure")
    study.notes.append(f"tested on {_cited(labelled, test)}")
    return study


@command()
def acquire(
    study: Study,
    pool: Data,
    model: Known,
    out: Out,
    size: Size = 10,
    function: Function = "force_variance",
    batch: Batch = "logdet",
    target: Target = None,
    inside: Inside = False,
    units: Units = "",
) -> Study:
    """Choose the structures to label next: by default those whose forces together tell the model most.

    Examples:

    \b
    bayesmol acquire candidates.extxyz --model certified.bm -n 10 --out chosen.extxyz
    bayesmol acquire rmd17/ethanol@1250: --model certified.bm -n 20 --inside --out chosen.extxyz --json -
    """
    known, candidates = _loaded(study, model), _data(study, pool, units)
    domain = getattr(known, "domain", None) if inside else None
    if inside and domain is None:
        raise DataError(expected("--inside", "a certified model", f"{model} without domain", "run bayesmol certify"))
    with study.stage("acquire"):
        options = {"seed": study.settings["seed"], "domain": domain, "function": function, "batch": batch}
        options["target"] = None if target is None else _data(study, target, units).structures
        chosen = story.next_structures(study, _model(known), candidates, size, **options)
    bm.data.write(out, candidates[chosen.indices.to(candidates.structures.pointer.device)])
    study.settings["chosen"] = chosen.indices.tolist()
    pairs = zip(chosen.indices.tolist(), chosen.gains.tolist(), strict=True)
    listed = ", ".join(f"{index} ({gain:.3g})" for index, gain in pairs)
    study.notes.append(f"candidates in the order of choice ({_gain(batch)}): {listed}")
    study.notes += [f"{len(chosen.skipped)} candidates are outside of the domain"] if inside else []
    study.notes.append(f"written: {out}")
    return study


@command(epilog="Killed at any point, the same command goes on where it was.")
def campaign(study: Study, configuration: Configuration, tell: Told = None, replay: Replay = False) -> Study:
    """Label, learn and choose again, within a budget, as a file describes.

    Writes ledger.jsonl, labels and models into the folder of the campaign, and model.bm when it is over: certified by
    the structures that were kept aside. Without a reference it writes query.extxyz, the structures to label; give
    their labels by --tell.

    Example of CONFIGURATION:

    \b
    pool = "candidates.extxyz"   # a file, or a set that ships, like rmd17/ethanol
    budget = 200                 # labels in all
    size = 10                    # labels between two decisions
    holdout = 60                 # of the budget: kept aside to judge
    \\[model]
    kind = "ace"
    \\[reference]
    kind = "tblite"              # or pyscf, or none
    method = "GFN2-xTB"
    \\[stop]
    target = 0.1                 # eV/Å, mean error of 90 % of structures
    """
    return campaigning.advance(study, configuration, tell=tell, replay=replay)


command(epilog="Estimates: bm.flows.BoltzmannDraws of the positions and log_weights in OUT.")(sampling.sample)
command(epilog="Next: open the page of --report, or bayesmol vmc MODEL.bm --draws 8000")(vmc.vmc)
command(epilog="Next: open the page of --report; then a longer --lag, and other --features")(kinetics.kinetics)


@command(epilog="Then: bayesmol predict quickstart/ethanol.bm YOUR_FILE --out predicted.extxyz")
def quickstart(study: Study, folder: Folder = Path("quickstart")) -> Study:
    """Everything once, on data that ship: a certified potential of ethanol in under three minutes.

    Fits 50 frames of rMD17 ethanol, certifies on 200, predicts 1000 others with intervals, says which torn molecules
    are outside of the domain, chooses ten structures to label next, and writes report.html, ethanol.bm and
    chosen.extxyz into the folder. Running it again replaces these.

    Examples:

    \b
    bayesmol quickstart
    bayesmol quickstart --out first --json first.json
    """
    story.quickstart(folder, study)
    study.notes.append(f"read {folder / story.FILES['report']}")
    return study


def _data(study: Study, name: str, units: str) -> Labelled:
    energy, length = ([part.strip() or None for part in units.split(",")] + [None])[:2]
    return named(name, energy_unit=energy, length_unit=length).to(study.settings["device"])


def _loaded(study: Study, path: Path) -> Any:
    device = study.settings["device"]
    return bm.load(path) if device == "cpu" else bm.load(path, device=device)


def _model(known: Any) -> Any:
    """The potential itself, of a certified or a plain one."""
    return getattr(known, "model", known)


def _gain(batch: str) -> str:
    """What the gain of a choice is."""
    known = {"logdet": "information in nat", "reduction": "variance taken away in (eV/Å)²", "top": "value"}
    return known.get(batch, "weighted squared distance")


def _cited(labelled: Labelled, name: str) -> str:
    source, frames = labelled.source, f"{len(labelled)} frames of {name}"
    return frames if source is None else f"{frames} ({source.citation}; licence {source.licence})"
