"""Kinetics: Koopman operators and Markov models from trajectories, whose intervals hold for correlated data."""

import importlib
from typing import Any

_NAMES = {
    "EDMD": "linear",
    "FittedKoopman": "koopman",
    "FittedMarkovStateModel": "markov_state_model",
    "Grid": "clustering",
    "KMeans": "clustering",
    "MarkovStateModel": "markov_state_model",
    "MetastableStates": "pcca",
    "Partition": "clustering",
    "TICA": "linear",
    "VAMP": "linear",
    "ChapmanKolmogorov": "propagation",
    "ImpliedTimescales": "lags",
    "implied_timescales": "lags",
    "chapman_kolmogorov": "propagation",
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
