"""Kinetics: Koopman operators and Markov models from trajectories, whose intervals hold for correlated data."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers and editors, which load nothing
    from bayesmol.dynamics.clustering import Grid as Grid
    from bayesmol.dynamics.clustering import KMeans as KMeans
    from bayesmol.dynamics.clustering import Partition as Partition
    from bayesmol.dynamics.deeptime import from_deeptime as from_deeptime
    from bayesmol.dynamics.deeptime import to_deeptime as to_deeptime
    from bayesmol.dynamics.diffusion_maps import DiffusionMap as DiffusionMap
    from bayesmol.dynamics.diffusion_maps import FittedDiffusionMap as FittedDiffusionMap
    from bayesmol.dynamics.hidden_markov_model import FittedHiddenMarkovModel as FittedHiddenMarkovModel
    from bayesmol.dynamics.hidden_markov_model import HiddenMarkovModel as HiddenMarkovModel
    from bayesmol.dynamics.kernel_edmd import KernelEDMD as KernelEDMD
    from bayesmol.dynamics.koopman import FittedKoopman as FittedKoopman
    from bayesmol.dynamics.lags import ImpliedTimescales as ImpliedTimescales
    from bayesmol.dynamics.lags import implied_timescales as implied_timescales
    from bayesmol.dynamics.linear import EDMD as EDMD
    from bayesmol.dynamics.linear import TICA as TICA
    from bayesmol.dynamics.linear import VAMP as VAMP
    from bayesmol.dynamics.markov_state_model import FittedMarkovStateModel as FittedMarkovStateModel
    from bayesmol.dynamics.markov_state_model import MarkovStateModel as MarkovStateModel
    from bayesmol.dynamics.pcca import MetastableStates as MetastableStates
    from bayesmol.dynamics.plots import free_energy_surface as free_energy_surface
    from bayesmol.dynamics.propagation import ChapmanKolmogorov as ChapmanKolmogorov
    from bayesmol.dynamics.propagation import chapman_kolmogorov as chapman_kolmogorov
    from bayesmol.dynamics.sgoop import SGOOP as SGOOP
    from bayesmol.dynamics.sgoop import FittedSGOOP as FittedSGOOP
    from bayesmol.dynamics.state_selection import StateComparison as StateComparison
    from bayesmol.dynamics.state_selection import compare_states as compare_states
    from bayesmol.dynamics.trajectory_blocks import TimeBlocks as TimeBlocks
    from bayesmol.dynamics.trajectory_blocks import time_blocks as time_blocks
    from bayesmol.dynamics.transition_paths import pathways as pathways
    from bayesmol.dynamics.transition_paths import reactive_flux as reactive_flux
    from bayesmol.dynamics.vampnet import FittedVAMPNet as FittedVAMPNet
    from bayesmol.dynamics.vampnet import VAMPNet as VAMPNet

_NAMES = {
    "ChapmanKolmogorov": "propagation",
    "DiffusionMap": "diffusion_maps",
    "EDMD": "linear",
    "FittedDiffusionMap": "diffusion_maps",
    "FittedHiddenMarkovModel": "hidden_markov_model",
    "FittedKoopman": "koopman",
    "FittedMarkovStateModel": "markov_state_model",
    "FittedSGOOP": "sgoop",
    "FittedVAMPNet": "vampnet",
    "Grid": "clustering",
    "HiddenMarkovModel": "hidden_markov_model",
    "ImpliedTimescales": "lags",
    "KMeans": "clustering",
    "KernelEDMD": "kernel_edmd",
    "MarkovStateModel": "markov_state_model",
    "MetastableStates": "pcca",
    "Partition": "clustering",
    "SGOOP": "sgoop",
    "StateComparison": "state_selection",
    "TICA": "linear",
    "TimeBlocks": "trajectory_blocks",
    "VAMP": "linear",
    "VAMPNet": "vampnet",
    "chapman_kolmogorov": "propagation",
    "compare_states": "state_selection",
    "free_energy_surface": "plots",
    "from_deeptime": "deeptime",
    "implied_timescales": "lags",
    "pathways": "transition_paths",
    "reactive_flux": "transition_paths",
    "time_blocks": "trajectory_blocks",
    "to_deeptime": "deeptime",
}

__all__ = sorted(_NAMES)

if not TYPE_CHECKING:  # else every misspelt name would pass as Any

    def __getattr__(name: str) -> Any:
        if name in _NAMES:
            return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
