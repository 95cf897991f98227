"""Are the error bars of sampled energies true? Many runs of fixed wavefunctions, and samplers that are stuck."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from harness import relative_width

from bayesmol.progress import progress
from bayesmol.report import Study, proportion
from bayesmol.wavefunctions.curves import stretched
from bayesmol.wavefunctions.energy import Energy
from bayesmol.wavefunctions.evaluation import Evaluation
from bayesmol.wavefunctions.exact import screened_helium
from bayesmol.wavefunctions.local_energy import System, local_energies
from bayesmol.wavefunctions.log_psi import LogPsi
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.pauli_net import PauliNet, SlaterJastrow
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.starting import start
from bayesmol.wavefunctions.training import Training
from bayesmol.wavefunctions.walkers import MALA, Sampler

__all__ = ["STUCK", "SYSTEMS", "coverage"]

LEVEL = 0.95
SYSTEMS = ("screened_helium", "He", "H2", "Li", "LiH", "Be")
STUCK = ("short_moves", "frozen_walkers", "two_regions")
MOVES = 10
FROZEN = 0.1  # of the walkers


@dataclass(frozen=True, eq=False)
class Case:
    """A fixed wavefunction; its energy in Ha where it is known without sampling."""

    system: System
    log_psi: Any
    parameters: Any = ()
    energy: float | None = None


def coverage(
    study: Study, *, repeats: int, walkers: int, draws: int, trained: int = 0, only: Sequence[str] = (), seed: int = 0
) -> None:
    """Fill in the coverage of intervals that are given, and how often sound and stuck samplers are refused.

    All runs of a system are walkers of one long run, in groups; the truth for each is the mean of all others.
    """
    hits, lights, widths = Counter(), Counter(), []
    systems = [name for name in SYSTEMS if name in (only or SYSTEMS)]
    stuck = [name for name in STUCK if name in (only or STUCK)]
    with progress("coverage", len(systems) + len(stuck)) as advance:
        for name in systems:
            with study.stage(name):
                case = _case(name, trained, seed)
                widths += _judge(name, list(_runs(case, repeats, walkers, draws, seed)), case.energy, hits, lights)
            advance()
        for name in stuck:
            with study.stage(name):
                for energy in _stuck(name, repeats, walkers, draws, seed):
                    lights[name, energy.verdict] += 1
            advance()
    _summarise(study, hits, lights, systems, stuck)
    if widths:
        study.add("relative_width", float(np.mean(widths)))


def _case(name: str, trained: int = 0, seed: int = 0) -> Case:
    if name == "screened_helium":
        state = screened_helium()
        return Case(state.system, state.log_psi, state.parameters, state.energy)
    molecule = Molecule.named(name)
    if trained:
        fitted = PauliNet(training=Training(minutes=None, steps=trained, window=None)).fit(molecule, seed=seed)
        return Case(molecule, fitted.trial.log_psi, fitted.parameters)
    trial = SlaterJastrow(width=8, layers=1).build(molecule, seed=0)
    return Case(molecule, trial.log_psi, trial.parameters)


def _runs(case: Case, repeats: int, walkers: int, draws: int, seed: int) -> Iterator[Energy]:
    """Energies of independent groups of walkers."""
    evaluation = Evaluation(case.log_psi, case.system, moves=MOVES)
    places, rows, logs, accepted = start(case.system, repeats * walkers, seed=seed), [], [], []
    for part in evaluation.blocks(case.parameters, places, draws, seed=seed + 1):
        rows.append(np.stack(part.energy))
        logs.append(part.log)
        accepted.append(float(part.acceptance.mean()))
    arrays, log = np.concatenate(rows, 1)[:, :draws], np.concatenate(logs)[:draws]
    for k in range(repeats):
        group = slice(k * walkers, (k + 1) * walkers)
        parts = [part[:, group].T for part in arrays]
        yield Energy.of(*parts, log_density=2 * log[:, group].T, acceptance=float(np.mean(accepted)), steps=MOVES)


def _judge(name: str, runs: list[Energy], known: float | None, hits: Counter, lights: Counter) -> list[float]:
    """Count what holds; the relative width of the intervals that are given, if there are some."""
    rows = []
    means = torch.stack([energy.local.mean() for energy in runs])
    for k, energy in enumerate(runs):
        lights[name, energy.verdict] += 1
        if energy.verdict != "refused":
            truth = (means.sum() - means[k]) / (len(means) - 1) if known is None else torch.tensor(known).double()
            interval = energy.interval(LEVEL)
            hits[name] += bool(interval.contains(truth))
            rows.append((float(means[k]), float(interval.lower), float(interval.upper)))
    return [relative_width(*zip(*rows, strict=True), level=LEVEL)] if len(rows) > 1 else []


def _stuck(name: str, repeats: int, walkers: int, draws: int, seed: int) -> Iterator[Energy]:
    """Runs of a sampler that cannot have reached its density, or in which some walkers do not move."""
    if name == "two_regions":
        yield from _two_regions(repeats, walkers, draws, seed)
        return
    case = _case("screened_helium")
    if name == "frozen_walkers":
        for energy in _runs(case, repeats, walkers, draws, seed):
            yield _frozen(energy, max(2, round(FROZEN * walkers)))
        return
    places = start(case.system, repeats * walkers, seed=seed)
    yield from _plain(case, MALA(step=1e-6, hops=0.0), places, (repeats, walkers, draws), seed)


def _frozen(energy: Energy, count: int) -> Energy:
    """The same run, had the first walkers never moved."""
    names = ("local", "kinetic_laplacian", "kinetic_gradient", "potential", "log_density")
    held = []
    for name in names:
        values = getattr(energy, name).clone()
        values[:count] = values[:count, :1]
        held.append(values)
    return Energy.of(*held[:4], log_density=held[4], acceptance=energy.acceptance, steps=energy.steps)


def _two_regions(repeats: int, walkers: int, draws: int, seed: int) -> Iterator[Energy]:
    """H2 at 30 bohr with both electrons in a bonding orbital: none leaves its nucleus in a run of this length."""
    molecule = stretched(Molecule.named("H2"), 30.0)

    def log_psi(parameters: Any, r: Any) -> LogPsi:
        away = jnp.linalg.norm(r[:, None] - molecule.positions, axis=-1)
        return LogPsi(jnp.ones(()), jnp.sum(jax.nn.logsumexp(-away, axis=-1)))

    shift = np.random.default_rng(seed).standard_normal((repeats * walkers, 2, 3)) / 2
    homes = np.zeros((repeats * walkers, 2), int)
    homes[::2, 1] = 1  # every second walker has one electron at each nucleus
    places = molecule.positions[homes] + shift
    yield from _plain(Case(molecule, log_psi), MALA(step=0.3, hops=0.0), places, (repeats, walkers, draws), seed)


def _plain(case: Case, sampler: Sampler, places: Any, sizes: tuple[int, int, int], seed: int) -> Iterator[Energy]:
    """Groups of walkers of one run without burn-in and without adaptation of the step."""
    repeats, walkers, draws = sizes
    run = _walk(case, sampler, draws)
    with double():
        state = sampler.initial(jnp.asarray(places))
        found, log, acceptance = jax.tree.map(np.asarray, run(case.parameters, state, jax.random.key(seed)))
    for k in range(repeats):
        group = slice(k * walkers, (k + 1) * walkers)
        parts = [part[:, group].T for part in found]
        yield Energy.of(*parts, log_density=2 * log[:, group].T, acceptance=float(acceptance.mean()), steps=MOVES)


def _walk(case: Case, sampler: Sampler, draws: int) -> Callable[..., Any]:
    move, energies = sampler.move(case.log_psi, case.system), local_energies(case.log_psi, case.system)

    def run(parameters: Any, state: Any, key: Any) -> Any:
        def draw(state: Any, key: Any) -> Any:
            state = move(parameters, state, key, MOVES)
            return state, (energies(parameters, state.r), state.log, state.acceptance)

        state = move(parameters, state, key, 0, stale=True)
        return jax.lax.scan(draw, state, jax.random.split(key, draws))[1]

    return jax.jit(run)


def _summarise(study: Study, hits: Counter, lights: Counter, systems: Sequence[str], stuck: Sequence[str]) -> None:
    def count(names: Sequence[str], *verdicts: str) -> int:
        return sum(lights[name, verdict] for name in names for verdict in verdicts)

    every = ("ok", "suspect", "refused")
    given = count(systems, "ok", "suspect")
    if given:
        study.add("coverage_95", proportion(sum(hits.values()), given))
    for name in systems:
        if trials := count([name], "ok", "suspect"):
            study.add(f"coverage_95_{name}", proportion(hits[name], trials))
    for label, names in (("sound", systems), ("stuck", stuck)):
        if names:
            study.add(f"refused_fraction_{label}", proportion(count(names, "refused"), count(names, *every)))
            study.add(f"suspect_fraction_{label}", proportion(count(names, "suspect"), count(names, *every)))
    for name in stuck:
        study.add(f"refused_fraction_{name}", proportion(count([name], "refused"), count([name], *every)))
    study.notes.append(
        "coverage of the intervals that are given (ok or suspect); short_moves: steps a thousand times too small; "
        f"frozen_walkers: {100 * FROZEN:g} % of the walkers never move; two_regions: H2 at 30 bohr, half of the "
        "walkers with both electrons at one nucleus"
    )
