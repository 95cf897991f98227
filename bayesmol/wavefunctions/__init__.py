"""Electronic wavefunctions by stochastic variational Monte Carlo: energies with errors that are judged."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers and editors, which load nothing
    from bayesmol.wavefunctions.ansatz import Ansatz as Ansatz
    from bayesmol.wavefunctions.ansatz import Trial as Trial
    from bayesmol.wavefunctions.curves import curve as curve
    from bayesmol.wavefunctions.differences import EnergyDifference as EnergyDifference
    from bayesmol.wavefunctions.differences import energy_difference as energy_difference
    from bayesmol.wavefunctions.energy import Energy as Energy
    from bayesmol.wavefunctions.exact_energies import exact_energy as exact_energy
    from bayesmol.wavefunctions.exact_energies import known_energy as known_energy
    from bayesmol.wavefunctions.extrapolation import Extrapolated as Extrapolated
    from bayesmol.wavefunctions.extrapolation import ZeroVarianceExtrapolation as ZeroVarianceExtrapolation
    from bayesmol.wavefunctions.fermi_net import FermiNet as FermiNet
    from bayesmol.wavefunctions.fitted import FittedWavefunction as FittedWavefunction
    from bayesmol.wavefunctions.log_psi import LogPsi as LogPsi
    from bayesmol.wavefunctions.molecule import Molecule as Molecule
    from bayesmol.wavefunctions.observables import dipole as dipole
    from bayesmol.wavefunctions.observables import features as features
    from bayesmol.wavefunctions.observables import nuclear_forces as nuclear_forces
    from bayesmol.wavefunctions.observables import pair_distances as pair_distances
    from bayesmol.wavefunctions.observables import radial_density as radial_density
    from bayesmol.wavefunctions.optimise import Adam as Adam
    from bayesmol.wavefunctions.optimise import MinSR as MinSR
    from bayesmol.wavefunctions.optimise import Spring as Spring
    from bayesmol.wavefunctions.pauli_net import PauliNet as PauliNet
    from bayesmol.wavefunctions.pauli_net import SlaterJastrow as SlaterJastrow
    from bayesmol.wavefunctions.reference import Reference as Reference
    from bayesmol.wavefunctions.reference import casscf as casscf
    from bayesmol.wavefunctions.reference import hartree_fock as hartree_fock
    from bayesmol.wavefunctions.reference import multireference as multireference
    from bayesmol.wavefunctions.sensitivity import Sensitivity as Sensitivity
    from bayesmol.wavefunctions.sensitivity import iterates as iterates
    from bayesmol.wavefunctions.sensitivity import seeds as seeds
    from bayesmol.wavefunctions.slater_orbitals import SlaterOrbitals as SlaterOrbitals
    from bayesmol.wavefunctions.training import Training as Training
    from bayesmol.wavefunctions.walkers import MALA as MALA
    from bayesmol.wavefunctions.walkers import Metropolis as Metropolis

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

if not TYPE_CHECKING:  # else every misspelt name would pass as Any

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
