"""Does the interval of the extrapolated energy hold the exact one? Short trainings of many systems and seeds."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bayesmol.errors import DataError, expected
from bayesmol.progress import progress
from bayesmol.report import Study, proportion, write_text
from bayesmol.wavefunctions.exact_energies import EXACT_ENERGIES
from bayesmol.wavefunctions.extrapolation import ZeroVarianceExtrapolation
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.pauli_net import PauliNet

__all__ = ["SYSTEMS", "Outcome", "extrapolation"]

LEVEL = 0.95
SYSTEMS = ("He", "H2", "Li", "Be", "LiH", "Li2", "C", "N")
NEW = ("Li2", "C", "N")  # not among those whose ratios of error to variance made the prior of the slope
STEPS = (60, 240)

Run = tuple[str, int, int]  # system, seed, steps


def extrapolation(
    study: Study,
    *,
    seeds: int,
    draws: int,
    steps: Sequence[int] = STEPS,
    only: Sequence[str] = (),
    seed: int = 0,
    spec: PauliNet | None = None,
    kept: Path | None = None,
) -> None:
    """Fill in how often intervals of one training hold the exact energy, and the upper bounds the same energy.

    What each training gave is added to the file ``kept``; those that it has already are not run again.
    """
    spec = PauliNet() if spec is None else spec
    systems = [name for name in SYSTEMS if name in (only or SYSTEMS)]
    wanted = list(itertools.product(systems, range(seed, seed + seeds), steps))
    known = _read(kept, repr((spec, draws)))
    with progress("extrapolation", len(wanted)) as advance:
        for run in wanted:
            if run not in known:
                with study.stage(run[0]):
                    known[run] = _one(spec, *run, draws)
                _write(kept, repr((spec, draws)), known)
            advance()
    _summarise(study, {run: known[run] for run in wanted})


@dataclass(frozen=True)
class Outcome:
    """Of one training, in Ha: energy, ends of the extrapolated interval, the upper bound, and the exact energy."""

    energy: float
    lower: float
    upper: float
    bound: float
    exact: float

    @property
    def held(self) -> bool:
        """Whether the interval holds the exact energy."""
        return self.lower <= self.exact <= self.upper

    def __str__(self) -> str:
        off, *ends = (1e3 * (value - self.exact) for value in (self.energy, self.lower, self.upper))
        return f"energy {off:+.2f} mHa from the exact one, interval {ends[0]:+.2f}, {ends[1]:+.2f}"


def _one(spec: PauliNet, name: str, seed: int, steps: int, draws: int) -> Outcome:
    """The extrapolated energy from one training, and its upper bound without extrapolation."""
    training = replace(spec.training, minutes=None, steps=steps, window=None)
    wavefunction = replace(spec, training=training).fit(Molecule.named(name), seed=seed)
    energy = wavefunction.energy(draws, seed=seed + 1000)
    found = ZeroVarianceExtrapolation().of([energy])
    interval = found.interval(LEVEL)
    value = float(found.energies.value[0]) if len(found.energies.value) else math.nan
    ends = (float(interval.lower), float(interval.upper), float(energy.bound(LEVEL).upper))
    return Outcome(value, *ends, EXACT_ENERGIES[name].energy)


def _summarise(study: Study, found: dict[Run, Outcome]) -> None:
    hits: dict[str, list[bool]] = {}
    for (name, seed, steps), outcome in found.items():
        hits.setdefault(name, []).append(outcome.held)
        study.notes.append(f"{name}, {steps} steps, seed {seed}: {outcome}")
    _share(study, "extrapolated_coverage_95", [hit for own in hits.values() for hit in own])
    _share(study, "extrapolated_coverage_95_new", [hit for name in NEW for hit in hits.get(name, [])])
    for name, own in hits.items():
        _share(study, f"extrapolated_coverage_95_{name}", own)
    _share(study, "bound_coverage_95", [outcome.exact <= outcome.bound for outcome in found.values()])
    study.notes.append(f"new: {', '.join(NEW)}, which had no part in the prior of the slope")


def _share(study: Study, figure: str, hits: list[bool]) -> None:
    if hits:
        study.add(figure, proportion(sum(hits), len(hits)))


def _read(path: Path | None, settings: str) -> dict[Run, Outcome]:
    """Outcomes of a file, if there is one.

    Raises
    ------
    DataError
        If they were found with other settings.
    """
    if path is None or not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["settings"] != settings:
        raise DataError(expected("--keep", f"outcomes of {settings}", content["settings"], "give another file"))
    return {tuple(run): Outcome(**outcome) for run, outcome in content["outcomes"]}


def _write(path: Path | None, settings: str, found: dict[Run, Outcome]) -> None:
    if path is not None:
        outcomes = [(run, asdict(outcome)) for run, outcome in found.items()]
        write_text(path, json.dumps({"settings": settings, "outcomes": outcomes}, indent=1))
