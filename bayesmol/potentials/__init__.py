"""Energies and forces with error bars."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers and editors, which load nothing
    from bayesmol.potentials.ace import BayesianACE as BayesianACE
    from bayesmol.potentials.ace_learning import MixingSchedule as MixingSchedule
    from bayesmol.potentials.ace_posterior import ACEPotential as ACEPotential
    from bayesmol.potentials.ace_surface import ACESurface as ACESurface
    from bayesmol.potentials.calculator import Calculator as Calculator
    from bayesmol.potentials.committee import Committee as Committee
    from bayesmol.potentials.committee import CommitteePotential as CommitteePotential
    from bayesmol.potentials.diatomic_gp import DiatomicGP as DiatomicGP
    from bayesmol.potentials.diatomic_posterior import DiatomicPotential as DiatomicPotential
    from bayesmol.potentials.failures import Failure as Failure
    from bayesmol.potentials.failures import Watch as Watch
    from bayesmol.potentials.foundation import Foundation as Foundation
    from bayesmol.potentials.foundation_posterior import FoundationPotential as FoundationPotential
    from bayesmol.potentials.gradient_gp import GradientGP as GradientGP
    from bayesmol.potentials.gradient_posterior import GradientGPPotential as GradientGPPotential
    from bayesmol.potentials.inducing import InducingGP as InducingGP
    from bayesmol.potentials.inducing_posterior import InducingGPPotential as InducingGPPotential
    from bayesmol.potentials.integrators import Langevin as Langevin
    from bayesmol.potentials.integrators import VelocityVerlet as VelocityVerlet
    from bayesmol.potentials.integrators import thermal_velocities as thermal_velocities
    from bayesmol.potentials.learning_curves import Choice as Choice
    from bayesmol.potentials.learning_curves import Crossover as Crossover
    from bayesmol.potentials.learning_curves import LearningCurve as LearningCurve
    from bayesmol.potentials.learning_curves import choose as choose
    from bayesmol.potentials.learning_curves import crossover as crossover
    from bayesmol.potentials.molecular_dynamics import Simulation as Simulation
    from bayesmol.potentials.molecular_dynamics import simulate as simulate
    from bayesmol.potentials.network_atomic import Atomic as Atomic
    from bayesmol.potentials.network_equivariant import Equivariant as Equivariant
    from bayesmol.potentials.network_schnet import SchNet as SchNet
    from bayesmol.potentials.neural import NeuralPotential as NeuralPotential
    from bayesmol.potentials.neural_last_layer import FrozenFeatures as FrozenFeatures
    from bayesmol.potentials.neural_last_layer import LastLayerLaplace as LastLayerLaplace
    from bayesmol.potentials.neural_last_layer import ShallowEnsemble as ShallowEnsemble
    from bayesmol.potentials.neural_last_layer import VariationalLastLayer as VariationalLastLayer
    from bayesmol.potentials.neural_nuts import NoUTurn as NoUTurn
    from bayesmol.potentials.neural_posterior import NetworkPotential as NetworkPotential
    from bayesmol.potentials.neural_sampling import DeepEnsemble as DeepEnsemble
    from bayesmol.potentials.neural_sampling import Hamiltonian as Hamiltonian
    from bayesmol.potentials.neural_sampling import MeanField as MeanField
    from bayesmol.potentials.neural_sampling import WeightAveraging as WeightAveraging
    from bayesmol.potentials.pair_gp import PairGP as PairGP
    from bayesmol.potentials.pair_gp_posterior import PairGPPotential as PairGPPotential
    from bayesmol.potentials.residual import ResidualPotential as ResidualPotential
    from bayesmol.potentials.surface import Surface as Surface
    from bayesmol.potentials.tabulation import TabulatedPotential as TabulatedPotential
    from bayesmol.potentials.tabulation import tabulated as tabulated
    from bayesmol.potentials.training import Training as Training

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

if not TYPE_CHECKING:  # else every misspelt name would pass as Any

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
