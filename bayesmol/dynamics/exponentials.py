"""Sums of exponentials fitted to snapshots: amplitudes projected out, exponents by Levenberg-Marquardt."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Num
from torch import Tensor

from bayesmol.dynamics.dmd import ExactDMD, ForwardBackwardDMD, TotalLeastSquaresDMD, delayed, threshold_rank

__all__ = ["Exponentials", "Projection", "Starts", "interpolated", "projected", "solved"]

_ITERATIONS = 100


@dataclass(frozen=True, eq=False)
class Exponentials:
    r"""Exponents :math:`\alpha = \alpha_0 + A \theta` of real parameters; conjugate pairs share theirs.

    Attributes
    ----------
    basis
        Unitary; the exponentials times it are real for real data.
    listed
        Columns that are reported: one of each pair.
    """

    parameters: Float[Tensor, " parameters"]
    design: Complex[Tensor, "rank parameters"]
    offset: Complex[Tensor, " rank"]
    basis: Complex[Tensor, "rank rank"]
    listed: Tensor

    @classmethod
    def of(cls, exponents: Complex[Tensor, " rank"], *, real: bool) -> Exponentials:
        """A model at these exponents; for real data those of positive frequency bring their conjugates."""
        blocks, basis, listed = [], [], []
        offset: list[float] = []
        start: list[float] = []
        part: list[list[complex]]
        turn: list[list[complex]]
        for value in exponents.tolist():
            if real and abs(value.imag) < 1e-9 * max(1.0, abs(value)):
                part, shift, turn, theta = [[1.0]], [0.0], [[1.0]], [value.real]
            elif real and value.imag < 0:
                continue
            elif real:
                half = math.sqrt(0.5)
                part, shift, turn = [[1, 1j], [1, -1j]], [0.0, 0.0], [[half, -1j * half], [half, 1j * half]]
                theta = [value.real, value.imag]
            else:
                part, shift, turn, theta = [[1, 1j]], [0.0], [[1.0]], [value.real, value.imag]
            listed.append(len(offset))
            blocks.append(torch.tensor(part, dtype=torch.complex128))
            basis.append(torch.tensor(turn, dtype=torch.complex128))
            offset, start = offset + shift, start + theta
        where, kind = exponents.device, torch.complex128
        return cls(
            torch.tensor(start, dtype=torch.float64, device=where),
            torch.block_diag(*blocks).to(where),
            torch.tensor(offset, dtype=kind, device=where),
            torch.block_diag(*basis).to(where),
            torch.tensor(listed, device=where),
        )

    @property
    def rank(self) -> int:
        """Number of exponentials, both of a pair counted."""
        return len(self.offset)

    @property
    def exponents(self) -> Complex[Tensor, " rank"]:
        """At the parameters."""
        return self.at(self.parameters)

    def at(self, parameters: Float[Tensor, "*draws parameters"]) -> Complex[Tensor, "*draws rank"]:
        """Exponents of other parameters."""
        return self.offset + parameters.to(self.design) @ self.design.mT

    def coefficients(
        self,
        exponents: Complex[Tensor, "draws rank"],
        data: Num[Tensor, "time space"],
        mask: Bool[Tensor, "time space"],
        times: Float[Tensor, " time"],
        noise: float,
        source: torch.Generator,
    ) -> Complex[Tensor, "draws rank space"]:
        r"""One draw of the amplitudes for each row of exponents, :math:`R^{-1}(Q^* x + \sigma z)`."""
        powers = (exponents[:, None, :] * times[:, None]).exp() @ self.basis
        powers = powers if data.is_complex() else powers.real
        whole = bool(mask.all())
        columns = [slice(None)] if whole else [slice(k, k + 1) for k in range(data.shape[1])]
        found = []
        for column in columns:
            seen = slice(None) if whole else mask[:, column].squeeze(1)
            q, r = torch.linalg.qr(powers[:, seen])
            moment = q.mH @ data[seen, column]
            sides = 2.0 if data.is_complex() else 1.0
            z = torch.randn(moment.shape, generator=source, dtype=moment.dtype, device=data.device) * math.sqrt(sides)
            found.append(torch.linalg.solve_triangular(r, moment + noise * z, upper=True))
        return self.basis @ torch.cat(found, -1).to(self.basis)


@dataclass(frozen=True, eq=False)
class Projection:
    """The fit at given exponents, amplitudes by least squares.

    Attributes
    ----------
    loss
        Sum of squared residuals.
    information
        Of the parameters for noise of variance one in each real number.
    scores
        Contribution of each time to the slope of −loss/2.
    mean_squares
        Of the part of each listed exponential, with its conjugate if that is not listed.
    count
        Real numbers that were measured.
    """

    model: Exponentials
    loss: float
    information: Float[Tensor, "parameters parameters"]
    scores: Float[Tensor, "time parameters"]
    residual: Num[Tensor, "time space"]
    mean_squares: Float[Tensor, " listed"]
    count: int
    converged: bool = False

    @property
    def free(self) -> int:
        """Real numbers less real parameters, those of the amplitudes too."""
        return self.count - self._parameters

    @property
    def log_evidence(self) -> float:
        """Schwarz's approximation, in nats: logarithm of the likelihood less half of parameters times ln n."""
        loss = max(self.loss, torch.finfo(torch.float64).tiny) / self.count
        return -(self.count * math.log(loss) + self._parameters * math.log(self.count)) / 2

    @property
    def _parameters(self) -> int:
        sides = 2 if self.residual.is_complex() else 1
        return len(self.model.parameters) + sides * self.model.rank * self.residual.shape[1]


def projected(
    model: Exponentials,
    data: Num[Tensor, "time space"],
    mask: Bool[Tensor, "time space"],
    times: Float[Tensor, " time"],
) -> Projection:
    r"""Residual :math:`P^\perp x` and, with :math:`J_k = P^\perp \partial_k \Phi\, \Phi^+ x`, the information."""
    whole = bool(mask.all())
    known = torch.where(mask, data, 0.0).to(model.design)
    columns = known[None] if whole else known.mT[..., None]
    seen = mask.new_ones(1, len(data), 1) if whole else mask.mT[..., None]
    since = (times - times[0])[:, None]
    powers = seen * (model.exponents * since).exp()
    q, r = torch.linalg.qr(powers)
    moment = q.mH @ columns
    residual = columns - q @ moment
    amplitudes = torch.linalg.solve_triangular(r, moment, upper=True)
    slope = since * powers
    slope = slope - q @ (q.mH @ slope)
    inner = ((slope.mH @ slope) * (amplitudes @ amplitudes.mH).mT).sum(0)
    terms = (slope.conj() * (residual @ amplitudes.mH)).sum(0)
    size = (powers.abs().square().sum(1) * amplitudes.abs().square().sum(2)).sum(0)
    turning = (powers.square().sum(1) * amplitudes.square().sum(2)).sum(0).real
    # Twice the real part of z has the square 2 |z|² + 2 Re z².
    squares = torch.where(model.basis.diagonal().abs() < 0.9, 2 * (size + turning), size) / int(mask.sum())
    residual = residual[0] if whole else residual[..., 0].mT
    return Projection(
        model,
        float(residual.abs().square().sum()),
        (model.design.mH @ inner @ model.design).real,
        (terms @ model.design.conj()).real,
        residual if data.is_complex() else residual.real,
        squares[model.listed],
        int(mask.sum()) * (2 if data.is_complex() else 1),
    )


def solved(
    model: Exponentials,
    data: Num[Tensor, "time space"],
    mask: Bool[Tensor, "time space"],
    times: Float[Tensor, " time"],
) -> Projection:
    """Exponents of least squares from a start on, listed by their energy."""
    short = data
    if data.shape[1] > len(data) and bool(mask.all()):
        # Squared residuals and slopes see the columns through their inner products only.
        short = torch.linalg.qr(data.mH)[1].mH
    some = mask[:, : short.shape[1]]
    power = float(torch.where(some, short, 0.0).abs().square().sum())
    at, damping = projected(model, short, some, times), 1e-3
    converged = False
    for _ in range(_ITERATIONS):
        gradient = at.scores.sum(0)
        step = _step(at.information, gradient, damping)
        if not bool(torch.isfinite(step).all()):
            break
        if float(gradient @ step) <= 1e-12 * at.loss + 1e-26 * power:
            converged = True
            break
        trial = projected(replace(at.model, parameters=at.model.parameters + step), short, some, times)
        if trial.loss < at.loss:
            at, damping = trial, max(damping / 10, 1e-12)
        else:
            damping *= 10
    order = at.mean_squares.argsort(descending=True)
    final = replace(at.model, listed=at.model.listed[order])
    return replace(projected(final, data, mask, times), converged=converged)


def _step(information: Tensor, gradient: Tensor, damping: float) -> Tensor:
    """Marquardt's step in parameters scaled to an information of one each; NaN where there is none."""
    scale = information.diagonal().clamp_min(torch.finfo(information.dtype).tiny).rsqrt()
    scaled = scale[:, None] * information * scale + damping * torch.eye(len(scale)).to(information)
    return scale * torch.linalg.solve_ex(scaled, scale * gradient)[0]


@dataclass(frozen=True, eq=False)
class Starts:
    """Delayed snapshots, gaps filled by lines, from which a fit starts.

    Attributes
    ----------
    states
        Snapshots in their leading directions.
    limit
        Rank of the delayed snapshots by the hard threshold.
    """

    states: Num[Tensor, "time leading"]
    step: float
    delays: int
    limit: int

    @classmethod
    def of(
        cls,
        data: Num[Tensor, "time space"],
        mask: Bool[Tensor, "time space"],
        times: Float[Tensor, " time"],
        rank: int | None,
        delays: int | None,
    ) -> Starts:
        """Delays by default such that the delayed columns are a third of the times, or 60: standing waves need some."""
        filled, step = _even(data, mask, times)
        leading = min(threshold_rank(filled) if rank is None else rank, *filled.shape)
        states = filled @ torch.linalg.svd(filled, full_matrices=False)[2][:leading].mH
        if delays is None:
            delays = max(1, math.ceil(min(len(data) // 3, 60) / leading))
        return cls(states, step, delays, max(leading, threshold_rank(delayed(states, delays))))

    def models(self, rank: int) -> list[Exponentials]:
        """Models of this rank by three kinds of DMD; a kind that leaves one of a conjugate pair is left out."""
        found = []
        for kind in (TotalLeastSquaresDMD, ForwardBackwardDMD, ExactDMD):
            values = kind(rank, self.delays).fit(self.states).eigenvalues
            # Of real data a lone negative eigenvalue has no conjugate: it starts as a decay of the same modulus.
            lone = (values.imag == 0) & (not self.states.is_complex())
            angle = torch.where(lone, 0.0, values.angle())
            values = torch.complex(values.abs().clamp(1e-3, 1e3).log(), angle) / self.step
            model = Exponentials.of(values, real=not self.states.is_complex())
            found += [model] if model.rank == rank else []
        return found


def _even(data: Tensor, mask: Tensor, times: Tensor) -> tuple[Tensor, float]:
    """Snapshots at even times by linear interpolation, and their distance."""
    step = float(times[-1] - times[0]) / (len(times) - 1)
    grid = times[0] + step * torch.arange(len(times), device=times.device)
    if bool(mask.all()) and bool((grid - times).abs().max() < 1e-9 * step * len(times)):
        return data, step
    return interpolated(data, mask, times, grid), step


def interpolated(
    data: Num[Tensor, "time space"],
    mask: Bool[Tensor, "time space"],
    times: Float[Tensor, " time"] | None = None,
    grid: Float[Tensor, " grid"] | None = None,
) -> Num[Tensor, "grid space"]:
    """Each column at the times of a grid by lines between what is known; by default where it was measured."""
    when = torch.arange(len(data)) if times is None else times.cpu()
    places = when if grid is None else grid.cpu()
    values, known = data.cpu().numpy(), mask.cpu().numpy()
    pairs = zip(values.T, known.T, strict=True)
    columns = [np.interp(places.numpy(), when.numpy()[seen], value[seen]) for value, seen in pairs]
    return torch.as_tensor(np.stack(columns, 1), device=data.device)
