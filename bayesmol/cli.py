"""The ``bayesmol`` command: fit, certify, predict, evaluate, acquire, quickstart."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

import bayesmol as bm
from bayesmol import quickstart as story
from bayesmol.data import Labelled
from bayesmol.data.named import checked_device, named
from bayesmol.errors import BayesmolError, DataError, expected
from bayesmol.report import Study

__all__ = ["app"]

DATA = (
    "A file that ASE reads (extended xyz, VASP, traj, …), an rMD17 npz, a DeePMD folder, an mlearn json, or the name "
    "of a set that ships, such as rmd17/ethanol. NAME@FROM:TO takes some of the frames, as in ASE."
)
Data = Annotated[str, typer.Argument(help=DATA, show_default=False)]
Optional = Annotated[str | None, typer.Argument(help=DATA, show_default=False)]
Fitted = Annotated[Path, typer.Argument(help="A file that fit or certify has written.", show_default=False)]
Known = Annotated[Path, typer.Option("--model", help="A file that fit or certify has written.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "--output", "-o", help="File to write.", show_default=False)]
Folder = Annotated[Path, typer.Option("--out", "--output", "-o", help="Folder to write into.")]
Name = Annotated[Literal["ace", "gradient-gp"], typer.Option(help="BayesianACE, or GradientGP for one molecule.")]
TrainSize = Annotated[int | None, typer.Option(help="Use the first N frames; default: all.", min=1)]
Level = Annotated[float, typer.Option(help="Probability of the intervals, between 0 and 1.")]
Alarms = Annotated[float, typer.Option(help="At most this fraction of frames like CALIBRATION is called outside.")]
Size = Annotated[int, typer.Option("--size", "-n", help="Number of structures to choose.", min=1)]
Inside = Annotated[bool, typer.Option("--inside", help="Only candidates in the domain of a certified model.")]
Units = Annotated[
    str, typer.Option(help="Units of energy and length in the file, like kcal/mol,Å.", show_default="auto")
]
COMMON = {
    "json": (Path | None, None, typer.Option("--json", help="Write figures, times and versions as JSON; -: print it.")),
    "seed": (int, 0, typer.Option(help="Same seed, same result.")),
    "device": (str, "cpu", typer.Option(help="Where to compute: cpu, cuda, cuda:1, …")),
    "force": (bool, False, typer.Option("--force", help="Replace files that exist.")),
}


class Commands(TyperGroup):
    """Commands that answer bad input with one line and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error that bayesmol or the system raises on purpose needs no traceback."""
        try:
            return super().invoke(ctx)
        except (BayesmolError, OSError) as error:
            line = escape(" ".join(str(error).split()))
            Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] [red]{line}[/]", highlight=False)
            raise typer.Exit(2) from error


app = typer.Typer(cls=Commands, epilog="Start with: bayesmol quickstart", no_args_is_help=True, add_completion=False)


def _version(asked: bool) -> bool:
    if asked:
        typer.echo(f"bayesmol {bm.__version__}")
        raise typer.Exit()
    return asked


Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")]


@app.callback()
def _main(_: Version = False) -> None:
    """Bayesian machine learning for molecular simulation: every number with an error bar that holds."""


def command(epilog: str = "") -> Callable[[Callable[..., Study]], Callable[..., None]]:
    """Register a function ``(study, …) -> Study`` as a command with the options that all commands have."""

    def register(function: Callable[..., Study]) -> Callable[..., None]:
        def run(*, json: Path | None, force: bool, **given: Any) -> None:
            checked_device(given["device"])
            for option, path in (("--out", given.get("out")), ("--json", json)):
                if path is not None and (option, path) != ("--json", Path("-")):
                    check_output(option, path, force=force)
            study = Study("bayesmol", function.__name__, given, console=Console(stderr=json == Path("-")))
            function(study, **{name: value for name, value in given.items() if name not in COMMON}).finish(json)

        own = list(inspect.signature(function).parameters.values())[1:]
        parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in own]
        for name, (kind, default, option) in COMMON.items():
            hint = Annotated[kind, option]
            parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint))
        run.__signature__ = inspect.Signature(parameters)
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        paragraphs = inspect.getdoc(function).split("\n\n")
        text = "\n\n".join(part if "\b" in part else " ".join(part.split()) for part in paragraphs)
        app.command(function.__name__, help=text, epilog=epilog)(run)
        return run

    return register


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
def evaluate(study: Study, model: Fitted, test: Data, units: Units = "") -> Study:
    """Compare predictions with labels: how accurate they are, and whether the error bars are true.

    Each figure has a standard error by a bootstrap over structures. Coverages are those of 90 % intervals.

    Examples:

    \b
    bayesmol evaluate certified.bm test.extxyz
    bayesmol evaluate certified.bm rmd17/ethanol/test --json figures.json
    """
    known, labelled = _loaded(study, model), _data(study, test, units)
    with study.stage("predict"):
        prediction = known.predict(labelled.structures)
    with study.stage("evaluate"):
        study.judge(prediction, labelled, seed=study.settings["seed"])
    study.add("predict_cpu_milliseconds", 1000 * study.cpu_seconds["predict"] / len(labelled), "ms/structure")
    study.notes.append(f"tested on {_cited(labelled, test)}")
    return study


@command()
def acquire(
    study: Study, pool: Data, model: Known, out: Out, size: Size = 10, inside: Inside = False, units: Units = ""
) -> Study:
    """Choose the structures to label next: those whose forces together tell the model most.

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
        chosen = story.next_structures(
            study, _model(known), candidates, size, seed=study.settings["seed"], domain=domain
        )
    bm.data.write(out, candidates[chosen.indices.to(candidates.structures.pointer.device)])
    study.settings["chosen"] = chosen.indices.tolist()
    pairs = zip(chosen.indices.tolist(), chosen.gains.tolist(), strict=True)
    listed = ", ".join(f"{index} ({gain:.1f})" for index, gain in pairs)
    study.notes.append(f"candidates in the order of choice (information in nat): {listed}")
    study.notes += [f"{len(chosen.skipped)} candidates are outside of the domain"] if inside else []
    study.notes.append(f"written: {out}")
    return study


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


def check_output(option: str, path: Path, *, force: bool = False) -> None:
    """Raise :class:`DataError` if ``path`` cannot be written, or would replace what no run makes again."""
    folder = path.resolve().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise DataError(expected(option, "a file in a folder that can be written", path))
    old = path.read_bytes() if path.exists() else b""
    if old and not force and not (option == "--json" and b'"study": "bayesmol"' in old[:99]):
        raise DataError(expected(option, "a new file", f"{path}, which exists", "--force replaces it"))


def _data(study: Study, name: str, units: str) -> Labelled:
    energy, length = ([part.strip() or None for part in units.split(",")] + [None])[:2]
    return named(name, energy_unit=energy, length_unit=length).to(study.settings["device"])


def _loaded(study: Study, path: Path) -> Any:
    device = study.settings["device"]
    return bm.load(path) if device == "cpu" else bm.load(path, device=device)


def _model(known: Any) -> Any:
    """The potential itself, of a certified or a plain one."""
    return getattr(known, "model", known)


def _cited(labelled: Labelled, name: str) -> str:
    source, frames = labelled.source, f"{len(labelled)} frames of {name}"
    return frames if source is None else f"{frames} ({source.citation}; licence {source.licence})"
