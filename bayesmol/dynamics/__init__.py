"""Kinetics: Koopman operators and Markov models from trajectories, whose intervals hold for correlated data."""

import importlib
from typing import Any

_NAMES = {
    "ChapmanKolmogorov": "propagation",
    "DiffusionMap": "diffusion_maps",
    "EDMD": "linear",
    "FittedDiffusionMap": "diffusion_maps",
    "FittedKoopman": "koopman",
    "FittedMarkovStateModel": "markov_state_model",
    "FittedSGOOP": "sgoop",
    "FittedVAMPNet": "vampnet",
    "Grid": "clustering",
    "ImpliedTimescales": "lags",
    "KMeans": "clustering",
    "KernelEDMD": "kernel_edmd",
    "MarkovStateModel": "markov_state_model",
    "MetastableStates": "pcca",
    "Partition": "clustering",
    "SGOOP": "sgoop",
    "TICA": "linear",
    "VAMP": "linear",
    "VAMPNet": "vampnet",
    "chapman_kolmogorov": "propagation",
    "free_energy_surface": "plots",
    "implied_timescales": "lags",
    "pathways": "transition_paths",
    "reactive_flux": "transition_paths",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
