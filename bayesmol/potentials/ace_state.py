"""What a model file holds of a Bayesian ACE: numbers only."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from bayesmol.data.labelled import Labelled, Source
from bayesmol.data.structures import Structures
from bayesmol.errors import FormatError, expected
from bayesmol.inference.conjugate import LinearPosterior
from bayesmol.potentials.ace_posterior import ACEPotential
from bayesmol.potentials.ace_rows import Model
from bayesmol.representation.design import Representation
from bayesmol.representation.radial import RadialBasis


def state(potential: ACEPotential) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header (JSON) and arrays that :func:`from_state` reads back."""
    representation, basis = potential.model.representation, potential.model.representation.basis
    source = potential.training.source
    header = {
        "species": list(representation.species),
        "basis": {"cutoff": basis.cutoff, "size": basis.size, "scale": basis.scale, "inner": list(basis.inner)},
        "provenance": potential.provenance,
        "source": None if source is None else {f.name: getattr(source, f.name) for f in fields(source)},
        "units": {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³", "distance": "Å"},
    }
    arrays = {f"mixing.{i}": part for i, part in enumerate(representation.mixing)}
    arrays |= {name: getattr(potential.model, name) for name in ("log_prior", "log_noise", "references")}
    arrays["inflation"] = potential.inflation
    arrays |= {"posterior.mean": potential.posterior.mean, "posterior.factor": potential.posterior.factor}
    if potential.posterior.root is not None:
        arrays["posterior.root"] = potential.posterior.root
    arrays |= {f"guards.{name}": value for name, value in potential.guards.items()}
    arrays |= {f"left_out.{name}": value for name, value in potential.left_out.items()}
    return header, arrays | stored(potential.training)


def from_state(header: dict[str, Any], arrays: dict[str, Tensor]) -> ACEPotential:
    """Potential from :func:`state`; raises :class:`FormatError` if a part is missing or contradictory."""
    try:
        basis = RadialBasis(**{**header["basis"], "inner": tuple(header["basis"]["inner"])})
        mixing = tuple(arrays[f"mixing.{i}"] for i in range(3))
        model = Model(
            Representation(tuple(header["species"]), basis, mixing),
            **{name: arrays[name] for name in ("log_prior", "log_noise", "references")},
        )
        posterior = LinearPosterior(arrays["posterior.mean"], arrays.get("posterior.root"), arrays["posterior.factor"])
        training = restored(header, under(arrays, "training"))
        guards, left_out = under(arrays, "guards"), under(arrays, "left_out")
        inflation = arrays["inflation"]
        return ACEPotential(model, posterior, guards, training, left_out, inflation, header["provenance"])
    except (KeyError, TypeError) as error:
        raise FormatError(expected("state", "all parts of a Bayesian ACE", repr(error), "save it again")) from error


def under(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in arrays.items() if name.startswith(f"{prefix}.")}


def stored(training: Labelled) -> dict[str, Tensor]:
    structures = {f.name: getattr(training.structures, f.name) for f in fields(training.structures)}
    labels = {f.name: getattr(training, f.name) for f in fields(training) if f.name not in ("structures", "source")}
    found = {f"training.structures.{name}": value for name, value in structures.items()}
    return found | {f"training.{name}": value for name, value in labels.items() if isinstance(value, torch.Tensor)}


def restored(header: dict[str, Any], arrays: dict[str, Tensor]) -> Labelled:
    structures = Structures(**under(arrays, "structures"))
    labels = {name: value for name, value in arrays.items() if not name.startswith("structures.")}
    source = None if header["source"] is None else Source(**header["source"])
    return Labelled(structures, **labels, source=source)
