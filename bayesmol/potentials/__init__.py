"""Energies and forces with error bars."""

import importlib
from typing import Any

_NAMES = {
    "ACEPotential": "ace_posterior",
    "BayesianACE": "ace",
    "Calculator": "calculator",
    "GradientGP": "gradient_gp",
    "GradientGPPotential": "gradient_posterior",
    "MixingSchedule": "ace_learning",
}

__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
