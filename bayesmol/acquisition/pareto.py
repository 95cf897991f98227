"""Several objectives at once: the Pareto front, the shells behind it, errors near it, candidates that advance it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.acquisition.improvement import Goal
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Posterior

__all__ = ["hypervolume", "non_dominated", "pareto_select", "shell_error", "shells"]

Goals = Goal | Sequence[Goal]
_MEMORY = 2**24  # comparisons at once


def non_dominated(points: Float[Tensor, "points objectives"], *, goals: Goals) -> Bool[Tensor, " points"]:
    """Whether no other point is at least as good in all objectives and better in one; equal points do not dominate.

    Parameters
    ----------
    goals
        ``"minimise"`` or ``"maximise"``, one for all or one an objective.
    """
    better = _turned(points, goals)
    found = torch.ones(len(better), dtype=torch.bool, device=better.device)
    for rows in torch.arange(len(better), device=better.device).split(max(1, _MEMORY // max(1, better.numel()))):
        own = better[rows].unsqueeze(1)
        found[rows] = ~((better >= own).all(2) & (better > own).any(2)).any(1)
    return found


def shells(points: Float[Tensor, "points objectives"], *, goals: Goals) -> Int[Tensor, " points"]:
    """Pareto shell of each point: 0 is the front, 1 the front when that is taken away, and so on.

    References
    ----------
    Deb, Pratap, Agarwal, Meyarivan, IEEE Trans. Evol. Comput. 6, 182 (2002) (non-dominated sorting).
    """
    shell = torch.full((len(points),), -1, dtype=torch.long, device=points.device)
    left, number = torch.arange(len(points), device=points.device), 0
    while len(left):
        front = non_dominated(points[left], goals=goals)
        shell[left[front]] = number
        left, number = left[~front], number + 1
    return shell


def shell_error(
    predicted: Float[Tensor, "points objectives"],
    truth: Float[Tensor, "points objectives"],
    *,
    goals: Goals,
    last: int = 0,
) -> Float[Tensor, " objectives"]:
    r"""Root mean square error of each objective over the true Pareto shells 0 to ``last``, in its unit.

    A model made to find the front needs to be right there and may be wrong elsewhere, where the error over all points
    would blame it.

    References
    ----------
    del Rosario, Rupp, Kim, Antono, Ling, J. Chem. Phys. 153, 024112 (2020).
    """
    if predicted.shape != truth.shape:
        raise ShapeError(expected("predicted", f"shape {tuple(truth.shape)}", tuple(predicted.shape)))
    if last < 0:
        raise DataError(expected("last", "0 for the front, or more", last))
    near = shells(truth, goals=goals) <= last
    return (predicted - truth)[near].double().square().mean(0).sqrt()


def hypervolume(
    points: Float[Tensor, "points objectives"], reference: Float[Tensor, " objectives"], *, goals: Goals
) -> float:
    """Volume of what some point dominates within the reference, in the product of the units of the objectives.

    In closed form for two objectives, else by BoTorch. Points that are not better than the reference in all objectives
    add nothing.

    Raises
    ------
    DependencyError
        If there are three objectives or more and BoTorch is not installed.
    """
    better, worst = _turned(points, goals), _turned(_checked(reference, points).unsqueeze(0), goals)[0]
    if better.shape[1] != 2:
        from bayesmol.acquisition.botorch import hypervolume as by_botorch

        return by_botorch(better, worst)
    gain = (better - worst)[(better > worst).all(1)]
    gain = gain[gain[:, 0].argsort(descending=True)]
    if not len(gain):
        return 0.0
    height = gain[:, 1].cummax(0).values
    width = gain[:, 0] - torch.cat([gain[1:, 0], gain.new_zeros(1)])
    return float((width * height).sum())


def pareto_select(
    outputs: Sequence[Posterior],
    observed: Float[Tensor, "points objectives"],
    reference: Float[Tensor, " objectives"],
    size: int,
    *,
    goals: Goals,
    seed: int | torch.Generator = 0,
) -> tuple[Int[Tensor, " size"], Float[Tensor, " size"]]:
    """Candidates with the largest expected gain in hypervolume, each given those before it, and log-gains (qLogEHVI).

    Parameters
    ----------
    outputs
        Posterior of each objective over the candidates, with its covariance.
    observed
        Objectives of what is measured already.
    reference
        The worst values that are of interest.

    Raises
    ------
    DependencyError
        If BoTorch is not installed.

    References
    ----------
    See :func:`bayesmol.acquisition.botorch.hypervolume_batch`.
    """
    from bayesmol.acquisition.botorch import candidate_model, hypervolume_batch

    count = observed.shape[1]
    if len(outputs) != count:
        raise ShapeError(expected("outputs", f"{count} posteriors, one an objective", len(outputs)))
    if not 1 <= size <= len(outputs[0]):
        raise DataError(expected("size", f"1 to {len(outputs[0])} (candidates)", size))
    model = candidate_model(outputs, goals=goals, seed=seed)
    worst = _turned(_checked(reference, observed).unsqueeze(0), goals)[0]
    return hypervolume_batch(model, _turned(observed, goals), worst, size, seed=seed)


def _turned(points: Tensor, goals: Goals) -> Tensor:
    """Points as if all objectives were to be maximised, in float64."""
    if points.ndim != 2:
        raise ShapeError(expected("points", "(points, objectives)", tuple(points.shape)))
    each = [goals] * points.shape[1] if isinstance(goals, str) else list(goals)
    if len(each) != points.shape[1] or not set(each) <= {"minimise", "maximise"}:
        raise DataError(expected("goals", f"'minimise' or 'maximise' for {points.shape[1]} objectives", goals))
    if bool(torch.isnan(points).any()):
        raise DataError(expected("points", "numbers", "NaN"))
    return points.double() * points.new_tensor([1.0 if goal == "maximise" else -1.0 for goal in each]).double()


def _checked(reference: Tensor, points: Tensor) -> Tensor:
    if reference.shape != points.shape[1:]:
        raise ShapeError(expected("reference", f"shape {tuple(points.shape[1:])}", tuple(reference.shape)))
    return reference.to(points)
