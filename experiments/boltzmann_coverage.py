"""Are the error bars of reweighted draws true? Coverage where everything is known, by the light of the trust report."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

import torch
from boltzmann_proposals import KINDS, Case, cases
from harness import relative_width

from bayesmol.flows.discovery import Discovery
from bayesmol.flows.proposal import Proposal
from bayesmol.flows.trust import TrustReport, diagnose
from bayesmol.flows.weighted import BoltzmannDraws
from bayesmol.inference.random import generator
from bayesmol.posterior import Estimate
from bayesmol.progress import progress
from bayesmol.report import Study, proportion

__all__ = ["coverage", "estimates"]

LEVEL = 0.95
_FEW = 10  # estimates do not tell how they scatter
_ROUNDING = 1e-9  # is all that log Z of an exact proposal scatters by
WALKERS = Discovery(walkers=64, trajectories=20, leapfrogs=5)


def coverage(
    study: Study,
    *,
    repeats: int = 200,
    reports: int = 20,
    draws: int = 2000,
    only: Sequence[str] = (),
    seed: int = 0,
) -> None:
    """Fill in the coverage of nominal 95 % intervals and the lights, for proposals with known faults.

    Parameters
    ----------
    repeats, reports
        Independent sets of draws of each proposal, and independent reports on it, which the sets share in turn.
    draws
        In a set, and for a report.
    only
        Cases; all if empty.
    """
    hits, trials, lights = Counter(), Counter(), Counter()
    green: dict[tuple[str, str, str], list[Sequence[float]]] = {}
    known, source = cases(), generator(seed)
    chosen = [(name, case, kind) for name, case in known.items() if name in (only or known) for kind in KINDS]
    with progress("coverage", len(chosen) * repeats) as advance:
        for name, case, kind in chosen:
            proposal = case.proposal(kind)
            if proposal is None:
                continue
            with study.stage(name):
                found = [_report(proposal, case, draws, source) for _ in range(min(reports, repeats))]
                for k in range(repeats):
                    set_of_draws = _drawn(proposal, case, draws, found[k % len(found)], source)
                    light = set_of_draws.verdict[0]
                    lights[name, kind, light] += 1
                    for quantity, estimate in estimates(set_of_draws, case).items():
                        truth = torch.tensor(case.truths[quantity], dtype=torch.float64)
                        interval = estimate.interval(LEVEL)
                        trials[name, kind, quantity, light] += 1
                        hits[name, kind, quantity, light] += bool(interval.contains(truth))
                        if light == "green":
                            row = (float(estimate.value), float(interval.lower), float(interval.upper))
                            green.setdefault((name, kind, quantity), []).append(row)
                    advance()
    _summarise(study, hits, trials, lights)
    told = [list(zip(*rows, strict=True)) for rows in green.values() if len(rows) >= _FEW]
    widths = [relative_width(*columns, level=LEVEL) for columns in told if statistics.stdev(columns[0]) > _ROUNDING]
    if widths:
        study.add("relative_width", sum(widths) / len(widths))


def estimates(draws: BoltzmannDraws, case: Case) -> dict[str, Estimate]:
    """What is asked of a set of draws."""
    found = {
        "log_partition": draws.log_partition,
        "energy": draws.expectation(case.density.reduced_energy),
        "position": draws.expectation(lambda x: x[:, 0]),
    }
    if case.pair is not None and case.density.states is not None:
        found["free_energy_difference"] = draws.free_energy_difference(*case.pair, case.density.states)
    return found


def _report(proposal: Proposal, case: Case, draws: int, source: torch.Generator) -> TrustReport:
    return diagnose(proposal, case.density, draws=draws, discovery=WALKERS, seed=source)


def _drawn(proposal: Proposal, case: Case, size: int, report: TrustReport, source: torch.Generator) -> BoltzmannDraws:
    x, log_q = proposal.sample(size, seed=source)
    log_weights = -case.density.reduced_energy(x) - log_q
    return BoltzmannDraws(x.unsqueeze(0), log_weights.unsqueeze(0), unit="", report=report)


def _summarise(study: Study, hits: Counter, trials: Counter, lights: Counter) -> None:
    def covered(*wanted: str) -> None:
        keys = [key for key in trials if set(wanted) <= set(key)]
        count = sum(trials[key] for key in keys)
        if count:
            parts = [part for part in wanted if part != "green"]
            study.add("_".join(["coverage_95", *parts]), proportion(sum(hits[key] for key in keys), count))

    names, kinds, quantities = ({key[k] for key in trials} for k in (0, 1, 2))
    covered("green")
    covered("amber")
    for part in (*sorted(names), *sorted(kinds), *sorted(quantities)):
        covered(part, "green")
    for name in sorted(names):
        for kind in sorted(kinds):
            covered(name, kind, "green")
    for kind in KINDS:
        total = sum(count for key, count in lights.items() if key[1] == kind)
        for light in ("green", "amber", "red"):
            count = sum(count for key, count in lights.items() if key[1:] == (kind, light))
            if total:
                study.add(f"{light}_fraction_{kind}", proportion(count, total))
    missing = sum(count for key, count in lights.items() if key[1] == "missing")
    if missing:
        false = sum(count for key, count in lights.items() if key[1] == "missing" and key[2] != "red")
        study.add("false_green_fraction", proportion(false, missing))
    study.notes.append(
        "coverage pools log Z, mean energy, mean position and free-energy difference, which share their draws; a "
        "proposal misses a mode if its density there is e^-14 of the true one"
    )
