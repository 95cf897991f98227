"""Ethanol with tight-binding labels: a cheap pool in which few bonds are broken, and what a potential is wanted for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bayesmol.data import Labelled, Structures, load
from bayesmol.data.label_cache import Cached
from bayesmol.data.reference import TBLite
from bayesmol.inference.random import numpy_generator

TASKS = ("targeted", "global")
BONDS = (("O", "H"), ("C", "O"), ("C", "C"))
STRETCHES = (1.2, 2.2)  # of the length of the bond


@dataclass(frozen=True)
class Pools:
    """Sizes of what is made: a pool of frames at equilibrium with a share of broken bonds, and a test set.

    Attributes
    ----------
    pool, test
        Structures of each.
    share
        Of the pool with a stretched or broken bond, in the targeted task.
    frames
        Where structures at equilibrium are taken from; their positions alone count.
    """

    pool: int = 1500
    test: int = 300
    share: float = 0.04
    frames: str = "rmd17/ethanol"


def pools(sizes: Pools, task: str, seed: int, folder: Path) -> tuple[Labelled, Labelled]:
    """Pool and test set of a task, labelled by GFN2-xTB; labels are kept in ``folder``.

    The targeted task wants the forces of broken bonds, the global one those at equilibrium, where the pool has no
    broken bonds. Pool and test set share no frame of origin. A structure without a label is left out.
    """
    source = numpy_generator(seed)
    frames = load(sizes.frames).structures
    order = source.permutation(len(frames))
    mine, others = frames[order[: sizes.pool]], frames[order[-sizes.test :]]
    if task == "targeted":
        few = round(sizes.share * sizes.pool)
        mine = Structures.concatenate([mine[few:], broken(mine[:few], source)])
        others = broken(others, source)
    reference = Cached(TBLite(), folder)
    return tuple(reference.label(part).labelled for part in (mine, others))


def broken(structures: Structures, source: np.random.Generator) -> Structures:
    """The same molecules, one bond of each O–H, C–O or C–C stretched by 1.2 to 2.2 times; displacements stay."""
    frames = structures.to_ase()
    for frame in frames:
        kind = BONDS[source.integers(len(BONDS))]
        _stretch(frame, kind, source.uniform(*STRETCHES))
    return Structures.from_ase(frames)


def _stretch(frame, kind: tuple[str, str], factor: float) -> None:
    """Move the smaller fragment of a molecule away along a bond."""
    from ase.neighborlist import build_neighbor_list, natural_cutoffs
    from scipy.sparse.csgraph import connected_components

    neighbours = build_neighbor_list(frame, natural_cutoffs(frame, 1.3), skin=0, self_interaction=False, bothways=True)
    bonds = neighbours.get_connectivity_matrix(sparse=False)
    symbols = frame.get_chemical_symbols()
    first, second = next((i, j) for i, j in zip(*bonds.nonzero(), strict=True) if (symbols[i], symbols[j]) == kind)
    bonds[first, second] = bonds[second, first] = 0
    fragment = connected_components(bonds, directed=False)[1]
    if (fragment == fragment[second]).sum() > len(frame) / 2:
        first, second = second, first
    along = frame.positions[second] - frame.positions[first]
    frame.positions[fragment == fragment[second]] += (factor - 1) * along
