"""The truth about n-butane from GFN2-xTB itself: long dynamics on its surface, and draws weighted by its energy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from scales_molecules_sampling import Direct, Motion, keep, kept, like, motion, scan, timescale
from scales_molecules_stages import BINS, flow, gauche_free_energy, same, unsigned
from torch import Tensor

from bayesmol.data import Structures
from bayesmol.errors import DataError, expected
from bayesmol.flows import BoltzmannDensity
from bayesmol.flows.fitted import FittedGenerator
from bayesmol.flows.weighted import BoltzmannDraws
from bayesmol.progress import progress
from bayesmol.report import Study, write_text

__all__ = ["Truth", "reference", "truth"]

TOGETHER = 1000  # draws of a file
NEAREST = 0.5  # Å; nuclei as near as this are no draw of any molecule
SPREAD = 400  # draws of each result in the file of the truth


@dataclass(frozen=True, eq=False)
class Truth:
    """Draws of the free energy (kT) and of the time (ps), the profile (kT), and what it has cost."""

    temperature: float
    free_energy: Float[Tensor, " draws"]
    timescale: Float[Tensor, " draws"]
    profile: Float[Tensor, " bins"]
    calls: int

    def check(self, temperature: float) -> None:
        """See that it is of this temperature."""
        if temperature != self.temperature:
            raise DataError(expected("reference", f"one at {temperature:g} K", f"one at {self.temperature:g} K"))


def truth(path: Path) -> Truth:
    """What :func:`reference` wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    arrays = {name: torch.tensor(found[name]).double() for name in ("free_energy", "timescale", "profile")}
    return Truth(found["temperature"], **arrays, calls=found["calls"])


def reference(
    study: Study,
    out: Path,
    *,
    temperature: float,
    walkers: int,
    picoseconds: float,
    draws: int,
    training: int,
    seed: int,
) -> None:
    """Fill in the truth and write it; dynamics goes on where it was, and a longer one where a shorter one ended."""
    folder = out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    same(folder, {"temperature": temperature, "walkers": walkers, "seed": seed})
    start = scan(walkers, seed)
    with study.stage("dynamics"):
        options = {"temperature": temperature, "steps": round(1000 * picoseconds), "seed": seed}
        run = motion(folder / "dynamics", Direct(), start, **options)
    with study.stage("draws"):
        drawn = _drawn(folder, run, temperature, draws, training, seed)
    energy, time = gauche_free_energy(drawn, seed), timescale(run, seed=seed).values.flatten()
    profile = drawn.profile(lambda x: unsigned(x.unflatten(1, (-1, 3))), bins=BINS, span=(0.0, 180.0))
    _told(study, run, drawn, energy, time)
    parts = {"free_energy": energy[:SPREAD], "timescale": time[:SPREAD], "profile": profile.free_energy.value}
    found = {"temperature": temperature, "calls": run.calls}
    write_text(out, json.dumps({**found, **{name: part.tolist() for name, part in parts.items()}}))


def _told(study: Study, run: Motion, drawn: BoltzmannDraws, energy: Tensor, time: Tensor) -> None:
    study.add("free_energy", float(energy.mean()), "kT", error=float(energy.std()))
    study.add("timescale", float(time.mean()), "ps", error=float(time.std()))
    gauche = float((unsigned(run.settled) < 120).double().mean())
    study.add("gauche_by_weights", 1 / (1 + float(energy.mean().exp())))
    study.add("gauche_by_dynamics", gauche)
    study.add("ess_fraction", drawn.effective.effective / len(drawn.log_weights[0]))
    study.add("reference_calls", run.calls + len(drawn.log_weights[0]))


def _drawn(folder: Path, run: Motion, temperature: float, draws: int, training: int, seed: int) -> BoltzmannDraws:
    """Draws of a flow that learned the frames, with weights by the reference, in pieces that are files."""
    density = _density(run.structures, temperature)
    place = folder / f"flow-{len(run.positions)}"
    place.mkdir(exist_ok=True)
    fitted, parts = flow(place, density, run.settled.transpose(0, 1), training, seed), []
    with progress("weights by the reference", draws) as advance:
        for number in range(max(1, draws // TOGETHER)):
            parts.append(_piece(place / f"{number:03d}.npz", fitted, min(draws, TOGETHER), 1000 * seed + number))
            advance(TOGETHER)
    rows, log_weights = (torch.cat([part[name] for part in parts]) for name in ("rows", "log_weights"))
    return BoltzmannDraws(rows.unflatten(1, (-1, 3))[None], log_weights[None], unit="Å")


def _piece(path: Path, fitted: FittedGenerator, size: int, seed: int) -> dict[str, Tensor]:
    if not path.exists():
        rows, log_weights = fitted.weighted(size, seed=seed)
        keep(path, rows=rows, log_weights=log_weights)
    return kept(path)


def _density(structures: Structures, temperature: float) -> BoltzmannDensity:
    """Density by the reference, zero where it has no answer, such as where nuclei overlap."""
    first, method = structures[0], Direct().reference

    def energy(x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        values = x.new_full((len(x),), torch.inf)
        apart = torch.stack([torch.pdist(row.view(14, 3)).min() for row in x]) > NEAREST
        if bool(apart.any()):
            found = method.label(like(first, x[apart].unflatten(1, (-1, 3))))
            known = apart.nonzero()[found.succeeded, 0]
            values[known] = found.labelled.energies.to(values) if len(known) else values[known]
        return values

    start = (first.positions - first.positions.mean(0)).reshape(1, -1)
    shape = {"shape": (14, 3), "space": 3, "start": start, "species": first.species}
    return BoltzmannDensity(energy, 42, temperature, unit="eV", name="reference", **shape)
