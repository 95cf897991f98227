"""What all studies share: their options, data by name or path, targets and references beside figures, plots as files.

The table and the JSON file of a study are those of :class:`bayesmol.report.Study`.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from scipy import stats
from torch import Tensor

from bayesmol.data import Labelled
from bayesmol.data.named import checked_device, named
from bayesmol.errors import BayesmolError, DataError, expected
from bayesmol.files import made, replacing
from bayesmol.posterior import Estimate

Seed = Annotated[int, typer.Option(help="Same seed, same figures.")]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1, …")]
Dtype = Annotated[str, typer.Option(help="Type of the data: float64 or float32; linear algebra stays in float64.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write settings, figures, times and versions here.")]
Plots = Annotated[Path | None, typer.Option("--figures", help="Write plots (PNG) into this folder.")]

_REFERENCES = Path(__file__).with_name("references.json")
_DTYPES = {"float64": torch.float64, "float32": torch.float32}


def labelled(name: str, device: str = "cpu", dtype: str = "float64") -> Labelled:
    """A data set by its path or by the name of a bundled one, see :func:`bayesmol.data.named.named`."""
    return placed(named(name), device, dtype)


def placed(found: Labelled, device: str, dtype: str) -> Labelled:
    """The same data on the device and in the type that an option names."""
    if dtype not in _DTYPES:
        raise DataError(expected("--dtype", list(_DTYPES), repr(dtype)))
    return found.to(checked_device(device), _DTYPES[dtype])


def average(values: Tensor, unit: str = "") -> Estimate:
    """Mean of independent numbers with its standard error."""
    values = values.detach().double().cpu()
    size = torch.tensor(float(len(values)), dtype=torch.float64)
    return Estimate(values.mean(), values.std() / size.sqrt(), size, unit)


def relative_width(values: Any, lower: Any, upper: Any, *, level: float = 0.95) -> float:
    """Mean width of intervals over the width that the scatter of the estimates asks for if they are normal.

    Rows are repetitions; of several columns, the mean. One is sharp and honest: less cannot hold, more is wasted.
    """
    values, lower, upper = (np.asarray(part, dtype=np.float64) for part in (values, lower, upper))
    asked = 2 * stats.norm.ppf((1 + level) / 2) * values.std(0, ddof=1)
    return float(((upper - lower).mean(0) / asked).mean())


def expectations(train: str, test: str, model: str, size: int) -> dict[str, dict[str, Any]]:
    """Targets (``lower``, ``upper``) and ``reference`` of each figure for a known pair of data sets, else nothing."""
    known = json.loads(_REFERENCES.read_text(encoding="utf-8"))
    names = [name.replace("/", "_").replace("\\", "_").lower() for name in (train, test)]
    found: dict[str, dict[str, Any]] = {}
    for molecule, table in known["rmd17"].items():
        if str(size) in table and all(f"rmd17_{molecule}" in name for name in names):
            for column, (figure, unit) in enumerate({"energy_mae": "meV", "force_mae": "meV/Å"}.items()):
                values = ", ".join(f"{who} {pair[column]:g}" for who, pair in table[str(size)].items())
                found[figure] = {"reference": f"{values} {unit}"}
    for entry in known["targets"]:
        places = zip((entry["train"], entry["test"]), names, strict=True)
        if entry["model"] == model and entry["size"] == size and all(key in name for key, name in places):
            for figure, (lower, upper) in entry["figures"].items():
                found.setdefault(figure, {}).update(lower=lower, upper=upper)
    return found


def save_figures(figures: dict[str, Any], folder: Path) -> list[str]:
    """Write Matplotlib figures as ``folder/NAME.png`` at 300 dots an inch; the lines say where."""
    paths = {made(folder) / f"{name}.png": figure for name, figure in figures.items()}
    for path, figure in paths.items():
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=300, format="png")
    return [f"plot: {path}" for path in paths]


def run(app: typer.Typer) -> None:
    """Run the commands of a study; bad input ends in one line that says what to do."""
    try:
        app()
    except BayesmolError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from error
