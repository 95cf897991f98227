"""Molecular force field of Amber's form in a generalised Born solvent, for many configurations at once."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.formats import arrays
from bayesmol.errors import DataError, FormatError, ShapeError, expected
from bayesmol.files import replacing
from bayesmol.flows.force_field_solvent import Solvent
from bayesmol.flows.force_field_tables import Tables

__all__ = ["ForceField"]

_FORMAT = 1
_OPTIONAL = ("solvent", "positions")


@dataclass(frozen=True, eq=False)
class ForceField:
    r"""Parameters of one molecule, and its energy without cutoff.

    .. math::
        U = \sum_\mathrm{bonds} \tfrac{k}{2} (r - r_0)^2 + \sum_\mathrm{angles} \tfrac{k}{2} (\theta - \theta_0)^2
        + \sum_\mathrm{torsions} k (1 + \cos(n\phi - \phi_0))
        + \sum_{i<j} 4 \varepsilon_{ij} \left[ \left(\tfrac{\sigma_{ij}}{r}\right)^{12}
        - \left(\tfrac{\sigma_{ij}}{r}\right)^6 \right] + \frac{\kappa\, q_{ij}}{r} + U_\mathrm{solvent}

    with :math:`\sigma_{ij} = (\sigma_i + \sigma_j) / 2`, :math:`\varepsilon_{ij} = \sqrt{\varepsilon_i \varepsilon_j}`
    and :math:`q_{ij} = q_i q_j` except for the pairs in ``exceptions``, which have their own. Memory and time grow with
    the square of the number of atoms. Atoms nearer than 0.02 Å count as at this distance: the energy of such a
    configuration is huge, or infinite in float32, and never NaN.

    Attributes
    ----------
    species, masses
        Atomic numbers; in dalton.
    charges, sigmas, epsilons
        Of each atom in elementary charges, Å and eV.
    bonds, bond_lengths, bond_constants
        Pairs of atoms, Å and eV/Å².
    angles, angle_values, angle_constants
        Triples with the vertex in the middle, radians and eV.
    torsions, periodicities, phases, torsion_constants
        Quadruples, n, :math:`\phi_0` in radians, and eV.
    exceptions, exception_charges, exception_sigmas, exception_epsilons
        Pairs with their product of charges, Å and eV; zeros exclude a pair.
    coulomb
        :math:`\kappa`, Coulomb's constant in eV Å as the program had it that the parameters come from.
    solvent
        Generalised Born model; ``None`` for vacuum.
    positions
        A geometry, in Å.

    References
    ----------
    Cornell et al., J. Am. Chem. Soc. 117, 5179 (1995), equation 1.
    """

    species: Int[Tensor, " atoms"]
    masses: Float[Tensor, " atoms"]
    charges: Float[Tensor, " atoms"]
    sigmas: Float[Tensor, " atoms"]
    epsilons: Float[Tensor, " atoms"]
    bonds: Int[Tensor, "bonds 2"]
    bond_lengths: Float[Tensor, " bonds"]
    bond_constants: Float[Tensor, " bonds"]
    angles: Int[Tensor, "angles 3"]
    angle_values: Float[Tensor, " angles"]
    angle_constants: Float[Tensor, " angles"]
    torsions: Int[Tensor, "torsions 4"]
    periodicities: Int[Tensor, " torsions"]
    phases: Float[Tensor, " torsions"]
    torsion_constants: Float[Tensor, " torsions"]
    exceptions: Int[Tensor, "exceptions 2"]
    exception_charges: Float[Tensor, " exceptions"]
    exception_sigmas: Float[Tensor, " exceptions"]
    exception_epsilons: Float[Tensor, " exceptions"]
    coulomb: float
    solvent: Solvent | None = None
    positions: Float[Tensor, "atoms 3"] | None = None

    def __post_init__(self) -> None:
        atoms = len(self.species)
        for name, value in self._tensors().items():
            if not bool(torch.isfinite(value).all()):
                raise DataError(expected(name, "finite numbers", "NaN or ∞", "check the parameters"))
        for name in ("bonds", "angles", "torsions", "exceptions"):
            index = getattr(self, name)
            if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < atoms:
                raise DataError(expected(name, f"atoms from 0 to {atoms - 1}", sorted(set(index.flatten().tolist()))))
        for name, of in _LIKE.items():
            if len(getattr(self, name)) != len(getattr(self, of)):
                lengths = f"{len(getattr(self, name))} and {len(getattr(self, of))}"
                raise ShapeError(expected(name, f"as many as {of}", lengths))
        if bool((self.periodicities < 0).any()):
            raise DataError(expected("periodicities", "0 or more", int(self.periodicities.min())))
        if self.positions is not None and self.positions.shape != (atoms, 3):
            raise ShapeError(expected("positions", f"({atoms}, 3) in Å", tuple(self.positions.shape)))
        if self.solvent is not None and len(self.solvent.radii) != atoms:
            raise ShapeError(expected("solvent", f"parameters of {atoms} atoms", len(self.solvent.radii)))

    def __len__(self) -> int:
        """Number of atoms."""
        return len(self.species)

    def energy(self, x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        """Energy in eV of each row of positions in Å, atom by atom; float32 or float64 and the device follow ``x``.

        Its gradient is a formula and costs about as much as the energy; it can be differentiated once; a second
        derivative raises.

        Raises
        ------
        ShapeError, DataError
            If rows are not the positions of all atoms, or of another type.
        """
        return _Energy.apply(self._checked(x), self)

    def energy_and_gradient(
        self, x: Float[Tensor, "points dimension"]
    ) -> tuple[Float[Tensor, " points"], Float[Tensor, "points dimension"]]:
        """Energy in eV and its gradient in eV/Å, without autograd."""
        with torch.no_grad():
            return self._tables(x.dtype, x.device).energy_and_gradient(self._checked(x).detach())

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write all parameters into one npz file of plain arrays."""
        content: dict[str, Any] = {"format": np.array(_FORMAT), "coulomb": np.array(self.coulomb)}
        content |= {name: value.cpu().numpy() for name, value in self._tensors().items()}
        if self.solvent is not None:
            content |= {f"solvent_{name}": np.array(value) for name, value in self.solvent.numbers().items()}
        path = Path(path)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **content)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> ForceField:
        """The force field that :meth:`write` wrote.

        Raises
        ------
        FileNotFoundError, FormatError
            If there is no such file, or it is no force field.
        """
        if not Path(path).exists():
            raise FileNotFoundError(expected("path", "a file of a force field", path))
        found = arrays(Path(path))
        try:
            if int(found.pop("format")) != _FORMAT:
                raise FormatError(expected("path", f"format {_FORMAT}", "another", "upgrade bayesmol"))
            return cls(**_parameters(found))
        except (KeyError, TypeError) as error:
            raise FormatError(expected("path", "all parameters of a force field", repr(error))) from error

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Numbers and arrays, for the file of a model."""
        numbers = {"coulomb": self.coulomb} | ({} if self.solvent is None else {"solvent": self.solvent.numbers()})
        return numbers, self._tensors()

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> ForceField:
        """The force field that :meth:`state` described."""
        own: dict[str, Any] = {name: value for name, value in arrays.items() if not name.startswith("solvent_")}
        solvent = None
        if "solvent" in header:
            parts: dict[str, Any] = {name: arrays[f"solvent_{name}"] for name in _SOLVENT}
            solvent = Solvent(**parts, **header["solvent"])
        return cls(**own, coulomb=float(header["coulomb"]), solvent=solvent)

    def in_vacuum(self) -> ForceField:
        """The same molecule without solvent."""
        return replace(self, solvent=None)

    def _checked(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != 3 * len(self):
            raise ShapeError(expected("x", f"(points, {3 * len(self)}) in Å, atom by atom", tuple(x.shape)))
        if x.dtype not in (torch.float32, torch.float64):
            raise DataError(expected("x", "float32 or float64", x.dtype))
        return x

    def _tensors(self) -> dict[str, Tensor]:
        """All arrays by name, those of the solvent with a prefix."""
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("coulomb", *_OPTIONAL)}
        found |= {} if self.positions is None else {"positions": self.positions}
        if self.solvent is not None:
            found |= {f"solvent_{name}": getattr(self.solvent, name) for name in _SOLVENT}
        return found

    @cached_property
    def _made(self) -> dict[tuple[torch.dtype, torch.device], Tables]:
        return {}

    def _tables(self, dtype: torch.dtype, device: torch.device) -> Tables:
        if (dtype, device) not in self._made:
            self._made[dtype, device] = Tables(self, torch.empty(0, dtype=dtype, device=device))
        return self._made[dtype, device]


_SOLVENT = ("charges", "radii", "scales")
_LIKE = {name: "species" for name in ("masses", "charges", "sigmas", "epsilons")}
_LIKE |= {"bond_lengths": "bonds", "bond_constants": "bonds", "angle_values": "angles", "angle_constants": "angles"}
_LIKE |= {name: "torsions" for name in ("periodicities", "phases", "torsion_constants")}
_LIKE |= {name: "exceptions" for name in ("exception_charges", "exception_sigmas", "exception_epsilons")}


class _Energy(torch.autograd.Function):
    """Energy whose gradient is computed beside it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, field: ForceField) -> Tensor:
        energy, gradient = field._tables(x.dtype, x.device).evaluate(x, gradient=ctx.needs_input_grad[0])
        ctx.save_for_backward(x, gradient)
        return energy

    @staticmethod
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None]:
        return _Gradient.apply(weight, *ctx.saved_tensors), None


class _Gradient(torch.autograd.Function):
    """Gradient of weighted energies; who differentiates it gets an error, never a constant."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
        return weight[:, None] * gradient

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, ...]:
        remedy = "detach the gradient, or do without its derivative"
        raise DataError(expected("energy", "to be differentiated once", "a second derivative", remedy))


def _parameters(found: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a force field from the arrays of a file."""
    solvent = {name.removeprefix("solvent_"): found.pop(name) for name in list(found) if name.startswith("solvent_")}
    content = _plain(found)
    return content | {"solvent": Solvent(**_plain(solvent))} if solvent else content


def _plain(found: dict[str, Any]) -> dict[str, Any]:
    return {name: float(value) if value.ndim == 0 else torch.from_numpy(value) for name, value in found.items()}
