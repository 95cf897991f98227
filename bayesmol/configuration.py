"""Campaigns from a TOML file: tables of plain values become a pool, a model, a reference and rules."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from bayesmol.acquisition import Campaign, StopRule
from bayesmol.data.named import named
from bayesmol.data.reference import PySCF, TBLite
from bayesmol.errors import DataError, FormatError, expected
from bayesmol.potentials import BayesianACE, GradientGP
from bayesmol.potentials.ace_learning import MixingSchedule

__all__ = ["EXAMPLE", "campaign_from_toml"]

EXAMPLE = """\
pool = "candidates.extxyz"     # a file, or a set that ships; NAME@FROM:TO takes some of the frames
# initial = "train.extxyz"     # labels that are there already
folder = "run"                 # ledger, labels and models
budget = 200                   # labels in all
size = 10                      # labels between two decisions
holdout = 60                   # of the budget: kept aside, to judge and to certify

[model]
kind = "ace"                   # or "gradient-gp"; further entries are its settings
channels = [16, 16, 8]

[reference]
kind = "tblite"                # or "pyscf", or "none": labels come by --tell
method = "GFN2-xTB"

[select]
function = "force_variance"
batch = "logdet"

[stop]                         # before the budget is spent
target = 0.1                   # eV/Å
share = 0.9                    # of the structures have a smaller mean absolute force error …
confidence = 0.95              # … with this confidence
"""

_MODELS = {"ace": BayesianACE, "gradient-gp": GradientGP}
_REFERENCES = {"tblite": TBLite, "pyscf": PySCF}
_PLAIN = {"budget", "size", "holdout", "refit", "seed"}
_TABLES = {"model", "reference", "select", "stop"}


def campaign_from_toml(path: Path, *, seed: int = 0) -> Campaign:
    """The campaign that a TOML file describes, like :data:`EXAMPLE`; paths are relative to the file.

    ``seed`` is that of a file that names none.

    Raises
    ------
    FormatError
        If the file is no TOML.
    DataError
        If an entry is missing, unknown, or has no such value.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FormatError(expected(str(path), "a TOML file", str(error))) from error
    unknown = content.keys() - _PLAIN - _TABLES - {"pool", "initial", "folder"}
    if unknown or "pool" not in content:
        known = sorted(_PLAIN | _TABLES | {"pool", "initial", "folder"})
        raise DataError(expected(str(path), f"pool, and some of {', '.join(known)}", sorted(content)))
    for name in _TABLES & content.keys():
        if not isinstance(content[name], dict):
            raise DataError(expected(name, f"a table, [{name}]", repr(content[name])))
    stop = content.get("stop")
    initial = content.get("initial")
    return _made(
        "campaign",
        Campaign,
        folder=path.parent / content.get("folder", path.stem),
        model=_kind("model", content.get("model", {"kind": "ace"}), _MODELS),
        pool=_data(content["pool"], path).structures,
        initial=None if initial is None else _data(initial, path),
        reference=_kind("reference", content.get("reference", {"kind": "none"}), _REFERENCES),
        stop=None if stop is None else _made("stop", StopRule, **stop),
        options=content.get("select", {}),
        **{"seed": seed} | {name: content[name] for name in _PLAIN & content.keys()},
    )


def _data(name: Any, path: Path) -> Any:
    """Data beside the file, or by name."""
    if not isinstance(name, str):
        raise DataError(expected("pool, initial", "a file or the name of a set", repr(name)))
    beside = path.parent / name
    place = name.rpartition("@")[0] or name
    return named(str(beside) if (path.parent / place).exists() or beside.exists() else name)


def _kind(name: str, table: dict[str, Any], kinds: Mapping[str, Any]) -> Any:
    """Specification that a table describes by its kind and settings."""
    settings = dict(table)
    kind = settings.pop("kind", None)
    if name == "reference" and kind == "none":
        return None
    if kind not in kinds:
        raise DataError(expected(f"{name}.kind", " or ".join(map(repr, kinds)), repr(kind)))
    known = {field.name for field in fields(kinds[kind])}
    if strange := settings.keys() - known:
        raise DataError(expected(name, f"entries of {', '.join(sorted(known))}", sorted(strange)))
    return _made(name, kinds[kind], **{key: _value(key, value) for key, value in settings.items()})


def _value(key: str, value: Any) -> Any:
    if key == "mixing" and isinstance(value, dict):
        return _made("mixing", MixingSchedule, **value)
    return tuple(value) if isinstance(value, list) else value


def _made(name: str, kind: Callable[..., Any], **settings: Any) -> Any:
    try:
        return kind(**settings)
    except TypeError as error:
        raise DataError(expected(name, "settings that fit together", str(error))) from error
