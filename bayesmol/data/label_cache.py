"""Labels that are never calculated twice: files named by what they answer."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bayesmol.data.labelled import Source
from bayesmol.data.labelling import Labels, Reference, Result, assembled, label_hashes
from bayesmol.data.structures import Structures
from bayesmol.errors import FormatError, expected
from bayesmol.files import made, replacing

__all__ = ["Cached"]


@dataclass(frozen=True)
class Cached:
    """A reference that looks first whether a structure was labelled before.

    The label of a structure is the file ``folder/ab/abcd….json``, named by the hash of the structure and of the
    reference with its version (:func:`~bayesmol.data.labelling.label_hashes`): other settings never answer. Numbers
    are written such that they read back to the last bit, so labels from the cache are those of the first run. A file
    holds the hash of its content. Files appear complete or not at all, each as soon as its label is known: a killed run
    loses what it was calculating, and several processes share a folder. Failures are kept too, and are not tried again;
    delete the file to do so.

    Attributes
    ----------
    reference
        A :class:`~bayesmol.data.labelling.Reference`.
    folder
        Made when the first label is written.
    """

    reference: Reference
    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the reference: the folder changes no label."""
        return self.reference.settings

    @property
    def fingerprint(self) -> str:
        """That of the reference."""
        return self.reference.fingerprint

    @property
    def source(self) -> Source:
        """What to cite for the labels."""
        return self.reference.source

    def label(self, structures: Any) -> Labels:
        """Labels of structures, from files where there are any.

        A damaged file is calculated anew, with a warning that names it.

        Raises
        ------
        DependencyError
            If a label is missing and the program is not installed.
        """
        batch = Structures.coerce(structures)
        return assembled(batch, self.results(batch), self.reference)

    def results(self, structures: Structures, received: Callable[[int, Result], None] | None = None) -> list[Result]:
        """One for each structure; ``received`` is called with position and result of those that were calculated."""
        hashes = label_hashes(structures, self.fingerprint)
        kept = {name: self._read(name) for name in dict.fromkeys(hashes)}
        known = {name: result for name, result in kept.items() if result is not None}
        first = {name: position for position, name in reversed(list(enumerate(hashes))) if name not in known}
        names = sorted(first, key=first.__getitem__)

        def keep(position: int, result: Result) -> None:
            name = names[position]
            known[name] = result
            self._write(name, result)
            if received is not None:
                received(first[name], result)

        if names:
            self.reference.results(structures[[first[name] for name in names]], keep)
        return [known[name] for name in hashes]

    def _path(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.json"

    def _read(self, name: str) -> Result | None:
        """The result in a file; nothing if there is no file, or a damaged one."""
        try:
            text = self._path(name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            text = ""
        try:
            return _result(text, name)
        except FormatError as error:
            warnings.warn(f"{self._path(name)}: {error}", stacklevel=4)
            return None

    def _write(self, name: str, result: Result) -> None:
        path = self._path(name)
        made(path.parent)
        with replacing(path) as temporary:
            temporary.write_text(_text(result, name), encoding="utf-8")


def _text(result: Result, name: str) -> str:
    """A result as JSON with the hash of its content; Python writes numbers such that they read back exactly."""
    content = {field: _plain(value) for field, value in vars(result).items() if value is not None}
    content = {"failure": result.failure} if result.failure else content
    return json.dumps({"label": name, "sha256": _digest(content, name), "result": content})


def _result(text: str, name: str) -> Result:
    """The result that a file holds.

    Raises
    ------
    FormatError
        If the file is damaged, or is that of another label.
    """
    remedy = "the label is calculated anew"
    try:
        file = json.loads(text)
        content, digest = file["result"], file["sha256"]
        valid = file["label"] == name and digest == _digest(content, name)
    except (ValueError, LookupError, TypeError) as error:
        raise FormatError(expected("file", "a label as JSON", type(error).__name__, remedy)) from error
    if not valid:
        raise FormatError(expected("file", "content that fits its hash and its name", "another", remedy))
    arrays: dict[str, Any] = {
        field: np.array(value) if isinstance(value, list) else value for field, value in content.items()
    }
    return Result(**arrays)


def _digest(content: dict[str, Any], name: str) -> str:
    return hashlib.sha256(f"{name} {json.dumps(content, sort_keys=True)}".encode()).hexdigest()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
