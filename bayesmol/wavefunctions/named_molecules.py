"""Atoms and molecules of the literature: where their nuclei are, in bohr, and how many electrons are unpaired."""

from __future__ import annotations

import numpy as np

from bayesmol.units import convert

__all__ = ["NAMES", "nuclei", "unpaired"]

_UNPAIRED = {"H": 1, "He": 0, "Li": 1, "Be": 0, "B": 1, "C": 2, "N": 3, "O": 2, "F": 1, "Ne": 0}
_NUMBERS = {symbol: number for number, symbol in enumerate(_UNPAIRED, 1)}
_DIATOMIC = {"H2": ("H", "H", 1.4), "LiH": ("Li", "H", 3.015), "Li2": ("Li", "Li", 5.051), "N2": ("N", "N", 2.068)}
_ANGLE = {"H4-square": 90.0, "H4-rectangle": 80.0}
_RADIUS = 3.2843  # bohr, of the circle on which the nuclei of H4 lie
_WATER = (0.9572, 104.52)  # Å, degrees
NAMES = (*_UNPAIRED, *_DIATOMIC, "H2O", *_ANGLE, "H10")


def nuclei(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers and positions of one of :data:`NAMES`."""
    if name in _UNPAIRED:
        return np.array([_NUMBERS[name]]), np.zeros((1, 3))
    if name in _DIATOMIC:
        first, second, distance = _DIATOMIC[name]
        return np.array([_NUMBERS[first], _NUMBERS[second]]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]])
    if name in _ANGLE:
        half = np.deg2rad(_ANGLE[name]) / 2
        x, y = _RADIUS * np.cos(half), _RADIUS * np.sin(half)
        return np.ones(4, int), np.array([[x, y, 0.0], [-x, y, 0.0], [-x, -y, 0.0], [x, -y, 0.0]])
    if name == "H10":
        return np.ones(10, int), np.outer(1.8 * (np.arange(10) - 4.5), [0.0, 0.0, 1.0])
    length, half = convert(_WATER[0], "Å", "bohr"), np.deg2rad(_WATER[1]) / 2
    y, z = length * np.sin(half), length * np.cos(half)
    return np.array([8, 1, 1]), np.array([[0.0, 0.0, 0.0], [0.0, y, z], [0.0, -y, z]])


def unpaired(name: str) -> int:
    """Unpaired electrons in the ground state; none in the molecules listed here."""
    return _UNPAIRED.get(name, 0)
