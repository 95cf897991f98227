"""Choose from a list of candidates the structures to label next."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.acquisition.batches import Batch
from bayesmol.acquisition.scoring import Request, chosen
from bayesmol.applicability import CalibratedDomain
from bayesmol.data import Structures
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator, integer_seed

__all__ = ["ForceModel", "Selection", "select"]


@runtime_checkable
class ForceModel(Protocol):
    """What :func:`select` asks of a potential: the joint covariance of forces, their noise, a score of strangeness.

    Functions other than the default ask for ``predict``, and distances for ``features``.
    """

    @property
    def noise_force(self) -> float: ...

    def force_factor(
        self, structures: Structures, rank: int = 512, seed: int | torch.Generator = 0
    ) -> list[Float[Tensor, " components rank"]]:
        """Factors W with covariance W_s W_tᵀ between the forces of structures s and t, in eV/Å."""
        ...

    def strangeness(self, structures: Structures) -> Float[Tensor, " structures"]:
        """Score of each structure, higher is stranger."""
        ...


@dataclass(frozen=True)
class Selection:
    """Structures taken from a pool: those drawn by chance first, then those chosen, in the order of choice.

    Attributes
    ----------
    indices
        Positions in the pool.
    gains
        What each brought, given those before it. ``"logdet"``: information about the model in nats; ``"lcmd"`` and
        ``"k-centre"``: value times squared distance from the nearest labelled or chosen one; ``"top"``: its value.
    probabilities
        Of those drawn by chance the probability with which the draw took each candidate, the same for all: their number
        over that of the candidates. Zero for those that the rule chose: they were no matter of chance, stand for
        nothing but themselves, and have no place in a calibration.
    drawn
        Which were drawn by chance: uniformly, without replacement, before anything was chosen. They are exchangeable
        with the candidates that are left out of the batch by chance, so an interval calibrated on them keeps its
        level for a candidate drawn in the same way, whatever the model chose beside them.
    random_indices
        A random batch of the same size from the same candidates: what the choice is to be compared with.
    skipped
        Positions outside the domain, which were no candidates.
    structures
        The structures taken.
    """

    indices: Int[Tensor, " size"]
    gains: Float[Tensor, " size"]
    probabilities: Float[Tensor, " size"]
    drawn: Bool[Tensor, " size"]
    random_indices: Int[Tensor, " size"]
    skipped: Int[Tensor, " skipped"]
    structures: Structures

    def __len__(self) -> int:
        return len(self.indices)


def select(
    model: ForceModel,
    pool: Any,
    size: int,
    *,
    function: str | None = "force_variance",
    batch: str = "logdet",
    domain: CalibratedDomain | None = None,
    costs: Float[Tensor, " structures"] | None = None,
    budget: float | None = None,
    target: Any = None,
    tolerance: float | None = None,
    training: Any = None,
    random_fraction: float = 0.0,
    rank: int | None = None,
    seed: int | torch.Generator = 0,
) -> Selection:
    r"""Choose ``size`` structures to label next.

    By default those whose forces together tell the model most: a copy of a chosen structure has little left to tell,
    so a batch does not repeat itself as the ``size`` most uncertain structures would. Larger structures bring
    more labels and so more information. This is best where rare structures matter (broken bonds in a pool of whole
    molecules), and worse than chance where the average error over the pool does; ``function=None, batch="lcmd"`` was
    good in both (``experiments/active_learning.py curves``).

    ============= ================================================================================================
    batch         choice, with the value :math:`v_s` of a structure by ``function``
    ============= ================================================================================================
    ``logdet``    greedy :math:`\ln\det(1 + \Sigma/\sigma^2)` of the covariance of forces; a function other than
                  ``"force_variance"`` and ``"information"``, which this is, scales the mean variance of each
                  structure in proportion to :math:`v_s` (:func:`~bayesmol.acquisition.scoring.weighted`)
    ``reduction`` greedy reduction of the variance of the forces of ``target``, by default of all candidates
                  (:func:`~bayesmol.acquisition.reduction.variance_batch`)
    ``lcmd``      the largest :math:`v_s d_s^2` in the cluster of the largest :math:`\sum v_s d_s^2`, d the distance
                  of ``model.features`` from the nearest labelled or chosen structure
    ``k-centre``  the largest :math:`v_s d_s^2` of all
    ``top``       the largest values, which may all be copies of one structure
    ============= ================================================================================================

    Parameters
    ----------
    model
        A fitted potential.
    pool
        Candidates: structures, labelled structures, or ASE atoms.
    size
        Number of structures to choose; with a budget the largest number.
    function
        Value of a structure, see :func:`~bayesmol.acquisition.functions.values`, whose are ``target`` and
        ``tolerance``; ``None`` for ``"lcmd"`` and ``"k-centre"`` by distance alone.
    target
        Structures on which the model shall be good; they need no labels.
    domain
        Calibrated on the ``strangeness`` of the model; candidates outside are skipped and reported. This gate is
        against absurd structures (fused atoms, a molecule in pieces), which cost a label and teach nothing. It is not
        the domain in which predictions are trusted: that one would skip just what is worth learning. Give it a
        domain of its own, calibrated at a much smaller level or on structures hotter than those of interest.
    costs
        Of labelling each structure of the pool: value for a unit of cost decides.
    budget
        Largest sum of costs. A structure that no longer fits is left out and the next is tried.
    training
        Structures labelled already, from which ``"lcmd"`` and ``"k-centre"`` keep their distance.
    random_fraction
        Of the batch, rounded up, that is drawn uniformly from the candidates before the others are chosen.
    rank
        Of the factor of the joint covariance, for ``"logdet"`` and ``"reduction"``: by default as many columns as
        the batch may have force labels, for ``"reduction"`` twice as many, and at least 512. With fewer, labels seem
        to say more about each other than they do. Memory is the pool's atoms · 3 · ``rank`` numbers.

    Raises
    ------
    DataError
        If there are fewer candidates than ``size``, or an option makes no sense.

    References
    ----------
    See :func:`~bayesmol.acquisition.batches.greedy_log_determinant`,
    :func:`~bayesmol.acquisition.diversity.largest_cluster`.
    """
    structures = Structures.coerce(pool)
    candidates, skipped = _candidates(model, structures, domain)
    if not 1 <= size <= len(candidates):
        available = f"1 to {len(candidates)} (pool of {len(structures)}, {len(skipped)} outside the domain)"
        raise DataError(expected("size", available, size, "choose fewer or enlarge the pool"))
    if not 0 <= random_fraction <= 1:
        raise DataError(expected("random_fraction", "a share from 0 to 1", random_fraction))
    costs, source = _costs(costs, budget, structures), generator(seed)
    baseline = candidates[torch.randperm(len(candidates), generator=source)[:size]]
    count = math.ceil(random_fraction * size - 1e-9)
    first = torch.randperm(len(candidates), generator=source)[:count]
    number = integer_seed(seed)
    own = None if costs is None else costs[candidates]
    asked = {"function": function, "target": target, "tolerance": tolerance, "training": training, "rank": rank}
    request = Request(model, structures[candidates], size, first=tuple(first.tolist()), costs=own, seed=number, **asked)
    found = _affordable(chosen(batch, request), own, budget, count)
    places = candidates[found.indices.cpu()]
    drawn = torch.isin(found.indices.cpu(), first)
    probabilities = drawn.double() * (count / len(candidates))
    return Selection(places, found.gains.cpu(), probabilities, drawn, baseline, skipped, structures[places])


def _candidates(model: ForceModel, structures: Structures, domain: CalibratedDomain | None) -> tuple[Tensor, Tensor]:
    if domain is None:
        return torch.arange(len(structures)), torch.arange(0)
    inside = domain.assess(model.strangeness(structures)).inside.cpu()
    return inside.nonzero().squeeze(1), (~inside).nonzero().squeeze(1)


def _costs(costs: Any, budget: float | None, structures: Structures) -> Tensor | None:
    if costs is None:
        if budget is not None:
            raise DataError(expected("costs", "one of each structure, for a budget", "none"))
        return None
    numbers = torch.as_tensor(costs, dtype=torch.float64).cpu()
    if numbers.shape != (len(structures),):
        raise ShapeError(expected("costs", f"shape ({len(structures)},), one a structure", tuple(numbers.shape)))
    if not bool(torch.isfinite(numbers).all()) or not bool((numbers > 0).all()):
        raise DataError(expected("costs", "finite numbers above zero", "others"))
    return numbers


def _affordable(batch: Batch, costs: Tensor | None, budget: float | None, drawn: int) -> Batch:
    """The batch in its order, without those that no longer fit into the budget."""
    if budget is None or costs is None:
        return batch
    kept, left = [], budget
    for place, index in enumerate(batch.indices.tolist()):
        if float(costs[index]) <= left:
            left -= float(costs[index])
            kept.append(place)
    # a draw that depends on costs would no longer be uniform
    if not kept or kept[:drawn] != list(range(drawn)):
        aim = "the cost of those drawn by chance and of one chosen structure at least"
        raise DataError(expected("budget", aim, budget, "raise it or lower random_fraction"))
    return Batch(batch.indices[kept], batch.gains[kept])
