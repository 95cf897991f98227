"""What a model file holds of a foundation: its identity, and what it said of a few structures; never itself."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from bayesmol.data.labelled import Labelled, Source
from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, FormatError, expected
from bayesmol.potentials.foundation import Foundation
from bayesmol.potentials.surface import Surface

__all__ = ["attached", "matching", "probe", "remembered", "restored", "restored_labels", "stored_labels"]

PROBES = 2  # structures
TOLERANCE = 1e-3  # eV and eV/Å: other hardware and thread counts round differently, other weights differ by far more


def restored(identity: dict[str, Any]) -> Foundation:
    """The foundation that a file names, where settings or installed weights can bring it back; else its empty place."""
    if identity.get("kind") == "chgnet":
        from bayesmol.potentials.foundation_chgnet import CHGNetFoundation

        return CHGNetFoundation.from_identity(identity)
    from bayesmol.potentials.residual_base import AbsentFoundation, ReferenceFoundation

    if identity.get("kind") == "reference":
        return ReferenceFoundation.from_identity(identity)
    return AbsentFoundation(identity)


def attached(model: Any, foundation: Foundation) -> Any:
    """A model, certified or not, with this foundation under it; see
    :meth:`bayesmol.potentials.foundation.Foundation.attach`."""
    if hasattr(model, "attached"):  # several foundations
        return model.attached(foundation)
    if hasattr(model, "foundation"):
        matching(model.foundation.identity, foundation, model.probe)
        return replace(model, foundation=foundation)
    if not hasattr(model, "model"):
        raise DataError(expected("model", "a model with a foundation", type(model).__name__))
    return replace(model, model=attached(model.model, foundation))


def matching(identity: dict[str, Any], foundation: Foundation, known: tuple[Structures, Surface]) -> None:
    """Refuse a foundation that is not the one of a saved model.

    Kind, name and weights must be the same; where a foundation has no weights to hash, energies and forces of the
    first training structures decide.

    Raises
    ------
    FormatError
        If it is another.
    """
    given = foundation.identity
    for name in ("kind", "name", "sha256", "settings", "features"):
        if given.get(name) != identity.get(name):
            aim, got = f"{name} {identity.get(name)!r}", repr(given.get(name))
            raise FormatError(expected("foundation", aim, got, "attach the one that the model was made with"))
    if given.get("sha256") is not None or (given["kind"] == "reference" and given["version"] == identity["version"]):
        return
    structures, surface = known
    found = foundation.surface(structures)
    pairs = (found.energies, surface.energies), (found.forces, surface.forces)
    gap = max(float((mine - saved.to(mine)).abs().max()) for mine, saved in pairs)
    if gap > TOLERANCE:
        aim = f"energies and forces of the saved structures within {TOLERANCE} eV and eV/Å"
        raise FormatError(expected("foundation", aim, f"a difference of {gap:.3g}", "are its settings the same?"))


def probe(structures: Structures, surface: Surface) -> dict[str, Tensor]:
    """Arrays of the first structures and what the foundation says of them."""
    few = structures[: min(PROBES, len(structures))]
    atoms = few.positions.shape[0]
    parts = {f.name: getattr(few, f.name) for f in fields(few)}
    answer = {"energies": surface.energies[: len(few)], "forces": surface.forces[:atoms]}
    return {name: value.clone() for name, value in (parts | answer).items()}


def remembered(arrays: dict[str, Tensor]) -> tuple[Structures, Surface]:
    """Structures and surface of :func:`probe`."""
    names = [f.name for f in fields(Structures)]
    return Structures(**{name: arrays[name] for name in names}), Surface(arrays["energies"], arrays["forces"])


def stored_labels(labelled: Labelled) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """Source and arrays of labelled structures."""
    structures = {f"structures.{f.name}": getattr(labelled.structures, f.name) for f in fields(Structures)}
    labels = {f.name: getattr(labelled, f.name) for f in fields(Labelled) if f.name not in ("structures", "source")}
    arrays = structures | {name: value for name, value in labels.items() if isinstance(value, torch.Tensor)}
    return None if labelled.source is None else vars(labelled.source), arrays


def restored_labels(source: dict[str, Any] | None, arrays: dict[str, Tensor]) -> Labelled:
    """Labelled structures of :func:`stored_labels`."""
    structures = Structures(**under(arrays, "structures"))
    labels = {name: value for name, value in arrays.items() if not name.startswith("structures.")}
    return Labelled(structures, **labels, source=None if source is None else Source(**source))


def under(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Arrays whose names begin with a prefix, without it."""
    return {name.removeprefix(f"{prefix}."): value for name, value in arrays.items() if name.startswith(f"{prefix}.")}
