"""The small real data sets that ship with bayesmol, each with its licence and citation.

``files/sets.json`` names the sets; ``files/LICENSES.md`` has the texts of their licences;
``experiments/bundle.py`` makes the files from those published.
"""

import json
import math
from functools import cache
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from typing import Any

import torch

from bayesmol.data.formats import arrays
from bayesmol.data.labelled import Labelled, Source
from bayesmol.data.structures import Structures
from bayesmol.data.trajectory import Trajectories
from bayesmol.errors import DataError, expected
from bayesmol.units import convert

__all__ = ["load", "load_trajectories", "names"]


def names() -> list[str]:
    """Names that :func:`load` takes."""
    return list(_catalogue()["sets"])


def load(name: str) -> Labelled:
    """A data set that ships with bayesmol, in eV and Å; ``.source`` has its licence and citation.

    ``"rmd17/ethanol"`` has 250 frames of the training file of split 01, the 1000 of its test file, and the other 750
    of the training file: ``.split(50, 200, 1000)`` trains and calibrates on the one and tests on all of the other.
    ``"qmc/graphene"`` has energies of a cell of four atoms with their Monte-Carlo standard errors.

    Raises
    ------
    DataError
        If there is no such set, or it came without a licence.
    """
    if name not in _catalogue()["sets"]:
        raise DataError(expected("name", f"one of {', '.join(names())}", repr(name)))
    entry = _catalogue()["sets"][name]
    source = _source(entry.get("source", ""), name)
    with as_file(_folder() / entry["file"]) as path:
        data = _labelled(arrays(path), source)
    return data[_frames(entry["frames"])] if "frames" in entry else data


def load_trajectories(name: str) -> Trajectories:
    """Trajectories that ship with bayesmol.

    ``"alanine-dipeptide"``: cosine and sine of φ, then of ψ, (frames, 4), of independent runs of acetyl-alanine-
    N-methylamide at 300 K in the implicit solvent OBC2, made by ``experiments/kinetics.py generate``.

    Raises
    ------
    DataError
        If there are none of this name.
    """
    folder = _folder() / "trajectories"
    known = sorted(path.name.removesuffix(".npz") for path in folder.iterdir())
    if name not in known:
        raise DataError(expected("name", f"one of {', '.join(known)}", repr(name)))
    with as_file(folder / f"{name}.npz") as path:
        found = arrays(path)
    angles = torch.from_numpy(found["angles"]).double() * (math.pi / 32767)
    features = torch.stack([angles.cos(), angles.sin()], 2).flatten(1)
    return Trajectories(features.split(found["lengths"].tolist()), float(found["time_step_ps"]), "ps")


def _folder() -> Traversable:
    return files("bayesmol.data") / "files"


@cache
def _catalogue() -> dict[str, Any]:
    return json.loads((_folder() / "sets.json").read_text(encoding="utf-8"))


def _source(key: str, name: str) -> Source:
    """Source of a set; without licence, citation and address there is none."""
    fields = {field: _catalogue()["sources"].get(key, {}).get(field, "") for field in ("licence", "citation", "url")}
    if absent := [field for field, text in fields.items() if not text]:
        raise DataError(
            expected("name", f"a set with licence, citation and url in sets.json, for {name}", f"no {absent}")
        )
    return Source(name=name, **fields)


def _frames(ranges: list[list[int]]) -> torch.Tensor:
    return torch.cat([torch.arange(first, last) for first, last in ranges])


def _labelled(found: dict[str, Any], source: Source) -> Labelled:
    counts, unit = torch.from_numpy(found["counts"]).long(), str(found["energy_unit"])
    frames = counts.numel()
    labels = {}
    for label in ("energies", "forces", "energy_errors"):
        if label in found:
            units = (f"{unit}/Å", "eV/Å") if label == "forces" else (unit, "eV")
            labels[label] = convert(torch.from_numpy(found[label]).double(), *units)
    structures = Structures(
        torch.from_numpy(found["positions"]).double(),
        torch.from_numpy(found["species"]).long(),
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        torch.from_numpy(found["cell"]).double() if "cell" in found else torch.zeros(frames, 3, 3, dtype=torch.float64),
        torch.from_numpy(found["pbc"]) if "pbc" in found else torch.zeros(frames, 3, dtype=torch.bool),
    )
    return Labelled(structures, **labels, source=source)
