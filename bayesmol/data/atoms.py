"""Labels in :class:`ase.Atoms`: where other programs put them, and where bayesmol does."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

if TYPE_CHECKING:
    from ase import Atoms

    from bayesmol.data.labelled import Labelled

__all__ = ["attach", "labels"]

_PREFIXES = ("", "REF_", "ref_", "dft_", "DFT_")
_ENERGY = [prefix + name for prefix in _PREFIXES for name in ("energy", "Energy")]
_FORCES = [prefix + name for prefix in _PREFIXES for name in ("forces", "force")]
_STRESS = [prefix + "stress" for prefix in _PREFIXES]
_VIRIAL = [prefix + name for prefix in _PREFIXES for name in ("virial", "virials")]
_ENERGY_ERROR = ["energy_error", "energy_err", "energy_errors"]
_FORCE_ERRORS = ["force_errors", "forces_error", "forces_err", "force_error"]
_STRESS_ERRORS = ["stress_errors", "stress_error", "stress_err"]


def labels(frames: "list[Atoms]") -> dict[str, Tensor | None]:
    """Keyword arguments of :class:`~bayesmol.data.Labelled` found in calculators, ``info`` and ``arrays``.

    The calculator comes first, then the keys ``energy``, ``forces`` and ``stress``, bare or after ``REF_`` or ``dft_``;
    ``virial`` (:math:`-V\\sigma`) stands in for a stress.

    Raises
    ------
    DataError
        If only some of the frames have an energy.
    """
    energies = [_number(frame, _ENERGY) for frame in frames]
    if any(e is None for e in energies) and any(e is not None for e in energies):
        first = next(k for k, e in enumerate(energies) if e is None)
        got = f"none in frame {first}"
        raise DataError(expected("energy", "an energy in every frame or in none", got, "remove the frames without"))
    forces, stresses = [_rows(frame, _FORCES) for frame in frames], [_stress(frame) for frame in frames]
    return {
        "energies": _joined(energies, [(1,)] * len(frames)),
        "forces": _joined(forces, [(len(frame), 3) for frame in frames]),
        "stresses": _joined(stresses, [(1, 3, 3)] * len(frames)),
        "energy_errors": _joined([_number(frame, _ENERGY_ERROR) for frame in frames], [(1,)] * len(frames)),
        "force_errors": _joined([_rows(frame, _FORCE_ERRORS) for frame in frames], [(len(f), 3) for f in frames]),
        "stress_errors": _joined([_matrix(frame, _STRESS_ERRORS) for frame in frames], [(1, 3, 3)] * len(frames)),
        "has_forces": torch.tensor([f is not None for f in forces]),
        "has_stresses": torch.tensor([s is not None for s in stresses]),
    }


def attach(data: "Labelled") -> "list[Atoms]":
    """Frames of ``data`` with labels in single-point calculators and standard errors in ``info`` and ``arrays``."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.stress import full_3x3_to_voigt_6_stress

    frames = data.structures.to_ase()
    bounds = data.structures.pointer.tolist()
    for s, frame in enumerate(frames):
        results: dict[str, Any] = {}
        atoms = slice(bounds[s], bounds[s + 1])
        if data.energies is not None:
            results["energy"] = float(data.energies[s])
        if data.forces is not None and data.has_forces[s]:
            results["forces"] = _numpy(data.forces[atoms])
        if data.stresses is not None and data.has_stresses[s]:
            results["stress"] = full_3x3_to_voigt_6_stress(_numpy(data.stresses[s]))
        frame.calc = SinglePointCalculator(frame, **results)
        if data.energy_errors is not None:
            frame.info["energy_error"] = float(data.energy_errors[s])
        if data.force_errors is not None:
            frame.arrays["force_errors"] = _numpy(data.force_errors[atoms])
        if data.stress_errors is not None:
            frame.info["stress_errors"] = _numpy(data.stress_errors[s])
    return frames


def _numpy(tensor: Tensor) -> NDArray[np.float64]:
    return tensor.detach().cpu().numpy()


def _found(frame: "Atoms", keys: list[str]) -> Any:
    """First of ``keys`` in the results of the calculator, in ``info`` or in ``arrays``."""
    places = (getattr(frame.calc, "results", {}) if frame.calc is not None else {}, frame.info, frame.arrays)
    return next((place[key] for key in keys for place in places if place.get(key) is not None), None)


def _array(value: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    """Numbers in a shape of as many."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(expected(name, "numbers", repr(value))) from error
    if array.size != np.prod(shape) or (array.ndim == len(shape) and array.shape != shape):
        raise ShapeError(expected(name, f"{np.prod(shape)} numbers for {shape}", array.shape))
    return array.reshape(shape)


def _number(frame: "Atoms", keys: list[str]) -> NDArray[np.float64] | None:
    value = _found(frame, keys)
    return None if value is None else _array(value, (1,), keys[0])


def _rows(frame: "Atoms", keys: list[str]) -> NDArray[np.float64] | None:
    value = _found(frame, keys)
    return None if value is None else _array(value, (len(frame), 3), keys[0])


def _matrix(frame: "Atoms", keys: list[str]) -> NDArray[np.float64] | None:
    """A 3 × 3 matrix from nine numbers, or from six in the order xx, yy, zz, yz, xz, xy of ASE."""
    value = _found(frame, keys)
    if np.size(value) == 6:
        return _array(value, (6,), keys[0])[[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]]
    if np.size(value) not in (1, 9):
        raise ShapeError(expected(keys[0], "6 or 9 numbers", np.shape(value)))
    return None if value is None else _array(value, (9,), keys[0]).reshape(1, 3, 3)


def _stress(frame: "Atoms") -> NDArray[np.float64] | None:
    stress = _matrix(frame, _STRESS)
    virial = _matrix(frame, _VIRIAL) if stress is None and frame.cell.rank == 3 else None
    return stress if virial is None else -virial / frame.cell.volume


def _joined(values: list[NDArray[np.float64] | None], shapes: list[tuple[int, ...]]) -> Tensor | None:
    """One array for all frames, zero where a frame has none."""
    if all(value is None for value in values):
        return None
    pairs = zip(values, shapes, strict=True)
    return torch.from_numpy(np.concatenate([np.zeros(shape) if v is None else v for v, shape in pairs]))
