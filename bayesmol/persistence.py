"""Models in files: one file each, a JSON header and the arrays in safetensors form, never pickle.

The metadata of the safetensors file have the single key ``bayesmol``: a JSON header with the format version, the kind
and header of the model, its provenance, the units, the versions of the packages, and a SHA-256 of all that and of the
arrays. What a reader should know of a model, it finds there without the arrays (:func:`describe`).
"""

import hashlib
import importlib
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor

import bayesmol
from bayesmol.errors import DataError, FormatError, expected
from bayesmol.files import replacing

__all__ = ["FORMAT", "KINDS", "describe", "load", "packed", "save", "unpacked"]

FORMAT = 1
KINDS = {
    "ACEPotential": "bayesmol.potentials.ace_posterior:ACEPotential",
    "CertifiedModel": "bayesmol.certified:CertifiedModel",
    "DiatomicPotential": "bayesmol.potentials.diatomic_posterior:DiatomicPotential",
    "FittedGenerator": "bayesmol.flows.fitted:FittedGenerator",
    "FittedTransferable": "bayesmol.flows.transferable_fitted:FittedTransferable",
    "FittedWavefunction": "bayesmol.wavefunctions.fitted:FittedWavefunction",
    "FoundationPotential": "bayesmol.potentials.foundation_posterior:FoundationPotential",
    "GradientGPPotential": "bayesmol.potentials.gradient_posterior:GradientGPPotential",
    "InducingGPPotential": "bayesmol.potentials.inducing_posterior:InducingGPPotential",
    "NetworkPotential": "bayesmol.potentials.neural_posterior:NetworkPotential",
    "PairGPPotential": "bayesmol.potentials.pair_gp_posterior:PairGPPotential",
    "ResidualPotential": "bayesmol.potentials.residual:ResidualPotential",
    "TabulatedPotential": "bayesmol.potentials.tabulation:TabulatedPotential",
}

_KEY = "bayesmol"
_LIMIT = 10_000_000  # bytes of the header; it holds numbers and sentences, all arrays lie outside
_ENTRIES = {"format", "kind", "header", "provenance", "units", "versions", "sha256"}
_UNITS = {"length": "Å", "energy": "eV", "forces": "eV/Å", "stress": "eV/Å³"}
_PACKAGES = ("ase", "e3nn", "gpytorch", "mapie", "numpy", "safetensors", "scipy", "sphericart-torch", "vesin")
_AGAIN = "copy or save the model again"


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a fitted model to one file, under a temporary name first, so that no half-written file is left.

    The same model gives the same bytes.

    Raises
    ------
    DataError
        If ``model`` is not a fitted model of a kind in :data:`KINDS`, or its header is beyond 10 MB.
    """
    header, arrays = packed(model)
    # A copy each: safetensors refuses views that share memory.
    arrays = {name: array.detach().cpu().contiguous().clone() for name, array in arrays.items()}
    header = {"format": FORMAT, **header, "provenance": _provenance(model), "units": _UNITS, "versions": _versions()}
    header = json.loads(json.dumps(header))  # as a reader will see it: tuples are lists, keys are strings
    header["sha256"] = _digest(header, safetensors.torch.save(arrays))
    data = safetensors.torch.save(arrays, {_KEY: json.dumps(header, ensure_ascii=False)})
    if (size := int.from_bytes(data[:8], "little")) > _LIMIT:
        raise DataError(expected("model", f"a header of at most {_LIMIT} bytes", size, "move lists into arrays"))
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Any:
    """Fitted model that :func:`save` wrote; its predictions are those of the saved model, bit by bit.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FormatError
        If the file is not a model, is of an unknown version or kind, or was cut, extended or changed.
    """
    with Path(path).open("rb") as file:
        header = _header(file)
        file.seek(0)
        data = file.read()
    if _digest(header, data) != header["sha256"]:
        raise FormatError(expected("path", "content of the SHA-256 in its header", "a damaged or edited file", _AGAIN))
    try:
        arrays = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise FormatError(expected("path", "arrays as the header declares them", error, _AGAIN)) from error
    # Copies, because arithmetic may round by the alignment of its operands, and slices of a file have any.
    arrays = {name: array.clone() for name, array in arrays.items()}
    return unpacked(header, {name: array.to(device) for name, array in arrays.items()})


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """JSON header of a model file: ``kind``, ``header``, ``provenance``, ``units``, ``versions``, ``sha256``.

    Only the header is read, so changed arrays are not noticed here; :func:`load` notices them.

    Raises
    ------
    FileNotFoundError, FormatError
        As :func:`load`.
    """
    with Path(path).open("rb") as file:
        return _header(file)


def packed(model: Any) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header ``{"kind", "header"}`` and arrays of a fitted model, for a file or for a model that holds this one.

    Raises
    ------
    DataError
        If ``model`` is of no kind in :data:`KINDS`.
    """
    place = f"{type(model).__module__}:{type(model).__qualname__}"
    kind = next((kind for kind, known in KINDS.items() if known == place), None)
    if kind is None:
        remedy = "fit a specification and save what fit or certify returns"
        raise DataError(expected("model", f"one of {sorted(KINDS)}", type(model).__name__, remedy))
    header, arrays = model.state()
    return {"kind": kind, "header": header}, arrays


def unpacked(header: dict[str, Any], arrays: dict[str, Tensor]) -> Any:
    """Fitted model from what :func:`packed` gave.

    Raises
    ------
    FormatError
        If the kind is unknown or an entry is missing.
    """
    kind = header.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise FormatError(expected("kind", f"one of {sorted(KINDS)}", repr(kind), "upgrade bayesmol"))
    module, name = KINDS[kind].split(":")
    try:
        return getattr(importlib.import_module(module), name).from_state(header["header"], arrays)
    except (KeyError, TypeError) as error:
        raise FormatError(expected(kind, "all entries of its state", repr(error), _AGAIN)) from error


def _header(file: BinaryIO) -> dict[str, Any]:
    """Header of an open model file, after a check of its length against the declared one."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 2 <= length <= _LIMIT:
        aim = f"a model file, with a header of 2 to {_LIMIT} bytes"
        raise FormatError(expected("path", aim, f"{size} bytes that declare {length}", "give a file of bayesmol.save"))
    content = _object(file.read(length), "path")
    metadata = content.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(text := metadata.get(_KEY), str):
        raise FormatError(expected("path", f"metadata with the key {_KEY!r}", metadata, "give a file of bayesmol.save"))
    header = _object(text, _KEY)
    if header.get("format") != FORMAT:
        remedy = "install the version of bayesmol that wrote it"
        raise FormatError(expected("format", FORMAT, repr(header.get("format")), remedy))
    if missing := _ENTRIES - header.keys():
        raise FormatError(expected("header", f"the entries {sorted(missing)}", "none of them", _AGAIN))
    if size != (declared := 8 + length + _extent(content)):
        state = "a truncated file" if size < declared else "an oversized file"
        raise FormatError(expected("path", f"{declared} bytes as declared", f"{size}: {state}", _AGAIN))
    return header


def _object(text: str | bytes, argument: str) -> dict[str, Any]:
    """JSON object in ``text``."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        remedy = "give a file of bayesmol.save"
        raise FormatError(expected(argument, "a JSON header", f"no JSON ({error})", remedy)) from error
    if not isinstance(content, dict):
        raise FormatError(expected(argument, "a JSON object", type(content).__name__, "give a file of bayesmol.save"))
    return content


def _extent(content: dict[str, Any]) -> int:
    """Bytes of the arrays that the safetensors header declares."""
    try:
        return max((int(entry["data_offsets"][1]) for entry in content.values()), default=0)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise FormatError(expected("path", "data offsets of each array", repr(error), _AGAIN)) from error


def _digest(header: dict[str, Any], data: bytes) -> str:
    """SHA-256 of the header but for its own entry, and of the declarations and bytes of the arrays of a file."""
    start = 8 + int.from_bytes(data[:8], "little")
    declared = json.loads(data[8:start])
    declared.pop("__metadata__", None)
    rest = {key: value for key, value in header.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps([rest, declared], sort_keys=True).encode())
    digest.update(memoryview(data)[start:])
    return digest.hexdigest()


def _provenance(model: Any) -> dict[str, Any]:
    """What the model, or the model within it, says of its origin; else hash and source of the data that it holds."""
    said = {"guarantees": model.guarantees} if hasattr(model, "guarantees") else {}
    while hasattr(model, "model") and not hasattr(model, "provenance"):
        model = model.model
    if known := getattr(model, "provenance", None):
        return {**known, **said}
    if (training := getattr(model, "training", None)) is None:
        return said
    source = None if training.source is None else vars(training.source)
    return {"structures": len(training), "training_hash": training.fingerprint, "source": source, **said}


def _versions() -> dict[str, str]:
    """Versions of what computes the numbers, of the packages that are installed."""
    found = {"bayesmol": bayesmol.__version__, "python": platform.python_version(), "torch": str(torch.__version__)}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # Not every model needs every package.
            continue
    return found
