"""Alanine dipeptide: do intervals from short pieces of a long run hold what the whole run says?"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kinetics_generate
import torch
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.clustering import KMeans, Partition
from bayesmol.dynamics.linear import TICA
from bayesmol.dynamics.markov_state_model import FittedMarkovStateModel, MarkovStateModel
from bayesmol.dynamics.weights import FEWEST_EVENTS
from bayesmol.errors import BayesmolError, ConvergenceError, DataError, expected
from bayesmol.posterior import Draws
from bayesmol.report import Study, proportion

Quantity = Callable[[FittedMarkovStateModel], Draws]


def alanine(
    study: Study,
    folder: Path,
    *,
    lag: int = 10,
    pieces: int = 8,
    states: int = 50,
    timescales: int = 1,
    draws: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> None:
    """Cut the runs of a folder into equal pieces and count the intervals that hold the value of all runs together.

    The states are k-means clusters of all frames, the same for each piece, so that a piece and the whole estimate the
    same numbers at the same lag. A piece that refuses to answer counts as refused, not as covered: ``coverage`` is
    of those that answer, ``held`` of all. The value of the whole has an error too, smaller than that of a piece by the
    root of the number of pieces.

    Parameters
    ----------
    lag
        In frames.
    pieces
        In all; the runs share them by their length, and what is left at the end of a run is not used.
    timescales
        How many of them are compared.

    Raises
    ------
    DataError
        If there are fewer than two pieces, or a piece is no longer than ten lags.
    """
    data = torsion_features(folder)
    parts = cut(data, pieces, lag)
    study.settings |= {"frames": data.frames, "frames_of_a_piece": parts[0].frames, "pieces": len(parts)}
    with study.stage("states", "states"):
        partition = KMeans(states).fit(data, seed=seed)
    asked = quantities(partition, timescales)
    spec = MarkovStateModel(lag=lag, draws=draws)
    with study.stage("whole", "all runs"):
        truth = {name: whole(study, name, ask) for name, ask in asked_of(spec, partition, data, asked, seed).items()}
        truth |= tica_truth(study, lag, data, draws, seed)
    tally = {name: Tally() for name in truth}
    with study.stage("pieces", "pieces"):
        for number, part in enumerate(parts):
            answers = asked_of(spec, partition, part, asked, seed + number)
            answers["tica_timescale_1"] = answer(lambda x=part, n=number: tica(lag, x, draws, seed + n))
            for name, result in answers.items():
                tally[name].add(result, truth[name], level)
    report(study, tally, level)


def torsion_features(folder: Path) -> Trajectories:
    """Cosine and sine of φ and ψ of each run, in ps."""
    parts, step = [], kinetics_generate.time_step(folder)
    for angles, _ in kinetics_generate.read(folder):
        turned = torch.from_numpy(angles).double()
        parts.append(torch.stack([turned.cos(), turned.sin()], 2).flatten(1))
    return Trajectories(tuple(parts), step, "ps")


def cut(data: Trajectories, pieces: int, lag: int) -> list[Trajectories]:
    """Groups of whole runs if there are so many, else pieces of equal length, none across two runs."""
    if pieces < 2:
        raise DataError(expected("pieces", "two or more", pieces))
    if len(data.parts) >= 2 * pieces:
        size = len(data.parts) // pieces
        groups = [data.parts[k * size : (k + 1) * size] for k in range(pieces)]
        return [Trajectories(group, data.time_step, data.unit) for group in groups]
    length = data.frames // pieces
    found = [part[k * length : (k + 1) * length] for part in data for k in range(len(part) // max(length, 1))]
    if len(found) < 2 or length <= 10 * lag:
        raise DataError(expected("pieces", f"two or more, of more than {10 * lag} frames", f"{pieces} of {length}"))
    return [Trajectories((part,), data.time_step, data.unit) for part in found]


def quantities(partition: Partition, timescales: int) -> dict[str, Quantity]:
    """What is asked of each model; the two sides are the states with their centre at φ < 0 and at φ ≥ 0."""
    right = set((partition.centres[:, 1] >= 0).nonzero().flatten().tolist())

    def sides(model: FittedMarkovStateModel) -> tuple[list[int], list[int]]:
        known = model.states.tolist()
        return [state for state in known if state not in right], [state for state in known if state in right]

    def share(model: FittedMarkovStateModel) -> Draws:
        return model.stationary(present(sides(model)[1]))

    def into(model: FittedMarkovStateModel) -> Draws:
        left, entered = map(present, sides(model))
        return model.mean_first_passage_time(left, entered)

    def out(model: FittedMarkovStateModel) -> Draws:
        left, entered = map(present, sides(model))
        return model.mean_first_passage_time(entered, left)

    slow = {f"timescale_{k + 1}": lambda model, k=k: model.timescales(k + 1)[k] for k in range(timescales)}
    return slow | {"share_positive_phi": share, "mfpt_into_positive_phi": into, "mfpt_out_of_positive_phi": out}


def present(states: list[int]) -> list[int]:
    """The states themselves, if the data have both sides."""
    if not states:
        raise DataError(expected("trajectories", "both signs of φ, to and fro", "one", "sample longer"))
    return states


def asked_of(
    spec: MarkovStateModel, partition: Partition, data: Trajectories, asked: dict[str, Quantity], seed: int
) -> dict[str, Draws | BayesmolError]:
    """Distribution of each quantity, or why there is none."""
    model = answer(lambda: spec.fit(partition.discretise(data), seed=seed))
    if isinstance(model, BayesmolError):
        return dict.fromkeys(asked, model)
    return {name: answer(lambda ask=ask: supported(model, ask(model))) for name, ask in asked.items()}


def supported(model: FittedMarkovStateModel, found: Draws) -> Draws:
    """The same, unless it rests on too few events to be known."""
    events = float(model.support(found))
    if events < FEWEST_EVENTS:
        wanted = f"{FEWEST_EVENTS} independent events"
        raise ConvergenceError(expected("trajectories", wanted, f"about {events:.1f}"))
    return found


def tica(lag: int, data: Trajectories, draws: int, seed: int) -> Draws:
    """The slowest timescale in the linear span of cosines and sines."""
    return TICA(lag=lag, draws=draws).fit(data, seed=seed).timescales(1)[0]


def tica_truth(study: Study, lag: int, data: Trajectories, draws: int, seed: int) -> dict[str, Tensor]:
    """The same of all runs."""
    return {"tica_timescale_1": whole(study, "tica_timescale_1", tica(lag, data, draws, seed))}


def answer(ask: Callable[[], Any]) -> Any:
    """What a question gives, or the error that says why it has no answer."""
    try:
        return ask()
    except BayesmolError as error:
        return error


def whole(study: Study, name: str, found: Draws | BayesmolError) -> Tensor:
    """The value of all runs, kept as a figure with the standard deviation of its posterior."""
    if isinstance(found, BayesmolError):
        raise found
    study.add(name, float(found.mean), found.unit, error=float(found.stddev))
    return found.mean


@dataclass
class Tally:
    """Intervals that hold the truth, do not, and were refused, with their widths."""

    hits: int = 0
    misses: int = 0
    refused: int = 0
    width: float = 0.0

    def add(self, found: Draws | BayesmolError, truth: Tensor, level: float) -> None:
        if isinstance(found, BayesmolError):
            self.refused += 1
            return
        interval = found.interval(level)
        inside = bool(interval.contains(truth))
        self.hits, self.misses = self.hits + inside, self.misses + (not inside)
        self.width += float(interval.width / truth.abs())


def report(study: Study, tally: dict[str, Tally], level: float) -> None:
    """Shares of each quantity and of all."""
    percent = f"{100 * level:g}"
    for name, one in tally.items():
        answered = one.hits + one.misses
        if answered:
            study.add(f"coverage_{percent}_{name}", proportion(one.hits, answered))
            study.add(f"relative_width_{name}", one.width / answered)
        study.add(f"refused_{name}", proportion(one.refused, answered + one.refused))
    hits, misses, refused = (sum(getattr(t, key) for t in tally.values()) for key in ("hits", "misses", "refused"))
    study.add(f"coverage_{percent}", hits / (hits + misses) if hits + misses else math.nan)
    study.add(f"held_{percent}", hits / (hits + misses + refused))
    study.notes.append("one piece answers several questions, so the errors of the shares of all are not independent")
