"""Choose from a list of candidates the structures to label next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.acquisition.batches import greedy_log_determinant
from bayesmol.applicability import CalibratedDomain
from bayesmol.data import Structures
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator

__all__ = ["ForceModel", "Selection", "select"]


@runtime_checkable
class ForceModel(Protocol):
    """What :func:`select` asks of a potential: the joint covariance of forces, their noise, a score of strangeness."""

    noise_force: float

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
    """Structures chosen from a pool, in the order of choice.

    Attributes
    ----------
    indices
        Positions in the pool.
    gains
        Information of the forces of each about the model, given those before it, in nats.
    random_indices
        A random batch of the same size from the same candidates: what the choice is to be compared with.
    skipped
        Positions outside the domain, which were no candidates.
    structures
        The structures chosen.
    """

    indices: Int[Tensor, " size"]
    gains: Float[Tensor, " size"]
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
    domain: CalibratedDomain | None = None,
    rank: int = 512,
    seed: int | torch.Generator = 0,
) -> Selection:
    """Choose ``size`` structures whose forces together tell the model most (greedy log-determinant).

    A copy of a chosen structure has little left to tell, so a batch does not repeat itself as the ``size`` most
    uncertain structures would. Larger structures bring more labels and so more information. Memory is the pool's
    atoms · 3 · ``rank`` numbers.

    Parameters
    ----------
    model
        A fitted potential.
    pool
        Candidates: structures, labelled structures, or ASE atoms.
    size
        Number of structures to choose.
    domain
        Calibrated on the ``strangeness`` of the model; candidates outside are skipped and reported.
    rank
        Of the factor of the joint covariance.

    Raises
    ------
    DataError
        If there are fewer candidates than ``size``.

    References
    ----------
    See :func:`~bayesmol.acquisition.batches.greedy_log_determinant`.
    """
    structures = Structures.coerce(pool)
    candidates, skipped = _candidates(model, structures, domain)
    if not 1 <= size <= len(candidates):
        available = f"1 to {len(candidates)} (pool of {len(structures)}, {len(skipped)} outside the domain)"
        raise DataError(expected("size", available, size, "choose fewer or enlarge the pool"))
    baseline = candidates[torch.randperm(len(candidates), generator=generator(seed))[:size]]
    factors = model.force_factor(structures[candidates], rank=rank, seed=seed)
    chosen, gains = greedy_log_determinant(factors, model.noise_force, size)
    indices = candidates[torch.tensor(chosen)]
    return Selection(indices, torch.tensor(gains, dtype=torch.float64), baseline, skipped, structures[indices])


def _candidates(model: ForceModel, structures: Structures, domain: CalibratedDomain | None) -> tuple[Tensor, Tensor]:
    if domain is None:
        return torch.arange(len(structures)), torch.arange(0)
    inside = domain.assess(model.strangeness(structures)).inside.cpu()
    return inside.nonzero().squeeze(1), (~inside).nonzero().squeeze(1)
