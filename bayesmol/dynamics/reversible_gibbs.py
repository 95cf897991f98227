"""Posterior of reversible transition matrices: a Gibbs sampler whose flows are drawn all at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.dynamics.dirichlet import log_gamma_draws, with_pseudocounts
from bayesmol.dynamics.reversible import reversible_estimate
from bayesmol.dynamics.reversible_samples import ReversibleSamples
from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.inference.random import generator

__all__ = ["ReversibleGibbs"]

_CHUNK = 2**17  # numbers that are worked on at once: they stay in the cache of a core
_SMALLEST = 1e-290


@dataclass(frozen=True)
class ReversibleGibbs:
    r"""Draws from the posterior of reversible transition matrices.

    In the symmetric flows :math:`x_{ij} = \pi_i p_{ij}`, :math:`x_i = \sum_j x_{ij}`, it is

    .. math:: p(X | C) \propto \prod_{i \le j} x_{ij}^{-1} \prod_{ij} (x_{ij} / x_i)^{c_{ij}} .

    With an auxiliary :math:`u_i \sim \mathrm{Gamma}(c_i, x_i)` for each row, because
    :math:`x^{-c} \propto \int u^{c-1} e^{-ux} du`, the flows given u are independent,

    .. math:: x_{ij} \sim \mathrm{Gamma}(c_{ij} + c_{ji},\, u_i + u_j), \qquad x_{ii} \sim \mathrm{Gamma}(c_{ii}, u_i),

    and u alone has, in :math:`\theta = \ln u`, the log-concave density of
    :func:`~bayesmol.dynamics.reversible.reversible_estimate`. So θ moves by Hamiltonian Monte Carlo in the normal
    coordinates of its curvature at the maximum, where free motion is solved exactly, and all flows are drawn from
    their law. Chains start from the normal approximation of θ about the estimate of maximum likelihood.

    Attributes
    ----------
    draws, chains
        Matrices in all, and chains that share them; a chain keeps ``draws / chains``.
    pseudocounts
        Zero is the prior above, for which transitions without counts have probability zero; more adds so many counts
        to each row, spread evenly over all states, which is proper where counts are below one.
    moves
        Of θ between two draws.
    warmup
        Moves of θ before the first.

    References
    ----------
    Noé, J. Chem. Phys. 128, 244103 (2008); Trendelkamp-Schroer, Wu, Paul, Noé, J. Chem. Phys. 143, 174101 (2015)
    (the posterior); Caron, Doucet, J. Comput. Graph. Stat. 21, 174 (2012) (auxiliary variables for paired
    comparisons); Shahbaba, Lan, Johnson, Neal, Stat. Comput. 24, 339 (2014) (split Hamiltonian).
    """

    draws: int = 1000
    chains: int = 50
    pseudocounts: float = 0.0
    moves: int = 2
    warmup: int = 10

    def __post_init__(self) -> None:
        if min(self.draws, self.chains, self.moves, self.warmup) < 1 or self.draws % self.chains:
            got = (self.draws, self.chains, self.moves, self.warmup)
            raise DataError(expected("draws, chains, moves, warmup", "counts; draws a multiple of chains", got))

    def fit(self, counts: Float[Tensor, "states states"], *, seed: int | torch.Generator) -> ReversibleSamples:
        """Sample.

        Raises
        ------
        ShapeError, DataError
            If the counts cannot be used or the states are not strongly connected.
        ConvergenceError
            If the moves are refused even with short steps.
        """
        if counts.ndim != 2:
            raise ShapeError(expected("counts", "(states, states)", tuple(counts.shape)))
        counts = with_pseudocounts(counts, self.pseudocounts)
        source = generator(seed, counts.device)
        target = _Multipliers(counts)
        walk = _Walk(target, self.chains, source)
        for _ in range(self.warmup):
            if walk.move() < 0.75:
                walk.shorten()
        start, moves = walk.accepted, 0
        flows = counts.new_empty(self.chains, self.draws // self.chains, target.pairs.shape[1])
        for draw in range(flows.shape[1]):
            for _ in range(self.moves):
                walk.move()
                moves += 1
            flows[:, draw] = target.flows(walk.multipliers(), source)
        return ReversibleSamples(len(counts), target.pairs, flows, (walk.accepted - start) / moves)


class _Multipliers:
    """Density of θ, for all chains at once (states, chains), in coordinates of unit curvature at its maximum."""

    def __init__(self, counts: Tensor) -> None:
        estimate = reversible_estimate(counts)
        sums = counts + counts.mT
        sums.diagonal().copy_(counts.diagonal())
        self.pairs = (sums.triu() > 0).nonzero().T.contiguous()
        self.shapes = sums[self.pairs[0], self.pairs[1]]
        apart = self.pairs[0] != self.pairs[1]
        self.first, self.second = self.pairs[:, apart]
        self.sums = self.shapes[apart]
        self.out = (counts.sum(1) - counts.diagonal())[:, None]
        self.centre = (estimate.potentials - estimate.potentials.mean())[:, None]
        self.gauge, self.unwhiten = self._curvature(sums)

    def _curvature(self, sums: Tensor) -> tuple[float, Tensor]:
        """θ is free up to a constant, on which no transition matrix depends: a normal law holds it in place."""
        u = self.centre.exp()
        coupling = sums * u * u.mT / (u + u.mT).square()
        coupling.diagonal().zero_()
        degree = coupling.sum(1)
        gauge = float(degree.mean()) / len(sums)
        factor = torch.linalg.cholesky(torch.diag(degree) - coupling + gauge)
        identity = torch.eye(len(sums)).to(sums)
        return gauge, torch.linalg.solve_triangular(factor, identity, upper=False).mT.contiguous()

    def potentials(self, place: Tensor) -> Tensor:
        return self.centre + self.unwhiten @ place

    def slope(self, place: Tensor) -> Tensor:
        """Gradient of the energy, minus ``place`` itself."""
        return self._slope(place, self.potentials(place), None)

    def slope_and_energy(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and the energy."""
        theta = self.potentials(place)
        value = theta.new_zeros(theta.shape[1])
        slope = self._slope(place, theta, value)
        shift = (theta - self.centre).sum(0)
        return slope, value - (self.out * theta).sum(0) + self.gauge / 2 * shift.square()

    def _slope(self, place: Tensor, theta: Tensor, value: Tensor | None) -> Tensor:
        """The slope; the share of the pairs in the energy is added to ``value``, where there is one."""
        u, rates = theta.exp(), torch.zeros_like(theta)
        size = max(1, _CHUNK // theta.shape[1])
        parts = (self.first.split(size), self.second.split(size), self.sums.split(size))
        for first, second, sums in zip(*parts, strict=True):
            total = u.index_select(0, first).add_(u.index_select(0, second))
            if value is not None:
                value += sums @ total.log()
            flow = torch.div(sums[:, None], total, out=total)
            rates.index_add_(0, first, flow).index_add_(0, second, flow)
        shift = (theta - self.centre).sum(0)
        return self.unwhiten.mT @ (u * rates - self.out + self.gauge * shift) - place

    def flows(self, u: Tensor, source: torch.Generator) -> Tensor:
        """Flows of the chains (chains, pairs) given their multipliers (chains, states)."""
        shapes = self.shapes.expand(len(u), -1)
        small = bool((self.shapes < 1).any())
        if small:
            # Numbers below the smallest in double precision are raised to it, on both sides of the diagonal.
            gamma = log_gamma_draws(shapes, seed=source).exp_().clamp_min_(_SMALLEST)
        else:
            gamma = torch._standard_gamma(shapes, generator=source)
        first, second = self.pairs
        same = first == second
        rates = u.index_select(1, first).add_(u.index_select(1, second))
        rates[:, same] /= 2
        flows = gamma.div_(rates)
        total = 2 * flows.sum(1) - flows[:, same].sum(1)
        return flows.div_(total[:, None])


class _Walk:
    """Hamiltonian Monte Carlo of all chains together, with the rotation of a unit normal law solved exactly."""

    def __init__(self, target: _Multipliers, chains: int, source: torch.Generator) -> None:
        self.target, self.source, self.steps, self.accepted = target, source, 3, 0.0
        self.place = self._normal(torch.empty(len(target.centre), chains).to(target.centre))
        self.slope, self.energy = target.slope_and_energy(self.place)

    def _normal(self, like: Tensor) -> Tensor:
        return torch.empty_like(like).normal_(generator=self.source)

    def multipliers(self) -> Tensor:
        theta = self.target.potentials(self.place)
        return (theta - theta.amax(0)).exp().mT.contiguous()

    def shorten(self) -> None:
        self.steps = math.ceil(1.5 * self.steps)
        if self.steps > 100:
            raise ConvergenceError(expected("counts", "a posterior that the sampler can explore", "refused moves"))

    def move(self) -> float:
        """One trajectory of about a quarter of a turn, which for a normal law forgets where it started."""
        turn = (0.8 + 0.4 * float(torch.rand((), generator=self.source, device=self.source.device))) * math.pi / 2
        angle = turn / self.steps
        place, slope, speed = self.place, self.slope, self._normal(self.place)
        begin = self.energy + speed.square().sum(0) / 2
        for _ in range(self.steps - 1):
            place, speed = _turned(place, speed - angle / 2 * slope, angle)
            slope = self.target.slope(place)
            speed = speed - angle / 2 * slope
        place, speed = _turned(place, speed - angle / 2 * slope, angle)
        slope, energy = self.target.slope_and_energy(place)
        speed = speed - angle / 2 * slope
        change = begin - energy - speed.square().sum(0) / 2
        draw = torch.rand(change.shape, generator=self.source, dtype=change.dtype, device=change.device)
        better = draw.log() < change  # false for NaN
        self.place = torch.where(better, place, self.place)
        self.slope = torch.where(better, slope, self.slope)
        self.energy = torch.where(better, energy, self.energy)
        share = float(better.double().mean())
        self.accepted += share
        return share


def _turned(place: Tensor, speed: Tensor, angle: float) -> tuple[Tensor, Tensor]:
    """Free motion: a rotation of place and speed."""
    return math.cos(angle) * place + math.sin(angle) * speed, math.cos(angle) * speed - math.sin(angle) * place
