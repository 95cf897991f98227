"""One Hamiltonian trajectory of many walkers, rows of a batch: the move of all samplers of densities here."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

__all__ = [
    "Place",
    "Surface",
    "Unnormalised",
    "centred",
    "chosen",
    "differentiated",
    "move",
    "started",
    "surface",
    "tuned",
    "wrapped",
]

_WALL = 1000.0  # a trajectory whose total energy rises by more, in units of kT, is given up


@runtime_checkable
class Unnormalised(Protocol):
    """What is sampled: rows and minus their log-density up to a constant."""

    @property
    def dimension(self) -> int: ...

    def reduced_energy(self, x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]: ...


class Place(NamedTuple):
    """Where walkers are: rows, reduced energy, its gradient, and numbers of each row that are carried along."""

    rows: Tensor
    energy: Tensor
    gradient: Tensor
    parts: Tensor


Surface = Callable[[Tensor], Place]


def surface(target: Unnormalised) -> Surface:
    """Energy and gradient of rows: the target's own ``reduced_gradient`` if it has one, else by differentiation.

    A target may say with ``circular`` which coordinates are angles; rows then come back with these in [−π, π).
    """
    circular = getattr(target, "circular", None)

    def evaluated(rows: Tensor) -> Place:
        rows = wrapped(rows, circular)
        if hasattr(target, "reduced_gradient"):
            energy, gradient = target.reduced_gradient(rows)
        else:
            energy, gradient = differentiated(target.reduced_energy, rows)
        if bool((torch.isnan(energy) | (energy == -math.inf)).any()):
            raise DataError(expected("energy", "a number or +∞ for each row", "NaN or −∞", "check the energy function"))
        energy = energy.detach()
        return Place(rows, energy, gradient.detach(), energy.unsqueeze(1))

    return evaluated


def differentiated(function: Callable[[Tensor], Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    """A function of each row and its gradient."""
    with torch.enable_grad():
        leaf = rows.detach().requires_grad_()
        value = function(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def wrapped(rows: Tensor, circular: Tensor | None) -> Tensor:
    """The same rows with angles in [−π, π)."""
    if circular is None:
        return rows
    return torch.where(circular, torch.remainder(rows + math.pi, 2 * math.pi) - math.pi, rows)


def move(
    evaluated: Surface, place: Place, steps: Tensor | float, leapfrogs: int, source: torch.Generator
) -> tuple[Place, Float[Tensor, " walkers"]]:
    """One trajectory of each walker, accepted or not, and its probability of acceptance.

    ``steps`` has a shape that broadcasts with the rows.
    """
    rows = place.rows
    noise: dict[str, Any] = {"generator": source, "dtype": rows.dtype, "device": rows.device}
    momentum = torch.randn(rows.shape, **noise)
    steps = steps * (0.8 + 0.4 * torch.rand(len(rows), 1, **noise))
    first = place.energy + momentum.square().sum(1) / 2
    end, good = place, torch.ones_like(place.energy, dtype=torch.bool)
    for _ in range(leapfrogs):
        momentum = momentum - steps / 2 * _force(end, good)
        ahead = end.rows + steps * momentum * good.unsqueeze(1)
        # A walker that has left the finite numbers stays where it was and is rejected.
        good = good & torch.isfinite(ahead).all(1)
        end = evaluated(torch.where(good.unsqueeze(1), ahead, end.rows))
        good = good & torch.isfinite(end.energy) & torch.isfinite(end.gradient).all(1)
        momentum = momentum - steps / 2 * _force(end, good)
        total = end.energy + momentum.square().sum(1) / 2
        good = good & (total - first < _WALL)
    share = torch.where(good, (first - total).exp().clamp_max(1.0), 0.0)
    taken = torch.rand(len(rows), **noise) < share
    return chosen(taken, end, place), share


def _force(place: Place, good: Tensor) -> Tensor:
    return torch.where(good.unsqueeze(1), place.gradient, 0.0)


def chosen(taken: Tensor, new: Place, old: Place) -> Place:
    """The new place of each walker where it is taken, else the old one."""
    wide = taken.unsqueeze(1)
    pairs = zip((wide, taken, wide, wide), new, old, strict=True)
    return Place(*(torch.where(which, fresh, stale) for which, fresh, stale in pairs))


def tuned(step: Tensor | float, share: Tensor, target: float, count: int) -> Tensor:
    """Next step length after ``count`` adaptations: longer if more was accepted than aimed at (Robbins, Monro)."""
    return step * ((share - target) * 2 / (1 + count) ** 0.5).exp()


def started(target: Unnormalised, start: Tensor) -> Place:
    """Where walkers start, each with a finite energy."""
    if start.ndim != 2 or not len(start) or start.shape[1] != target.dimension:
        raise ShapeError(expected("start", f"(walkers, {target.dimension})", tuple(start.shape)))
    place = surface(target)(start.detach().clone())
    if not bool(torch.isfinite(place.energy).all() & torch.isfinite(place.gradient).all()):
        raise DataError(expected("start", "rows with finite energies and gradients", "others", "start elsewhere"))
    return place


def centred(rows: Float[Tensor, "points dimension"], space: int) -> Float[Tensor, "points dimension"]:
    """Configurations of particles with their centre at zero; the same rows if ``space`` is 0."""
    if not space:
        return rows
    particles = rows.unflatten(1, (-1, space))
    return (particles - particles.mean(1, keepdim=True)).flatten(1)
