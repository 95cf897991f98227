"""One training loop for all objectives: rounds with fresh data, and steps of Adam with a loss on them."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.checkpoints import flattened, grouped, moments, read_tensors, set_moments, write_tensors
from bayesmol.errors import ConvergenceError, expected
from bayesmol.flows.counted import Counted
from bayesmol.flows.elementwise import Marginals
from bayesmol.flows.flow import Flow
from bayesmol.flows.optimisation import Objective
from bayesmol.flows.proposal import Target
from bayesmol.inference.importance import forward_effective_size
from bayesmol.inference.random import generator
from bayesmol.progress import progress

__all__ = ["Training", "train"]

_CHUNK = 8192
_LISTS = ("weight", "average", "kept")
_HISTORY = ("loss", "reverse_ess", "forward_ess")


@dataclass(frozen=True)
class Training:
    """What happened in training.

    Attributes
    ----------
    steps, energy_evaluations
        Steps taken, and rows whose energy was evaluated (a gradient counts as one).
    reason
        Why it stopped, as a sentence.
    loss, reverse_ess, forward_ess
        History: pairs of step and value, the first two as means since the last entry. Effective sample sizes are
        fractions; the reverse one, of draws of the flow, does not notice missing modes.
    skipped, cpu_seconds
        Steps without a finite loss; CPU time of this process in the loop.
    notes
        What a reader of the result should know.
    """

    steps: int
    energy_evaluations: int
    reason: str
    loss: tuple[tuple[int, float], ...] = ()
    reverse_ess: tuple[tuple[int, float], ...] = ()
    forward_ess: tuple[tuple[int, float], ...] = ()
    skipped: int = 0
    cpu_seconds: float = 0.0
    notes: tuple[str, ...] = ()


def train(
    objective: Objective,
    flow: Flow,
    target: Target,
    *,
    seed: int | torch.Generator,
    cut: float = math.inf,
    data: dict[str, Tensor] | None = None,
    held_out: Callable[[Counted, torch.Generator], Float[Tensor, "points dimension"]] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: float = 60.0,
    spent: int = 0,
) -> Training:
    """Fit the parameters of ``flow`` in place.

    Parameters
    ----------
    cut
        Above this reduced energy gradients are those of its logarithm.
    data
        What the objective trains on from the start, such as samples.
    held_out
        Makes draws of the target that no step has seen; on them the forward effective sample size is taken.
    checkpoint
        File in which the state is kept, every ``every`` seconds and at the end; where it exists, training goes on from
        it, bit by bit as if it had not been interrupted.
    spent
        Energy evaluations before, which count; a checkpoint has them.

    Raises
    ------
    ConvergenceError
        If too many losses in a row are not finite.
    DataError, FormatError
        If the checkpoint is of other settings, or damaged.
    """
    loop = _Loop(objective, flow, Counted(target, cut), generator(seed, next(flow.parameters()).device))
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and path.exists():
        loop.restore(path)
        return loop.run(path, every)
    loop.target.evaluations, loop.tensors = spent, dict(data or {})
    if held_out is not None:
        rows = held_out(loop.target, loop.source)
        loop.tensors |= {"held_out": rows, "held_out_energy": loop.target.reduced_energy(rows)}
    return loop.run(path, every)


@dataclass
class _Counters:
    """Numbers of the state of a loop; they go into the header of a checkpoint."""

    step: int = 0
    turn: int = -1
    checks: int = 0
    best: float = -math.inf
    stale: int = 0
    skipped: int = 0
    in_a_row: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    reason: str = ""
    loss: list[list[float]] = field(default_factory=list)
    reverse_ess: list[list[float]] = field(default_factory=list)
    forward_ess: list[list[float]] = field(default_factory=list)


class _Loop:
    """The state of training and its moves."""

    def __init__(self, objective: Objective, flow: Flow, target: Counted, source: torch.Generator) -> None:
        self.objective, self.flow, self.target, self.source = objective, flow, target, source
        self.settings = objective.optimisation
        groups = _groups(flow, self.settings.marginal)
        self.weights = [p for group in groups for p in group["params"]]
        self.purpose = {"settings": repr(objective), "weights": repr([tuple(p.shape) for p in self.weights])}
        self.adam = torch.optim.AdamW(groups, self.settings.rate, weight_decay=self.settings.decay)
        self.average = [p.detach().clone() for p in self.weights]
        self.kept: list[Tensor] | None = None
        self.tensors: dict[str, Tensor] = {}
        self.count = _Counters()

    def run(self, path: Path | None, every: float) -> Training:
        clock, saved, before = time.process_time(), time.monotonic(), self.count.seconds
        total = self.settings.steps or math.ceil(60 * (self.settings.minutes or 0.0))
        with progress(type(self.objective).__name__, total) as advance:
            shown = 0
            while not self.count.reason:
                self.count.seconds = before + time.process_time() - clock
                share = self.settings.share(self.count.step, self.count.seconds)
                self._turn(share)
                if share >= 1:
                    self.count.reason = "the budget was used up"
                else:
                    self._step(share)
                position = min(total, int(total * share))
                advance(position - shown, note=self._text())
                shown = position
                if path is not None and (self.count.reason or time.monotonic() - saved > every):
                    self.save(path)
                    saved = time.monotonic()
        return self._finish()

    def _turn(self, share: float) -> None:
        """Look and refresh where they are due."""
        if (due := int(share * self.settings.checks)) > self.count.checks:
            self.count.checks = due
            self._check()
        turn = min(int(share * self.objective.rounds + 1e-9), self.objective.rounds - 1)
        if turn > self.count.turn and share < 1:
            self.count.turn = turn
            held = {name: value for name, value in self.tensors.items() if name.startswith("held_out")}
            self.tensors = self.objective.refresh(self.flow, self.target, self.tensors, turn, self.source) | held

    def _step(self, share: float) -> None:
        loss, ess = self.objective.loss(self.flow, self.target, self.tensors, self.source)
        self.adam.zero_grad()
        if finite := bool(torch.isfinite(loss)):
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(self.weights, self.settings.clip)
            finite = bool(torch.isfinite(norm))
        self.count.step += 1
        if not finite:
            self._skip()
            return
        self.count.in_a_row = 0
        for group in self.adam.param_groups:
            group["lr"] = group["factor"] * self.settings.rate_at(share)
        self.adam.step()
        memory = min(self.settings.average, self.count.step / 10)
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.weights, 1 / (1 + memory))
        self._note(float(loss.detach()), None if ess is None else float(ess))

    def _skip(self) -> None:
        self.count.skipped += 1
        self.count.in_a_row += 1
        if self.count.in_a_row >= self.settings.skips:
            got = f"{self.count.in_a_row} in a row that are not, at step {self.count.step}"
            remedy = "lower the rate, or start from a broader or better whitened base"
            raise ConvergenceError(expected("loss", "finite losses and gradients", got, remedy))

    def _note(self, loss: float, ess: float | None) -> None:
        sums = self.count.sums
        sums[0], sums[1] = sums[0] + loss, sums[1] + 1
        if ess is not None:
            sums[2], sums[3] = sums[2] + ess, sums[3] + 1

    def _text(self) -> str:
        """Last loss and effective sample sizes, for the bar."""
        sums, parts = self.count.sums, []
        if sums[1]:
            parts.append(f"loss {sums[0] / sums[1]:.3f}")
        if sums[3]:
            parts.append(f"ESS {100 * sums[2] / sums[3]:.1f} %")
        if self.count.forward_ess:
            parts.append(f"forward ESS {100 * self.count.forward_ess[-1][1]:.1f} %")
        return ", ".join(parts)

    def _check(self) -> None:
        """Enter means into the history, and look at the forward effective sample size of the averaged weights."""
        count, sums = self.count, self.count.sums
        if sums[1]:
            count.loss.append([count.step, sums[0] / sums[1]])
        if sums[3]:
            count.reverse_ess.append([count.step, sums[2] / sums[3]])
        count.sums = [0.0] * 4
        if (rows := self.tensors.get("held_out")) is None:
            return
        with self._averaged(), torch.no_grad():
            log_q = torch.cat([self.flow.log_prob(part) for part in rows.split(_CHUNK)]).double()
        value = forward_effective_size(-self.tensors["held_out_energy"] - log_q).fraction
        count.forward_ess.append([count.step, value])
        # The effective size hangs on the worst of the rows; their mean tells which weights are better.
        likelihood = float(log_q.mean())
        count.stale = 0 if likelihood > count.best else count.stale + 1
        if likelihood > count.best:
            count.best, self.kept = likelihood, [p.clone() for p in self.average]
        if self.settings.patience is not None and count.stale >= self.settings.patience:
            count.reason = f"no better likelihood of the held-out draws in {count.stale} looks"

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The flow with the averaged weights."""
        raw = [p.detach().clone() for p in self.weights]
        self._set(self.average)
        try:
            yield
        finally:
            self._set(raw)

    @torch.no_grad()
    def _set(self, values: list[Tensor]) -> None:
        for weight, value in zip(self.weights, values, strict=True):
            weight.copy_(value)

    def _finish(self) -> Training:
        self._set(self.average if self.kept is None else self.kept)
        count = self.count
        history: dict[str, Any] = {name: tuple((int(i), v) for i, v in getattr(count, name)) for name in _HISTORY}
        spent: dict[str, Any] = {"skipped": count.skipped, "cpu_seconds": count.seconds}
        return Training(count.step, self.target.evaluations, count.reason, **spent, **history)

    def save(self, path: Path) -> None:
        """Write numbers and tensors from which :meth:`restore` goes on."""
        self.count.evaluations = self.target.evaluations
        lists = dict(zip(_LISTS, (self.weights, self.average, self.kept or []), strict=True))
        groups = {name: {str(i): value for i, value in enumerate(values)} for name, values in lists.items()}
        groups |= {"data": self.tensors, "random": {"state": self.source.get_state()}, "adam": moments(self.adam)}
        write_tensors(path, self.purpose, asdict(self.count), flattened(groups))

    def restore(self, path: Path) -> None:
        """Take over what :meth:`save` wrote."""
        header, tensors = read_tensors(path, self.purpose)
        self.count = _Counters(**header)
        self.target.evaluations = self.count.evaluations
        device, groups = self.weights[0].device, grouped(tensors)
        self.source.set_state(groups.pop("random")["state"])
        set_moments(self.adam, groups.pop("adam", {}))
        found = {name: {key: value.to(device) for key, value in group.items()} for name, group in groups.items()}
        lists = {name: [group[str(i)] for i in range(len(group))] for name, group in found.items() if name in _LISTS}
        self._set(lists["weight"])
        self.average, self.kept = lists["average"], lists.get("kept")
        self.tensors = found.get("data", {})


def _groups(flow: Flow, factor: float) -> list[dict[str, Any]]:
    """Parameters of networks, and those of marginal maps with their factor of the rate."""
    alone = {id(p) for module in flow.modules() if isinstance(module, Marginals) for p in module.parameters()}
    trained = [p for p in flow.parameters() if p.requires_grad]
    parts = [([p for p in trained if id(p) not in alone], 1.0), ([p for p in trained if id(p) in alone], factor)]
    return [{"params": part, "factor": scale} for part, scale in parts if part]
