"""Files: read structures and labels in any format, write predictions."""

import os
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bayesmol.data.atoms import labels
from bayesmol.data.formats import arrays, deepmd, json_content, mlearn, rmd17
from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.data.text_files import check_xyz
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.files import replacing
from bayesmol.units import convert

if TYPE_CHECKING:
    from bayesmol.posterior.prediction import Prediction

__all__ = ["read", "write"]

_LARGEST_FORCE = 15.0  # eV/Å; kcal/mol/Å of a molecule at room temperature have a root mean square of 30
_FARTHEST = 1e7  # Å, a millimetre
_SHORTEST_BOND = 0.5  # Å; bonds in nm are 0.1 to 0.3
_LABELS = {"energy": "energies", "force": "forces", "stress": "stresses"}
_PICKLES = {".pkl", ".pickle", ".pckl", ".pt", ".pth", ".joblib"}


def read(
    path: str | os.PathLike[str],
    index: int | slice | str = ":",
    *,
    energy_unit: str | None = None,
    length_unit: str | None = None,
) -> Labelled:
    """Structures and labels of a file, in eV and Å.

    Reads what ASE reads (extended xyz, VASP, trajectories, …), rMD17 ``npz``, DeePMD folders and mlearn ``json``.
    Frames without forces or stresses are masked, see :class:`Labelled`.

    Parameters
    ----------
    index
        Frames to take: a number, a slice, or a string such as ``"-100:"``.
    energy_unit, length_unit
        Units of the file, if they are not those of its format: kcal/mol and Å for ``npz``, eV and Å for all others.

    Raises
    ------
    DataError
        If the file is missing, empty, truncated, pickled, of an unknown format, has labels that are NaN,
        or has distances or forces that suggest other units (naming the units settles it).
    """
    file = Path(path)
    if not file.exists():
        raise DataError(expected("path", "an existing file or folder", str(path)))
    if file.suffix.lower() in _PICKLES:
        remedy = "pickles can run code and are never read; export to extended xyz"
        raise DataError(expected("path", "a data format", f"a pickle, {path}", remedy))
    if file.is_file() and not file.stat().st_size:
        raise DataError(expected("path", "a file with structures", f"an empty file, {path}"))
    native = "kcal/mol" if file.suffix == ".npz" else "eV"
    data = _converted(_frames(file, index, length_unit or "Å"), energy_unit or native, length_unit or "Å")
    if length_unit is None:
        _check_lengths(data, file)
    if energy_unit is None:
        _check_forces(data, file)
    return data


def write(
    path: str | os.PathLike[str],
    structures: "Structures | Labelled | Any",
    prediction: "Prediction | None" = None,
    *,
    level: float = 0.9,
) -> None:
    """Write extended xyz that ASE reads; the file appears complete or not at all.

    With a prediction, energy, forces and stress are its means. ``info`` has ``energy_stddev``, ``energy_lower``,
    ``energy_upper``, ``level``, ``inside`` and ``p_value``; ``arrays`` has ``forces_stddev``, ``forces_lower`` and
    ``forces_upper``; labels of the input go to ``REF_energy`` and ``REF_forces``.

    Parameters
    ----------
    structures
        Whatever :meth:`Structures.coerce` takes; without a prediction, labels of a :class:`Labelled` are written.
    level
        Probability of the intervals.

    Raises
    ------
    ShapeError
        If the prediction is of other structures.
    """
    import ase.io

    labelled = structures if isinstance(structures, Labelled) else None
    if prediction is not None:
        frames = _predicted(Structures.coerce(structures), prediction, level)
        if labelled is not None:
            _add_references(frames, labelled)
    else:
        frames = labelled.to_ase() if labelled else Structures.coerce(structures).to_ase()
    with _beside(Path(path)) as temporary:
        ase.io.write(temporary, frames, format="extxyz")


def _frames(file: Path, index: int | slice | str, length: str) -> Labelled:
    """Structures in Å, labels in the units of the file."""
    if file.is_dir():
        return _chosen(deepmd(file, length=length), index)
    if file.suffix == ".npz":
        return _chosen(rmd17(file, length=length), index)
    if file.suffix == ".npy":
        got = f"{next(iter(arrays(file)))}.npy alone"
        raise DataError(expected("path", "an npz, or the DeePMD folder around the npy files", got))
    if file.suffix == ".json" and isinstance(content := json_content(file), list):
        return _chosen(mlearn(file, content, length=length), index)
    if file.suffix.lower() in {".xyz", ".extxyz"}:
        check_xyz(file)
    import ase.io

    try:
        frames = ase.io.read(file, index=index, do_not_split_by_at_sign=True)
    except Exception as error:  # ASE's readers raise whatever their parsers raise
        got = f"{file}: {type(error).__name__} {error}"
        remedy = "is the file truncated, or its ending that of another format?"
        raise DataError(expected("path", "a complete file in a format that ASE reads", got, remedy)) from error
    if not frames:
        raise DataError(expected("index", "at least one frame", f"none of {file} for {index!r}"))
    frames = frames if isinstance(frames, list) else [frames]
    found: dict[str, Any] = labels(frames)
    for frame in frames:
        frame.set_cell(convert(frame.cell.array, length, "Å"))
        frame.set_positions(convert(frame.positions, length, "Å"), apply_constraint=False)
    return Labelled(Structures.from_ase(frames), **found)


def _chosen(data: Labelled, index: int | slice | str) -> Labelled:
    from ase.io.formats import string2index

    try:
        chosen: Any = string2index(index) if isinstance(index, str) else index
        return data[chosen]
    except (IndexError, ValueError) as error:
        raise DataError(expected("index", f"frames among {len(data)}", repr(index))) from error


def _converted(data: Labelled, energy: str, length: str) -> Labelled:
    """Labels in eV and Å from those in other units."""
    scales = {"energies": (energy, "eV"), "forces": (f"{energy}/{length}", "eV/Å")}
    scales["stresses"] = (f"{energy}/{length}³", "eV/Å³")
    scales |= {f"{name}_errors": scales[label] for name, label in _LABELS.items()}
    found = {name: array for name in scales if (array := getattr(data, name)) is not None}
    return replace(data, **{name: convert(array, *scales[name]) for name, array in found.items()})


def _check_lengths(data: Labelled, file: Path) -> None:
    """Refuse coordinates in nm: half of the atoms would have a neighbour within half an Å."""
    from scipy.spatial import cKDTree

    s = data.structures
    if (largest := float(s.positions.abs().max())) > _FARTHEST:
        raise DataError(
            expected("positions", f"numbers below {_FARTHEST:g} Å", f"{largest:g} in {file}", "fetch it again")
        )
    apart = 2 * s.positions.abs().max() + 10
    points = torch.cat([s.positions, (apart * s.structure_index).unsqueeze(1)], 1).numpy()
    nearest = torch.from_numpy(cKDTree(points).query(points, k=2)[0][:, 1])
    bonded = nearest[nearest < apart]
    if bonded.numel() and bonded.median() < _SHORTEST_BOND:
        got = f"a median distance of {bonded.median():.3f} to the nearest atom in {file}"
        remedy = 'name the unit, length_unit="nm", or "Å" if it is right'
        raise DataError(expected("length_unit", f"bonds in Å, longer than {_SHORTEST_BOND}", got, remedy))


def _check_forces(data: Labelled, file: Path) -> None:
    """Refuse forces that are implausible in eV/Å."""
    if data.forces is None:
        return
    size = data.forces[data.has_forces[data.structures.structure_index]].square().sum(1).sqrt().median()
    if size > _LARGEST_FORCE:
        remedy = 'name the unit, energy_unit="kcal/mol", or "eV" if it is right'
        got = f"a median force of {size:.1f} in {file}"
        raise DataError(expected("energy_unit", f"forces in eV/Å, mostly below {_LARGEST_FORCE:g}", got, remedy))


def _predicted(structures: Structures, prediction: "Prediction", level: float) -> list[Any]:
    """Frames with means in the calculator, and all else in ``info`` and ``arrays``."""
    if len(prediction) != len(structures) or not torch.equal(prediction.pointer.cpu(), structures.pointer.cpu()):
        got = f"one of {len(prediction)} structures and {int(prediction.pointer[-1])} atoms"
        raise ShapeError(expected("prediction", f"a prediction of these {structures}", got))
    stresses: dict[str, Any] = _stress_means(structures, prediction)
    data = Labelled(structures, prediction.energy.mean, prediction.forces.mean, **stresses)
    frames = data.to_ase()
    energy, forces = _columns(prediction.energy, level), _columns(prediction.forces, level)
    bounds = structures.pointer.tolist()
    for s, frame in enumerate(frames):
        atoms = slice(bounds[s], bounds[s + 1])
        frame.info |= {f"energy_{name}": float(value[s]) for name, value in energy.items()} | {"level": level}
        frame.arrays |= {f"forces_{name}": value[atoms].numpy() for name, value in forces.items()}
        if prediction.inside is not None:
            frame.info["inside"] = bool(prediction.inside[s])
        if prediction.p_value is not None:
            frame.info["p_value"] = float(prediction.p_value[s])
    return frames


def _stress_means(structures: Structures, prediction: "Prediction") -> dict[str, Tensor]:
    periodic = structures.pbc.all(1)
    if prediction.stress is None or not periodic.any():
        return {}
    means = torch.where(periodic[:, None, None].to(prediction.stress.mean.device), prediction.stress.mean, 0.0)
    return {"stresses": means, "has_stresses": periodic}


def _columns(posterior: Any, level: float) -> dict[str, Tensor]:
    interval = posterior.interval(level)
    columns = {"stddev": posterior.stddev, "lower": interval.lower, "upper": interval.upper}
    return {name: value.detach().cpu() for name, value in columns.items()}


def _add_references(frames: list[Any], labelled: Labelled) -> None:
    bounds = labelled.structures.pointer.tolist()
    for s, frame in enumerate(frames):
        if labelled.energies is not None:
            frame.info["REF_energy"] = float(labelled.energies[s])
        if labelled.forces is not None and labelled.has_forces[s]:
            frame.arrays["REF_forces"] = labelled.forces[bounds[s] : bounds[s + 1]].detach().cpu().numpy()


def _beside(path: Path) -> AbstractContextManager[Path]:
    """A temporary name that becomes ``path`` at the end."""
    if not path.parent.is_dir():
        raise DataError(expected("path", "a file in an existing folder", str(path), f"create {path.parent}"))
    return replacing(path)
