"""Bayesian dynamic mode decomposition: Gibbs sampling with an automatic rank and missing entries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Complex, Float, Num
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.exponentials import interpolated
from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.inference.chains import r_hat
from bayesmol.inference.random import generator
from bayesmol.posterior import Draws
from bayesmol.progress import progress

__all__ = ["BayesianDMD", "FittedBayesianDMD"]

_VAGUE = 1e-3
_WIDE = 1e3


@dataclass(frozen=True)
class BayesianDMD:
    r"""Pairs of snapshots with a latent amplitude each, as many modes as the data need.

    .. math:: y_t = \sum_k \varphi_{tk} w_k + \varepsilon, \quad y'_t = \sum_k \lambda_k \varphi_{tk} w_k + \varepsilon'

    with :math:`\varphi \sim CN(0, 1)`, :math:`w_k \sim CN(0, v_k I)`, :math:`\lambda_k \sim CN(0, 10^3)`, noise
    :math:`CN(0, \sigma^2)` and inverse Gamma priors of :math:`v_k` and :math:`\sigma^2`; the data are scaled to a mean
    square of one. Every conditional is complex Gaussian or inverse Gamma. The variances :math:`v_k` of modes that the
    data do not need shrink (automatic relevance determination). NaN is a missing entry, drawn anew in each sweep.

    The pairs count as independent: an inner snapshot is in two of them and its noise counts twice, so that intervals
    are those of this model and not calibrated for noisy measurements of one trajectory; :class:`DMD` gives those.

    Attributes
    ----------
    rank
        Largest number of modes.
    chains, warmup, draws
        Chains side by side, sweeps that are thrown away, and sweeps that are kept, of each chain.

    References
    ----------
    Takeishi, Kawahara, Tabei, Yairi, IJCAI (2017), 2814, with one variance a mode in place of their sparsity prior.
    """

    rank: int = 8
    chains: int = 4
    warmup: int = 500
    draws: int = 500

    def __post_init__(self) -> None:
        for name, least in (("rank", 1), ("chains", 1), ("warmup", 0), ("draws", 4)):
            if getattr(self, name) < least:
                raise DataError(expected(name, f"at least {least}", getattr(self, name)))

    def fit(
        self,
        snapshots: Num[Tensor, "time space"] | Trajectories,
        *,
        time_step: float = 1.0,
        unit: str = "frames",
        seed: int | torch.Generator,
    ) -> FittedBayesianDMD:
        """Draws of the modes of equally spaced snapshots.

        Raises
        ------
        ShapeError, DataError
            If the shape does not fit, a column has no number, or there are fewer pairs or columns than modes.
        """
        data, time_step, unit = _data(snapshots, time_step, unit)
        mask = ~torch.isnan(data.real)
        if self.rank > min(len(data) - 1, 2 * data.shape[1]):
            most = min(len(data) - 1, 2 * data.shape[1])
            raise DataError(expected("rank", f"at most {most}", self.rank, "give fewer modes or delayed snapshots"))
        scale = float(data[mask].abs().square().mean().sqrt())
        filled = interpolated(torch.where(mask, data, 0.0), mask)
        pairs = torch.stack([filled[:-1], filled[1:]], 1) / (scale or 1.0)
        known = torch.stack([mask[:-1], mask[1:]], 1)
        source = generator(seed, data.device)
        state = _start(pairs, self.rank, self.chains, source)
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        with progress("Gibbs sampling", self.warmup + self.draws) as advance:
            for sweep in range(self.warmup + self.draws):
                state = _sweep(state, known, source)
                kept += [_kept(state)] if sweep >= self.warmup else []
                advance()
        return _fitted(kept, len(pairs), scale or 1.0, time_step, unit)


@dataclass(frozen=True, eq=False)
class FittedBayesianDMD:
    """Draws of those modes that stand above the noise, matched over draws and chains, the strongest first.

    Attributes
    ----------
    eigenvalues
        Of one time step, (modes, 2): real and imaginary part.
    modes
        Times the root mean square of their amplitude, of one phase, (modes, space, 2), in the unit of the data.
    rank
        Number of modes above the largest singular value that the noise alone would have.
    noise_stddev
        Root mean square of the noise of an entry.
    """

    eigenvalues: Draws
    modes: Draws
    rank: Draws
    noise_stddev: Draws
    time_step: float
    unit: str

    @property
    def frequencies(self) -> Draws:
        """Cycles per ``unit``."""
        return self._of_eigenvalues(lambda z: z.angle() / (2 * math.pi * self.time_step))

    @property
    def growth_rates(self) -> Draws:
        """In 1/``unit``, negative for decay."""
        return self._of_eigenvalues(lambda z: z.abs().log() / self.time_step)

    @cached_property
    def r_hat(self) -> Float[Tensor, "modes two"]:
        """Disagreement of the chains in the eigenvalues, see :func:`~bayesmol.inference.chains.r_hat`."""
        return r_hat(self.eigenvalues.values)

    def checked(self, limit: float = 1.05) -> FittedBayesianDMD:
        """This fit if its chains agree in the eigenvalues.

        Raises
        ------
        ConvergenceError
            If R-hat is above ``limit``.
        """
        worst = float(self.r_hat.max())
        if not worst <= limit:
            raise ConvergenceError(expected("R-hat", f"at most {limit}", f"{worst:.3f}", "sample longer"))
        return self

    def _of_eigenvalues(self, function: Any) -> Draws:
        values = torch.view_as_complex(self.eigenvalues.values.contiguous())
        return Draws(function(values), unit=f"1/{self.unit}")


@dataclass(frozen=True, eq=False)
class _State:
    """One sweep of all chains: pairs (with the missing drawn), amplitudes, modes, eigenvalues, variances."""

    pairs: Complex[Tensor, "chains pairs 2 space"]
    amplitudes: Complex[Tensor, "chains pairs rank"]
    modes: Complex[Tensor, "chains rank space"]
    values: Complex[Tensor, "chains rank"]
    noise: Float[Tensor, " chains"]
    relevance: Float[Tensor, "chains rank"]


def _start(pairs: Tensor, rank: int, chains: int, source: torch.Generator) -> _State:
    """Leading directions of the pairs, mixed at random and so different in each chain."""
    count, _, space = pairs.shape
    left, sizes, right = torch.linalg.svd(pairs.flatten(1), full_matrices=False)
    both = (sizes[:rank, None] * right[:rank]).reshape(rank, 2, space)
    propagator = torch.linalg.lstsq(both[:, 0].mT, both[:, 1].mT).solution
    values, vectors = torch.linalg.eig(propagator + 1e-6 * torch.eye(rank).to(propagator))
    amplitudes = left[:, :rank] @ torch.linalg.inv(vectors).mT * math.sqrt(count)
    modes = vectors.mT @ both[:, 0] / math.sqrt(count)
    size = amplitudes.abs().square().mean(0).sqrt()
    jitter = 0.05 * torch.randn(chains, rank, dtype=pairs.dtype, generator=source, device=pairs.device)
    remainder = float(sizes[rank:].square().sum() / max(1, (count - rank) * (2 * space - rank)))
    modes = (modes * size[:, None]).expand(chains, rank, space)
    return _State(
        pairs.expand(chains, count, 2, space),
        (amplitudes / size).expand(chains, count, rank),
        modes,
        values + jitter,
        torch.full((chains,), max(remainder, 1e-8), dtype=torch.float64, device=pairs.device),
        modes.abs().square().mean(-1) + 1e-6,
    )


def _sweep(state: _State, known: Bool[Tensor, "pairs 2 space"], source: torch.Generator) -> _State:
    """Amplitudes, modes, eigenvalues, variances and missing entries, each given all others."""
    pairs, noise = state.pairs, state.noise[:, None, None]
    values, modes = state.values, state.modes
    space = pairs.shape[3]
    eye = torch.eye(values.shape[1], dtype=values.dtype, device=values.device)
    before, after = pairs[:, :, 0], pairs[:, :, 1]

    gram = modes.conj() @ modes.mT
    precision = eye + gram * (1 + values.conj()[:, :, None] * values[:, None, :]) / noise
    moment = before @ modes.mH + after @ modes.mH * values.conj()[:, None]
    amplitudes = _normal(precision, moment.mT / noise, source).mT

    inner = amplitudes.mH @ amplitudes
    double = inner * (1 + values.conj()[:, :, None] * values[:, None, :])
    moment = amplitudes.mH @ before + values.conj()[..., None] * (amplitudes.mH @ after)
    precision = double / noise + torch.diag_embed(1 / state.relevance).to(double)
    modes = _normal(precision, moment / noise, source)

    gram = modes.conj() @ modes.mT
    moment = ((amplitudes.mH @ after) * modes.conj()).sum(-1)
    values = _normal(inner * gram / noise + eye / _WIDE, moment[..., None] / noise, source)[..., 0]

    clean = torch.stack([amplitudes @ modes, (amplitudes * values[:, None]) @ modes], 2)
    misfit = torch.where(known, (pairs - clean).abs().square(), 0.0).sum((1, 2, 3))
    shape = torch.full_like(misfit, _VAGUE + int(known.sum()))
    variance = (_VAGUE + misfit) / torch._standard_gamma(shape, generator=source)
    shape = torch.full_like(state.relevance, _VAGUE + space)
    relevance = (_VAGUE + modes.abs().square().sum(-1)) / torch._standard_gamma(shape, generator=source)

    if not bool(known.all()):
        drawn = torch.randn(clean.shape, dtype=clean.dtype, generator=source, device=clean.device)
        pairs = torch.where(known, pairs, clean + variance.sqrt()[:, None, None, None] * drawn)
    return _State(pairs, amplitudes, modes, values, variance, relevance)


def _normal(precision: Tensor, moment: Tensor, source: torch.Generator) -> Tensor:
    """Columns drawn from a complex Gaussian of this precision, with the mean ``precision⁻¹ moment``."""
    lower = torch.linalg.cholesky(precision)
    drawn = torch.randn(moment.shape, dtype=moment.dtype, generator=source, device=moment.device)
    half = torch.linalg.solve_triangular(lower, moment, upper=False)
    return torch.linalg.solve_triangular(lower.mH, half + drawn, upper=True)


def _kept(state: _State) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues, noise, and modes times the root mean square of their amplitudes: what does not change with scale."""
    return state.values, state.noise, state.modes * state.amplitudes.abs().square().mean(1).sqrt()[..., None]


def _fitted(
    kept: list[tuple[Tensor, Tensor, Tensor]], count: int, scale: float, time_step: float, unit: str
) -> FittedBayesianDMD:
    values, noise, modes = (torch.stack(part, 1) for part in zip(*kept, strict=True))
    space = modes.shape[-1]
    sizes = modes.norm(dim=-1) * ((1 + values.abs().square()) * count).sqrt()
    active = sizes > noise.sqrt()[..., None] * (math.sqrt(count) + math.sqrt(2 * space))
    number = active.sum(-1)
    usual = int(number.flatten().double().median())
    if usual == 0:
        raise ConvergenceError(expected("modes", "at least one above the noise", 0, "there is no linear dynamics"))
    place = _matched(values, torch.where(active, sizes, 0.0), usual)
    values = values.gather(-1, place)
    modes = modes.gather(-2, place[..., None].expand(*place.shape, space))
    # One phase: the scalar product with the last draw is real and positive.
    turn = (modes * modes[-1, -1].conj()).sum(-1, keepdim=True)
    modes = modes * (turn.conj() / turn.abs()) * scale
    return FittedBayesianDMD(
        Draws(torch.view_as_real(values), unit=""),
        Draws(torch.view_as_real(modes.contiguous()), unit=""),
        Draws(number.double(), unit=""),
        Draws(noise.sqrt() * scale, unit=""),
        time_step,
        unit,
    )


def _matched(values: Tensor, sizes: Tensor, number: int) -> Tensor:
    """Places of the modes of each draw that pair best with the strongest ones of the last draw of the first chain."""
    from scipy.optimize import linear_sum_assignment

    reference = values[0, -1][sizes[0, -1].argsort(descending=True)[:number]]
    cost = (values[..., None, :] - reference[:, None]).abs() + 1e3 * (sizes[..., None, :] == 0)
    places = [linear_sum_assignment(one)[1] for one in cost.flatten(0, 1).cpu().numpy()]
    return torch.stack([torch.as_tensor(one) for one in places]).to(values.device).unflatten(0, values.shape[:2])


def _data(snapshots: Any, time_step: float, unit: str) -> tuple[Tensor, float, str]:
    if isinstance(snapshots, Trajectories):
        if len(snapshots) != 1 or snapshots.discrete:
            raise DataError(expected("snapshots", "one trajectory of features", f"{len(snapshots)} parts", "fit each"))
        snapshots, time_step, unit = snapshots.parts[0], snapshots.time_step, snapshots.unit
    data = torch.as_tensor(snapshots).to(torch.complex128)
    if data.ndim != 2 or len(data) < 3:
        raise ShapeError(expected("snapshots", "(time, space) of three times or more", tuple(data.shape)))
    seen = ~torch.isnan(data.real)
    if not bool(seen.any(0).all()) or bool(torch.isinf(data.abs()).any()):
        raise DataError(expected("snapshots", "numbers, some in each column, or NaN", "infinity or a column of NaN"))
    return data, time_step, unit
