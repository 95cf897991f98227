r"""Which label to buy: the cheap method or the expensive one, and where.

Two methods are related by :math:`f_\mathrm{high}(x) = \rho\, f_\mathrm{low}(x) + \delta(x)` with independent Gaussian
:math:`f_\mathrm{low}` and :math:`\delta` (Kennedy and O'Hagan). A cheap label is worth what it says about the expensive
method at the targets, divided by its cost; both are closed forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.acquisition.information import predictive_information, variance_reduction
from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["Autoregressive", "value_per_cost"]


@dataclass(frozen=True)
class Autoregressive:
    r"""Two methods, their labels, and what these cost.

    Attributes
    ----------
    ratio
        :math:`\rho`, how much of the cheap method is in the expensive one.
    noise_low, noise_high
        Standard deviations of labels about the two functions, in the unit of the labels.
    cost_low, cost_high
        Of one structure's labels, in any one unit, such as CPU seconds.

    Raises
    ------
    DataError
        If a noise or a cost is not positive.

    References
    ----------
    Kennedy, O'Hagan, Biometrika 87, 1 (2000).
    """

    ratio: float
    noise_low: float
    noise_high: float
    cost_low: float
    cost_high: float

    def __post_init__(self) -> None:
        for name in ("noise_low", "noise_high", "cost_low", "cost_high"):
            if not getattr(self, name) > 0:
                raise DataError(expected(name, "a positive number", getattr(self, name)))

    def factors(
        self, low: Float[Tensor, "*rows rank"], discrepancy: Float[Tensor, "*rows others"]
    ) -> tuple[Float[Tensor, "*rows both"], Float[Tensor, "*rows both"]]:
        r"""Factors of the labels of both methods in one space: :math:`(W_f, 0)` and :math:`(\rho W_f, W_\delta)`.

        Parameters
        ----------
        low, discrepancy
            Factors of the covariances of :math:`f_\mathrm{low}` and :math:`\delta`, as ``force_factor`` gives them.
        """
        if low.shape[:-1] != discrepancy.shape[:-1]:
            raise ShapeError(expected("discrepancy", f"rows {tuple(low.shape[:-1])}", tuple(discrepancy.shape[:-1])))
        high = torch.cat([self.ratio * low, discrepancy], -1)
        return torch.cat([low, torch.zeros_like(discrepancy)], -1), high

    def gains(
        self,
        low: Sequence[Float[Tensor, " labels rank"]],
        discrepancy: Sequence[Float[Tensor, " labels others"]],
        target_low: Float[Tensor, "targets components rank"],
        target_discrepancy: Float[Tensor, "targets components others"],
        *,
        function: str = "integrated_variance",
    ) -> Float[Tensor, "structures 2"]:
        """Value per cost of the cheap (first column) and the expensive labels of each structure for the targets.

        Parameters
        ----------
        target_low, target_discrepancy
            Factors of the two functions at the targets, where the expensive method is to be known.
        function
            ``"integrated_variance"`` (squared unit of the labels per cost) or ``"predictive_information"`` (nats).
        """
        if function not in ("integrated_variance", "predictive_information"):
            raise DataError(expected("function", "integrated_variance or predictive_information", repr(function)))
        aim, rows = self.factors(target_low, target_discrepancy)[1], []
        for first, second in zip(low, discrepancy, strict=True):
            pairs = zip(self.factors(first, second), (self.noise_low, self.noise_high), strict=True)
            if function == "integrated_variance":
                rows.append(torch.stack([variance_reduction(own, aim, noise) for own, noise in pairs]))
            else:
                parts = [predictive_information(own, aim, noise, self.noise_high) for own, noise in pairs]
                rows.append(torch.stack(parts))
        return value_per_cost(torch.stack(rows), torch.tensor([self.cost_low, self.cost_high], dtype=torch.float64))


def value_per_cost(values: Float[Tensor, "*shape"], costs: Float[Tensor, "*axes"]) -> Float[Tensor, "*shape"]:
    """Values divided by costs of the same shape, or of that of the last axis.

    The ratio is right for a long campaign in which the budget is spent on many small steps; a last single purchase
    should take the largest value that is affordable.

    Raises
    ------
    ShapeError, DataError
        If the costs do not fit or are not positive.
    """
    if costs.shape not in (values.shape, values.shape[-1:]):
        raise ShapeError(expected("costs", f"shape {tuple(values.shape)} of the values", tuple(costs.shape)))
    if not bool((torch.isfinite(costs) & (costs > 0)).all()):
        raise DataError(expected("costs", "positive finite numbers", "others"))
    return values / costs.to(values)
