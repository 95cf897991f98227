"""Flows of one density at many temperatures: exact by a constant volume, or conditional on the temperature."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from functools import reduce
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from nflows.transforms.base import CompositeTransform, Transform
from torch import Tensor, nn

from bayesmol.errors import ApplicabilityError, DataError, expected
from bayesmol.flows.bases import GaussianUniform
from bayesmol.flows.conditioners import Features, reproducible
from bayesmol.flows.counted import Counted
from bayesmol.flows.couplings import Coupling
from bayesmol.flows.elementwise import Marginals, Shifts
from bayesmol.flows.flow import Flow
from bayesmol.flows.objectives import checked_samples, forward_loss, path_loss
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.proposal import Target
from bayesmol.flows.tempering import heated
from bayesmol.flows.training import Training, train
from bayesmol.posterior.estimate import kish

__all__ = ["AdditiveCouplings", "SteerableFlow", "Steered", "TemperatureSteering"]


class Steered(Flow):
    r"""A flow at one temperature: its straight latent numbers have the variance :math:`r = T / T_0`.

    .. math:: \log q_T(x) = \log \mathcal N(f_r(x); 0, r) + \log |\det \partial f_r / \partial x|

    If the flow has a context, that is :math:`\ln r`. If it has none and its volume is constant
    (:class:`AdditiveCouplings`), :math:`-\log q_T = (T_0/T) (-\log q_{T_0})` up to a constant: the flow scales with the
    temperature as Boltzmann densities do. Weights of the flow are shared and not copied.

    Parameters
    ----------
    temperature, reference
        T, and :math:`T_0` at which a flow without context was trained, in the same unit.

    References
    ----------
    Dibak, Klein, Krämer, Noé, Phys. Rev. Research 4, L042005 (2022).
    """

    def __init__(self, flow: Flow, temperature: float, reference: float = 1.0) -> None:
        if not 0 < temperature / reference < math.inf:
            raise DataError(expected("temperature, reference", "positive numbers", (temperature, reference)))
        super().__init__(flow.base, _Heated(flow, math.log(temperature / reference)))
        self.temperature = temperature


class _Heated(Transform):
    """The transform of a flow at the logarithm of a ratio of temperatures, then the deviations divided by its root."""

    circular: Tensor

    def __init__(self, flow: Flow, log_ratio: float) -> None:
        super().__init__()
        self.transform, self.log_ratio = flow.transform, log_ratio
        self.register_buffer("circular", flow.base.circular)
        self.lines = int((~flow.base.circular).sum())
        self.context = max((m.context for m in flow.modules() if isinstance(m, Features)), default=0)
        if self.context > 1:
            remedy = "build the flow with context=1"
            raise DataError(expected("flow", "one number of context, the temperature", self.context, remedy))

    def forward(
        self, inputs: Float[Tensor, "points dimension"], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Latent rows with unit variance, and the log-determinant."""
        z, volume = self.transform(inputs, self._context(inputs))
        return self._scaled(z, -self.log_ratio / 2), volume - self.lines * self.log_ratio / 2

    def inverse(
        self, inputs: Float[Tensor, "points dimension"], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Configurations of latent rows, and the log-determinant."""
        x, volume = self.transform.inverse(self._scaled(inputs, self.log_ratio / 2), self._context(inputs))
        return x, volume + self.lines * self.log_ratio / 2

    def _scaled(self, z: Tensor, log_factor: float) -> Tensor:
        return torch.where(self.circular, z, z * math.exp(log_factor))

    def _context(self, rows: Tensor) -> Tensor | None:
        return rows.new_full((len(rows), 1), self.log_ratio) if self.context else None


@dataclass(frozen=True, eq=False)
class SteerableFlow:
    """A flow with the temperatures for which it was trained.

    Attributes
    ----------
    flow
        With the logarithm of the ratio of temperatures as its context, or with a constant volume.
    reference
        Temperature at which that ratio is 1.
    coldest, hottest
        Range of training, in the unit of the reference.
    """

    flow: Flow
    reference: float
    coldest: float
    hottest: float

    def at(self, temperature: float) -> Steered:
        """The flow at one temperature.

        Raises
        ------
        ApplicabilityError
            If it lies outside of the range of training.
        """
        if not self.coldest * (1 - 1e-9) <= temperature <= self.hottest * (1 + 1e-9):
            span = f"from {self.coldest:g} to {self.hottest:g}"
            raise ApplicabilityError(expected("temperature", span, temperature, "train over a wider range"))
        return Steered(self.flow, temperature, self.reference)


@dataclass(frozen=True)
class AdditiveCouplings:
    r"""Flow of constant volume: coupling layers that add, :math:`z_b = x_b + t(x_a)`, and a scale of each coordinate.

    Its density scales exactly with the temperature (:class:`Steered`), and its minima and barriers are those of a
    Gaussian in curved coordinates: it fits one basin, bent as it may be, and never two of them. Angles are turned only.

    Attributes
    ----------
    layers, width, depth
        Coupling layers, units in a layer of a conditioner, and layers of units.

    References
    ----------
    Dinh, Krueger, Bengio, ICLR workshop (2015), arXiv:1410.8516 (additive couplings); Dibak et al. (2022).
    """

    layers: int = 4
    width: int = 64
    depth: int = 2

    def build(self, circular: Bool[Tensor, " dimension"], *, seed: int | torch.Generator) -> Flow:
        """A new flow, which is the identity."""
        circular, dimension = circular.cpu(), len(circular)
        with reproducible(seed):
            layers: list[Transform] = [Marginals(Shifts(circular), dimension)]
            moved = torch.arange(dimension) % 2 == 0
            for i in range(self.layers if dimension > 1 else 0):
                if i % 2 == 0:
                    moved = torch.randperm(dimension) < (dimension + 1) // 2
                kinds, chosen = circular[moved], moved
                layers.append(
                    Coupling(chosen, circular, _Additions(kinds), width=self.width, layers=self.depth, context=0)
                )
                moved = ~moved
        return Flow(GaussianUniform(circular), CompositeTransform(layers))


class _Additions(nn.Module):
    """Shifts of straight coordinates, and turns of circles."""

    numbers = 1

    def __init__(self, circular: Bool[Tensor, " coordinates"]) -> None:
        super().__init__()
        self.shifts = Shifts(circular)

    def forward(
        self, x: Tensor, parameters: Tensor, *, inverse: bool = False, chosen: slice = slice(None)
    ) -> tuple[Tensor, Tensor]:
        """Value and log-derivative, which is zero."""
        both = torch.cat([torch.zeros_like(parameters), parameters])
        return self.shifts(x, both, inverse=inverse, chosen=chosen)


@dataclass(frozen=True)
class TemperatureSteering:
    r"""One flow for all temperatures of a range, log-uniform, by forward and reverse divergence.

    .. math:: \int_{\ln T_c}^{\ln T_h} \left[ w_f\,\mathrm{KL}(p_T \| q_T) + w_r\,\mathrm{KL}(q_T \| p_T) \right] d\ln T

    The forward part needs samples of the target at its own temperature; for others they are drawn by their weights
    :math:`e^{-u_T(x) + u(x)}`, and :math:`w_f` is multiplied by the effective share of these weights: samples that do
    not reach what matters at a temperature have no say there. Without samples there is the reverse part alone, which
    starts at the hottest temperatures and lets the colder ones in one by one, so that the modes that are open there
    stay found.

    Attributes
    ----------
    coldest, hottest
        :math:`T_c` and :math:`T_h`, as multiples of the temperature of the target.
    strata
        Temperatures of each step, one from each of so many equal parts of the range.
    forward, reverse
        The weights :math:`w_f, w_r`.
    opening
        Share of the budget after which all temperatures take part, without samples.
    cut
        Above this reduced energy the gradient of the reverse part is that of its logarithm.

    References
    ----------
    Dibak, Klein, Krämer, Noé, Phys. Rev. Research 4, L042005 (2022).
    """

    optimisation: Optimisation = field(default_factory=Optimisation)
    coldest: float = 1.0
    hottest: float = 3.3
    strata: int = 4
    forward: float = 1.0
    reverse: float = 1.0
    opening: float = 0.4
    cut: float = 1e8
    rounds: ClassVar[int] = 100

    def __post_init__(self) -> None:
        if not 0 < self.coldest < self.hottest < math.inf:
            raise DataError(expected("coldest, hottest", "an increasing pair", (self.coldest, self.hottest)))
        if not 1 <= self.strata <= self.optimisation.batch or not 0 <= self.opening < 1:
            raise DataError(expected("strata, opening", "at most a batch, and a share below 1", self))
        if min(self.forward, self.reverse) < 0 or self.forward + self.reverse == 0:
            raise DataError(expected("forward, reverse", "weights, not both zero", (self.forward, self.reverse)))

    def fit(
        self,
        flow: Flow,
        target: Target,
        samples: Float[Tensor, "points dimension"] | None = None,
        *,
        seed: int | torch.Generator,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Training:
        """Fit the parameters of a flow with one number of context, or with a constant volume, in place.

        Raises
        ------
        DataError, ShapeError
            If the target has no temperature, samples do not fit, or there are none for a forward divergence alone.
        """
        heated(target, self.hottest)
        if samples is None and self.reverse == 0:
            raise DataError(expected("samples", "draws of the target", None, "or give the reverse part a weight"))
        data = {} if samples is None else self._data(target, checked_samples(samples, flow))
        return train(self, flow, target, data=data, cut=self.cut, seed=seed, checkpoint=checkpoint)

    def _data(self, target: Target, x: Float[Tensor, "points dimension"]) -> dict[str, Tensor]:
        """Samples, and by how much their reduced energy falls as 1 / T falls from 1 to 1/2."""
        with torch.no_grad():
            fall = target.reduced_energy(x).double() - heated(target, 2.0).reduced_energy(x).double()
        if not bool(torch.isfinite(fall).all()):
            raise DataError(expected("samples", "rows with finite energies", "others"))
        return {"x": x, "energy": 2 * fall}

    def refresh(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], turn: int, source: torch.Generator
    ) -> dict[str, Tensor]:
        """The coldest temperature that takes part."""
        done = min(1.0, turn / (self.opening * self.rounds)) if self.opening and "x" not in data else 1.0
        coldest = self.hottest * (self.coldest / self.hottest) ** done
        return data | {"coldest": torch.tensor(coldest, dtype=torch.float64)}

    def loss(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], source: torch.Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """Mean over one temperature of each stratum."""
        coldest = float(data["coldest"])
        places = torch.rand(self.strata, generator=source, device=source.device).cpu() + torch.arange(self.strata)
        ratios = coldest * (self.hottest / coldest) ** (places.double() / self.strata)
        losses = [self._at(float(ratio), flow, target, data, source) for ratio in ratios]
        return reduce(torch.add, losses) / self.strata, None

    def _at(
        self, ratio: float, flow: Flow, target: Counted, data: dict[str, Tensor], source: torch.Generator
    ) -> Float[Tensor, ""]:
        steered, size = Steered(flow, ratio), self.optimisation.batch // self.strata
        total = torch.zeros((), device=source.device)
        if "x" in data and self.forward:
            chances = ((1 - 1 / ratio) * data["energy"]).softmax(0)
            rows = torch.multinomial(chances, size, replacement=True, generator=source)
            # Samples have a say at a temperature as far as their weights there are those of many.
            say = float(kish(chances.log())) / len(chances)
            total = total + self.forward * say * forward_loss(steered, data["x"][rows])
        if self.reverse:
            with target.replaced(heated(target.target, ratio)):
                total = total + self.reverse * path_loss(steered, target, size, source)[0]
        return total
