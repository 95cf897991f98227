"""Tables of measured figures from the JSON files of the studies: ``python experiments/tables.py RESULTS``.

Every study takes ``--json FILE``; with all of these files in one folder, this prints each figure with its standard
error, its target and whether that is met, and which studies have no file there. ``--readme README.md`` also renews the
rows of the accuracy table of potentials that have one.
"""

import ast
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from harness import run

from bayesmol.errors import DataError, expected
from bayesmol.report import Figure, write_text

BEGIN, END = "<!-- FIGURES", "<!-- /FIGURES -->"
app = typer.Typer(add_completion=False)


@app.command()
def tables(
    results: Annotated[Path, typer.Argument(help="Folder with JSON files of studies.")],
    out: Annotated[Path | None, typer.Option(help="Write the tables here instead of printing them.")] = None,
    readme: Annotated[Path | None, typer.Option(help="File whose accuracy table is renewed.")] = None,
) -> None:
    """All figures of the studies whose JSON files are in a folder, with targets, and what is missing."""
    found = studies(results)
    text = "\n\n".join([*map(table, found), summary(found)]) + "\n"
    typer.echo(text, nl=False) if out is None else write_text(out, text)
    if readme is not None:
        write_text(readme, renewed(readme.read_text(encoding="utf-8"), accuracy(found)))


def studies(folder: Path) -> list[dict[str, Any]]:
    """Contents of all JSON files of studies below a folder, by study, command and file.

    Raises
    ------
    DataError
        If there are none, or a file is cut.
    """
    found = []
    for path in sorted(folder.rglob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(expected(str(path), "the JSON file of a study", str(error), "run it again")) from error
        if isinstance(content, dict) and {"study", "command", "figures", "targets"} <= content.keys():
            found.append(content | {"file": path.relative_to(folder).as_posix()})
    if not found:
        raise DataError(expected("results", "JSON files of studies", f"none in {folder}", "give studies --json FILE"))
    return sorted(found, key=lambda one: (one["study"], one["command"], one["file"]))


def figures(content: dict[str, Any]) -> dict[str, Figure]:
    """Figures of a study as it had them; a number that was not finite is NaN."""
    found = {}
    for name, value in content["figures"].items():
        lower, upper = content["targets"].get(name, (None, None))
        unit, error = content["units"].get(name, ""), content["standard_errors"].get(name)
        found[name] = Figure(float("nan") if value is None else value, unit, error, lower, upper)
    return found


def table(content: dict[str, Any]) -> str:
    """One study in Markdown."""
    lines = [f"### {content['study']} {content['command']} ({content['file']})", ""]
    lines += ["| figure | measured | target | |", "|---|---|---|---|"]
    for name, figure in figures(content).items():
        verdict = ("met" if figure.met else "**missed**") if figure.target else ""
        lines.append(f"| {name} | {figure} | {figure.target} | {verdict} |")
    seconds = sum(content["cpu_seconds"].values())
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    return "\n".join([*lines, "", f"{seconds:.0f} CPU s; {versions}."])


def summary(found: list[dict[str, Any]]) -> str:
    """How many targets are met, which are not, and which studies have no file."""
    judged = [(one, name, figure) for one in found for name, figure in figures(one).items() if figure.target]
    missed = [f"- missed: {one['study']} {one['command']}, {name}" for one, name, f in judged if not f.met]
    absent = [f"- no results: {study} {command}" for study, command in sorted(known() - ran(found))]
    return "\n".join(["### All", "", f"{len(judged) - len(missed)} of {len(judged)} targets met.", *missed, *absent])


def ran(found: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """Study and command of each result; what follows the command, as a target, is left out."""
    return {(one["study"], one["command"].split()[0]) for one in found}


def known() -> set[tuple[str, str]]:
    """Study and command of all studies, from the calls ``Study(study, command, …)`` in their files."""
    found = set()
    for path in Path(__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Study" and len(node.args) > 2:
                study, command = (ast.unparse(part).lstrip("f").strip("'\"") for part in node.args[:2])
                found |= {(study, command.split()[0])} if path.stem.startswith(study) else set()
    return found


def accuracy(found: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Cells of the README's table of rMD17 by the first of them, from ``potentials.py learn --model ace``."""
    rows = {}
    for one in found:
        settings, values = one["settings"], figures(one)
        train = Path(str(settings.get("train"))).name
        if ran([one]) != {("potentials", "learn")} or settings.get("model") != "ace" or not train.startswith("rmd17_"):
            continue
        first = f"{train.split('_')[1]}, {settings['train_frames']}"
        numbers = [f"{1000 * values[name].value:.1f}" for name in ("energy_mae", "force_mae")]
        shares = " / ".join(f"{values[f'force_{name}_90'].value:.3f}" for name in ("coverage", "conformal"))
        rows[first] = [first, *numbers, shares, f"{one['cpu_seconds']['train']:.0f}"]
    return rows


def renewed(text: str, rows: dict[str, list[str]]) -> str:
    """The text with these cells between its marks; rows without results stay, and so do columns that are not ours.

    Raises
    ------
    DataError
        If there are no marks.
    """
    if BEGIN not in text or END not in text:
        raise DataError(expected("--readme", f"a file with {BEGIN} … {END}", "one without"))
    head, rest = text.split(BEGIN, 1)
    block, tail = rest.split(END, 1)
    lines = block.split("\n")
    for place, line in enumerate(lines):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if new := rows.get(cells[0]):
            lines[place] = f"| {' | '.join([*new, *cells[len(new) :]])} |"
    return head + BEGIN + "\n".join(lines) + END + tail


if __name__ == "__main__":
    run(app)
