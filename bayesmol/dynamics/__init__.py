"""Kinetics: Koopman operators and Markov models from trajectories, whose intervals hold for correlated data."""

import importlib
from typing import Any

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
    "TimeBlocks": "time_blocks",
    "VAMP": "linear",
    "VAMPNet": "vampnet",
    "chapman_kolmogorov": "propagation",
    "compare_states": "state_selection",
    "free_energy_surface": "plots",
    "from_deeptime": "deeptime",
    "implied_timescales": "lags",
    "pathways": "transition_paths",
    "reactive_flux": "transition_paths",
    "time_blocks": "time_blocks",
    "to_deeptime": "deeptime",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
