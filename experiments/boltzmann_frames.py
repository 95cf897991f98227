"""Small molecules in equilibrium on the surface of one method: geometries of least energy, and frames at 300 K."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from ase.data import atomic_masses
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from bayesmol.data.labelling import Frame, Result
from bayesmol.data.reference import TBLite
from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.files import replacing
from bayesmol.inference.chains import r_hat
from bayesmol.inference.metropolis import HamiltonianMonteCarlo
from bayesmol.progress import progress
from bayesmol.report import Study
from bayesmol.typing import Species
from bayesmol.units import thermal_energy

__all__ = ["TEMPERATURE", "Frames", "TightBinding", "equilibrium", "generate", "read", "starts"]

TEMPERATURE = 300.0
_SLOPE = 1e-3  # eV/Å, of a relaxed geometry
_WALKERS = 20


class Frames(NamedTuple):
    """One molecule: atomic numbers, its geometry of least energy, and rows of positions, in Å."""

    name: str
    species: Species
    equilibrium: Float[Tensor, " coordinates"]
    rows: Float[Tensor, "frames coordinates"]


class TightBinding:
    """Reduced energies of one molecule by GFN2-xTB at 300 K; infinite where the program finds none."""

    space = 3

    def __init__(self, species: Species) -> None:
        self.species, self.dimension = species.numpy(), 3 * len(species)
        self._calculate: Callable[[Frame], Result] = TBLite().calculation()

    def reduced_energy(self, x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        """Energies of rows of positions in Å."""
        return self.reduced_gradient(x)[0]

    def reduced_gradient(self, x: Float[Tensor, "points dimension"]) -> tuple[Tensor, Tensor]:
        """Energies and their gradients."""
        energies, slopes = torch.full((len(x),), torch.inf, dtype=torch.float64), torch.zeros(x.shape).double()
        for row, positions in enumerate(x.double().unflatten(1, (-1, 3)).numpy()):
            try:
                found = self._calculate(Frame(self.species, positions, np.zeros((3, 3)), np.zeros(3, dtype=bool)))
            except RuntimeError:
                continue
            energies[row], slopes[row] = found.energy, -torch.from_numpy(found.forces).flatten()
        unit = thermal_energy(TEMPERATURE)
        return energies / unit, slopes / unit


def equilibrium(target: TightBinding, x: Float[Tensor, " dimension"]) -> Float[Tensor, " dimension"]:
    """Geometry of least energy near one.

    Raises
    ------
    ConvergenceError
        If a force stays above 0.001 eV/Å.
    """

    def evaluated(row: np.ndarray) -> tuple[float, np.ndarray]:
        energy, slope = target.reduced_gradient(torch.from_numpy(row)[None])
        return float(energy), slope[0].numpy()

    limit = _SLOPE / thermal_energy(TEMPERATURE)
    found = minimize(evaluated, x.numpy(), jac=True, method="L-BFGS-B", options={"gtol": limit, "ftol": 0})
    if np.abs(found.jac).max() > limit:
        raise ConvergenceError(expected("geometry", f"forces below {_SLOPE} eV/Å", found.message, "start nearer"))
    return torch.from_numpy(found.x)


def generate(study: Study, data: Path, out: Path, *, draws: int, seed: int) -> None:
    """Frames of all molecules of ``data`` into a new file, by Hamiltonian Monte Carlo: exact but for its length."""
    known, found, worst = starts(data), {}, 1.0
    with study.stage("frames", "frames"), progress("molecules", len(known)) as advance:
        for name, species, row in known:
            target = TightBinding(species)
            least = equilibrium(target, row)
            sampler = HamiltonianMonteCarlo(step=0.1, leapfrogs=12, warmup=50, draws=draws // _WALKERS, thin=2)
            scales = torch.from_numpy(atomic_masses[species.numpy()]).rsqrt().repeat_interleave(3)
            walk = sampler.fit(target, least.repeat(_WALKERS, 1), scales=scales, seed=seed)
            worst = max(worst, float(r_hat(walk.energies)))
            found |= {f"Z_{name}": species.numpy(), f"xyz_nm_{name}": walk.values.flatten(0, 1).numpy() / 10}
            found[f"equilibrium_nm_{name}"] = least.numpy() / 10
            advance()
    study.add("molecules", len(known))
    study.add("energy_r_hat_largest", worst)
    with replacing(out) as path, path.open("wb") as file:
        np.savez(file, **found)


def starts(path: Path) -> list[tuple[str, Species, Float[Tensor, " coordinates"]]]:
    """Name, atomic numbers and first frame in Å of each molecule of an npz with ``xyz_nm_NAME`` and ``Z_NAME``.

    Raises
    ------
    DataError
        If there is none.
    """
    with np.load(path, allow_pickle=False) as found:
        names = [key[2:] for key in found.files if key.startswith("Z_")]
        if not names:
            raise DataError(expected("data", "an npz with xyz_nm_NAME and Z_NAME", str(path)))
        rows = [10 * torch.from_numpy(found[f"xyz_nm_{n}"][0].astype(np.float64)).flatten() for n in names]
        return list(zip(names, [torch.from_numpy(found[f"Z_{n}"].astype(np.int64)) for n in names], rows, strict=True))


def read(path: Path) -> list[Frames]:
    """Molecules of a file that :func:`generate` has written.

    Raises
    ------
    DataError
        If it is another.
    """
    with np.load(path, allow_pickle=False) as found:
        names = [key[15:] for key in found.files if key.startswith("equilibrium_nm_")]
        if not names:
            raise DataError(expected("data", "a file of boltzmann.py frames", str(path)))
        parts = [[found[f"{part}_{n}"] for part in ("Z", "equilibrium_nm", "xyz_nm")] for n in names]
    return [
        Frames(name, torch.from_numpy(z).long(), *(10 * torch.from_numpy(q.astype(np.float64)) for q in places))
        for name, (z, *places) in zip(names, parts, strict=True)
    ]
