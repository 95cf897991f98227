"""The energy of one system within a number of minutes, beside the exact one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bayesmol.report import Study
from bayesmol.vmc import TRAINING, evaluated, molecule_of, specification, tell
from bayesmol.wavefunctions.exact_energies import ExactEnergy
from bayesmol.wavefunctions.precision import placed
from bayesmol.wavefunctions.report import Judged

__all__ = ["energy", "expectations"]

TARGETS: Mapping[str, tuple[float, float]] = {
    "He": (1.0, 0.1),
    "H2": (1.5, 0.1),
    "LiH": (3.0, 1.6),
    "Li": (3.0, 0.5),
    "Be": (3.0, 1.6),
    "B": (10.0, 3.2),
}
FRACTIONS: Mapping[str, tuple[float, float]] = {"LiH": (5.0, 0.985), "H10": (30.0, 0.97), "H2O": (30.0, 0.95)}
REFERENCES = {
    "LiH": "PauliNet: 0.57 (1 determinant), 0.28; FermiNet: 0.05 (GPU)",
    "Be": "PauliNet: 6.86 (1 determinant), 0.07; FermiNet: 0.03 (GPU)",
    "B": "PauliNet: 11.8 (1 determinant), 3.2; FermiNet: 0.2 (GPU)",
    "Li": "FermiNet: 0.08 (GPU)",
}
ALIASES = {"H4": "H4-square"}


def energy(
    study: Study,
    system: str,
    *,
    minutes: float,
    kind: str = "paulinet",
    determinants: int | None = None,
    draws: int | None = None,
    reference: float | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Judged:
    """Train, evaluate, and fill in the figures; compilation and quantum chemistry count as time.

    Parameters
    ----------
    minutes
        Wall time in all.
    reference
        Energy in Ha to compare with, in place of the known exact one.
    """
    clock = time.monotonic()
    molecule = molecule_of(ALIASES.get(system, system), 0, None)
    study.expectations = expectations(system, minutes)
    with placed(device):
        with study.stage("train"):
            wavefunction = specification(kind, determinants).fit(molecule, seed=seed, minutes=TRAINING * minutes)
        with study.stage("evaluate"):
            judged = evaluated(wavefunction, draws, 60 * minutes - (time.monotonic() - clock), seed)
    if reference is not None:
        judged = replace(judged, reference=ExactEnergy(reference, 0.0, "given"))
    tell(study, judged)
    study.add("wall_minutes", (time.monotonic() - clock) / 60, "min")
    return judged


def expectations(system: str, minutes: float) -> dict[str, dict[str, Any]]:
    """Targets of the system, where it has so many minutes, and published figures."""
    found: dict[str, dict[str, Any]] = {}
    if system in REFERENCES:
        found["energy_error_mha"] = {"reference": REFERENCES[system]}
    for figure, table, side in (("energy_error_mha", TARGETS, "upper"), ("correlation_fraction", FRACTIONS, "lower")):
        if system in table and minutes >= table[system][0]:
            found.setdefault(figure, {})[side] = table[system][1]
    return found
