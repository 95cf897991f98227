"""The ``sample`` command: weighted configurations of a Boltzmann density in a file."""

import glob
import hashlib
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
import typer
from torch import Tensor

import bayesmol as bm
from bayesmol.checkpoints import read_tensors, write_tensors
from bayesmol.errors import DataError, expected
from bayesmol.files import replacing
from bayesmol.options import Out
from bayesmol.progress import progress
from bayesmol.report import Study

__all__ = ["sample"]

CHUNK = 4096
_PURPOSE = {"draws": "of a generator"}
_LOOK = 16  # draws of an earlier run whose weights are computed again

Source = Annotated[
    str,
    typer.Argument(
        help="A generator or potential that was saved, an OpenMM system (XML), an Amber prmtop, or alanine-dipeptide.",
        show_default=False,
    ),
]
Draws = Annotated[int, typer.Option("--size", "-n", help="Number of configurations.", min=1)]
Kelvin = Annotated[float | None, typer.Option(help="In K; default: that of the generator, else 300.")]
Minutes = Annotated[float, typer.Option(help="CPU minutes of training, if SOURCE is not a generator.", min=0.01)]
Geometry = Annotated[
    Path | None, typer.Option(help="Geometry of the molecule, in a format of ASE or an Amber crd.", show_default=False)
]
Frames = Annotated[
    Path | None, typer.Option(help="Frames of a simulation to learn from, in a format of ASE.", show_default=False)
]


def sample(
    study: Study,
    source: Source,
    out: Out,
    size: Draws = 100_000,
    temperature: Kelvin = None,
    minutes: Minutes = 10.0,
    structure: Geometry = None,
    samples: Frames = None,
) -> Study:
    """Draw configurations of a molecule at equilibrium, with their weights and a verdict on them.

    Trains a flow where SOURCE is not one yet, and keeps it beside OUT as OUT.bm. Writes positions (Å), log_weights,
    verdict and reasons into OUT (npz). Killed at any point, the same command goes on where it was.

    Examples:

    \b
    bayesmol sample alanine-dipeptide --minutes 20 -n 100000 -o dipeptide.npz
    bayesmol sample system.xml --structure molecule.pdb --temperature 350 -o draws.npz
    bayesmol sample certified.bm --structure ethanol.xyz -o ethanol.npz
    bayesmol sample dipeptide.npz.bm -n 1000000 --seed 1 -o more.npz
    """
    kept, seed = out.with_name(f"{out.name}.bm"), study.settings["seed"]
    with study.stage("train"):
        generator = _generator(study, source, kept, temperature, minutes, structure, samples)
    with study.stage("diagnose"):
        report = generator.trust
    with study.stage("sample"):
        part = out.with_name(f"{out.name}.part")
        x, log_weights = _drawn(generator, size, part, seed)
    _tell(study, generator, x, log_weights)
    _write(out, generator, x, log_weights, report)
    part.unlink(missing_ok=True)
    study.notes += [*str(report).splitlines(), f"written: {out}"]
    return study


def _generator(
    study: Study,
    source: str,
    kept: Path,
    temperature: float | None,
    minutes: float,
    structure: Path | None,
    samples: Path | None,
) -> Any:
    """The saved generator of SOURCE, that of an earlier run, or a new one that is saved."""
    known = bm.load(source) if source.endswith(".bm") else None
    if isinstance(known, bm.flows.FittedGenerator):
        return known if temperature is None else known.at(temperature)
    density = _density(source, known, 300.0 if temperature is None else temperature, structure)
    if kept.exists():
        study.notes.append(f"generator of an earlier run: {kept}")
        generator = _earlier_generator(kept, density)
        _remove_checkpoints(kept)
        return generator
    rows = None if samples is None else _frames(samples)
    spec = bm.flows.BoltzmannGenerator(minutes=minutes)
    seed = study.settings["seed"]
    generator = spec.fit(density, rows, seed=seed, checkpoint=_checkpoint(kept, source, density.temperature, seed))
    if density.surfaces is None and getattr(density.energy, "__self__", None) is not None:
        bm.save(generator, kept)
        _remove_checkpoints(kept)
    else:
        study.notes.append("the energy has no form in a file: a run that is killed trains on from its checkpoint")
    return generator


def _checkpoint(kept: Path, source: str, temperature: float, seed: int) -> Path:
    """A name of its own for each training beside OUT."""
    digest = hashlib.sha256(repr((source, temperature, seed)).encode()).hexdigest()[:8]
    return kept.with_suffix(f".{digest}.training")


def _remove_checkpoints(kept: Path) -> None:
    for path in kept.parent.glob(f"{glob.escape(kept.stem)}.*.training.*"):
        path.unlink()


def _earlier_generator(kept: Path, density: Any) -> Any:
    """The generator of an earlier run, if it is of the same system.

    Raises
    ------
    DataError
        If it is of another molecule, temperature or force field.
    """
    generator = bm.load(kept)
    old, x = generator.density, density.start
    same = old.dimension == density.dimension and old.temperature == density.temperature
    if not (same and torch.allclose(old.reduced_energy(x), density.reduced_energy(x), rtol=1e-9, atol=1e-9)):
        remedy = "remove it, or name another OUT"
        raise DataError(expected(str(kept), "the generator of this system", "that of another", remedy))
    return generator


def _density(source: str, known: Any, temperature: float, structure: Path | None) -> Any:
    if source == "alanine-dipeptide":
        return bm.flows.alanine_dipeptide(temperature)
    if structure is None:
        raise DataError(expected("--structure", "the geometry of the molecule", None))
    if known is not None:
        return bm.flows.from_potential(known, bm.data.read(structure, -1).structures, temperature)
    if source.endswith(".prmtop"):
        return bm.flows.from_force_field(bm.flows.read_amber(source, structure), temperature)
    if source.endswith(".xml"):
        positions = bm.data.read(structure, -1).structures.positions
        return bm.flows.from_openmm(source, temperature, positions=positions)
    raise DataError(expected("SOURCE", "a .bm, .xml or .prmtop file, or alanine-dipeptide", repr(source)))


def _frames(path: Path) -> Tensor:
    """Positions in Å of the frames of one molecule."""
    found = bm.data.read(path).structures
    if not bool((found.counts == found.counts[0]).all()):
        raise DataError(expected("--samples", f"the same atoms in all frames of {path}", "other numbers of atoms"))
    return found.positions.view(len(found), -1, 3)


def _drawn(generator: Any, size: int, part: Path, seed: int) -> tuple[Tensor, Tensor]:
    """Draws in chunks, each from a seed of its own; those of an earlier run are read."""
    chunks = [min(CHUNK, size - start) for start in range(0, size, CHUNK)]
    x, log_weights, first = _earlier(part, generator, seed, len(chunks))
    with progress("sampling", len(chunks)) as advance:
        advance(first)
        for i in range(first, len(chunks)):
            own = torch.Generator().manual_seed(seed * 1_000_003 + i)
            rows, weights = generator.weighted(chunks[i], seed=own)
            x, log_weights = [*x, rows], [*log_weights, weights]
            if i % 8 == 7 and i + 1 < len(chunks):
                content = {"x": torch.cat(x), "log_weights": torch.cat(log_weights)}
                write_tensors(part, _PURPOSE, {"seed": seed, "chunks": i + 1}, content)
            advance(1)
    return torch.cat(x), torch.cat(log_weights)


def _earlier(part: Path, generator: Any, seed: int, chunks: int) -> tuple[list[Tensor], list[Tensor], int]:
    if not part.exists():
        return [], [], 0
    header, found = read_tensors(part, _PURPOSE)
    fits = header["seed"] == seed and found["x"].shape[1:] == (generator.density.dimension,)
    if not fits or header["chunks"] >= chunks:
        return [], [], 0
    x, log_weights = found["x"], found["log_weights"]
    return ([x], [log_weights], header["chunks"]) if _drawn_by(generator, x, log_weights) else ([], [], 0)


def _drawn_by(generator: Any, x: Tensor, log_weights: Tensor) -> bool:
    """Whether draws are of this flow and this density: their weights come out again, as of no other temperature."""
    again = -generator.density.reduced_energy(x[:_LOOK]) - generator.log_prob(x[:_LOOK])
    known = torch.isfinite(log_weights[:_LOOK])
    return torch.allclose(again[known], log_weights[:_LOOK][known], rtol=1e-6, atol=1e-3)


def _write(out: Path, generator: Any, x: Tensor, log_weights: Tensor, report: Any) -> None:
    density = generator.density
    name = "positions" if density.unit == "eV" else "x"
    content = {
        name: x.reshape(len(x), *(density.shape or (density.dimension,))).numpy(),
        "log_weights": log_weights.numpy(),
        "temperature": np.array(density.temperature),
        "verdict": np.array(report.verdict),
        "reasons": np.array(list(report.reasons), dtype=str),
    }
    if density.species is not None:
        content["species"] = density.species.numpy()
    _savez(out, content)


def _savez(path: Path, content: dict[str, np.ndarray]) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **cast(Any, content))


def _tell(study: Study, generator: Any, x: Tensor, log_weights: Tensor) -> None:
    draws = bm.flows.BoltzmannDraws(x[None], log_weights[None], unit="", report=generator.trust)
    level, reasons = draws.verdict
    study.add("ess_fraction", draws.effective.fraction)
    study.add("k_hat", draws.k_hat)
    study.add("log_partition", draws.log_partition)
    study.add("energy_evaluations", sum(training.energy_evaluations for training in generator.trainings))
    study.title = f"{generator.density.name}: {len(x)} draws, {level}"
    study.notes += list(reasons)
