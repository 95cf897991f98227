"""One conditional density for many molecules: fitted to frames of some, used to propose configurations of others."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.flows.conditioners import reproducible
from bayesmol.flows.transferable_context import Contexts, Molecule, stacked
from bayesmol.flows.transferable_fitted import FittedTransferable
from bayesmol.flows.transferable_network import Kernel
from bayesmol.inference.random import generator
from bayesmol.progress import progress
from bayesmol.typing import Species

__all__ = ["Known", "TransferableKernel"]

Known = tuple[Species, Float[Tensor, " coordinates"], Float[Tensor, "frames coordinates"]]
"""Atomic numbers of a molecule, its geometry of least energy, and frames, both in Å."""


@dataclass(frozen=True)
class TransferableKernel:
    r"""Maximum likelihood of one kernel on frames of several molecules, as an ensemble over these.

    .. math:: \min_\theta \sum_m \frac{w_m}{d_m} \Bigl\langle -\ln q_\theta(x \mid G_m) \Bigr\rangle_m

    over molecules m with :math:`d_m` internal coordinates and random weights w: the molecules, not their frames, are
    the independent draws of chemistry, so that is what the members of the ensemble are bootstrapped over.

    Attributes
    ----------
    members
        Of the ensemble.
    steps, minutes
        Of training: all members move in the same steps; minutes are CPU minutes of this process, whichever ends first.
    batch
        Frames of each molecule in a step.
    rate, decay
        Of Adam, falling to zero as a cosine; decoupled weight decay.
    width, hidden, components, rounds
        Of the network, see :class:`~bayesmol.flows.transferable_network.Kernel`.

    References
    ----------
    Rubin, Annals of Statistics 9, 130 (1981) (Bayesian bootstrap).
    """

    members: int = 3
    steps: int = 1500
    minutes: float | None = None
    batch: int = 24
    rate: float = 1e-2
    decay: float = 1e-2
    width: int = 16
    hidden: int = 32
    components: int = 6
    rounds: int = 1

    def __post_init__(self) -> None:
        if min(self.members, self.steps, self.batch, self.components) < 1:
            raise DataError(expected("members, steps, batch, components", "positive counts", self))
        if not self.rate > 0 or not (self.minutes is None or self.minutes > 0):
            raise DataError(expected("rate, minutes", "positive numbers", self))

    def fit(self, molecules: Sequence[Known], *, seed: int | torch.Generator) -> FittedTransferable:
        """Fit to the frames of some molecules.

        Raises
        ------
        DataError, ShapeError
            If there is no molecule or frame, internal coordinates cannot describe one, a frame is not finite, or has
            another handedness than the equilibrium geometry.
        """
        known, values = _all_prepared(molecules)
        return self._fitted(known, values, torch.ones(1, len(known)), generator(seed))[0]

    def leave_one_out(
        self,
        molecules: Sequence[Known],
        left_out: Sequence[int] | None = None,
        *,
        seed: int | torch.Generator,
    ) -> tuple[FittedTransferable, ...]:
        """The fit to all molecules but one, for each of those ``left_out`` (all of them, by default).

        Their kernels are trained at once, which saves most of the time.

        Raises
        ------
        DataError, ShapeError
            As :meth:`fit`, and for fewer than two molecules.
        """
        if len(molecules) < 2:
            raise DataError(expected("molecules", "at least two", len(molecules)))
        known, values = _all_prepared(molecules)
        used = 1 - torch.eye(len(known))
        return self._fitted(known, values, used if left_out is None else used[list(left_out)], generator(seed))

    def _fitted(
        self, known: Sequence[Molecule], values: Sequence[Tensor], used: Tensor, source: torch.Generator
    ) -> tuple[FittedTransferable, ...]:
        """For each row of ``used`` the fit to the molecules that are 1 there."""
        chances = torch.ones(len(used), self.members, len(known))
        if self.members > 1:
            chances = -torch.rand(chances.shape, generator=source).clamp_min(1e-12).log()
        weights = chances * used[:, None]
        kernels, steps, losses = self._trained(stacked(known), values, weights.flatten(0, 1), source)
        fits = []
        for include, first in zip(used, range(0, len(kernels), self.members), strict=True):
            seen = frozenset(e for m, take in zip(known, include, strict=True) if take for e in m.environments)
            mine = slice(first, first + self.members)
            fits.append(FittedTransferable(tuple(kernels[mine]), seen, steps, tuple(losses[mine])))
        return tuple(fits)

    def _trained(
        self, contexts: Contexts, values: Sequence[Tensor], weights: Tensor, source: torch.Generator
    ) -> tuple[list[Kernel], int, list[float]]:
        """One kernel for each row of weights of the molecules, all in the same passes."""
        shape = {name: getattr(self, name) for name in ("width", "hidden", "components", "rounds")}
        with reproducible(source):
            kernels = [Kernel(**shape) for _ in weights]
        stack, fixed = torch.func.stack_module_state(kernels)
        rates = weights / weights.sum(1, keepdim=True) / contexts.known.sum((1, 2))

        def negative(own: dict[str, Tensor], rest: dict[str, Tensor], rate: Tensor, rows: Tensor) -> Tensor:
            return -rate @ torch.func.functional_call(kernels[0], (own, rest), (contexts, rows)).mean(1)

        together = torch.func.vmap(negative, (0, 0, 0, None))
        adam = torch.optim.AdamW(stack.values(), self.rate, weight_decay=self.decay)
        start, history, share = time.process_time(), [], 0.0
        with progress("transferable kernel", 100) as advance:
            while share < 1:
                losses = together(stack, fixed, rates, _batch(values, self.batch, contexts, source))
                adam.zero_grad()
                losses.sum().backward()
                _clip(stack.values())
                for group in adam.param_groups:
                    group["lr"] = self.rate * min(1.0, 20 * share + 0.05) * (1 + math.cos(math.pi * share)) / 2
                adam.step()
                history.append(losses.detach())
                before, share = share, self._share(len(history), time.process_time() - start)
                advance(int(100 * min(share, 1)) - int(100 * before), note=f"loss {float(losses.detach().mean()):.3f}")
        _write(kernels, stack)
        last = torch.stack(history[-max(1, len(history) // 10) :]).mean(0)
        return kernels, len(history), last.tolist()

    def _share(self, steps: int, seconds: float) -> float:
        """Of the budget that is used up."""
        timed = 0.0 if self.minutes is None else seconds / (60 * self.minutes)
        return max(steps / self.steps, timed)


def _all_prepared(molecules: Sequence[Known]) -> tuple[tuple[Molecule, ...], tuple[Tensor, ...]]:
    if not molecules:
        raise DataError(expected("molecules", "at least one", "none"))
    known, values = zip(*(_prepared(*molecule) for molecule in molecules), strict=True)
    return known, values


@torch.no_grad()
def _clip(stack: Iterable[Tensor]) -> None:
    """Gradients of each kernel to a norm of at most 1.

    Raises
    ------
    ConvergenceError
        If one is not finite.
    """
    slopes = [weight.grad for weight in stack if weight.grad is not None]
    norms = reduce(torch.add, [slope.flatten(1).square().sum(1) for slope in slopes]).sqrt()
    if not bool(torch.isfinite(norms).all()):
        raise ConvergenceError(expected("loss", "a finite gradient", "none", "lower the rate"))
    for slope in slopes:
        slope.mul_((1 / norms.clamp_min(1.0)).reshape(-1, *[1] * (slope.ndim - 1)))


@torch.no_grad()
def _write(kernels: Sequence[Kernel], stack: dict[str, Tensor]) -> None:
    """The weights of the stack into each kernel, in double precision."""
    for place, kernel in enumerate(kernels):
        for name, weight in kernel.named_parameters():
            weight.copy_(stack[name][place])
        kernel.double().requires_grad_(False)


def _prepared(species: Species, equilibrium: Tensor, frames: Tensor) -> tuple[Molecule, Tensor]:
    """A molecule, and the coordinates of its frames in groups."""
    if frames.ndim != 2 or frames.shape[1] != 3 * len(species) or not len(frames):
        raise ShapeError(expected("frames", f"(frames, {3 * len(species)}), at least one", tuple(frames.shape)))
    if not bool(torch.isfinite(frames).all()):
        raise DataError(expected("frames", "finite numbers in Å", "NaN or infinity"))
    molecule = Molecule.of(species, equilibrium)
    rows, volume = molecule.internal(frames.detach().cpu().double())
    if outside := int(volume.isinf().sum()):
        raise DataError(expected("frames", "the handedness of equilibrium", f"another in {outside} of {len(rows)}"))
    return molecule, molecule.groups(rows)[0].float()


def _batch(values: Sequence[Tensor], batch: int, contexts: Contexts, source: torch.Generator) -> Tensor:
    """Random frames of each molecule, filled up with zeros."""
    out = torch.zeros(len(values), batch, contexts.known.shape[1], 3)
    for place, rows in enumerate(values):
        out[place, :, : rows.shape[1]] = rows[torch.randint(len(rows), (batch,), generator=source)]
    return out
