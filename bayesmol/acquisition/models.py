"""A model that grows with its labels: fitted now and then, updated in between, and kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bayesmol.data import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.files import made
from bayesmol.persistence import KINDS, load, save

__all__ = ["grown"]


def grown(specification: Any, batches: Sequence[Labelled], folder: Path, *, refit: float, seed: int) -> Any:
    """Model after a sequence of batches of labels: a function of these alone, to the last bit.

    It is fitted to all labels whenever there are ``refit`` times those of the last fit, and updated with each batch in
    between; a model that cannot be updated is fitted each time. Models of a kind that :func:`bayesmol.save` knows are
    kept in ``folder`` by what they learned from; what is there is read and not made again.

    Raises
    ------
    DataError
        If there are no batches.
    """
    if not batches:
        raise DataError(expected("batches", "at least one batch of labels", "none"))
    sizes = [sum(map(len, batches[: number + 1])) for number in range(len(batches))]
    start, end = last_fit(sizes, refit), len(batches)
    parts = {stop: Labelled.concatenate(batches[:stop]) for stop in range(start + 1, end + 1)}
    paths = {stop: folder / f"{stop}-{part.fingerprint[:16]}.bm" for stop, part in parts.items()}
    known = max((stop for stop, path in paths.items() if path.exists()), default=None)
    if known is None:
        known = start + 1
        model = _kept(specification.fit(parts[known], seed=seed), paths[known])
    else:
        model = load(paths[known])
    if known < end and not hasattr(model, "update"):
        return _kept(specification.fit(parts[end], seed=seed), paths[end])
    for stop in range(known + 1, end + 1):
        model = _kept(model.update(batches[stop - 1]), paths[stop])
    return model


def last_fit(sizes: Sequence[int], refit: float) -> int:
    """Number of the batch at which the model was last fitted, given the number of labels after each."""
    last = 0
    for number, size in enumerate(sizes):
        if size >= refit * sizes[last]:
            last = number
    return last


def _kept(model: Any, path: Path) -> Any:
    """The model as it is read back, so that a run that was not interrupted goes on from the same bits."""
    if f"{type(model).__module__}:{type(model).__qualname__}" not in KINDS.values():
        return model
    made(path.parent)
    save(model, path)
    return load(path)
