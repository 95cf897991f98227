"""Boltzmann densities: flows that draw equilibrium configurations, and weights that make their averages exact."""

import importlib
from typing import Any

_NAMES = {
    "Autoregressive": "autoregressive",
    "AnnealedBootstrap": "bootstrap",
    "BoltzmannDensity": "density",
    "BoltzmannDraws": "weighted",
    "BoltzmannGenerator": "generator",
    "Cartesian": "coordinates",
    "Composed": "coordinates",
    "ConstrainedMassTransport": "transport",
    "Continuous": "continuous",
    "Couplings": "couplings",
    "Defensive": "defensive",
    "Ensemble": "mixture",
    "Exact": "density",
    "Exploration": "systems",
    "FittedGenerator": "fitted",
    "Flow": "flow",
    "FlowMatching": "flow_matching",
    "ForceField": "force_field",
    "ForwardKL": "objectives",
    "Internal": "molecular_coordinates",
    "Ising": "lattice",
    "LogVariance": "objectives",
    "MeanFree": "coordinates",
    "MixedCouplings": "mixed_couplings",
    "MixedKL": "objectives",
    "Optimisation": "optimisation",
    "Planar": "coordinates",
    "Proposal": "proposal",
    "ReverseKL": "objectives",
    "Seen": "viewed",
    "Solvent": "force_field_solvent",
    "SurfaceError": "surface_error",
    "Symmetrised": "symmetrised",
    "TemperatureAnnealing": "tempering",
    "TorsionOnly": "molecular_coordinates",
    "Training": "training",
    "TrustReport": "trust",
    "Untrusted": "weighted_estimate",
    "Viewed": "viewed",
    "Whitening": "whitening",
    "alanine_dipeptide": "molecule",
    "diagnose": "trust",
    "double_well": "model_densities",
    "dw4": "particle_densities",
    "free_energy_difference": "differences",
    "from_calculator": "learned",
    "from_force_field": "molecule",
    "from_openmm": "molecule",
    "from_potential": "learned",
    "gaussian_mixture": "model_densities",
    "harmonic": "lattice_densities",
    "harmonic_crystal": "lattice_densities",
    "lennard_jones": "particle_densities",
    "many_well": "model_densities",
    "molecular": "molecular_coordinates",
    "mueller_brown": "model_densities",
    "onsager": "lattice",
    "phi4": "lattice_densities",
    "read_amber": "force_field_openmm",
    "read_openmm": "force_field_openmm",
    "surface_error": "surface_error",
    "whitening": "whitening",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
