"""Fitted generators as plain numbers and arrays: coordinates, architectures, densities with a force field."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from bayesmol.errors import DataError, FormatError, expected
from bayesmol.flows.autoregressive import Autoregressive
from bayesmol.flows.coordinates import Cartesian, Composed, Coordinates, MeanFree, Planar
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.flow import Flow
from bayesmol.flows.force_field import ForceField
from bayesmol.flows.mixed_couplings import MixedCouplings
from bayesmol.flows.molecular_coordinates import Internal
from bayesmol.flows.training import Training
from bayesmol.flows.whitened import Whitening
from bayesmol.representation.zmatrix import ZMatrix

__all__ = [
    "architecture_from_state",
    "architecture_state",
    "coordinates_from_state",
    "coordinates_state",
    "density_from_state",
    "density_state",
    "generator_parts",
    "generator_state",
]

State = tuple[dict[str, Any], dict[str, Tensor]]
_ARCHITECTURES = {kind.__name__: kind for kind in (Autoregressive, Couplings, MixedCouplings)}
_MATRIX = ("atoms", "parents", "siblings", "handedness", "rotors", "rotating")
_WHITENING = ("centre", "factor", "angles", "circular")
_PLAIN = ("dimension", "temperature", "unit", "space", "name")
_OPTIONAL = ("start", "species", "symmetry", "signs")


def architecture_state(architecture: Any) -> dict[str, Any]:
    """Kind and settings of an architecture.

    Raises
    ------
    DataError
        If it has no form in a file.
    """
    kind = type(architecture).__name__
    if kind not in _ARCHITECTURES:
        raise DataError(expected("architecture", f"one of {sorted(_ARCHITECTURES)} to be saved", kind))
    return {"kind": kind, "settings": asdict(architecture)}


def architecture_from_state(header: dict[str, Any]) -> Any:
    """Architecture from what :func:`architecture_state` gave."""
    if header["kind"] not in _ARCHITECTURES:
        raise FormatError(expected("architecture", f"one of {sorted(_ARCHITECTURES)}", repr(header["kind"])))
    settings: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in header["settings"].items()}
    return _ARCHITECTURES[header["kind"]](**settings)


def coordinates_state(coordinates: Composed) -> State:
    """Kind and numbers of each part, and its arrays with its number in front.

    Raises
    ------
    DataError
        If a part has no form in a file.
    """
    headers: list[Any] = []
    arrays: dict[str, Tensor] = {}
    for i, part in enumerate(coordinates.parts):
        header, own = _part_state(part)
        headers.append(header)
        arrays |= {f"{i}.{name}": value for name, value in own.items()}
    return {"parts": headers}, arrays


def coordinates_from_state(header: dict[str, Any], arrays: dict[str, Tensor]) -> Composed:
    """Coordinates from what :func:`coordinates_state` gave."""
    return Composed([_part(own, _below(arrays, f"{i}.")) for i, own in enumerate(header["parts"])])


def density_state(density: BoltzmannDensity) -> State:
    """What a file can say of a density; its energy only if it is a force field of this package."""
    field = getattr(density.energy, "__self__", None)
    header = {name: getattr(density, name) for name in _PLAIN} | {"shape": list(density.shape), "force_field": None}
    arrays = {name: value for name in _OPTIONAL if (value := getattr(density, name)) is not None}
    if isinstance(field, ForceField):
        header["force_field"], own = field.state()
        arrays |= {f"field.{name}": value for name, value in own.items()}
    return header, arrays


def density_from_state(header: dict[str, Any], arrays: dict[str, Tensor]) -> BoltzmannDensity:
    """Density from what :func:`density_state` gave; without a force field, its energy raises until it is replaced."""
    energy = _unknown
    if header["force_field"] is not None:
        energy = ForceField.from_state(header["force_field"], _below(arrays, "field.")).energy
    plain: dict[str, Any] = {name: header[name] for name in _PLAIN}
    rest: dict[str, Any] = {name: arrays[name] for name in _OPTIONAL if name in arrays}
    return replace(BoltzmannDensity(energy, **plain, shape=tuple(header["shape"])), **rest)


def generator_state(fitted: Any) -> State:
    """Header and arrays of a fitted generator."""
    density, of_density = density_state(fitted.density)
    system, of_system = coordinates_state(fitted.coordinates)
    header = {
        "density": density,
        "coordinates": system,
        "architecture": architecture_state(fitted.architecture),
        "seeds": list(fitted.seeds),
        "broad": fitted.broad,
        "temperatures": fitted.temperatures,
        "trainings": [asdict(training) for training in fitted.trainings],
    }
    arrays = {f"density.{name}": value for name, value in of_density.items()}
    arrays |= {f"coordinates.{name}": value for name, value in of_system.items()}
    for i, flow in enumerate(fitted.flows):
        arrays |= {f"flow{i}.{name}": value for name, value in flow.state_dict().items()}
    return header, arrays | ({} if fitted.reference is None else {"reference": fitted.reference})


def generator_parts(header: dict[str, Any], arrays: dict[str, Tensor]) -> dict[str, Any]:
    """Arguments of a fitted generator from what :func:`generator_state` gave."""
    coordinates = coordinates_from_state(header["coordinates"], _below(arrays, "coordinates."))
    architecture, seeds = architecture_from_state(header["architecture"]), tuple(header["seeds"])
    temperatures = None if header.get("temperatures") is None else tuple(header["temperatures"])
    context = {} if temperatures is None else {"context": 1}
    flows = [
        _flow(architecture, coordinates, _below(arrays, f"flow{i}."), seed=seed, **context)
        for i, seed in enumerate(seeds)
    ]
    return {
        "density": density_from_state(header["density"], _below(arrays, "density.")),
        "coordinates": coordinates,
        "flows": tuple(flows),
        "trainings": tuple(_training(training) for training in header["trainings"]),
        "architecture": architecture,
        "seeds": seeds,
        "broad": float(header["broad"]),
        "reference": arrays.get("reference"),
        "temperatures": temperatures,
    }


def _flow(architecture: Any, coordinates: Composed, arrays: dict[str, Tensor], **options: int) -> Flow:
    flow = architecture.build(coordinates.circular.cpu(), **options).double()
    try:
        flow.load_state_dict(arrays)
    except RuntimeError as error:
        raise FormatError(expected("flow", "the weights of its architecture", error)) from error
    return flow.to(coordinates.circular.device).eval().requires_grad_(False)


def _training(content: dict[str, Any]) -> Training:
    histories = {name: tuple(map(tuple, content[name])) for name in ("loss", "reverse_ess", "forward_ess")}
    return Training(**{**content, **histories, "notes": tuple(content["notes"])})


def _below(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _unknown(x: Tensor) -> Tensor:
    remedy = "give the density again: generator.on(density)"
    raise DataError(expected("energy", "a function", "none, as the file of a generator holds no code", remedy))


def _part_state(part: Coordinates) -> State:
    kind = type(part).__name__
    if isinstance(part, Cartesian):
        return {"kind": kind, "dimension": part.dimension}, {}
    if isinstance(part, MeanFree):
        return {"kind": kind, "particles": part.dimension // part.space, "space": part.space}, {}
    if isinstance(part, Planar):
        return {"kind": kind, "particles": part.dimension // 2, "scale": part.scale}, {}
    if isinstance(part, Whitening):
        return {"kind": kind}, {name: getattr(part, name) for name in _WHITENING}
    if isinstance(part, Internal):
        header = {"kind": kind, "handed": part.handed, "rotors": len(part.columns[0]) > 0}
        return header, {name: getattr(part.matrix, name) for name in _MATRIX}
    raise DataError(expected("coordinates", "parts that can be saved", kind))


def _part(header: dict[str, Any], arrays: dict[str, Tensor]) -> Coordinates:
    kind = header["kind"]
    if kind == "Internal":
        matrix = ZMatrix(*(arrays[name] for name in _MATRIX))
        return Internal(matrix, handed=bool(header["handed"]), rotors=bool(header["rotors"]))
    if kind == "Whitening":
        return Whitening(*(arrays[name] for name in _WHITENING))
    plain = {"Cartesian": Cartesian, "MeanFree": MeanFree, "Planar": Planar}
    if kind not in plain:
        raise FormatError(expected("coordinates", f"one of {sorted(plain)}, Internal, Whitening", repr(kind)))
    return plain[kind](**{name: value for name, value in header.items() if name != "kind"})
