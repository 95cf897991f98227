"""SGOOP: the linear combination of features along which one-dimensional motion has the widest spectral gap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.weights import bandwidth, block_weights
from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Draws
from bayesmol.posterior.estimate import effective_sample_size
from bayesmol.representation.basis import checked_rows

__all__ = ["SGOOP", "FittedSGOOP", "spectral_gap"]

_BLOCKS = 200
_ROUNDS = 3  # of refinement; each halves the distance between candidates or better


def spectral_gap(
    density: Float[Tensor, "*draws bins"], hopping: Float[Tensor, "*draws"], states: int
) -> Float[Tensor, "*draws"]:
    r"""Gap of the maximum-caliber walk on a line after one lag.

    .. math:: \Omega_{n, n \pm 1} = a \sqrt{p_{n \pm 1} / p_n}, \qquad
              \mathrm{gap} = e^{-\omega_{k-1}} - e^{-\omega_k}

    with the eigenvalues :math:`0 = \omega_0 < \omega_1 < \dots` of :math:`-\Omega` and k ``states``.

    Parameters
    ----------
    density
        Stationary probabilities p of the bins, all positive.
    hopping
        a, times the lag.

    References
    ----------
    Tiwary, Berne, Proc. Natl. Acad. Sci. 113, 2839 (2016).
    """
    logs = density.log()
    up = (logs.diff(dim=-1) / 2).exp()
    rates = torch.zeros_like(density)
    rates[..., :-1] += up
    rates[..., 1:] += 1 / up
    # Detailed balance makes √(Ω_nm Ω_mn) = a the same for all neighbours.
    ones = torch.ones_like(up)
    walk = torch.diag_embed(rates) - torch.diag_embed(ones, 1) - torch.diag_embed(ones, -1)
    omega = torch.linalg.eigvalsh(walk) * hopping[..., None]
    return (-omega[..., states - 1]).exp() - (-omega[..., states]).exp()


@dataclass(frozen=True)
class SGOOP:
    r"""Direction c of unit length that maximises the spectral gap of the motion of :math:`s = c^\top x`.

    The motion along s is that of maximum caliber between neighbouring bins, given the density of s and its mean squared
    displacement over one frame, :math:`a = \langle \Delta s^2 \rangle / 2 h^2` per frame with the width h of a bin.
    (The paper prescribes the mean number of jumps between bins instead, which depends on their width.) Frames must be
    so dense in time that s diffuses freely between two of them. With correlation between the features in the direction
    of the slow motion but none of their time, no direction has a gap and the posterior is wide.

    Attributes
    ----------
    lag
        Frames after which the gap is taken: between the lifetimes of what is fast and what is slow.
    states
        Slow processes, the stationary one included: wells along s.
    bins
        Along s, of equal width, over the range of the data.
    directions
        First candidates; :math:`3` rounds of half as many refine the best. Two features: evenly spaced angles.
    draws
        Of the posterior.
    """

    lag: int
    states: int
    bins: int = 30
    directions: int = 90
    draws: int = 100

    def __post_init__(self) -> None:
        if min(self.lag, self.states - 1, self.directions - 3, self.draws) < 1 or self.bins <= self.states:
            wanted = "lag and draws ≥ 1, states ≥ 2, directions ≥ 4, more bins than states"
            raise DataError(expected("SGOOP", wanted, self))

    def fit(self, data: Any, *, seed: int | torch.Generator) -> FittedSGOOP:
        """Search the direction, and search it again for random weights of blocks of time.

        Raises
        ------
        ShapeError, DataError
            If the data are no trajectories of two features or more, or one is constant.
        ConvergenceError
            If no trajectory has two frames, or all are too short for an error bar.
        """
        trajectories = Trajectories.of(data)
        frames = checked_rows(torch.cat(trajectories.parts))
        source, spread = generator(seed, frames.device), frames.std(0, correction=0)
        if frames.shape[1] < 2 or not bool((spread > 0).all()):
            raise DataError(expected("data", "two features or more, none constant", tuple(frames.shape)))
        walk = _Steps.of(trajectories, spread)
        candidates = _first(frames.shape[1], self.directions, source, frames)
        summed = walk.statistics(candidates, self.bins)
        gaps = self._gaps(summed, None)
        for _ in range(_ROUNDS):
            near = _near(candidates, gaps, self.directions // 2, source)
            more = walk.statistics(near, self.bins)
            candidates = torch.cat([candidates, near])
            summed = torch.cat([summed[0], more[0]], 1), torch.cat([summed[1], more[1]], 1)
            gaps = torch.cat([gaps, self._gaps(more, None)])
        best = candidates[gaps.argmax()]
        weights = self._weights(walk, frames @ (best / spread), source)
        values, chosen = torch.stack([self._gaps(summed, w) for w in weights]).max(1)
        raw = torch.nn.functional.normalize(candidates / spread, dim=1)
        return FittedSGOOP(self, raw[gaps.argmax()], _aligned(raw[chosen], raw[gaps.argmax()]), values)

    def _gaps(self, summed: tuple[Tensor, Tensor], weights: Tensor | None) -> Float[Tensor, " directions"]:
        """Gap of every candidate; half a frame in each bin is the prior, so that no bin is empty."""
        counts, squares = (s.sum(0) if weights is None else torch.tensordot(weights, s, 1) for s in summed)
        density = counts[:, :-1] + 0.5
        hopping = squares / counts[:, -1] / 2 * self.lag
        return spectral_gap(density / density.sum(1, keepdim=True), hopping, self.states)

    def _weights(self, walk: _Steps, s: Float[Tensor, " frames"], source: torch.Generator) -> Tensor:
        time = len(s) / float(effective_sample_size(s[None])) / 2
        wide = bandwidth(1, time, len(s))
        return block_weights(walk.owner, walk.length, wide, self.draws, seed=source).values


@dataclass(frozen=True, eq=False)
class FittedSGOOP:
    """The reaction coordinate; a fitted basis of one function.

    Attributes
    ----------
    direction
        c, of unit length in the features.
    draws
        Directions that are best under random weights of the data, with the sign of ``direction``.
    gaps
        Of the best direction of each draw.
    """

    spec: SGOOP
    direction: Float[Tensor, " features"]
    draws: Float[Tensor, "draws features"]
    gaps: Float[Tensor, " draws"]
    functions: int = 1
    constant: bool = False

    def __call__(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows 1"]:
        return checked_rows(x, len(self.direction)) @ self.direction[:, None]

    def directions(self) -> Draws:
        """Distribution of c; its resolution is that of the candidates, about a degree for two features."""
        return Draws(self.draws[None], unit="")

    def angles(self) -> Draws:
        """Angle between c and the direction of the estimate in rad; for two features signed, counter-clockwise."""
        along = self.draws @ self.direction
        if len(self.direction) == 2:
            across = self.direction[0] * self.draws[:, 1] - self.direction[1] * self.draws[:, 0]
        else:
            across = (1 - along.square()).clamp_min(0).sqrt()
        return Draws(torch.atan2(across, along)[None], unit="rad")

    def gap(self) -> Draws:
        """Spectral gap of the best direction after ``lag`` frames; an upper end of 1 is all or nothing."""
        return Draws(self.gaps[None], unit="")


@dataclass(frozen=True, eq=False)
class _Steps:
    """Frames and the one after each, scaled to variance one, and the block of each."""

    early: Float[Tensor, "steps features"]
    late: Float[Tensor, "steps features"]
    block: Int[Tensor, " steps"]
    owner: Int[Tensor, " blocks"]
    length: int

    @classmethod
    def of(cls, trajectories: Trajectories, spread: Tensor) -> _Steps:
        parts = [part / spread for part in trajectories if len(part) > 1]
        if not parts:
            raise ConvergenceError(expected("trajectories", "one of two frames or more", "none"))
        length = math.ceil(sum(map(len, parts)) / _BLOCKS)
        owners: list[int] = []
        blocks, total = [], 0
        for k, part in enumerate(parts):
            blocks.append(total + torch.arange(len(part) - 1, device=spread.device) // length)
            total = int(blocks[-1][-1]) + 1
            owners += [k] * (total - len(owners))
        early, late = torch.cat([p[:-1] for p in parts]), torch.cat([p[1:] for p in parts])
        return cls(early, late, torch.cat(blocks), torch.tensor(owners, device=spread.device), length)

    def statistics(self, directions: Float[Tensor, "directions features"], bins: int) -> tuple[Tensor, Tensor]:
        """For each block and direction: counts of bins and their sum, and summed squared steps in widths of a bin."""
        counts, squares = [], []
        for c in directions:
            s, after = self.early @ c, self.late @ c
            low = s.min()
            width = (s.max() - low) / bins
            place = ((s - low) / width).long().clamp_max(bins - 1)
            flat = torch.bincount(self.block * bins + place, minlength=len(self.owner) * bins)
            counted = flat.reshape(-1, bins).to(s)
            counts.append(torch.cat([counted, counted.sum(1, keepdim=True)], 1))
            squares.append(torch.zeros_like(counted[:, 0]).index_add_(0, self.block, ((after - s) / width).square()))
        return torch.stack(counts, 1), torch.stack(squares, 1)


def _first(features: int, count: int, source: torch.Generator, like: Tensor) -> Float[Tensor, "count features"]:
    """Evenly spaced angles of a half circle, or random directions."""
    if features == 2:
        angle = torch.arange(count, device=like.device, dtype=like.dtype) * (math.pi / count)
        return torch.stack([angle.cos(), angle.sin()], 1)
    normal = torch.randn(count, features, generator=source, device=like.device, dtype=like.dtype)
    return torch.nn.functional.normalize(normal, dim=1)


def _near(directions: Tensor, gaps: Tensor, count: int, source: torch.Generator) -> Tensor:
    """Candidates about the best direction, scattered as far as the next best ones are from it."""
    best = directions[gaps.argmax()]
    rivals = _aligned(directions[gaps.topk(min(len(gaps), 2 * len(best) + 1)).indices[1:]], best)
    reach = (rivals - best).square().sum(1).mean().sqrt() / math.sqrt(len(best))
    steps = torch.randn(count, len(best), generator=source, device=best.device, dtype=best.dtype)
    return torch.nn.functional.normalize(best + reach * steps, dim=1)


def _aligned(directions: Float[Tensor, "count features"], along: Float[Tensor, " features"]) -> Tensor:
    return directions * torch.where(directions @ along < 0, -1.0, 1.0)[:, None]
