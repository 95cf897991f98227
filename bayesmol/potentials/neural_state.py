"""What a model file holds of a neural potential: configurations in words and arrays of numbers."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bayesmol.errors import DataError, FormatError, expected
from bayesmol.potentials.network import Network
from bayesmol.potentials.network_atomic import Atomic
from bayesmol.potentials.network_equivariant import Equivariant
from bayesmol.potentials.network_schnet import SchNet
from bayesmol.potentials.neural_energy import NeuralEnergy
from bayesmol.potentials.neural_member import Member
from bayesmol.potentials.neural_scales import Scales
from bayesmol.representation.radial import RadialBasis

if TYPE_CHECKING:
    from bayesmol.potentials.neural_posterior import NetworkPotential

ARCHITECTURES: dict[str, type] = {"atomic": Atomic, "schnet": SchNet, "equivariant": Equivariant}


def architecture(given: Any) -> Any:
    """Configuration of a network from its name or from itself.

    Raises
    ------
    DataError
        If there is no such architecture.
    """
    if isinstance(given, str) and given in ARCHITECTURES:
        return ARCHITECTURES[given]()
    if isinstance(given, tuple(ARCHITECTURES.values())):
        return given
    raise DataError(expected("architecture", f"one of {sorted(ARCHITECTURES)} or a configuration", repr(given)))


def state(potential: NetworkPotential) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header (JSON) and arrays that :func:`from_state` reads back."""
    network: Any = potential.model.network
    scales = potential.scales
    header = {
        "architecture": next(name for name, kind in ARCHITECTURES.items() if isinstance(network.config, kind)),
        "configuration": asdict(network.config),
        "species": list(network.species),
        "members": len(potential.members),
        "scales": {"energy": scales.energy, "force": scales.force, "energy_noise": scales.energy_noise},
        "dtype": str(next(network.parameters()).dtype).removeprefix("torch."),
        "provenance": potential.provenance,
        "units": {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³", "distance": "Å"},
    }
    arrays = {"force_noise": scales.force_noise} | {f"guards.{name}": v for name, v in potential.guards.items()}
    for number, member in enumerate(potential.members):
        own = {f"energy.{name}": value for name, value in member.energy.state_dict().items()} | {"root": member.root}
        arrays |= {f"members.{number}.{name}": value for name, value in own.items()}
    return header, arrays


def from_state(header: dict[str, Any], arrays: dict[str, Tensor]) -> NetworkPotential:
    """Potential from :func:`state`; raises :class:`FormatError` if a part is missing or contradictory."""
    from bayesmol.potentials.neural_posterior import NetworkPotential

    try:
        config = _configuration(header)
        members = tuple(_member(config, header, _under(arrays, f"members.{n}")) for n in range(header["members"]))
        scales = Scales(**header["scales"], force_noise=arrays["force_noise"])
        return NetworkPotential(members, scales, _under(arrays, "guards"), header["provenance"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FormatError(expected("state", "all parts of a neural potential", repr(error), "save it again")) from error


def _configuration(header: dict[str, Any]) -> Any:
    given: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in header["configuration"].items()
    }
    basis: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in given["basis"].items()}
    return ARCHITECTURES[header["architecture"]](**{**given, "basis": RadialBasis(**basis)})


def _member(config: Any, header: dict[str, Any], arrays: dict[str, Tensor]) -> Member:
    network: Network = config.network(tuple(header["species"]), seed=0)
    network = network.to(device=arrays["root"].device, dtype=getattr(torch, header["dtype"]))
    own = _under(arrays, "energy")
    energy = NeuralEnergy(network, own["references"], float(own["scale"]), own["head"].shape[1], torch.Generator())
    energy.load_state_dict(own)
    return Member(energy, arrays["root"])


def _under(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): value for name, value in arrays.items() if name.startswith(f"{prefix}.")}
