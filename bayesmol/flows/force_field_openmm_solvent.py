"""Generalised Born solvents from the forces of OpenMM; needs OpenMM's objects, not the library."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from bayesmol.errors import DataError, expected
from bayesmol.flows.force_field_solvent import Solvent
from bayesmol.units import convert

__all__ = ["custom_solvent", "kj", "nm", "own_solvent", "plain"]

_N = r"(\d+\.?\d*(?:e[-+]?\d+)?)"  # a number
# The expressions of OBC that OpenMM's Amber reader gives to a CustomGBForce, without blanks.
_INTEGRAL = (
    "select(step(r+sr2-or1),0.5*(1/L-1/U+0.25*(r-sr2^2/r)*(1/(U^2)-1/(L^2))+0.5*log(L/U)/r),0);"
    "U=r+sr2;L=max(or1,D);D=abs(r-sr2)"
)
_BORN = re.compile(
    rf"1/\(1/or-tanh\((?:{_N}\*)?psi(?:-{_N}\*psi\^2)?\+{_N}\*psi\^3\)/radius\);psi=I\*or;radius=or\+offset;offset={_N}"
)
_SELF = re.compile(rf"-0\.5\*{_N}\*\(1/soluteDielectric-1/solventDielectric\)\*charge\^2/B")
_PAIR = "-{}*(1/soluteDielectric-1/solventDielectric)*charge1*charge2/f;f=sqrt(r^2+B1*B2*exp(-r^2/(4*B1*B2)))"
_SURFACE = re.compile(rf"{_N}\*\(radius\+{_N}\)\^2\*\(radius/B\)\^6;radius=or\+offset")


@cache
def kj() -> float:
    """One kJ/mol in eV."""
    return convert(1.0, "kJ/mol", "eV")


@cache
def nm() -> float:
    """One nm in Å."""
    return convert(1.0, "nm", "Å")


def plain(count: int, read: Callable[[int], Any]) -> list[list[Any]]:
    """Parameters of all terms as plain numbers in OpenMM's units."""
    return [[getattr(value, "_value", value) for value in read(i)] for i in range(count)]


def own_solvent(force: Any, coulomb: float) -> Solvent:
    """Solvent of a GBSAOBCForce, which is OBC2; Coulomb's constant in kJ nm / mol."""
    if force.getNonbondedMethod() != force.NoCutoff:
        raise DataError(expected("GBSAOBCForce", "NoCutoff", "a cutoff", "create the system with NoCutoff"))
    values = torch.tensor(plain(force.getNumParticles(), force.getParticleParameters), dtype=torch.float64)
    contrast = 1 / force.getSoluteDielectric() - 1 / force.getSolventDielectric()
    tension = 4 * math.pi * force.getSurfaceAreaEnergy()._value * (kj() / nm() ** 2)
    constants = {"alpha": 1.0, "beta": 0.8, "gamma": 4.85, "strength": coulomb * contrast * kj() * nm()}
    return Solvent(values[:, 0], values[:, 1] * nm(), values[:, 2], **constants, tension=tension)


def custom_solvent(force: Any) -> Solvent:
    """Solvent of the CustomGBForce that OpenMM's Amber reader makes for OBC1 and OBC2."""
    names = [force.getPerParticleParameterName(i) for i in range(force.getNumPerParticleParameters())]
    if names != ["charge", "or", "sr"] or force.getNonbondedMethod() != force.NoCutoff or force.getNumExclusions():
        raise _unknown(f"parameters {names}, or a cutoff, or exclusions")
    values = [force.getComputedValueParameters(i)[1] for i in range(force.getNumComputedValues())]
    terms = [force.getEnergyTermParameters(i)[0] for i in range(force.getNumEnergyTerms())]
    values, terms = ([text.replace(" ", "") for text in texts] for texts in (values, terms))
    born = _BORN.fullmatch(values[1]) if len(values) == 2 and values[0] == _INTEGRAL else None
    if born is None:
        raise _unknown(values)
    alpha, beta, gamma, offset = (
        float(text) if text else missing for text, missing in zip(born.groups(), (1.0, 0.0, 0.0, 0.0), strict=True)
    )
    columns = torch.tensor(plain(force.getNumParticles(), force.getParticleParameters), dtype=torch.float64)
    inner = columns[:, 1]
    found: dict[str, Any] = {
        "charges": columns[:, 0],
        "radii": (inner + offset) * nm(),
        "scales": columns[:, 2] / inner,
    }
    found |= {"alpha": alpha, "beta": beta, "gamma": gamma, "offset": offset * nm()}
    return Solvent(**(found | _custom_energy(terms)))


def _custom_energy(terms: list[str]) -> dict[str, float]:
    """Strength, and tension and probe if there is a surface term."""
    bare: list[str] = []
    constants: dict[str, str] = {}
    for term in terms:
        parts = term.split(";")
        bare.append(";".join(part for part in parts if not _constant(part)))
        constants |= dict(part.split("=") for part in parts if _constant(part))
    own = _SELF.fullmatch(bare[0]) if bare else None
    surfaces = [match for text in bare[1:-1] if (match := _SURFACE.fullmatch(text))]
    if own is None or len(bare) > 3 or len(surfaces) < len(bare[1:-1]) or bare[-1] != _PAIR.format(own[1]):
        raise _unknown(bare)
    contrast = 1 / float(constants["soluteDielectric"]) - 1 / float(constants["solventDielectric"])
    found = {"strength": float(own[1]) * contrast * kj() * nm()}
    for surface in surfaces:
        found |= {"tension": float(surface[1]) * (kj() / nm() ** 2), "probe": float(surface[2]) * nm()}
    return found


def _constant(part: str) -> bool:
    return part.split("=")[0] in {"solventDielectric", "soluteDielectric", "kappa", "offset"}


def _unknown(got: Any) -> DataError:
    remedy = "create the system with implicitSolvent OBC1 or OBC2, without salt and cutoff"
    return DataError(expected("CustomGBForce", "the expressions of OBC1 or OBC2", got, remedy))
