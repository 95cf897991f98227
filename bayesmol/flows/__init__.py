"""Boltzmann densities: flows that draw equilibrium configurations, and weights that make their averages exact."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers and editors, which load nothing
    from bayesmol.flows.autoregressive import Autoregressive as Autoregressive
    from bayesmol.flows.bayesian import Bayesian as Bayesian
    from bayesmol.flows.bayesian import BayesianFlow as BayesianFlow
    from bayesmol.flows.bootstrap import AnnealedBootstrap as AnnealedBootstrap
    from bayesmol.flows.continuous import Continuous as Continuous
    from bayesmol.flows.continuous import ContinuousFlow as ContinuousFlow
    from bayesmol.flows.continuous import MeanFreeGaussian as MeanFreeGaussian
    from bayesmol.flows.continuous import integration as integration
    from bayesmol.flows.coordinates import Cartesian as Cartesian
    from bayesmol.flows.coordinates import Composed as Composed
    from bayesmol.flows.coordinates import MeanFree as MeanFree
    from bayesmol.flows.coordinates import Planar as Planar
    from bayesmol.flows.corrections import label_correction as label_correction
    from bayesmol.flows.couplings import Couplings as Couplings
    from bayesmol.flows.defensive import Defensive as Defensive
    from bayesmol.flows.density import BoltzmannDensity as BoltzmannDensity
    from bayesmol.flows.density import Exact as Exact
    from bayesmol.flows.differences import free_energy_difference as free_energy_difference
    from bayesmol.flows.discovery import Discovery as Discovery
    from bayesmol.flows.equivariant import EquivariantField as EquivariantField
    from bayesmol.flows.fitted import FittedGenerator as FittedGenerator
    from bayesmol.flows.flow import Flow as Flow
    from bayesmol.flows.flow_matching import FlowMatching as FlowMatching
    from bayesmol.flows.force_field import ForceField as ForceField
    from bayesmol.flows.force_field_openmm import read_amber as read_amber
    from bayesmol.flows.force_field_openmm import read_openmm as read_openmm
    from bayesmol.flows.force_field_solvent import Solvent as Solvent
    from bayesmol.flows.generator import BoltzmannGenerator as BoltzmannGenerator
    from bayesmol.flows.lattice import Ising as Ising
    from bayesmol.flows.lattice import onsager as onsager
    from bayesmol.flows.lattice_densities import harmonic as harmonic
    from bayesmol.flows.lattice_densities import harmonic_crystal as harmonic_crystal
    from bayesmol.flows.lattice_densities import phi4 as phi4
    from bayesmol.flows.learned import from_calculator as from_calculator
    from bayesmol.flows.learned import from_potential as from_potential
    from bayesmol.flows.manifolds import Rotation as Rotation
    from bayesmol.flows.manifolds import Sphere as Sphere
    from bayesmol.flows.mixed_couplings import MixedCouplings as MixedCouplings
    from bayesmol.flows.mixture import Disagreement as Disagreement
    from bayesmol.flows.mixture import Ensemble as Ensemble
    from bayesmol.flows.mixture import disagreement as disagreement
    from bayesmol.flows.model_densities import double_well as double_well
    from bayesmol.flows.model_densities import gaussian_mixture as gaussian_mixture
    from bayesmol.flows.model_densities import many_well as many_well
    from bayesmol.flows.model_densities import mueller_brown as mueller_brown
    from bayesmol.flows.molecular_coordinates import Internal as Internal
    from bayesmol.flows.molecular_coordinates import TorsionOnly as TorsionOnly
    from bayesmol.flows.molecular_coordinates import molecular as molecular
    from bayesmol.flows.molecule import alanine_dipeptide as alanine_dipeptide
    from bayesmol.flows.molecule import from_force_field as from_force_field
    from bayesmol.flows.molecule import from_openmm as from_openmm
    from bayesmol.flows.moves import Langevin as Langevin
    from bayesmol.flows.moves import Metropolis as Metropolis
    from bayesmol.flows.objectives import ForwardKL as ForwardKL
    from bayesmol.flows.objectives import LogVariance as LogVariance
    from bayesmol.flows.objectives import MixedKL as MixedKL
    from bayesmol.flows.objectives import ReverseKL as ReverseKL
    from bayesmol.flows.optimisation import Optimisation as Optimisation
    from bayesmol.flows.particle_densities import dw4 as dw4
    from bayesmol.flows.particle_densities import lennard_jones as lennard_jones
    from bayesmol.flows.proposal import Proposal as Proposal
    from bayesmol.flows.renewal import RenewedKL as RenewedKL
    from bayesmol.flows.steerable import AdditiveCouplings as AdditiveCouplings
    from bayesmol.flows.steerable import Steered as Steered
    from bayesmol.flows.steered import SteerableGenerator as SteerableGenerator
    from bayesmol.flows.steering import TemperatureSteering as TemperatureSteering
    from bayesmol.flows.stochastic import PathDivergence as PathDivergence
    from bayesmol.flows.stochastic import Stochastic as Stochastic
    from bayesmol.flows.stochastic import StochasticFlow as StochasticFlow
    from bayesmol.flows.surface_errors import SurfaceError as SurfaceError
    from bayesmol.flows.surface_errors import surface_error as surface_error
    from bayesmol.flows.symmetrised import Symmetrised as Symmetrised
    from bayesmol.flows.symmetrised import exchanges as exchanges
    from bayesmol.flows.systems import Exploration as Exploration
    from bayesmol.flows.tempering import TemperatureAnnealing as TemperatureAnnealing
    from bayesmol.flows.training import Training as Training
    from bayesmol.flows.transferable import TransferableKernel as TransferableKernel
    from bayesmol.flows.transferable_fitted import Familiarity as Familiarity
    from bayesmol.flows.transferable_fitted import FittedTransferable as FittedTransferable
    from bayesmol.flows.transport import ConstrainedMassTransport as ConstrainedMassTransport
    from bayesmol.flows.trust import TrustReport as TrustReport
    from bayesmol.flows.trust import diagnose as diagnose
    from bayesmol.flows.unfolding import SymmetricFlow as SymmetricFlow
    from bayesmol.flows.unfolding import UnfoldedKL as UnfoldedKL
    from bayesmol.flows.viewed import Seen as Seen
    from bayesmol.flows.viewed import Viewed as Viewed
    from bayesmol.flows.weighted import BoltzmannDraws as BoltzmannDraws
    from bayesmol.flows.weighted_estimate import Untrusted as Untrusted
    from bayesmol.flows.weighted_estimate import WeightedEstimate as WeightedEstimate
    from bayesmol.flows.whitened import Whitening as Whitening
    from bayesmol.flows.whitened import whitening as whitening

_NAMES = {
    "AdditiveCouplings": "steerable",
    "AnnealedBootstrap": "bootstrap",
    "Autoregressive": "autoregressive",
    "Bayesian": "bayesian",
    "BayesianFlow": "bayesian",
    "BoltzmannDensity": "density",
    "BoltzmannDraws": "weighted",
    "BoltzmannGenerator": "generator",
    "Cartesian": "coordinates",
    "Composed": "coordinates",
    "ConstrainedMassTransport": "transport",
    "Continuous": "continuous",
    "ContinuousFlow": "continuous",
    "Couplings": "couplings",
    "Defensive": "defensive",
    "Disagreement": "mixture",
    "Discovery": "discovery",
    "Ensemble": "mixture",
    "EquivariantField": "equivariant",
    "Exact": "density",
    "Exploration": "systems",
    "Familiarity": "transferable_fitted",
    "FittedGenerator": "fitted",
    "FittedTransferable": "transferable_fitted",
    "Flow": "flow",
    "FlowMatching": "flow_matching",
    "ForceField": "force_field",
    "ForwardKL": "objectives",
    "Internal": "molecular_coordinates",
    "Ising": "lattice",
    "Langevin": "moves",
    "LogVariance": "objectives",
    "MeanFree": "coordinates",
    "MeanFreeGaussian": "continuous",
    "Metropolis": "moves",
    "MixedCouplings": "mixed_couplings",
    "MixedKL": "objectives",
    "Optimisation": "optimisation",
    "PathDivergence": "stochastic",
    "Planar": "coordinates",
    "Proposal": "proposal",
    "RenewedKL": "renewal",
    "ReverseKL": "objectives",
    "Rotation": "manifolds",
    "Seen": "viewed",
    "Solvent": "force_field_solvent",
    "Sphere": "manifolds",
    "SteerableGenerator": "steered",
    "Steered": "steerable",
    "Stochastic": "stochastic",
    "StochasticFlow": "stochastic",
    "SurfaceError": "surface_errors",
    "Symmetrised": "symmetrised",
    "SymmetricFlow": "unfolding",
    "TemperatureAnnealing": "tempering",
    "TemperatureSteering": "steering",
    "TorsionOnly": "molecular_coordinates",
    "Training": "training",
    "TransferableKernel": "transferable",
    "TrustReport": "trust",
    "UnfoldedKL": "unfolding",
    "Untrusted": "weighted_estimate",
    "Viewed": "viewed",
    "WeightedEstimate": "weighted_estimate",
    "Whitening": "whitened",
    "alanine_dipeptide": "molecule",
    "diagnose": "trust",
    "disagreement": "mixture",
    "double_well": "model_densities",
    "dw4": "particle_densities",
    "exchanges": "symmetrised",
    "free_energy_difference": "differences",
    "from_calculator": "learned",
    "from_force_field": "molecule",
    "from_openmm": "molecule",
    "from_potential": "learned",
    "gaussian_mixture": "model_densities",
    "harmonic": "lattice_densities",
    "harmonic_crystal": "lattice_densities",
    "integration": "continuous",
    "label_correction": "corrections",
    "lennard_jones": "particle_densities",
    "many_well": "model_densities",
    "molecular": "molecular_coordinates",
    "mueller_brown": "model_densities",
    "onsager": "lattice",
    "phi4": "lattice_densities",
    "read_amber": "force_field_openmm",
    "read_openmm": "force_field_openmm",
    "surface_error": "surface_errors",
    "whitening": "whitened",
}

__all__ = sorted(_NAMES)

if not TYPE_CHECKING:  # else every misspelt name would pass as Any

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
