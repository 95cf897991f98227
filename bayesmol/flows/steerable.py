"""Flows of one density at many temperatures: exact by a constant volume, or conditional on the temperature."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from nflows.transforms.base import CompositeTransform, Transform
from torch import Tensor, nn

from bayesmol.errors import DataError, expected
from bayesmol.flows.bases import GaussianUniform
from bayesmol.flows.conditioners import Features, reproducible
from bayesmol.flows.couplings import Coupling
from bayesmol.flows.elementwise import Marginals, Shifts
from bayesmol.flows.flow import Flow

__all__ = ["AdditiveCouplings", "Steered"]


class Steered(Flow):
    r"""A flow at one temperature: its straight latent numbers have the variance :math:`r = T / T_0`.

    .. math:: \log q_T(x) = \log \mathcal N(f_r(x); 0, r) + \log |\det \partial f_r / \partial x|

    If the flow has a context, that is :math:`\ln r`. If it has none and its volume is constant
    (:class:`AdditiveCouplings`), :math:`-\log q_T = (T_0/T) (-\log q_{T_0})` up to a constant: the flow scales with the
    temperature as Boltzmann densities do. Weights of the flow are shared and not copied.

    Parameters
    ----------
    temperature, reference
        T, one number or one for each row, and :math:`T_0` at which a flow without context was trained, in the same
        unit.

    References
    ----------
    Dibak, Klein, Krämer, Noé, Phys. Rev. Research 4, L042005 (2022).
    """

    def __init__(self, flow: Flow, temperature: float | Float[Tensor, " points"], reference: float = 1.0) -> None:
        ratios = torch.as_tensor(temperature, dtype=torch.float64) / reference
        if not bool(((ratios > 0) & torch.isfinite(ratios)).all()):
            raise DataError(expected("temperature, reference", "positive numbers", (temperature, reference)))
        super().__init__(flow.base, _Heated(flow, ratios.log().reshape(-1, 1)))
        self.temperature = temperature


class _Heated(Transform):
    """The transform of a flow at the logarithm of a ratio of temperatures, then the deviations divided by its root."""

    circular: Tensor

    def __init__(self, flow: Flow, log_ratios: Float[Tensor, "temperatures 1"]) -> None:
        super().__init__()
        self.transform, self.log_ratios = flow.transform, log_ratios
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
        ratios = self._of(inputs)
        z, volume = self.transform(inputs, ratios if self.context else None)
        return self._scaled(z, -ratios / 2), volume - self.lines * ratios[:, 0] / 2

    def inverse(
        self, inputs: Float[Tensor, "points dimension"], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Configurations of latent rows, and the log-determinant."""
        ratios = self._of(inputs)
        x, volume = self.transform.inverse(self._scaled(inputs, ratios / 2), ratios if self.context else None)
        return x, volume + self.lines * ratios[:, 0] / 2

    def _of(self, rows: Tensor) -> Float[Tensor, "points 1"]:
        return self.log_ratios.to(rows).expand(len(rows), 1)

    def _scaled(self, z: Tensor, log_factors: Tensor) -> Tensor:
        return torch.where(self.circular, z, z * log_factors.exp())


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
