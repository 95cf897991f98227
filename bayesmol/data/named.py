"""Data by name: a file, a set that ships, and some of the frames, in one word as on a command line."""

from pathlib import Path

import torch

from bayesmol.data import bundled, io
from bayesmol.data.labelled import Labelled
from bayesmol.errors import DataError, expected

__all__ = ["checked_device", "named"]


def named(name: str, *, energy_unit: str | None = None, length_unit: str | None = None) -> Labelled:
    """Structures and labels of a file or of a set that ships, in eV and Å.

    ``"md.xyz"``, ``"rmd17/ethanol"``; ``"md.xyz@50:250"``, ``"rmd17/ethanol@::10"``, ``"md.xyz@-1"`` take some of the
    frames, as in ASE. A file goes before a set of the same name.

    Parameters
    ----------
    energy_unit, length_unit
        See :func:`~bayesmol.data.read`.

    Raises
    ------
    DataError
        If there is neither such a file nor such a set, or no such frames.
    """
    place, _, frames = (name, "", ":") if Path(name).exists() or "@" not in name else name.rpartition("@")
    if Path(place).exists():
        return io.read(place, frames, energy_unit=energy_unit, length_unit=length_unit)
    if place not in bundled.names():
        raise DataError(expected("data", f"an existing file, or one of {', '.join(bundled.names())}", place))
    data = bundled.load(place)
    return data[_selection(frames, len(data))]


def checked_device(name: str) -> torch.device:
    """The device of that name.

    Raises
    ------
    DataError
        If this machine, or this installation of torch, does not have it.
    """
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    known = ["cpu", *(["cuda"] if cards else []), *(f"cuda:{card}" for card in range(cards))]
    if name not in known:
        remedy = "" if cards else "torch finds no CUDA device here"
        raise DataError(expected("device", " or ".join(known), name, remedy))
    return torch.device(name)


def _selection(frames: str, size: int) -> slice | int:
    """Frames of a text such as ``"50:250"`` or ``"-1"``."""
    try:
        parts = [int(part) if part else None for part in frames.split(":")]
    except ValueError:
        parts = []
    if len(parts) == 1 and parts[0] is not None and -size <= parts[0] < size:
        return parts[0]
    if len(parts) in (2, 3):
        chosen = slice(*parts)
        if chosen.step != 0 and len(range(size)[chosen]):
            return chosen
    raise DataError(expected("frames", f"a number or FROM:TO that takes some of {size} frames", repr(frames)))
