"""Electronic wavefunctions by stochastic variational Monte Carlo: energies with errors that are judged."""

import importlib
from typing import Any

_NAMES = {
    "Adam": "optimise",
    "Ansatz": "ansatz",
    "Energy": "energy",
    "EnergyDifference": "differences",
    "Extrapolated": "extrapolation",
    "FermiNet": "fermi_net",
    "FittedWavefunction": "fitted",
    "LogPsi": "log_psi",
    "MALA": "walkers",
    "Metropolis": "walkers",
    "MinSR": "optimise",
    "Molecule": "molecule",
    "PauliNet": "pauli_net",
    "Reference": "reference",
    "Sensitivity": "sensitivity",
    "SlaterJastrow": "pauli_net",
    "SlaterOrbitals": "slater_orbitals",
    "Spring": "optimise",
    "Training": "training",
    "Trial": "ansatz",
    "ZeroVarianceExtrapolation": "extrapolation",
    "casscf": "reference",
    "curve": "curves",
    "dipole": "observables",
    "energy_difference": "differences",
    "exact_energy": "exact_energies",
    "features": "observables",
    "hartree_fock": "reference",
    "iterates": "sensitivity",
    "known_energy": "exact_energies",
    "multireference": "reference",
    "nuclear_forces": "observables",
    "pair_distances": "observables",
    "radial_density": "observables",
    "seeds": "sensitivity",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
