"""Parallel tempering: walkers at a ladder of temperatures that exchange places."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.inference.trajectories import Place, Surface, Unnormalised, centred, move, started, surface, tuned
from bayesmol.posterior import Draws
from bayesmol.progress import progress

__all__ = ["ParallelTempering", "Tempered"]


@dataclass(frozen=True)
class ParallelTempering:
    r"""Hamiltonian Monte Carlo at several temperatures at once, with exchange of neighbours.

    Rung k samples :math:`e^{-u / \tau_k}` with the temperatures :math:`\tau_k` relative to that of the target. After
    each trajectory neighbours k and k+1, even and odd pairs in turn, change places with probability

    .. math:: \min\left(1, e^{(1/\tau_k - 1/\tau_{k+1})(u_k - u_{k+1})}\right).

    All rungs of all walkers are one batch for the energy. Walkers are independent chains; the steps of each rung are
    adapted during the warm-up, and so that each kept draw leaves the product of all densities exactly as it is, no more
    after it.

    Attributes
    ----------
    ladder
        :math:`\tau_k`, rising; usually from 1. See :meth:`geometric`.
    step, leapfrogs, acceptance
        Start of the leapfrog step at :math:`\tau = 1`, steps of a trajectory (1: Langevin moves, MALA), and mean
        acceptance to which the warm-up tunes each rung.
    warmup, draws, thin
        Trajectories that are dropped, draws that are kept, and trajectories from one to the next.
    batch
        Rows that are evaluated at once.

    References
    ----------
    Swendsen, Wang, Phys. Rev. Lett. 57, 2607 (1986); Geyer, Computing Science and Statistics 23, 156 (1991); Okabe,
    Kawata, Okamoto, Mikami, Chem. Phys. Lett. 335, 435 (2001); Syed, Bouchard-Côté, Deligiannidis, Doucet, J. R. Stat.
    Soc. B 84, 321 (2022) (even and odd pairs in turn).
    """

    ladder: tuple[float, ...]
    step: float = 0.1
    leapfrogs: int = 10
    acceptance: float = 0.7
    warmup: int = 500
    draws: int = 500
    thin: int = 1
    batch: int = 65536

    def __post_init__(self) -> None:
        rising = all(0 < low < high for low, high in zip(self.ladder[:-1], self.ladder[1:], strict=True))
        if len(self.ladder) < 2 or not rising:
            raise DataError(expected("ladder", "at least two positive, rising temperatures", self.ladder))
        if not (self.step > 0 and 0 < self.acceptance < 1):
            raise DataError(expected("step, acceptance", "a positive number and a share", self))
        if min(self.leapfrogs, self.draws, self.thin, self.batch) < 1 or self.warmup < 0:
            raise DataError(expected("leapfrogs, draws, thin, batch, warmup", "positive counts", self))

    @staticmethod
    def geometric(highest: float, rungs: int) -> tuple[float, ...]:
        """Relative temperatures from 1 to ``highest`` in constant ratio, which suits a constant heat capacity."""
        return tuple(highest ** (k / (rungs - 1)) for k in range(rungs))

    def fit(
        self,
        target: Unnormalised,
        start: Float[Tensor, "walkers dimension"],
        *,
        scales: Float[Tensor, " dimension"] | None = None,
        seed: int | torch.Generator,
    ) -> Tempered:
        """Draws at all temperatures.

        Parameters
        ----------
        start
            A row for each walker, where all its rungs start.
        scales
            Typical deviation of each coordinate at :math:`\\tau = 1`; all one by default.

        Raises
        ------
        ShapeError, DataError
            If a row does not fit, has no finite energy, or an energy is NaN.
        ConvergenceError
            If a rung accepts nothing.
        """
        first, rungs, walkers = started(target, start), len(self.ladder), len(start)
        source, space = generator(seed, start.device), getattr(target, "space", 0)
        scales = torch.ones_like(start[0]) if scales is None else scales
        if scales.shape != start.shape[1:] or not bool((scales > 0).all()):
            raise ShapeError(expected("scales", f"{start.shape[1]} positive numbers", tuple(scales.shape)))
        run = _Run(self, surface(target), start.new_tensor(self.ladder), walkers, scales, source)
        place = Place(*(part.repeat(rungs, *(1 for _ in part.shape[1:])) for part in first))
        kept, energies = [], []
        with progress("parallel tempering", self.warmup + self.draws * self.thin) as advance:
            for k in range(self.warmup + self.draws * self.thin):
                place = run.swept(place._replace(rows=centred(place.rows, space)), k)
                if k >= self.warmup and (k + 1 - self.warmup) % self.thin == 0:
                    kept.append(centred(place.rows, space).unflatten(0, (rungs, walkers)))
                    energies.append(place.energy.unflatten(0, (rungs, walkers)))
                advance()
        return run.finished(torch.stack(kept, 2), torch.stack(energies, 2))


class _Run:
    """What changes while the walkers move: steps, who has come from where, and counts."""

    def __init__(
        self,
        spec: ParallelTempering,
        evaluated: Surface,
        ladder: Tensor,
        walkers: int,
        scales: Tensor,
        source: torch.Generator,
    ) -> None:
        self.spec, self.ladder, self.walkers, self.scales, self.source = spec, ladder, walkers, scales, source
        rungs = len(ladder)
        self.evaluated = evaluated
        self.cold = (1 / ladder).repeat_interleave(walkers)
        self.steps = spec.step * ladder.sqrt()
        self.accepted, self.swapped = ladder.new_zeros(rungs), ladder.new_zeros(rungs - 1)
        self.offered, self.sweeps = ladder.new_zeros(rungs - 1), 0
        # Which way each replica goes: up since it was at the bottom, down since it was at the top.
        self.upward = torch.zeros(rungs, walkers, dtype=torch.bool, device=ladder.device)
        self.downward = torch.zeros_like(self.upward)
        self.trips = 0

    def tempered(self, rows: Tensor) -> Place:
        """Energy over temperature of each row, with the energy and its gradient carried along."""
        parts = [self.evaluated(part) for part in rows.split(self.spec.batch)]
        there = Place(*(torch.cat(same) for same in zip(*parts, strict=True)))
        carried = torch.cat([there.energy.unsqueeze(1), there.gradient], 1)
        return Place(there.rows, self.cold * there.energy, self.cold.unsqueeze(1) * there.gradient, carried)

    def swept(self, place: Place, count: int) -> Place:
        """One trajectory of every rung and one exchange of neighbours; energies and gradients of the target itself."""
        carried = torch.cat([place.energy.unsqueeze(1), place.gradient], 1)
        cold = self.cold.to(place.energy)
        here = Place(place.rows, cold * place.energy, cold.unsqueeze(1) * place.gradient, carried)
        steps = self.steps.repeat_interleave(self.walkers).unsqueeze(1) * self.scales
        here, share = move(self.tempered, here, steps, self.spec.leapfrogs, self.source)
        share = share.unflatten(0, (-1, self.walkers)).mean(1)
        warm = count < self.spec.warmup
        if warm:
            self.steps = tuned(self.steps, share.to(self.steps), self.spec.acceptance, count)
        else:
            self.accepted, self.sweeps = self.accepted + share, self.sweeps + 1
        order = self._exchange(here.parts[:, 0].unflatten(0, (-1, self.walkers)), count % 2, warm=warm)
        rows, parts = here.rows[order], here.parts[order]
        return Place(rows, parts[:, 0], parts[:, 1:], parts[:, :1])

    def _exchange(self, energy: Float[Tensor, "rungs walkers"], parity: int, *, warm: bool) -> Int[Tensor, " rows"]:
        """From where each row comes: its own place, or that of its neighbour on the ladder."""
        rungs, walkers = energy.shape
        order = torch.arange(rungs, device=energy.device).unsqueeze(1).repeat(1, walkers)
        low = torch.arange(parity, rungs - 1, 2, device=energy.device)
        inverse = 1 / self.ladder.to(energy)
        gain = (inverse[low] - inverse[low + 1]).unsqueeze(1) * (energy[low] - energy[low + 1])
        chance = torch.rand(gain.shape, generator=self.source, dtype=energy.dtype, device=energy.device)
        taken = chance.log() < gain
        order[low] += taken.long()
        order[low + 1] -= taken.long()
        self._count(order, low, taken, warm=warm)
        return (order * walkers + torch.arange(walkers, device=energy.device)).flatten()

    def _count(self, order: Tensor, low: Tensor, taken: Tensor, *, warm: bool) -> None:
        self.upward, self.downward = self.upward.gather(0, order), self.downward.gather(0, order)
        if not warm:
            self.swapped[low] += taken.to(self.swapped).mean(1)
            self.offered[low] += 1
            self.trips += int(self.downward[0].sum())
        self.upward[0], self.downward[0] = True, False
        self.downward[-1] |= self.upward[-1]
        self.upward[-1] = False

    def finished(self, values: Tensor, energies: Tensor) -> Tempered:
        acceptance = self.accepted / max(self.sweeps, 1)
        if bool((acceptance == 0).any()):
            raise ConvergenceError(expected("acceptance", "above 0", acceptance.tolist(), "give a shorter step"))
        spec, rows = self.spec, self.walkers * len(self.ladder)
        evaluations = self.walkers + rows * (spec.warmup + self.sweeps) * spec.leapfrogs
        swaps = self.swapped / self.offered.clamp_min(1)
        return Tempered(self.ladder, values, energies, acceptance, swaps, self.trips, self.steps, evaluations)


@dataclass(frozen=True, eq=False)
class Tempered:
    """Draws at a ladder of temperatures.

    Attributes
    ----------
    ladder
        Temperatures relative to that of the target.
    values, energies
        Draws and their reduced energies at the temperature of the target.
    acceptance, swaps
        Mean acceptance of the trajectories of each rung and of the exchanges of neighbours.
    round_trips
        How often a replica went from the first rung to the last and back, over all walkers, after the warm-up. With
        none, the temperatures have not helped each other.
    steps
        Leapfrog step of each rung.
    evaluations
        Energies with gradients that were evaluated.
    """

    ladder: Float[Tensor, " rungs"]
    values: Float[Tensor, "rungs walkers draws dimension"]
    energies: Float[Tensor, "rungs walkers draws"]
    acceptance: Float[Tensor, " rungs"]
    swaps: Float[Tensor, " pairs"]
    round_trips: int
    steps: Float[Tensor, " rungs"]
    evaluations: int

    def draws(self, rung: int = 0, unit: str = "") -> Draws:
        """Draws at one temperature, each walker a chain, with error bars that know the autocorrelation."""
        return Draws(self.values[rung], unit=unit)

    def rows(self, rung: int = 0) -> Float[Tensor, "points dimension"]:
        """Draws at one temperature as rows, walker by walker."""
        return self.values[rung].flatten(0, 1)

    def reduced(self) -> Float[Tensor, "rungs points"]:
        """Reduced energy of every temperature at all draws, rung by rung, as the multistate estimator takes it."""
        return self.energies.flatten() / self.ladder.to(self.energies).unsqueeze(1)
