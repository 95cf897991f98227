"""Scales of the Bayesian ACE, noise and prior amplitude, from structures that were left out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.inference.conjugate import (
    LeftOut,
    LinearPosterior,
    condensed,
    group_members,
    left_out,
    left_out_from_covariance,
    posterior_from_gram,
    posterior_from_rows,
)
from bayesmol.potentials.ace_rows import ENERGY, FORCE, VIRIAL, Model, Rows


@runtime_checkable
class Judge(Protocol):
    """Leave-one-structure-out predictions of some structures for any scales of the model."""

    @property
    def rows(self) -> Rows: ...

    @property
    def members(self) -> list[tuple[Tensor, Tensor]]: ...

    def left_out(self, shift: float, log_amplitude: float) -> LeftOut:
        """Predictions with the log noise moved by ``shift`` and the log prior variance by ``log_amplitude``."""
        ...


def fitted_scales(model: Model, judge: Judge) -> Model:
    """Noise and prior amplitude by leaving out structures that the mixing has not seen.

    With forces, the ratio of noise to prior is the one whose left-out forces have the least squared error, and the
    common amplitude then makes their mean squared standardised residual one. Energies alone are too few for that: there
    the joint log-density of the left-out labels decides.
    """
    if not bool((judge.rows.kind == FORCE).any()):
        shift, log_amplitude = _most_likely(judge)
    else:
        shift = _best_ratio(judge)
        factor = _variance_factor(judge, shift)
        shift, log_amplitude = shift + 0.5 * factor, factor
    return replace(model, log_noise=model.log_noise + shift, log_prior=model.log_prior + 0.5 * log_amplitude)


def _forces(judge: Judge, found: LeftOut) -> Tensor:
    return (judge.rows.kind == FORCE) & found.judged


def _best_ratio(judge: Judge, *, step: float = 0.7, most: float = 4.2, width: float = 1.4) -> float:
    """Move of the log noise with the least squared left-out force error, by walking downhill from half of the noise.

    A normal prior of standard deviation ``width`` about the start keeps a few lucky frames from choosing an extreme
    noise; a frame counts as three independent errors, one a direction.
    """
    frames = sum(len(numbers) for numbers, _ in judge.members)

    def error(shift: float) -> float:
        found = judge.left_out(shift, 0.0)
        mean_square = float(found.residual[_forces(judge, found)].square().mean())
        return 1.5 * frames * math.log(mean_square) + 0.5 * ((shift - start) / width) ** 2

    start = -step
    best, least = start, error(start)
    for direction in (step, -step):
        while abs(best + direction) <= most and (trial := error(best + direction)) < least:
            best, least = best + direction, trial
        if best != start:
            break
    return best


def judged_error(judge: Judge) -> float:
    """Mean squared left-out error of the forces, or of the energies of an atom if there are no forces."""
    found = judge.left_out(0.0, 0.0)
    rows = _forces(judge, found)
    if bool(rows.any()):
        return float(found.residual[rows].square().mean())
    return float((found.residual[found.judged] / judge.rows.atoms[found.judged]).square().mean())


def _variance_factor(judge: Judge, shift: float) -> float:
    """Log of the factor of all variances after which left-out forces are as wrong as they say; standard errors stay."""
    factor = 0.0
    for _ in range(4 if bool(judge.rows.errors.any()) else 1):
        found = judge.left_out(shift + 0.5 * factor, factor)
        rows = _forces(judge, found)
        factor += math.log(float((found.residual[rows].square() / found.variance[rows]).mean()))
    return factor


def _most_likely(judge: Judge, *, evaluations: int = 80) -> tuple[float, float]:
    """Scales of the greatest joint log-density of left-out labels (derivative-free)."""
    from scipy.optimize import minimize

    def objective(values: np.ndarray) -> float:
        found = judge.left_out(float(values[1]), 2 * float(values[0]))
        return float(found.score.sum()) + 0.02 * float((values**2).sum())

    start = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    options = {"maxfev": evaluations, "initial_simplex": start, "xatol": 0.02, "fatol": 0.02}
    best = minimize(objective, start[0], method="Nelder-Mead", options=options).x
    return float(best[1]), 2 * float(best[0])


@dataclass(frozen=True)
class DualJudge:
    """For fewer rows than weights: the covariance of all rows is assembled once."""

    model: Model
    rows: Rows
    gram: Tensor
    offsets: Tensor
    members: list[tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, model: Model, rows: Rows, judged: Tensor) -> DualJudge:
        """Judge over the structures ``judged``."""
        white = rows.whitened(model)
        offset = white[:, white.shape[1] - len(model.references) :]
        offsets = offset @ offset.T
        return cls(model, rows, white @ white.T - offsets, offsets, members_of(rows, judged))

    def left_out(self, shift: float, log_amplitude: float) -> LeftOut:
        """As in :class:`Judge`."""
        noise = self.rows.noise(replace(self.model, log_noise=self.model.log_noise + shift))
        covariance = math.exp(log_amplitude) * self.gram + self.offsets + torch.diag(noise)
        return left_out_from_covariance(covariance, self.rows.targets, self.members, int(self.rows.group.max()) + 1)


@dataclass(frozen=True)
class PrimalJudge:
    r"""For more rows than weights: :math:`\Phi^T \Sigma^{-1} \Phi` is summed once, and only the judged rows are kept.

    A move of the log noise is applied to the whole noise of a row, its label's standard error included.
    """

    model: Model
    rows: Rows
    gram: Tensor
    moment: Tensor
    members: list[tuple[Tensor, Tensor]]

    def posterior(self, shift: float, log_amplitude: float) -> LinearPosterior:
        """Posterior of the whitened weights with moved scales."""
        scale = torch.full_like(self.moment, math.exp(0.5 * log_amplitude))
        scale[len(scale) - len(self.model.references) :] = 1.0
        weight = math.exp(-2 * shift)
        return posterior_from_gram(weight * scale[:, None] * self.gram * scale, weight * scale * self.moment)

    def left_out(self, shift: float, log_amplitude: float) -> LeftOut:
        """As in :class:`Judge`."""
        posterior = self.posterior(shift, log_amplitude)
        scaled = replace(self.model, log_prior=self.model.log_prior + 0.5 * log_amplitude)
        return left_out_of(posterior, scaled, self.rows, self.members, noise_scale=math.exp(2 * shift))


def left_out_of(
    posterior: LinearPosterior, model: Model, rows: Rows, members: list, *, noise_scale: float = 1.0
) -> LeftOut:
    r"""Leave-one-group-out predictions from the posterior of all data, by :math:`(K^{-1})_{bb} = \Sigma^{-1} -
    \Sigma^{-1} \Phi_b S \Phi_b^T \Sigma^{-1}`."""
    noise = noise_scale * rows.noise(model)
    weights = torch.zeros_like(noise)
    blocks = []
    for _, picked in members:
        found = []
        for own in picked:
            white = model.whitened(rows.design[own], rows.composition[own])
            weights[own] = (rows.targets[own] - white @ posterior.mean) / noise[own]
            scaled = white / noise[own, None]
            found.append(torch.diag(1 / noise[own]) - posterior.covariance(scaled))
        blocks.append(torch.stack(found))
    return left_out(blocks, weights, members, int(rows.group.max()) + 1)


def inflation(found: LeftOut, rows: Rows, judged: Tensor, *, prior: int = 10) -> Float[Tensor, 2]:
    """Factors of the variances of energies and virials after which left-out ones are as wrong as they say.

    The forces have set the scale of all variances. The mean squared standardised residual of the ``judged`` structures
    is averaged with ``prior`` structures at one, because a few structures can be lucky. Without forces both are one.
    """
    factors = torch.ones(2, dtype=torch.float64, device=rows.targets.device)
    if not bool((rows.kind == FORCE).any()):
        return factors
    for kind in (ENERGY, VIRIAL):
        own = (rows.kind == kind) & torch.isin(rows.group, judged.to(rows.group.device))
        count = len(rows.group[own].unique())
        squares = found.residual[own].square() / found.variance[own]
        factors[kind] = (count * squares.sum() / max(1, len(squares)) + prior) / (count + prior)
    return factors


def members_of(rows: Rows, judged: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Members of the judged groups only."""
    wanted = torch.zeros(int(rows.group.max()) + 1, dtype=torch.bool, device=rows.group.device)
    wanted[judged.to(wanted.device)] = True
    picked = [(numbers[wanted[numbers]], members[wanted[numbers]]) for numbers, members in group_members(rows.group)]
    return [item for item in picked if len(item[0])]


def dual_posterior(model: Model, rows: Rows) -> LinearPosterior:
    """Posterior of the whitened weights from all rows at once."""
    return posterior_from_rows(*condensed(rows.whitened(model), rows.targets, rows.noise(model), rows.group))
