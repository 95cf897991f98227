"""Posterior of reversible transition matrices whose populations are known: Gibbs moves of disjoint pairs at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.dynamics.connected_counts import checked_populations
from bayesmol.dynamics.dirichlet import log_gamma_draws, with_pseudocounts
from bayesmol.dynamics.reversible import fixed_stationary_estimate
from bayesmol.dynamics.reversible_samples import ReversibleSamples
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator

__all__ = ["FixedStationaryGibbs"]


@dataclass(frozen=True)
class FixedStationaryGibbs:
    r"""Draws from the posterior of reversible transition matrices with populations :math:`\pi`.

    In the symmetric flows :math:`x_{ij} = \pi_i p_{ij}`, with :math:`x_{ii} = \pi_i - \sum_{j \ne i} x_{ij} > 0`,

    .. math:: p(X | C, \pi) \propto \prod_{i<j} x_{ij}^{c_{ij} + c_{ji} - 1} \prod_i x_{ii}^{c_{ii} + b_i - 1},

    :math:`b_i = 0` where state i has been seen to stay and 1 where it has not, since the law would otherwise not be
    proper. A pair trades flow with the two diagonal elements; all pairs of a round of a round-robin tournament are
    disjoint and move together, in all chains. Each move is a Beta proposal with the mode and curvature of the
    conditional law, then a random step of the logit; both are accepted by the rule of Metropolis and Hastings.

    Attributes
    ----------
    draws, chains
        Matrices in all, and chains that share them; a chain keeps ``draws / chains``.
    pseudocounts
        So many counts are added to each row, spread evenly over all states.
    sweeps
        Over all pairs between two draws.
    warmup
        Sweeps before the first.

    References
    ----------
    Trendelkamp-Schroer, Noé, J. Chem. Phys. 138, 164113 (2013); Trendelkamp-Schroer, Wu, Paul, Noé,
    J. Chem. Phys. 143, 174101 (2015).
    """

    draws: int = 1000
    chains: int = 50
    pseudocounts: float = 0.0
    sweeps: int = 5
    warmup: int = 50

    def __post_init__(self) -> None:
        if min(self.draws, self.chains, self.sweeps, self.warmup) < 1 or self.draws % self.chains:
            got = (self.draws, self.chains, self.sweeps, self.warmup)
            raise DataError(expected("draws, chains, sweeps, warmup", "counts; draws a multiple of chains", got))

    def fit(
        self,
        counts: Float[Tensor, "states states"],
        stationary: Float[Tensor, " states"],
        *,
        seed: int | torch.Generator,
    ) -> ReversibleSamples:
        """Sample, given the populations ``stationary``, which are normalised.

        Raises
        ------
        ShapeError, DataError
            If the counts or the populations cannot be used, or a state has no counts at all.
        """
        if counts.ndim != 2 or stationary.ndim != 1:
            raise ShapeError(expected("counts", "(states, states), one vector of populations", tuple(counts.shape)))
        counts = with_pseudocounts(counts, self.pseudocounts)
        state = _Flows(counts, checked_populations(stationary, counts), self.chains, generator(seed, counts.device))
        for _ in range(self.warmup):
            state.sweep()
        kept = []
        for _ in range(self.draws // self.chains):
            for _ in range(self.sweeps):
                state.sweep()
            kept.append(state.values())
        return ReversibleSamples(len(counts), state.places, torch.stack(kept, 1), state.acceptance)


class _Round(NamedTuple):
    """Disjoint pairs: their states, rows among the flows, and exponents."""

    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    rows: Int[Tensor, " pairs"]
    shape: Float[Tensor, "pairs 1"]


class _Law(NamedTuple):
    """Conditional law of t = x / A in the logit z: t^shape (1 − t)^near (excess + 1 − t)^(far − 1) dz."""

    shape: Tensor
    near: Tensor
    far: Tensor
    excess: Tensor

    def log_density(self, z: Tensor) -> Tensor:
        spare = self.excess + torch.sigmoid(-z)
        stays = torch.nn.functional.logsigmoid(-z)
        return self.shape * (z + stays) + self.near * stays + (self.far - 1) * spare.log()

    def proposal(self) -> tuple[Tensor, Tensor]:
        """Shapes of the Beta law with this mode and this curvature in z, and the curvature."""
        s, c, m, r = self.shape, self.near, self.far - 1, 1 + self.excess
        b = s * (1 + r) + c * r + m
        root = (b.square() - 4 * (s + c + m) * s * r).clamp_min(0).sqrt()
        t = (2 * s * r / (b + root)).clamp(1e-6, 1 - 1e-6)
        spread, spare = t * (1 - t), r - t
        h = (s + c) * spread + m * spread * ((1 - 2 * t) / spare + spread / spare.square())
        # A conditional law with exponents below zero may have no mode: any proposal is valid, this one has its tails.
        usable = torch.isfinite(h) & (h > 0.05 * (s + c) * spread)
        total = torch.where(usable, h / spread, s + c)
        t = torch.where(usable, t, s / (s + c))
        return total * t, total * (1 - t)


class _Flows:
    """Flows of all chains: those of the pairs (pairs, chains) and the diagonal ones (states, chains)."""

    def __init__(self, counts: Tensor, populations: Tensor, chains: int, source: torch.Generator) -> None:
        self.source, self.taken, self.tried = source, 0.0, 0
        sums = (counts + counts.mT).triu(1)
        pairs = sums.nonzero().T
        stays = counts.diagonal()
        self.stay = torch.where(stays > 0, stays, 1.0)[:, None]
        self.rounds = _rounds(pairs, sums, len(counts))
        states = torch.arange(len(counts), device=counts.device)
        self.places = torch.cat([pairs, states.expand(2, -1)], 1)
        best = fixed_stationary_estimate(counts, populations).transition * populations[:, None]
        shrink = 0.5 + 0.5 * torch.rand(
            pairs.shape[1], chains, generator=source, dtype=counts.dtype, device=counts.device
        )
        self.pairs = best[pairs[0], pairs[1]][:, None].clamp_min(1e-12 * float(populations.min())) * shrink
        gone = torch.zeros_like(self.stay).expand(-1, chains).clone()
        gone.index_add_(0, pairs[0], self.pairs).index_add_(0, pairs[1], self.pairs)
        self.diagonal = populations[:, None] - gone

    @property
    def acceptance(self) -> float:
        return self.taken / max(self.tried, 1)

    def values(self) -> Tensor:
        return torch.cat([self.pairs, self.diagonal]).mT

    def sweep(self) -> None:
        for one in self.rounds:
            self._move(one)

    def _move(self, one: _Round) -> None:
        """Both moves of the pairs of a round; the state whose diagonal limits the flow is the near one."""
        flow = self.pairs[one.rows]
        left, right = self.diagonal[one.first], self.diagonal[one.second]
        swap = right < left
        near, far = torch.where(swap, right, left), torch.where(swap, left, right)
        first, second = self.stay[one.first], self.stay[one.second]
        whole, surplus = flow + near, far - near
        law = _Law(one.shape, torch.where(swap, second, first), torch.where(swap, first, second), surplus / whole)
        z = self._updated(law, flow.log() - near.log())
        flow, near = whole * torch.sigmoid(z), whole * torch.sigmoid(-z)
        far = surplus + near
        self.pairs[one.rows] = flow
        self.diagonal[one.first] = torch.where(swap, far, near)
        self.diagonal[one.second] = torch.where(swap, near, far)

    def _updated(self, law: _Law, z: Tensor) -> Tensor:
        a, b = law.proposal()
        density = law.log_density(z)
        trial = log_gamma_draws(a, seed=self.source) - log_gamma_draws(b, seed=self.source)
        trial = trial.clamp(-600, 600)
        value = law.log_density(trial)
        stays, stayed = torch.nn.functional.logsigmoid(-trial), torch.nn.functional.logsigmoid(-z)
        back = a * (z + stayed) + b * stayed - a * (trial + stays) - b * stays
        z, density = self._accepted(z, density, trial, value, back)
        trial = z + 2.4 / (a * b / (a + b)).sqrt() * torch.empty_like(z).normal_(generator=self.source)
        return self._accepted(z, density, trial, law.log_density(trial), torch.zeros_like(z))[0]

    def _accepted(self, z: Tensor, old: Tensor, trial: Tensor, new: Tensor, back: Tensor) -> tuple[Tensor, Tensor]:
        uniform = torch.empty_like(z).uniform_(generator=self.source)
        better = (uniform.log() < new - old + back) & (trial.abs() < 600)  # beyond, x or A − x would be zero
        self.taken, self.tried = self.taken + float(better.double().mean()), self.tried + 1
        return torch.where(better, trial, z), torch.where(better, new, old)


def _rounds(pairs: Int[Tensor, "2 pairs"], sums: Float[Tensor, "states states"], states: int) -> list[_Round]:
    """Rounds of a tournament in which each two states meet once: i and j < n − 1 in round i + j modulo n − 1."""
    last = states - 1 + states % 2
    first, second = pairs
    number = torch.where(second == last, 2 * first, first + second) % last
    rounds = []
    for meeting in number.unique():
        rows = (number == meeting).nonzero().squeeze(1)
        i, j = first[rows], second[rows]
        rounds.append(_Round(i, j, rows, sums[i, j][:, None]))
    return rounds
