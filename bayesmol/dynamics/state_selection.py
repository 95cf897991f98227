"""How many hidden states? The likelihood of stretches of time that the model has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.hidden_markov_model import HiddenMarkovModel
from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Draws
from bayesmol.progress import progress

__all__ = ["StateComparison", "compare_states"]


@dataclass(frozen=True, eq=False)
class StateComparison:
    """Held-out log likelihoods of models with different numbers of hidden states.

    Attributes
    ----------
    states
        Numbers that could be estimated, rising.
    log_likelihood
        Mean of a held-out frame given the frames of its chain before, in nats, (states,). Draws of different numbers
        are of the same weighted blocks, so their differences are known better than each.
    refused
        Reasons by number.
    """

    states: tuple[int, ...]
    log_likelihood: Draws
    refused: dict[int, str]

    @property
    def best(self) -> int:
        """The fewest states that are worse than the best number by at most one standard error of the difference.

        References
        ----------
        Breiman, Friedman, Olshen, Stone, Classification and Regression Trees (1984), section 3.4.3.
        """
        values = self.log_likelihood.values[0]
        mean = values.mean(0)
        behind = values[:, [int(mean.argmax())]] - values
        close = behind.mean(0) <= behind.std(0)
        return self.states[int(close.nonzero()[0])]


def compare_states(
    spec: HiddenMarkovModel, data: Any, states: Sequence[int], *, folds: int = 5, seed: int | torch.Generator
) -> StateComparison:
    """Cross-validate models with these numbers of hidden states.

    Long trajectories are cut into ``folds`` stretches, shorter ones belong to a fold as a whole. Each stretch is judged
    by the model of all other folds. A number that some fold refuses is left out.

    Raises
    ------
    DataError
        If there is no number of states, fewer than two folds, or a fold without trajectories.
    ConvergenceError
        If no number can be estimated, or the trajectories are too short for an error bar.
    """
    if not states or folds < 2:
        raise DataError(expected("states, folds", "a number of states, and two folds or more", (list(states), folds)))
    trajectories, source = spec.checked(data), generator(seed)
    pieces, fold = _pieces(trajectories, folds, spec.lag)
    found: dict[int, Tensor] = {}
    refused: dict[int, str] = {}
    with progress("numbers of states", len(set(states))) as advance:
        for count in sorted(set(states)):
            try:
                found[count] = _held_out(replace(spec, states=count), trajectories, pieces, fold, source)
            except ConvergenceError as reason:
                refused[count] = str(reason)
            advance()
    if not found:
        raise ConvergenceError("; ".join(refused.values()))
    model = replace(spec, states=max(found))
    return StateComparison(
        tuple(found), _weighted(model, trajectories, torch.stack([*found.values()], 1), source), refused
    )


def _pieces(trajectories: Trajectories, folds: int, lag: int) -> tuple[tuple[Tensor, ...], Int[Tensor, " pieces"]]:
    """Stretches in the order of time, and the fold of each."""
    pieces: list[Tensor] = []
    fold = []
    for k, part in enumerate(trajectories):
        cut = len(part) // folds > 2 * lag
        stretches = part.tensor_split(folds) if cut else (part,)
        pieces += stretches
        fold += [(k + j) % folds for j in range(len(stretches))]
    if len(set(fold)) < folds:
        got = f"{len(set(fold))} with frames"
        raise DataError(expected("folds", f"{folds} with trajectories", got, "take fewer folds, or sample longer"))
    return tuple(pieces), torch.tensor(fold)


def _held_out(
    spec: HiddenMarkovModel, trajectories: Trajectories, pieces: Sequence[Tensor], fold: Tensor, seed: torch.Generator
) -> Float[Tensor, " frames"]:
    """Log density of each frame by the model of the other folds."""
    family = spec.family(trajectories)
    found: list[Tensor] = [torch.empty(0)] * len(pieces)
    for held in fold.unique():
        inside = (fold == held).tolist()
        seen, unseen = (replace(trajectories, parts=tuple(_chosen(pieces, inside, k))) for k in (False, True))
        problem, place = spec.maximum(seen, family, seed=seed)
        other = spec.problem(unseen, family)
        values = other.chains.parts(other.paths(problem.parameters(place)).predictive[0])
        for k, part in zip(_chosen(range(len(pieces)), inside, True), values, strict=True):
            found[k] = part
    return torch.cat(found)


def _chosen(items: Sequence[Any], inside: list[bool], wanted: bool) -> list[Any]:
    return [item for item, one in zip(items, inside, strict=True) if one == wanted]


def _weighted(
    spec: HiddenMarkovModel, trajectories: Trajectories, values: Float[Tensor, "frames models"], seed: torch.Generator
) -> Draws:
    """Means over randomly weighted blocks."""
    problem, place = spec.maximum(trajectories, spec.family(trajectories), seed=seed)
    weights, block = spec.weights(trajectories, problem.chains, problem.parameters(place), seed=seed)
    columns = torch.cat([values, torch.ones_like(values[:, :1])], 1)[problem.chains.order]
    sums = columns.new_zeros(weights.values.shape[1], columns.shape[1]).index_add_(0, block, columns)
    totals = weights.values @ sums
    return Draws((totals[:, :-1] / totals[:, -1:])[None], unit="nats")
