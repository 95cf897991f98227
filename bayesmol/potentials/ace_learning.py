r"""How the hyper-parameters of the Bayesian ACE are learned: by predicting structures that were left out.

Two kinds of hyper-parameters need two kinds of judges. The mixing weights are thousands of numbers and could adapt
to the very frames on which they are scored, so they are learned on four fifths of the frames, by the gradient of the
leave-one-structure-out score on random subsets. The scales (noise and prior amplitude) decide the width of every
error bar; they are fitted last, by the leave-one-structure-out score of the frames that the mixing has never seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.inference.conjugate import (
    evidence_gradient,
    group_members,
    leave_one_out_gradient,
    posterior_from_rows,
)
from bayesmol.inference.random import generator
from bayesmol.potentials.ace_rows import ENERGY, FORCE, Model, Rows, all_rows
from bayesmol.progress import progress

OBJECTIVES = ("leave-one-out", "evidence")


@dataclass(frozen=True)
class MixingSchedule:
    """How the mixing weights are learned: Adam with a cosine-decaying rate on random subsets of frames.

    Attributes
    ----------
    steps
        Gradient steps; the mixing with the best score on unseen frames is kept. More did not help in any system tried.
    rate, prior_rate
        Initial rates for the mixing weights and for the logarithms of the prior variances and of the noise of elements.
    subset_frames, subset_rows
        Frames and labels in a subset, at most; this bounds time and memory whatever the training set.
    checks
        Number of times that the unseen frames are scored.
    objective
        What the steps improve: the ``leave-one-out`` score, or the ``evidence`` (log marginal likelihood), which is
        better founded where the model is right and worse where it is not.

    Raises
    ------
    DataError
        If the objective is not one of the two.
    """

    steps: int = 48
    rate: float = 0.02
    prior_rate: float = 0.05
    subset_frames: int = 24
    subset_rows: int = 1600
    checks: int = 4
    objective: str = "leave-one-out"

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise DataError(expected("objective", f"one of {', '.join(OBJECTIVES)}", repr(self.objective)))


def initial_model(model: Model, labelled: Labelled, *, seed: int) -> Model:
    """Prior scales such that each body order explains a like share of the labels, and a first guess of the noise."""
    sample = labelled[subset(labelled, 800, seed)]
    rows = all_rows(model, sample)
    kind = FORCE if bool((rows.kind == FORCE).any()) else ENERGY
    picked = rows.kind == kind
    targets = rows.targets[picked]
    spread = float(targets.square().mean() if kind == FORCE else targets.var().clamp_min(1e-8))
    families, orders = model.representation.families.to(targets.device), model.representation.orders.to(targets.device)
    power = targets.new_zeros(int(families.max()) + 1).index_add(0, families, rows.design[picked].square().mean(0))
    order = torch.zeros_like(power).index_copy(0, families, orders.to(power))
    share = 10 * spread / 4 / torch.bincount(order.long()).to(power)[order.long()]
    log_prior = 0.5 * torch.log(share / power.clamp_min(1e-12 * float(power.max())))
    noise = 0.025 * math.sqrt(spread)
    log_noise = torch.full_like(model.log_noise, math.log(noise))
    log_noise[ENERGY] += math.log(0.06)
    return replace(model, log_prior=log_prior, log_noise=log_noise)


def subset(labelled: Labelled, rows: int, seed: int | torch.Generator, *, least: int = 4, most: int = 1000) -> Tensor:
    """Random frames with about so many labels, within bounds on their number."""
    per_frame = 1 + 3 * float(labelled.structures.counts.double().mean()) * float(labelled.has_forces.double().mean())
    count = max(least, min(most, len(labelled), int(rows / per_frame)))
    return torch.randperm(len(labelled), generator=generator(seed))[:count].sort().values


def learned_mixing(model: Model, labelled: Labelled, schedule: MixingSchedule, *, seed: int) -> tuple[Model, Tensor]:
    """Model with learned mixing weights and prior scales, and the frames that were not used for it.

    With fewer than 8 frames with forces there is nothing to learn from, and the mixing stays random.
    """
    source = generator(seed)
    order = torch.randperm(len(labelled), generator=source)
    held = max(len(labelled) // 5, 1)
    unseen, seen = order[:held].sort().values, order[held:].sort().values
    if int(labelled.has_forces.sum()) < 8 or schedule.steps == 0:
        return model, torch.arange(len(labelled))
    learning = _Learning(model, schedule, model.representation.composition(labelled.structures))
    unseen = unseen[:: max(1, len(unseen) // 60)]
    part, judge = labelled[seen], labelled[unseen[subset(labelled[unseen], 1600, source)]]
    best, best_score = model, math.inf
    with progress("learning the representation", schedule.steps) as advance:
        for step in range(schedule.steps):
            frames = part[subset(part, schedule.subset_rows, source, least=6, most=schedule.subset_frames)]
            learning.step(frames)
            advance()
            if (step + 1) % max(1, schedule.steps // schedule.checks) == 0:
                score = _unseen_score(learning.model(), frames, judge)
                best, best_score = (learning.model(), score) if score < best_score else (best, best_score)
    return best, unseen


class _Learning:
    """State of the optimiser over one run."""

    def __init__(self, model: Model, schedule: MixingSchedule, composition: Tensor) -> None:
        self._template = model
        self._evidence = schedule.objective == "evidence"
        self._share = composition.sum(0) / composition.sum()
        self._mixing = [part.clone().requires_grad_(True) for part in model.representation.mixing]
        self._prior = model.log_prior.clone().requires_grad_(True)
        self._noise = torch.zeros_like(model.references).requires_grad_(True)
        groups = [
            {"params": self._mixing, "lr": schedule.rate},
            {"params": [self._prior, self._noise], "lr": schedule.prior_rate / 2},
        ]
        self._adam = torch.optim.Adam(groups, betas=(0.9, 0.95))
        self._decay = torch.optim.lr_scheduler.CosineAnnealingLR(self._adam, schedule.steps)

    def step(self, frames: Labelled) -> None:
        """One step down the gradient of the objective on some frames."""
        current = self._assembled(self._mixing, self._prior, self._noise)
        rows = all_rows(current, frames, torch.float32)
        white, noise = rows.whitened(current), rows.noise(current)
        fixed = white.detach().double()
        covariance = fixed @ fixed.T + torch.diag(noise.detach())
        gradient = self._gradient(covariance, rows)
        slope = 2 * gradient.float() @ white.detach()
        self._adam.zero_grad()
        (((slope * white).sum() + (gradient.diagonal() * noise).sum()) / len(rows.targets)).backward()
        self._adam.step()
        self._decay.step()

    def _gradient(self, covariance: Tensor, rows: Rows) -> Tensor:
        """Derivative of the objective, per label set, with respect to the covariance of the labels."""
        if self._evidence:
            return evidence_gradient(covariance, rows.targets)
        return leave_one_out_gradient(covariance, rows.targets, group_members(rows.group))[1]

    def model(self) -> Model:
        """The model as it is now, without gradients."""
        mixing = [part.detach().clone() for part in self._mixing]
        return self._assembled(mixing, self._prior.detach().clone(), self._noise.detach())

    def _assembled(self, mixing: list[Tensor], prior: Tensor, noise: Tensor) -> Model:
        """Model with the noise of the elements moved about its mean over the force labels, which stays."""
        representation = self._template.representation.with_mixing(tuple(mixing))
        moved = torch.cat([torch.zeros_like(noise[:1]).expand(FORCE), noise - self._share @ noise])
        log_noise = self._template.log_noise + moved
        return replace(self._template, representation=representation, log_prior=prior, log_noise=log_noise)


def _unseen_score(model: Model, context: Labelled, judge: Labelled) -> float:
    """Negative log-density a label of unseen frames, after the best common rescaling of the variances."""
    known, new = all_rows(model, context), all_rows(model, judge)
    posterior = posterior_from_rows(known.whitened(model), known.targets, known.noise(model))
    white = new.whitened(model)
    variance = posterior.variance(white) + new.noise(model)
    z = (new.targets - white @ posterior.mean) / variance.sqrt()
    return float(0.5 * z.square().mean().log() + 0.5 * variance.log().mean())
