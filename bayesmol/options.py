"""What the commands of ``bayesmol`` have in common: their options, how they fail, and how they are registered."""

import inspect
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from bayesmol.data.named import checked_device
from bayesmol.errors import BayesmolError, DataError, expected
from bayesmol.report import Study

__all__ = ["COMMON", "Commands", "check_output", "commands"]

DATA = (
    "A file that ASE reads (extended xyz, VASP, traj, …), an rMD17 npz, a DeePMD folder, an mlearn json, or the name "
    "of a set that ships, such as rmd17/ethanol. NAME@FROM:TO takes some of the frames, as in ASE."
)
Data = Annotated[str, typer.Argument(help=DATA, show_default=False)]
Optional = Annotated[str | None, typer.Argument(help=DATA, show_default=False)]
Judged = Annotated[
    Path,
    typer.Argument(help="A file that fit or certify has written, or a table of predictions.", show_default=False),
]
Pictures = Annotated[Path | None, typer.Option("--figures", help="Write plots (PNG) into this folder.")]
Fitted = Annotated[Path, typer.Argument(help="A file that fit or certify has written.", show_default=False)]
Known = Annotated[Path, typer.Option("--model", help="A file that fit or certify has written.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "--output", "-o", help="File to write.", show_default=False)]
Folder = Annotated[Path, typer.Option("--out", "--output", "-o", help="Folder to write into.")]
Name = Annotated[Literal["ace", "gradient-gp"], typer.Option(help="BayesianACE, or GradientGP for one molecule.")]
TrainSize = Annotated[int | None, typer.Option(help="Use the first N frames; default: all.", min=1)]
Level = Annotated[float, typer.Option(help="Probability of the intervals, between 0 and 1.")]
Alarms = Annotated[float, typer.Option(help="At most this fraction of frames like CALIBRATION is called outside.")]
Size = Annotated[int, typer.Option("--size", "-n", help="Number of structures to choose.", min=1)]
Function = Annotated[
    str,
    typer.Option(
        help="What a label is worth: energy_variance, force_variance, max_force_deviation, relative_force_deviation, "
        "information; for a target predictive_information or integrated_variance."
    ),
]
Batch = Annotated[
    Literal["logdet", "reduction", "lcmd", "k-centre", "top"],
    typer.Option(help="What a batch is good for together: information, the target, clusters, distances; top: nothing."),
]
Target = Annotated[str | None, typer.Option("--target", help="Structures on which the model shall be good.")]
Inside = Annotated[bool, typer.Option("--inside", help="Only candidates in the domain of a certified model.")]
Units = Annotated[
    str, typer.Option(help="Units of energy and length in the file, like kcal/mol,Å.", show_default="auto")
]
Configuration = Annotated[Path, typer.Argument(help="A TOML file; see the example below.", show_default=False)]
Told = Annotated[str | None, typer.Option("--tell", help="Labelled structures that were asked for.")]
Replay = Annotated[bool, typer.Option("--replay", help="Make all decisions again and compare, nothing else.")]
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
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # names of files need not be text
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().invoke(ctx)
        except (BayesmolError, OSError) as error:
            line = escape(" ".join(str(error).split()))
            Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] [red]{line}[/]", highlight=False)
            raise typer.Exit(2) from error


def commands(app: typer.Typer) -> Callable[..., Callable[[Callable[..., Study]], Callable[..., None]]]:
    """Decorator, with an epilog for the help, that registers a function ``(study, …) -> Study`` as a command of ``app``
    with the options that all commands have."""

    def command(epilog: str = "") -> Callable[[Callable[..., Study]], Callable[..., None]]:
        return lambda function: _registered(app, function, epilog)

    return command


def _registered(app: typer.Typer, function: Callable[..., Study], epilog: str) -> Callable[..., None]:
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
        hint: Any = Annotated[kind, option]
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint))
    vars(run)["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    text = "\n\n".join(part if "\b" in part else " ".join(part.split()) for part in paragraphs)
    app.command(function.__name__, help=text, epilog=epilog)(run)
    return run


def check_output(option: str, path: Path, *, force: bool = False) -> None:
    """Raise :class:`DataError` if ``path`` cannot be written, or would replace what no run makes again."""
    if str(path).startswith("-"):  # an option where its own argument is missing
        raise DataError(expected(option, "the name of a file", path, f"./{path} if it is one"))
    folder = path.resolve().parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise DataError(expected(option, "a file in a folder that can be written", path))
    old = path.read_bytes() if path.exists() else b""
    if old and not force and not (option == "--json" and b'"study": "bayesmol"' in old[:99]):
        raise DataError(expected(option, "a new file", f"{path}, which exists", "--force replaces it"))
