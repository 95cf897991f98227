"""Bayesian machine learning for molecular simulation: every number with an error bar that holds.

The parts are loaded when they are first used, so ``import bayesmol`` costs no more than ``import torch``.
"""

import importlib
from typing import TYPE_CHECKING, Any

import torch  # noqa: F401

if TYPE_CHECKING:  # the same names for type checkers and editors, which load nothing
    from bayesmol import acquisition as acquisition
    from bayesmol import applicability as applicability
    from bayesmol import calibration as calibration
    from bayesmol import data as data
    from bayesmol import dynamics as dynamics
    from bayesmol import errors as errors
    from bayesmol import flows as flows
    from bayesmol import inference as inference
    from bayesmol import posterior as posterior
    from bayesmol import potentials as potentials
    from bayesmol import representation as representation
    from bayesmol import testing as testing
    from bayesmol import units as units
    from bayesmol import wavefunctions as wavefunctions
    from bayesmol.certified import CertifiedModel as CertifiedModel
    from bayesmol.certified import certify as certify
    from bayesmol.persistence import load as load
    from bayesmol.persistence import save as save
    from bayesmol.scorecards import scorecard as scorecard

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

if not TYPE_CHECKING:  # else every misspelt name would pass as Any

    def __getattr__(name: str) -> Any:
        if name in _PACKAGES:
            return importlib.import_module(f"bayesmol.{name}")
        if name in _NAMES:
            return getattr(importlib.import_module(_NAMES[name]), name)
        raise AttributeError(f"module 'bayesmol' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
