"""Bayesian machine learning for molecular simulation: every number with an error bar that holds.

The parts are loaded when they are first used, so ``import bayesmol`` costs no more than ``import torch``.
"""

import importlib
from typing import Any

import torch  # noqa: F401

__version__ = "0.1.0"

_PACKAGES = (
    "acquisition",
    "applicability",
    "calibration",
    "data",
    "dynamics",
    "errors",
    "flows",
    "inference",
    "posterior",
    "potentials",
    "representation",
    "testing",
    "units",
    "wavefunctions",
)
_NAMES = {
    "CertifiedModel": "bayesmol.certified",
    "certify": "bayesmol.certified",
    "load": "bayesmol.persistence",
    "save": "bayesmol.persistence",
    "scorecard": "bayesmol.scorecards",
}

__all__ = ["__version__", *_PACKAGES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"bayesmol.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'bayesmol' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
