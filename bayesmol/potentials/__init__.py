"""Energies and forces with error bars."""

import importlib
from typing import Any

_NAMES = {
    "ACEPotential": "ace_posterior",
    "ACESurface": "ace_surface",
    "Atomic": "network_atomic",
    "BayesianACE": "ace",
    "Calculator": "calculator",
    "Choice": "learning_curves",
    "Committee": "committee",
    "CommitteePotential": "committee",
    "Crossover": "learning_curves",
    "DeepEnsemble": "neural_sampling",
    "DiatomicGP": "diatomic_gp",
    "DiatomicPotential": "diatomic_posterior",
    "Equivariant": "network_equivariant",
    "Failure": "failures",
    "Foundation": "foundation",
    "FoundationPotential": "foundation_posterior",
    "FrozenFeatures": "neural_last_layer",
    "GradientGP": "gradient_gp",
    "GradientGPPotential": "gradient_posterior",
    "Hamiltonian": "neural_sampling",
    "InducingGP": "inducing",
    "InducingGPPotential": "inducing_posterior",
    "Langevin": "integrators",
    "LastLayerLaplace": "neural_last_layer",
    "LearningCurve": "learning_curves",
    "MeanField": "neural_sampling",
    "MixingSchedule": "ace_learning",
    "NetworkPotential": "neural_posterior",
    "NeuralPotential": "neural",
    "NoUTurn": "neural_nuts",
    "PairGP": "pair_gp",
    "PairGPPotential": "pair_gp_posterior",
    "ResidualPotential": "residual",
    "SchNet": "network_schnet",
    "ShallowEnsemble": "neural_last_layer",
    "Simulation": "molecular_dynamics",
    "Surface": "surface",
    "TabulatedPotential": "tabulation",
    "Training": "training",
    "VariationalLastLayer": "neural_last_layer",
    "VelocityVerlet": "integrators",
    "Watch": "failures",
    "WeightAveraging": "neural_sampling",
    "choose": "learning_curves",
    "crossover": "learning_curves",
    "simulate": "molecular_dynamics",
    "tabulated": "tabulation",
    "thermal_velocities": "integrators",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
