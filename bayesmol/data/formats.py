"""Readers of the formats that ASE does not know: rMD17 npz, DeePMD folders and mlearn json.

Each takes the unit of lengths in the file and returns structures in Å, but labels in the units of the file, which
:func:`bayesmol.data.read` converts.
"""

import json
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.units import convert

__all__ = ["arrays", "deepmd", "mlearn", "rmd17"]

# An archive may ask for a password, another compression (RuntimeError), or more memory than there is.
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    MemoryError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    SyntaxError,  # of the header of an npy file
    tokenize.TokenError,
)


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of an npz or npy file; pickled objects are refused.

    Raises
    ------
    DataError
        If the file is damaged or holds pickled objects.
    """
    try:
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return dict(loaded.items()) if hasattr(loaded, "items") else {path.stem: loaded}
    except _DAMAGE as error:
        remedy = "fetch it again; pickled objects are never read, save plain arrays"
        raise DataError(
            expected("path", "a complete numpy file of plain arrays", f"{path}: {error}", remedy)
        ) from error


def rmd17(path: Path, *, length: str = "Å") -> Labelled:
    """Frames of one molecule: ``nuclear_charges``, ``coords``, ``energies`` (kcal/mol) and ``forces`` (kcal/mol/Å).

    References
    ----------
    Christensen and von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020).
    """
    found = arrays(path)
    if missing := {"nuclear_charges", "coords"} - set(found):
        got = f"{sorted(found)} in {path}"
        remedy = f"rename the arrays; {sorted(missing)} missing"
        raise DataError(expected("path", "the arrays nuclear_charges, coords, energies, forces", got, remedy))
    known = ("nuclear_charges", "coords", "energies", "forces")
    found = {name: _numeric(name, found[name]) for name in known if name in found}
    numbers, coordinates = found["nuclear_charges"], found["coords"]
    if coordinates.ndim != 3 or coordinates.shape[1:] != (*numbers.shape, 3):
        shape = f"(frames, {numbers.size}, 3)"
        raise ShapeError(expected("coords", shape, coordinates.shape, f"damaged file {path}?"))
    structures = _equal(convert(coordinates, length, "Å"), numbers, np.zeros((len(coordinates), 3, 3)), periodic=False)
    return _labelled(structures, found.get("energies"), found.get("forces"), None)


def deepmd(folder: Path, *, length: str = "Å") -> Labelled:
    r"""DeePMD-kit data: ``type.raw``, ``type_map.raw`` and ``set.*/{coord,box,energy,force,virial}.npy``.

    The virial is :math:`-V\sigma`.
    """
    symbols, types = (_words(folder / name) for name in ("type_map.raw", "type.raw"))
    sets = sorted(folder.glob("set.*"))
    if not sets:
        raise DataError(expected("path", "folders set.000, set.001, … with coord.npy", f"none in {folder}"))
    columns = {name: _column(sets, name) for name in ("coord", "box", "energy", "force", "virial")}
    numbers = _atomic_numbers(symbols)[_type_indices(types, len(symbols), folder)]
    if columns["coord"] is None or columns["coord"].shape[1:] != (3 * numbers.size,):
        got = "none" if columns["coord"] is None else columns["coord"].shape
        raise ShapeError(
            expected("coord.npy", f"(frames, {3 * numbers.size}), three for each type", got, f"in {folder}")
        )
    frames, box = len(columns["coord"]), columns["box"]
    if box is None and not (folder / "nopbc").exists():
        raise DataError(expected("box.npy", "lattice vectors", f"none in {folder}", "mark molecules by a file nopbc"))
    cell = np.zeros((frames, 3, 3)) if box is None else box.reshape(frames, 3, 3)
    coordinates, vectors = (convert(array, length, "Å") for array in (columns["coord"].reshape(frames, -1, 3), cell))
    structures = _equal(coordinates, numbers, vectors, periodic=box is not None)
    virial = columns["virial"]
    stress = None if virial is None else -virial.reshape(-1, 3, 3) / np.abs(np.linalg.det(cell))[:, None, None]
    return _labelled(structures, columns["energy"], columns["force"], stress)


def mlearn(path: Path, entries: list[Any], *, length: str = "Å") -> Labelled:
    r"""The mlearn sets: a list of pymatgen structures with ``outputs`` energy, forces and virial_stress.

    The stress is what VASP prints "in kB": kbar, in the order xx, yy, zz, xy, yz, zx, positive under compression,
    hence :math:`-\sigma`. The order and the sign follow from the energies of the strained cells: the silicon cell
    ``mode 0`` has :math:`\Delta E/(V\Delta\ln L) = -32.0` kbar about a strain of −0.02, and the file says +31.6;
    ``mode 3`` is a shear xy, ``mode 5`` a shear yz, and its fourth, respectively fifth number alone is not zero.

    References
    ----------
    Zuo et al., J. Phys. Chem. A 124, 731 (2020).
    """
    from ase import Atoms

    frames, outputs = [], []
    try:
        for entry in entries:
            structure, output = entry["structure"], entry["outputs"]
            sites = structure["sites"]
            symbols = [_only_species(site) for site in sites]
            positions = convert(np.array([site["xyz"] for site in sites]), length, "Å")
            cell = convert(np.array(structure["lattice"]["matrix"]), length, "Å")
            frames.append(Atoms(symbols, positions, cell=cell, pbc=True))
            pressure = np.asarray(output["virial_stress"], dtype=np.float64)[[[0, 3, 5], [3, 1, 4], [5, 4, 2]]]
            pulls = np.asarray(output["forces"], dtype=np.float64).reshape(len(sites), 3)
            outputs.append((float(output["energy"]), pulls, pressure))
    except (LookupError, TypeError, ValueError) as error:
        got = f"{path}, entry {len(frames)}: {type(error).__name__} {error}"
        raise DataError(expected("path", "a list of {structure, outputs} as in mlearn", got)) from error
    if not frames:
        raise DataError(expected("path", "at least one structure", f"an empty list in {path}"))
    energies, forces, pressures = zip(*outputs, strict=True)
    stress = -convert(np.stack(pressures), "kbar", "eV/Å³")
    return _labelled(Structures.from_ase(frames), np.array(energies), np.concatenate(forces), stress)


def json_content(path: Path) -> Any:
    """Parsed content of a json file."""
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(expected("path", "a complete json file", f"{path}: {error}", "fetch it again")) from error


def _numeric(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind not in "fiu":
        raise DataError(expected(name, "an array of real numbers", array.dtype, "damaged file?"))
    return array


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(expected("path", "text in UTF-8", f"{path}: {error}", "fetch it again")) from error


def _labelled(structures: Structures, energies: Any, forces: Any, stresses: Any) -> Labelled:
    """Labels from arrays of any precision."""
    shapes = ((len(structures),), tuple(structures.positions.shape), (len(structures), 3, 3))
    names = ("energies", "forces", "stresses")
    labels: list[Any] = []
    for name, array, shape in zip(names, (energies, forces, stresses), shapes, strict=True):
        if array is not None and array.size != np.prod(shape):
            raise ShapeError(expected(name, f"{np.prod(shape)} numbers for {shape}", array.shape, "damaged file?"))
        labels.append(None if array is None else torch.from_numpy(array.astype(np.float64).reshape(shape)))
    return Labelled(structures, *labels)


def _equal(coordinates: NDArray[Any], numbers: NDArray[Any], cell: NDArray[Any], *, periodic: bool) -> Structures:
    """Structures of frames that all have the same atoms."""
    frames, atoms = coordinates.shape[:2]
    if not frames or not atoms:
        raise DataError(expected("path", "at least one frame with an atom", coordinates.shape))
    return Structures(
        torch.from_numpy(coordinates.reshape(-1, 3).astype(np.float64)),
        torch.from_numpy(np.tile(numbers.astype(np.int64), frames)),
        torch.arange(frames + 1) * atoms,
        torch.from_numpy(cell.astype(np.float64)),
        torch.full((frames, 3), periodic),
    )


def _words(path: Path) -> list[str]:
    if not path.exists():
        raise DataError(expected("path", f"a DeePMD folder with {path.name}", f"no such file in {path.parent}"))
    return _text(path).split()


def _column(sets: list[Path], name: str) -> NDArray[Any] | None:
    """One array of all sets; all of them have it, or none."""
    files = [folder / f"{name}.npy" for folder in sets]
    if not any(file.exists() for file in files):
        return None
    if missing := [file for file in files if not file.exists()]:
        raise DataError(expected("path", f"{name}.npy in every set", f"none at {missing[0]}", "remove that set"))
    return np.concatenate([_numeric(name, arrays(file)[name]) for file in files])


def _type_indices(types: list[str], elements: int, folder: Path) -> NDArray[np.int64]:
    if not all(word.isdecimal() and int(word) < elements for word in types) or not types:
        raise DataError(
            expected("type.raw", f"numbers 0 to {elements - 1}, lines of type_map.raw", f"others in {folder}")
        )
    return np.array(types, dtype=np.int64)


def _atomic_numbers(symbols: list[str]) -> NDArray[np.int64]:
    from ase.data import atomic_numbers

    if unknown := [symbol for symbol in symbols if not atomic_numbers.get(symbol)]:
        raise DataError(expected("type_map.raw", "chemical symbols", unknown))
    return np.array([atomic_numbers[symbol] for symbol in symbols])


def _only_species(site: dict[str, Any]) -> str:
    species = site["species"]
    if len(species) != 1 or species[0]["occu"] != 1:
        raise ValueError(f"partial occupation {species}")
    return species[0]["element"]
