"""What a model file holds of a corrected foundation: its correction, and the identity of what it corrects."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from bayesmol.errors import FormatError, expected
from bayesmol.inference.conjugate import LinearPosterior
from bayesmol.potentials.foundation_posterior import FoundationPotential
from bayesmol.potentials.foundation_rows import LayerModel
from bayesmol.potentials.foundation_state import restored, restored_labels, stored_labels, under

__all__ = ["from_state", "state"]


def state(potential: FoundationPotential) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header (JSON) and arrays that :func:`from_state` reads back; the foundation only by its identity."""
    source, labels = stored_labels(potential.training)
    posterior = {name: getattr(potential.posterior, name) for name in ("mean", "root", "factor")}
    parts = {
        "model": {name: value for name, value in vars(potential.model).items() if isinstance(value, Tensor)},
        "posterior": {name: value for name, value in posterior.items() if value is not None},
        "guards": potential.guards,
        "left_out": potential.left_out,
        "probe": potential.probes,
        "training": labels,
    }
    arrays = {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}
    header = {"foundation": potential.foundation.identity, "species": list(potential.model.species)}
    return header | {"source": source, "provenance": potential.provenance}, arrays


def from_state(header: dict[str, Any], arrays: dict[str, Tensor]) -> FoundationPotential:
    """Potential from :func:`state`; a foundation that no file can hold must be attached before it predicts.

    Raises
    ------
    FormatError
        If a part is missing, or the foundation that is installed is another.
    """
    try:
        foundation = restored(header["foundation"])
        model = LayerModel(tuple(header["species"]), **under(arrays, "model"))
        parts = under(arrays, "posterior")
        posterior = LinearPosterior(parts["mean"], parts.get("root"), parts["factor"])
        training = restored_labels(header["source"], under(arrays, "training"))
        left_out, probes = under(arrays, "left_out"), under(arrays, "probe")
        return FoundationPotential(
            foundation, model, posterior, under(arrays, "guards"), training, left_out, probes, header["provenance"]
        )
    except (KeyError, TypeError) as error:
        raise FormatError(expected("state", "all parts of a corrected foundation", repr(error))) from error
