"""Processes in discrete time with known spectra: Markov chains, linear Gaussian ones, the noisy logistic map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import numpy_generator

__all__ = ["LinearProcess", "LogisticMap", "MarkovChain", "double_well_chain", "hermite_eigenfunctions"]


@dataclass(frozen=True, eq=False)
class MarkovChain:
    """A Markov chain on states 0, 1, … with a given matrix.

    Attributes
    ----------
    matrix
        Probabilities to go from the state of the row to that of the column.

    Raises
    ------
    ShapeError, DataError
        If the matrix is not square, or a row is no distribution.
    """

    matrix: Float[Tensor, "states states"]

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or self.matrix.shape[0] != self.matrix.shape[1]:
            raise ShapeError(expected("matrix", "(states, states)", tuple(self.matrix.shape)))
        if bool((self.matrix < 0).any()) or not torch.allclose(self.matrix.sum(1), self.matrix.new_ones(())):
            raise DataError(expected("matrix", "rows that are distributions", "others"))

    @cached_property
    def stationary(self) -> Float[Tensor, " states"]:
        r""":math:`\pi = \pi P`, by least squares with the sum of one as a further equation."""
        states = len(self.matrix)
        system = torch.cat([self.matrix.mT - torch.eye(states).to(self.matrix), self.matrix.new_ones(1, states)])
        right = torch.cat([self.matrix.new_zeros(states), self.matrix.new_ones(1)])
        return torch.linalg.lstsq(system, right[:, None], driver="gelsd").solution[:, 0]

    def eigenvalues(self, count: int = 5) -> Complex[Tensor, " count"]:
        """Eigenvalues by falling modulus; the first is one."""
        values = torch.linalg.eigvals(self.matrix)
        return values[values.abs().argsort(descending=True)][:count]

    def timescales(self, count: int = 3) -> Float[Tensor, " count"]:
        r""":math:`-1 / \ln |\lambda_i|` from the slowest on, in frames."""
        return -1 / self.eigenvalues(count + 1)[1:].abs().log()

    def simulate(
        self,
        frames: int,
        *,
        trajectories: int = 1,
        start: Float[Tensor, " states"] | None = None,
        seed: int | torch.Generator,
    ) -> Trajectories:
        """Independent trajectories of states, all advanced together; ``start`` is the law of the first frame.

        One sorted table of all cumulated rows, each above the one before, makes a step one binary search.
        """
        source, states = numpy_generator(seed), len(self.matrix)
        rows = self.matrix.numpy().cumsum(1)
        table = (rows / rows[:, -1:] + np.arange(states)[:, None]).ravel()
        law = (self.stationary if start is None else start).clamp(min=0).numpy()
        state, path = (
            source.choice(states, trajectories, p=law / law.sum()),
            np.empty((frames, trajectories), dtype=np.int64),
        )
        path[0] = state
        # A little below one, so that state + uniform never rounds up to the next row.
        uniform = source.random((frames, trajectories)) * (1 - 1e-11)
        for frame in range(1, frames):
            path[frame] = state = np.searchsorted(table, state + uniform[frame], side="right") - state * states
        return Trajectories(tuple(torch.as_tensor(path).unbind(1)))


def double_well_chain(states: int = 100, *, barrier: float = 3.0, reach: int = 8) -> MarkovChain:
    r"""Metropolis chain in a double well, reversible; proposals are uniform among the 2 × ``reach`` next states.

    The reduced energy is :math:`b (x^2 - 1)^2` with x from −1.5 to 1.5; a proposal beyond the ends stays.
    """
    energy = barrier * (torch.linspace(-1.5, 1.5, states, dtype=torch.float64).square() - 1).square()
    index = torch.arange(states)
    distance = (index[:, None] - index).abs()
    near = (distance > 0) & (distance <= reach)
    matrix = near * (energy[:, None] - energy).exp().clamp(max=1) / (2 * reach)
    return MarkovChain(matrix + torch.diag(1 - matrix.sum(1)))


@dataclass(frozen=True, eq=False)
class LinearProcess:
    r"""Stationary Gaussian process :math:`x_{t+1} = A x_t + e_t`, :math:`e_t \sim N(0, Q)`.

    The eigenvalues of its Koopman operator are the products of those of A; on linear functions they are those of A.

    Attributes
    ----------
    matrix
        A, of spectral radius below one.
    noise
        Q.
    time_step
        Of a frame.

    Raises
    ------
    ShapeError, DataError
        If the shapes do not fit, or A is not stable.
    """

    matrix: Float[Tensor, "dims dims"]
    noise: Float[Tensor, "dims dims"]
    time_step: float = 1.0

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or self.matrix.shape != self.matrix.mT.shape or self.noise.shape != self.matrix.shape:
            got = f"{tuple(self.matrix.shape)} and {tuple(self.noise.shape)}"
            raise ShapeError(expected("matrix, noise", "(dims, dims) both", got))
        if not (radius := float(torch.linalg.eigvals(self.matrix).abs().max())) < 1:
            raise DataError(expected("matrix", "a spectral radius below one", f"{radius:.6g}"))

    @classmethod
    def autoregressive(cls, *rho: float, mixing: Float[Tensor, "dims dims"] | None = None) -> LinearProcess:
        """Independent processes of variance one with these correlations of neighbours, then mixed: x = B z."""
        decay = torch.tensor(rho, dtype=torch.float64)
        mix = torch.eye(len(rho), dtype=torch.float64) if mixing is None else mixing
        return cls(mix @ torch.diag(decay) @ torch.linalg.inv(mix), mix @ torch.diag(1 - decay.square()) @ mix.mT)

    @classmethod
    def ornstein_uhlenbeck(cls, rate: float, diffusion: float, time_step: float) -> LinearProcess:
        r"""Frames of :math:`dx = -\alpha x\, dt + \sqrt{2 D}\, dW`, exact at any step; its variance is D / α."""
        decay = torch.tensor([[math.exp(-rate * time_step)]], dtype=torch.float64)
        return cls(decay, diffusion / rate * (1 - decay.square()), time_step)

    @classmethod
    def oscillators(cls, frequencies: tuple[float, ...], decays: tuple[float, ...]) -> LinearProcess:
        """Damped oscillators of variance one in the plane: angle per frame, and the factor of the radius per frame."""
        blocks = []
        for angle, radius in zip(frequencies, decays, strict=True):
            cosine, sine = radius * math.cos(angle), radius * math.sin(angle)
            blocks.append(torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64))
        variances = 1 - torch.tensor(decays, dtype=torch.float64).repeat_interleave(2).square()
        return cls(torch.block_diag(*blocks), torch.diag(variances))

    @cached_property
    def covariance(self) -> Float[Tensor, "dims dims"]:
        """S = A S Aᵀ + Q."""
        from scipy.linalg import solve_discrete_lyapunov

        return torch.as_tensor(solve_discrete_lyapunov(self.matrix.numpy(), self.noise.numpy()))

    def eigenvalues(self, lag: int = 1) -> Complex[Tensor, " dims"]:
        """Eigenvalues of A to the power ``lag``, by falling modulus."""
        values = torch.linalg.eigvals(self.matrix)
        return values[values.abs().argsort(descending=True)] ** lag

    def timescales(self) -> Float[Tensor, " dims"]:
        r""":math:`-1 / \ln |\lambda_i|`, in frames."""
        return -1 / self.eigenvalues().abs().log()

    def simulate(self, frames: int, *, trajectories: int = 1, seed: int | torch.Generator) -> Trajectories:
        """Independent stationary trajectories, all advanced together; exact, whatever the time step."""
        source, dims = numpy_generator(seed), len(self.matrix)
        path = source.standard_normal((frames, trajectories, dims)) @ _root(self.noise)
        path[0] = source.standard_normal((trajectories, dims)) @ _root(self.covariance)
        step = self.matrix.numpy().T
        for frame in range(1, frames):
            path[frame] += path[frame - 1] @ step
        unit = "frames" if self.time_step == 1 else "time units"
        return Trajectories(tuple(torch.as_tensor(path).permute(1, 0, 2).contiguous()), self.time_step, unit)


def _root(covariance: Tensor) -> np.ndarray:
    """Symmetric root, which exists for a singular matrix too."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt() @ vectors.mT).numpy()


def hermite_eigenfunctions(
    points: Float[Tensor, " points"], degree: int, variance: float = 1.0
) -> Float[Tensor, "points functions"]:
    r"""Eigenfunctions :math:`\mathrm{He}_k(x / \sigma) / \sqrt{k!}`, k = 0 … degree, of an Ornstein–Uhlenbeck process.

    Their eigenvalues at the time t are :math:`e^{-\alpha k t}`, and their variance is one.
    """
    scaled = points / math.sqrt(variance)
    columns = [torch.ones_like(scaled), scaled]
    for k in range(1, degree):
        columns.append((scaled * columns[k] - math.sqrt(k) * columns[k - 1]) / math.sqrt(k + 1))
    return torch.stack(columns[: degree + 1], 1)


@dataclass(frozen=True)
class LogisticMap:
    r"""Noisy logistic map :math:`x' = 4 x (1 - x) + \xi \bmod 1` with the density :math:`\propto \cos^N(\pi \xi)`.

    The density of the noise is a trigonometric polynomial. With :math:`f(x) = 4 x (1 - x)`

    .. math::

        p(y | x) = \sum_{|k| \le N / 2} c_k e^{2 \pi i k (y - f(x))}, \quad
        c_k = \tbinom{N}{N / 2 + k} / \tbinom{N}{N / 2},

    so that the Koopman operator has the rank N + 1 and the spectrum of the matrix
    :math:`M_{jk} = c_k \int_0^1 e^{2 \pi i (k f(x) - j x)} dx`. It is not reversible.

    Attributes
    ----------
    order
        N, an even number; the noise falls with it.

    References
    ----------
    Ostruszka, Pakoński, Słomczyński, Życzkowski, Phys. Rev. E 62, 2018 (2000): trigonometric noise.
    """

    order: int = 20

    def __post_init__(self) -> None:
        if self.order < 2 or self.order % 2:
            raise DataError(expected("order", "an even number from 2 on", self.order))

    @cached_property
    def _waves(self) -> tuple[Tensor, Tensor]:
        """Wave numbers k and coefficients of the noise."""
        half = self.order // 2
        middle = math.comb(self.order, half)
        shares = [math.comb(self.order, half + k) / middle for k in range(-half, half + 1)]
        return torch.arange(-half, half + 1, dtype=torch.float64), torch.tensor(shares, dtype=torch.float64)

    @cached_property
    def _matrix(self) -> Complex[Tensor, "rank rank"]:
        number, share = self._waves
        nodes, sizes = np.polynomial.legendre.leggauss(100 + 10 * self.order)
        x, weights = torch.as_tensor((nodes + 1) / 2), torch.as_tensor(sizes / 2)
        left, right = _wave(-x[:, None] * number), _wave(4 * (x * (1 - x))[:, None] * number)
        return (left * weights[:, None]).mT @ right * share

    def eigenvalues(self, count: int = 5) -> Complex[Tensor, " count"]:
        """Eigenvalues of one frame by falling modulus; the first is one."""
        values = torch.linalg.eigvals(self._matrix)
        return values[values.abs().argsort(descending=True)][:count]

    def density(self, x: Float[Tensor, " points"]) -> Float[Tensor, " points"]:
        """Stationary density on [0, 1)."""
        adjoint, zero = self._matrix.mH, self.order // 2
        system = adjoint - torch.eye(len(adjoint))
        # The coefficient of the constant is the integral, one; its own equation says 0 = 0.
        system[zero], right = 0, torch.zeros(len(adjoint), dtype=adjoint.dtype)
        system[zero, zero] = right[zero] = 1
        return (_wave(x[:, None] * self._waves[0]) @ torch.linalg.solve(system, right)).real

    def transition_density(
        self, start: Float[Tensor, " points"], end: Float[Tensor, " ends"]
    ) -> Float[Tensor, "points ends"]:
        """p(end | start)."""
        number, share = self._waves
        images = 4 * start * (1 - start)
        return ((_wave(-images[:, None] * number) * share) @ _wave(end[:, None] * number).mT).real

    def simulate(self, frames: int, *, trajectories: int = 1, seed: int | torch.Generator) -> Trajectories:
        """Independent trajectories on [0, 1); the first 100 frames from a uniform start are left out."""
        source, warm = numpy_generator(seed), 100
        shape = (frames + warm, trajectories)
        # With s = sin²(πξ) the density of the noise is Beta(1/2, (N + 1) / 2) in s.
        kick = np.arcsin(np.sqrt(source.beta(0.5, (self.order + 1) / 2, shape))) / math.pi
        path = kick * source.choice([-1.0, 1.0], shape)
        path[0] = source.random(trajectories)
        for frame in range(1, len(path)):
            path[frame] = (4 * path[frame - 1] * (1 - path[frame - 1]) + path[frame]) % 1.0
        return Trajectories(tuple(torch.as_tensor(path[warm:].T[:, :, None].copy())))


def _wave(turns: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(turns), 2 * math.pi * turns)
