"""The Ising model in two dimensions: exact free energies, and a sampler whose estimate can be judged by them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior.draws import Draws
from bayesmol.posterior.estimate import Estimate, kish
from bayesmol.progress import progress

__all__ = ["Annealed", "Ising", "onsager"]

_LEAST = 50  # effective walkers without which a mean of weights has no error bar


@dataclass(frozen=True, eq=False)
class Annealed:
    """Walkers that were cooled from infinite temperature, with their weights.

    Attributes
    ----------
    spins
        ±1, (walkers, side, side).
    energy
        Energy of each walker by the number of sites, as weighted draws.
    log_partition
        :math:`\\ln Z` by the number of sites, that is :math:`-\\beta f`, with its standard error: infinite if fewer
        than 50 walkers carry the weight.
    """

    spins: Float[Tensor, "walkers side side"]
    energy: Draws
    log_partition: Estimate


@dataclass(frozen=True)
class Ising:
    r"""Spins ±1 on a square lattice with periodic borders, :math:`E = -\sum_{\langle xy \rangle} s_x s_y`.

    Temperatures are in units of the coupling, with :math:`k_B = 1`.

    Attributes
    ----------
    side
        L, at least 3; even for :meth:`anneal`, whose moves need a checkerboard.
    """

    side: int

    def __post_init__(self) -> None:
        if self.side < 3:
            raise DataError(expected("side", "at least 3", self.side))

    def energy(self, spins: Float[Tensor, "walkers side side"]) -> Float[Tensor, " walkers"]:
        """Energy of each lattice."""
        if spins.shape[1:] != (self.side, self.side):
            raise ShapeError(expected("spins", f"(walkers, {self.side}, {self.side})", tuple(spins.shape)))
        return -(spins * (spins.roll(1, 1) + spins.roll(1, 2))).sum((1, 2))

    def log_partition(self, temperature: float) -> float:
        r"""Exact :math:`\ln Z` of the finite lattice.

        .. math:: Z = \tfrac12 (2 \sinh 2K)^{L^2/2} \Big[ \prod_r 2 \cosh \tfrac{L \gamma_{2r+1}}{2}
            + \prod_r 2 \sinh \tfrac{L \gamma_{2r+1}}{2} + \prod_r 2 \cosh \tfrac{L \gamma_{2r}}{2}
            + \prod_r 2 \sinh \tfrac{L \gamma_{2r}}{2} \Big]

        with :math:`K = 1/T`, :math:`\cosh \gamma_l = \cosh 2K \coth 2K - \cos(\pi l / L)`, and
        :math:`\gamma_0 = 2K + \ln \tanh K`, which is negative above the critical temperature.

        References
        ----------
        Kaufman, Phys. Rev. 76, 1232 (1949).
        """
        return float(self._kaufman(torch.tensor(1 / _checked(temperature), dtype=torch.float64)))

    def mean_energy(self, temperature: float) -> float:
        r"""Exact :math:`\langle E \rangle = -\partial \ln Z / \partial \beta` of the finite lattice."""
        with torch.enable_grad():
            beta = torch.tensor(1 / _checked(temperature), dtype=torch.float64, requires_grad=True)
            (gradient,) = torch.autograd.grad(self._kaufman(beta), beta)
        return -float(gradient)

    def _kaufman(self, coupling: Float[Tensor, ""]) -> Float[Tensor, ""]:
        size, turns = self.side, torch.arange(1, 2 * self.side, dtype=torch.float64)
        cosh = torch.cosh(2 * coupling) / torch.tanh(2 * coupling) - torch.cos(math.pi * turns / size)
        gamma = torch.cat([(2 * coupling + torch.tanh(coupling).log())[None], torch.acosh(cosh)])
        even, odd = size / 2 * gamma[::2], size / 2 * gamma[1::2]
        # The factor of γ₀ is kept apart: its sine passes through zero at the critical temperature.
        scale = even[0].detach().abs()
        first = (even[0] - scale).exp(), (-even[0] - scale).exp()
        logs = torch.stack([_log_cosh(odd), _log_sinh(odd), _log_cosh(even[1:]) + scale, _log_sinh(even[1:]) + scale])
        factors = torch.stack(
            [torch.ones_like(scale), torch.ones_like(scale), first[0] + first[1], first[0] - first[1]]
        )
        top = logs.detach().max()
        total = (factors * (logs - top).exp()).sum().log() + top
        return size**2 / 2 * (2 * torch.sinh(2 * coupling)).log() + total - math.log(2)

    def anneal(
        self,
        temperature: float,
        *,
        seed: int | torch.Generator,
        walkers: int = 1024,
        steps: int = 400,
        device: torch.device | str = "cpu",
    ) -> Annealed:
        r"""Free energy and energy by annealed importance sampling from infinite temperature.

        Each step lowers the temperature, :math:`\ln w \mathrel{-}= (\beta_{k+1} - \beta_k) E(s)`, and draws the spins
        of each colour of a checkerboard anew given those of the other. The mean of w is
        :math:`Z / 2^{L^2}` for any number of steps; more steps make it sharper.

        Parameters
        ----------
        steps
            Temperatures; they are closest at the last, where most is learned of the energy.

        References
        ----------
        Neal, Statistics and Computing 11, 125 (2001).
        """
        if self.side % 2:
            raise DataError(expected("side", "an even number for a checkerboard", self.side))
        if walkers < 2 * _LEAST or steps < 1:
            raise DataError(expected("walkers, steps", f"at least {2 * _LEAST} and 1", (walkers, steps)))
        source = generator(seed, device)
        shape = (walkers, self.side, self.side)
        ladder = [(1 - (1 - k / steps) ** 2) / _checked(temperature) for k in range(steps + 1)]
        spins = 2.0 * torch.randint(2, shape, generator=source, device=device) - 1
        rows = torch.arange(self.side, device=device)
        black = (rows[:, None] + rows) % 2 == 0
        log_weights = torch.zeros(walkers, dtype=torch.float64, device=device)
        with progress("annealing", steps) as advance:
            for before, beta in pairwise(ladder):
                log_weights -= (beta - before) * self.energy(spins).double()
                for colour in (black, ~black):
                    field = torch.stack([spins.roll(shift, axis) for shift in (1, -1) for axis in (1, 2)]).sum(0)
                    up = torch.sigmoid(2 * beta * field)
                    new = 2.0 * (torch.rand(shape, generator=source, device=device) < up) - 1
                    spins = torch.where(colour, new, spins)
                advance()
        energy = Draws(self.energy(spins).double()[None] / self.side**2, log_weights[None], unit="")
        return Annealed(spins, energy, _mean_weight(log_weights, self.side**2))


def _checked(temperature: float) -> float:
    if not 0 < temperature < math.inf:
        raise DataError(expected("temperature", "a positive number", temperature))
    return temperature


def _mean_weight(log_weights: Float[Tensor, " walkers"], sites: int) -> Estimate:
    """Logarithm of the partition function by the number of sites, by the delta method."""
    walkers, effective = len(log_weights), kish(log_weights)
    value = log_weights.logsumexp(0) - math.log(walkers) + sites * math.log(2)
    spread = ((walkers / effective - 1).clamp_min(0) / (walkers - 1)).sqrt()
    error = torch.where(effective < _LEAST, torch.inf, spread)
    return Estimate(value / sites, error / sites, effective, "")


def _log_cosh(x: Tensor) -> Tensor:
    """Sum of :math:`\\ln 2 \\cosh x` for x ≥ 0."""
    return (x + torch.log1p((-2 * x).exp())).sum()


def _log_sinh(x: Tensor) -> Tensor:
    """Sum of :math:`\\ln 2 \\sinh x` for x > 0."""
    return (x + torch.log(-torch.expm1(-2 * x))).sum()


def onsager(temperature: float) -> float:
    r"""Exact :math:`-\beta f` of the infinite lattice.

    .. math:: -\beta f = \tfrac12 \ln 2 + \frac{1}{2\pi} \int_0^\pi
        \ln \big[ \cosh^2 2K + \sqrt{\sinh^4 2K + 1 - 2 \sinh^2 2K \cos 2\theta} \big]\,d\theta

    References
    ----------
    Onsager, Phys. Rev. 65, 117 (1944).
    """
    from scipy.integrate import quad

    coupling = 1 / _checked(temperature)
    c, s = math.cosh(2 * coupling) ** 2, math.sinh(2 * coupling) ** 2

    def integrand(angle: float) -> float:
        return math.log(c + math.sqrt((s - 1) ** 2 + 4 * s * math.sin(angle) ** 2))

    # The integrand is even about π/2 and, near the critical temperature, sharp at zero.
    sharp = min(math.pi / 4, abs(s - 1) + 1e-6)
    value, _ = quad(integrand, 0, math.pi / 2, points=[sharp], limit=400, epsabs=1e-13)
    return math.log(2) / 2 + value / math.pi
