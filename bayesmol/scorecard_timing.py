"""What a potential costs: time of an atom and a step, and how the time grows with the number of atoms."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.progress import progress
from bayesmol.report import cpu_seconds, peak_memory_mb
from bayesmol.scorecard_lines import CONFIDENCE, Score

__all__ = ["Budget", "Growth", "Timing", "growth", "replicated", "timed"]

GAP = 15.0  # Å of vacuum between copies of a molecule, more than any cutoff in use


@dataclass(frozen=True)
class Budget:
    """How much may be spent on measuring time.

    Attributes
    ----------
    seconds
        For the growth of the time, and as much again for its constant; of the processor on a CPU, else of the clock.
    memory_mb
        Memory of the process, on a GPU of the card; a size that is forecast to need more is not tried.
    repeats
        Runs of each measurement after a first one that is not counted. Least and largest of six hold the median with
        97 % probability.
    """

    seconds: float = 60.0
    memory_mb: float = 6000.0
    repeats: int = 6


@dataclass(frozen=True)
class Timing:
    """Repeated measurements of one call; seconds of all threads on a CPU, of the clock on a GPU."""

    atoms: int
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the repeats, in s."""
        return float(torch.tensor(self.seconds, dtype=torch.float64).quantile(0.5))

    @property
    def score(self) -> Score:
        """µs an atom: the median; least and largest of six or more repeats hold that of infinitely many."""
        scale = 1e6 / self.atoms
        enough = 1 - 2.0 ** (1 - len(self.seconds)) >= CONFIDENCE
        ends = (min(self.seconds) * scale, max(self.seconds) * scale) if enough else (0.0, math.inf)
        return Score(self.median * scale, *ends, "µs/atom")


@dataclass(frozen=True)
class Growth:
    r"""Time against number of atoms, :math:`t \propto N^a`.

    Attributes
    ----------
    exponent
        From a straight line through the logarithms, with its interval by Student's t.
    last
        Exponent between the last two sizes, where constant costs no longer count.
    extensivity
        Deviation of the energy of the smallest system from that of its copies one by one, in eV a copy.
    stopped
        Why larger systems were not tried; empty if all were.
    """

    timings: tuple[Timing, ...]
    exponent: Score
    last: float
    extensivity: float
    stopped: str


def timed(call: Callable[[], Any], atoms: int, device: torch.device, repeats: int, seconds: float) -> Timing:
    """Times of a call after one that is not counted; fewer repeats, at least one, if the seconds would not suffice."""
    start = _clock(device)
    call()
    first = _clock(device) - start
    taken = []
    for _ in range(max(1, min(repeats, int((seconds - first) / max(first, 1e-9))))):
        begun = _clock(device)
        call()
        taken.append(_clock(device) - begun)
    return Timing(atoms, tuple(taken))


def growth(
    mean: Callable[[Structures], Tensor], structure: Structures, atoms: tuple[int, int], budget: Budget
) -> Growth:
    """Time of the energies and forces of larger and larger systems made of one structure, until the budget is spent.

    Parameters
    ----------
    mean
        Energies of structures; what is timed.
    structure
        One structure: a molecule is copied at a distance, a cell is repeated.
    atoms
        Smallest and largest number of atoms.
    """
    timings: list[Timing] = []
    device, stopped, extensivity = structure.positions.device, "", math.nan
    single, start, before = float(mean(structure)[0]), _clock(device), _memory(device)
    with progress("time of larger systems", len(_ladder(atoms))) as advance:
        for size in _ladder(atoms):
            system = replicated(structure, size)
            if timings and len(system.positions) == timings[-1].atoms:
                continue
            left = budget.seconds - (_clock(device) - start)
            stopped = _refusal(timings, len(system.positions), left, before, _memory(device), budget)
            if stopped:
                break
            copies = len(system.positions) // len(structure.positions)
            if not timings:
                extensivity = abs(float(mean(system)[0]) / copies - single)
            timings.append(timed(partial(mean, system), len(system.positions), device, 3, left / 4))
            advance()
    return Growth(tuple(timings), *_exponents(timings), extensivity, stopped)


def replicated(structure: Structures, atoms: int) -> Structures:
    """About so many atoms: copies of a molecule on a cubic lattice, 15 Å apart, or a supercell of a crystal.

    Raises
    ------
    DataError
        If there is not one structure, or it repeats in some directions only.
    """
    if len(structure) != 1 or bool(structure.pbc.any()) != bool(structure.pbc.all()):
        raise DataError(expected("structure", "one molecule, or one cell that repeats in all directions", structure))
    periodic, copies = bool(structure.pbc.all()), max(1, round(atoms / len(structure.positions)))
    shape = _balanced(structure.cell[0], copies) if periodic else (math.ceil(copies ** (1 / 3)),) * 3
    extent = structure.positions.amax(0) - structure.positions.amin(0) + GAP
    lattice = structure.cell[0] if periodic else torch.diag(extent)
    steps = torch.cartesian_prod(*(torch.arange(n) for n in shape)).to(lattice)
    steps = steps if periodic else steps[:copies]
    positions = (structure.positions + (steps @ lattice)[:, None]).flatten(0, 1)
    cell = structure.cell * steps.new_tensor(shape)[:, None] if periodic else structure.cell
    pointer = structure.pointer.new_tensor([0, len(positions)])
    return Structures(positions, structure.species.repeat(len(steps)), pointer, cell, structure.pbc)


def _balanced(cell: Float[Tensor, "3 3"], copies: int) -> tuple[int, int, int]:
    """Repeats of each lattice vector that make a supercell of at least so many cells as even as possible."""
    lengths, shape = cell.norm(dim=1).tolist(), [1, 1, 1]
    while math.prod(shape) < copies:
        shortest = min(range(3), key=lambda axis: shape[axis] * lengths[axis])
        shape[shortest] += 1
    return shape[0], shape[1], shape[2]


def _ladder(atoms: tuple[int, int], steps: int = 7) -> list[int]:
    low, high = atoms
    return [round(low * (high / low) ** (step / (steps - 1))) for step in range(steps)]


def _refusal(timings: list[Timing], atoms: int, left: float, before: float, memory: float, budget: Budget) -> str:
    """Why a system of so many atoms is not tried: the forecast from the last size, quadratic in time, linear in memory.

    Empty if it is tried.
    """
    if not timings:
        return ""
    ratio = atoms / timings[-1].atoms
    seconds, wanted = 4 * timings[-1].median * ratio**2, before + (memory - before) * ratio
    if seconds > left:
        return f"{atoms} atoms may take {seconds:.0f} s and {max(0.0, left):.0f} s are left"
    return f"{atoms} atoms may need {wanted:.0f} MB of {budget.memory_mb:.0f}" if wanted > budget.memory_mb else ""


def _exponents(timings: list[Timing]) -> tuple[Score, float]:
    if len(timings) < 2:
        return Score(math.nan), math.nan
    x, y = ([math.log(value) for value in values] for values in _columns(timings))
    last = (y[-1] - y[-2]) / (x[-1] - x[-2])
    line = stats.linregress(x, y)
    if len(timings) < 3:
        return Score(float(line.slope)), last
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(timings) - 2) * line.stderr)
    return Score(float(line.slope), float(line.slope) - half, float(line.slope) + half), last


def _columns(timings: list[Timing]) -> Iterator[tuple[float, ...]]:
    yield tuple(float(timing.atoms) for timing in timings)
    yield tuple(timing.median for timing in timings)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _clock(device: torch.device) -> float:
    """Seconds that other programs do not change: of the processor, or of a card that nobody else uses."""
    _wait(device)
    return time.perf_counter() if device.type == "cuda" else cpu_seconds()


def _memory(device: torch.device) -> float:
    """Largest memory so far in MB."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else peak_memory_mb()
