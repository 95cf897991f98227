"""How the value of a structure and the diversity of a batch make one choice: the rules behind ``select``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.acquisition.batches import Batch, greedy_log_determinant
from bayesmol.acquisition.diversity import farthest, largest_cluster
from bayesmol.acquisition.functions import values
from bayesmol.acquisition.reduction import variance_batch
from bayesmol.data import Structures
from bayesmol.errors import DataError, expected
from bayesmol.parallel import parallel

__all__ = ["RULES", "Request", "chosen"]

_JOINT = ("force_variance", "information")  # what a log-determinant of force covariances is by itself
_PART = 256  # structures of one task
_RANK = 512  # of a factor at least


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked of a rule: candidates, how they are valued, and those that are in the batch anyway.

    Attributes
    ----------
    first
        Positions of candidates that are in the batch anyway.
    costs
        Of each candidate.
    training
        Structures that are labelled already, for the rules of distances.
    rank
        Of the factor of the joint covariance, see :func:`~bayesmol.acquisition.select`.
    """

    model: Any
    candidates: Structures
    size: int
    function: str | None
    target: Any = None
    tolerance: float | None = None
    first: tuple[int, ...] = ()
    costs: Float[Tensor, " candidates"] | None = None
    training: Any = None
    rank: int | None = None
    seed: int = 0

    @property
    def values(self) -> Float[Tensor, " candidates"]:
        """Value of each candidate by the function alone; parts of the pool are tasks for :mod:`bayesmol.parallel`."""
        if self.function is None:
            raise DataError(expected("function", "a value of structures for this batch", "none"))
        settings = {"target": self.target, "tolerance": self.tolerance, "seed": self.seed}
        parts = [self.candidates[start : start + _PART] for start in range(0, len(self.candidates), _PART)]
        found = torch.cat(parallel(partial(_valued, self.function, self.model, settings), parts, description="scoring"))
        if bool(found.isnan().any()) or bool((found < 0).any()):
            raise DataError(expected("function", "values of at least zero", "NaN or less", "look at the predictions"))
        return found.double()

    def factors(self, structures: Structures, times: int) -> list[Float[Tensor, "_ columns"]]:
        """Factors of the joint covariance of forces; by default ``times`` as many columns as labels in the batch."""
        labels = 3 * int(self.candidates.counts.topk(self.size).values.sum())
        rank = max(_RANK, times * labels) if self.rank is None else self.rank
        return self.model.force_factor(structures, rank=rank, seed=self.seed)


def chosen(rule: str, request: Request) -> Batch:
    """Positions of candidates that a rule of :data:`RULES` chooses, ``request.first`` before all others.

    Raises
    ------
    DataError
        If there is no such rule, or a value is NaN or negative.
    """
    if rule not in RULES:
        raise DataError(expected("batch", f"one of {sorted(RULES)}", repr(rule)))
    return RULES[rule](request)


def _top(request: Request) -> Batch:
    """The largest values for a unit of cost, whether or not they repeat each other."""
    found = request.values
    ranked = found if request.costs is None else found / request.costs.to(found)
    ranked[list(request.first)] = torch.inf
    others = ranked.argsort(descending=True, stable=True)[len(request.first) : request.size]
    indices = torch.cat([torch.tensor(request.first, dtype=torch.long, device=others.device), others])
    return Batch(indices, found[indices])


def _log_determinant(request: Request) -> Batch:
    factors = request.factors(request.candidates, times=1)
    if request.function not in _JOINT:
        factors = weighted(factors, request.values)
    costs = None if request.costs is None else request.costs.tolist()
    indices, gains = greedy_log_determinant(
        factors, request.model.noise_force, request.size, first=request.first, costs=costs
    )
    device = factors[0].device
    return Batch(torch.tensor(indices, device=device), torch.tensor(gains, dtype=torch.float64, device=device))


def _reduction(request: Request) -> Batch:
    """The least variance left in the target, by default the candidates themselves."""
    if request.function not in (None, "force_variance", "integrated_variance"):
        raise DataError(expected("function", 'none, or "integrated_variance", for this batch', request.function))
    parts = [request.candidates] if request.target is None else [request.candidates, Structures.coerce(request.target)]
    together = Structures.concatenate([part.to(request.candidates.positions.device) for part in parts])
    # labels that lack the variance which the factor leaves out would seem to take away more of the target
    factors = request.factors(together, times=2)
    count = len(request.candidates)
    targets = factors if request.target is None else factors[count:]
    options: dict[str, Any] = {"first": request.first, "costs": request.costs}
    return variance_batch(factors[:count], targets, request.model.noise_force, request.size, **options)


def weighted(factors: list[Tensor], value: Float[Tensor, " structures"]) -> list[Tensor]:
    r"""Factors whose correlations stay, while the mean variance of each structure is made proportional to its value.

    This is the decomposition :math:`L_{st} = q_s S_{st} q_t` of a determinantal point process into quality and
    similarity, with :math:`q_s^2` the value. A structure of average value gets the average variance of all, so
    that the unit of the values plays no role.

    References
    ----------
    Kulesza, Taskar, Found. Trends Mach. Learn. 5, 123 (2012), section 3.1.
    """
    variances = torch.stack([factor.square().sum(1).mean() for factor in factors]).double()
    mean = value.to(variances).mean()
    if not float(mean) > 0 or not bool((variances > 0).all()):
        raise DataError(expected("function", "candidates with some value and some variance", "zeros"))
    scale = (value.to(variances) / mean * variances.mean() / variances).sqrt()
    return [factor * number.to(factor) for factor, number in zip(factors, scale, strict=True)]


def _distances(rule: Callable[..., Batch], request: Request) -> Batch:
    if not hasattr(request.model, "features"):
        got = f"{type(request.model).__name__} without features"
        raise DataError(expected("model", "features of structures for this batch", got, 'use batch="logdet"'))
    features = request.model.features(request.candidates)
    weights = request.values if request.function else features.new_ones(len(features), dtype=torch.float64)
    if request.costs is not None:
        weights = weights / request.costs.to(weights)
    training = request.training
    if training is not None:
        training = request.model.features(Structures.coerce(training)).to(features)
    return rule(features, request.size, training=training, weights=weights.to(features.device), first=request.first)


def _valued(function: str, model: Any, settings: dict[str, Any], part: Structures) -> Tensor:
    return values(function, model, part, **settings)


RULES: dict[str, Callable[[Request], Batch]] = {
    "logdet": _log_determinant,
    "reduction": _reduction,
    "lcmd": partial(_distances, largest_cluster),
    "k-centre": partial(_distances, farthest),
    "top": _top,
}
