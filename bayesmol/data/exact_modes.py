"""Planted modes for dynamic mode decomposition, and chaotic systems that have no spectral gap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import numpy_generator

__all__ = ["PlantedModes", "lorenz", "skew_tent", "two_modes"]


@dataclass(frozen=True, eq=False)
class PlantedModes:
    r"""Snapshots :math:`y_t = \sum_k b_k e^{\omega_k t} + \sigma e_t` at equal times.

    Attributes
    ----------
    exponents
        :math:`\omega_k`, per time; the imaginary part is the angular frequency.
    modes
        :math:`b_k`, one a column.
    time_step
        Between two snapshots.

    Raises
    ------
    ShapeError
        If there is not one mode for each exponent.
    """

    exponents: Complex[Tensor, " modes"]
    modes: Complex[Tensor, "places modes"]
    time_step: float

    def __post_init__(self) -> None:
        if self.modes.ndim != 2 or self.modes.shape[1:] != self.exponents.shape:
            got = f"{tuple(self.modes.shape)} and {tuple(self.exponents.shape)}"
            raise ShapeError(expected("modes, exponents", "(places, modes) and (modes,)", got))

    @property
    def eigenvalues(self) -> Complex[Tensor, " modes"]:
        r""":math:`e^{\omega_k \Delta t}`: those of the map from a snapshot to the next."""
        return (self.exponents * self.time_step).exp()

    def clean(self, frames: int) -> Complex[Tensor, "frames places"]:
        """Snapshots without noise."""
        times = torch.arange(frames, dtype=torch.float64) * self.time_step
        return (times[:, None] * self.exponents).exp() @ self.modes.mT

    def snapshots(self, frames: int, *, noise: float, seed: int | torch.Generator) -> Complex[Tensor, "frames places"]:
        """Snapshots with independent normal noise of this standard deviation in the real and the imaginary part."""
        kick = numpy_generator(seed).standard_normal((2, frames, self.modes.shape[0])) * noise
        return self.clean(frames) + torch.complex(*torch.as_tensor(kick))

    def standard_errors(self, frames: int, *, noise: float) -> Float[Tensor, " modes"]:
        r"""Cramér–Rao bound of the standard deviation of any unbiased estimate of :math:`\mathrm{Im}\, \omega_k`.

        The modes are not known either. The real parts have the same bound.
        """
        times = torch.arange(frames, dtype=torch.float64) * self.time_step
        waves = (times[:, None] * self.exponents).exp()
        places, count = self.modes.shape
        slopes = torch.stack([torch.outer(times * waves[:, k], self.modes[:, k]).flatten() for k in range(count)], 1)
        # The modes are free at each place: what the waves themselves can explain carries no information.
        basis = torch.linalg.qr(waves).Q
        folded = slopes.unflatten(0, (frames, places))
        folded = folded - torch.einsum("tk,sk,spm->tpm", basis, basis.conj(), folded)
        information = torch.einsum("tpm,tpn->mn", folded.conj(), folded) / noise**2
        both = torch.cat(
            [torch.cat([information.real, -information.imag], 1), torch.cat([information.imag, information.real], 1)]
        )
        return torch.linalg.inv(both).diagonal()[count:].sqrt()


def two_modes() -> PlantedModes:
    r"""Two waves on 65 places from −5 to 5, :math:`\Delta t = 4 \pi / 128`; 129 snapshots make two slow beats.

    .. math:: y = \mathrm{sech}(x + 3)\, e^{2.3 i t} + 2\, \mathrm{sech}(x) \tanh(x)\, e^{2.8 i t}
    """
    x = torch.linspace(-5, 5, 65, dtype=torch.float64)
    modes = torch.stack([1 / (x + 3).cosh(), 2 * x.tanh() / x.cosh()], 1).to(torch.complex128)
    return PlantedModes(torch.tensor([2.3j, 2.8j], dtype=torch.complex128), modes, 4 * math.pi / 128)


def skew_tent(frames: int, *, peak: float = 0.4, trajectories: int = 1, seed: int | torch.Generator) -> Trajectories:
    r"""Trajectories of the skew tent map, x / a below its peak a and (1 − x) / (1 − a) above; uniform at equilibrium.

    It is chaotic and not invertible, its Koopman operator an isometry: there is no spectral gap and no timescale,
    though the correlation of x falls as :math:`(2 a - 1)^t / 12`.
    """
    if not 0 < peak < 1 or peak == 0.5:
        raise DataError(expected("peak", "a number between 0 and 1 but 1/2, where binary numbers die out", peak))
    path = np.empty((frames, trajectories))
    path[0] = numpy_generator(seed).random(trajectories)
    for frame in range(1, frames):
        x = path[frame - 1]
        path[frame] = np.where(x < peak, x / peak, (1 - x) / (1 - peak))
    return Trajectories(tuple(torch.as_tensor(path.T[:, :, None].copy())))


def lorenz(frames: int, *, time_step: float = 0.05, trajectories: int = 1, seed: int | torch.Generator) -> Trajectories:
    """Trajectories of the Lorenz system (10, 28, 8/3) on its attractor, by Runge–Kutta steps of at most 0.005.

    It is chaotic with a mixing flow: there is no gap that an estimate could find.

    References
    ----------
    Lorenz, J. Atmos. Sci. 20, 130 (1963), equations 25–27.
    """
    steps = max(1, math.ceil(time_step / 0.005))
    short, warm = time_step / steps, math.ceil(20 / time_step)
    place = numpy_generator(seed).standard_normal((3, trajectories)) + np.array([[0.0], [0.0], [25.0]])
    path = np.empty((frames + warm, 3, trajectories))
    for frame in range(len(path)):
        path[frame] = place
        for _ in range(steps):
            place = _runge_kutta(place, short)
    return Trajectories(tuple(torch.as_tensor(path[warm:].transpose(2, 0, 1).copy())), time_step, "time units")


def _lorenz(place: np.ndarray) -> np.ndarray:
    x, y, z = place
    return np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])


def _runge_kutta(place: np.ndarray, step: float) -> np.ndarray:
    first = _lorenz(place)
    second = _lorenz(place + step / 2 * first)
    third = _lorenz(place + step / 2 * second)
    fourth = _lorenz(place + step * third)
    return place + step / 6 * (first + 2 * second + 2 * third + fourth)
