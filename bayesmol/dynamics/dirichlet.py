"""Posterior of a transition matrix without detailed balance: independent Dirichlet rows, drawn exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.dynamics.connected_counts import checked_counts
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator

__all__ = ["DirichletRows", "log_gamma_draws", "with_pseudocounts"]


def with_pseudocounts(
    counts: Float[Tensor, "*draws states states"], pseudocounts: float
) -> Float[Tensor, "*draws states states"]:
    """Counts with ``pseudocounts`` more in each row, spread evenly over all transitions.

    Raises
    ------
    ShapeError, DataError
        If the counts cannot be used, or the pseudocounts are negative.
    """
    if not 0 <= pseudocounts < torch.inf:
        raise DataError(expected("pseudocounts", "a finite number ≥ 0", pseudocounts))
    counts = checked_counts(counts)
    return counts + pseudocounts / counts.shape[-1]


def log_gamma_draws(shape: Float[Tensor, "*shape"], *, seed: int | torch.Generator) -> Float[Tensor, "*shape"]:
    r"""Logarithms of Gamma variables of unit rate, exact also where the variable itself is below the smallest number.

    Below a shape of one, :math:`\ln \gamma_a = \ln \gamma_{a+1} + \ln(U)/a`. A shape of zero gives −∞.

    References
    ----------
    Marsaglia, Tsang, ACM Trans. Math. Softw. 26, 363 (2000), section 6.
    """
    source = generator(seed, shape.device)
    small = shape < 1
    logs = torch._standard_gamma(torch.where(small, shape + 1, shape), generator=source).log_()
    if bool(small.any()):
        lowered = shape[small]
        uniform = 1 - torch.rand(lowered.shape, generator=source, dtype=shape.dtype, device=shape.device)
        # 1 − U lies in (0, 1], so that its logarithm is finite; a shape of zero must not give 0/0.
        logs[small] += torch.where(lowered > 0, uniform.log() / lowered, -torch.inf)
    return logs


@dataclass(frozen=True, eq=False)
class DirichletRows:
    r"""Transition matrix with independent rows :math:`p_i \sim \mathrm{Dirichlet}(c_{i1} + b, \dots, c_{in} + b)`.

    With ``pseudocounts`` of zero the prior is :math:`\prod_{ij} p_{ij}^{-1}`: the mean is the estimate of maximum
    likelihood, and transitions without counts have probability zero.

    Attributes
    ----------
    counts
        Numbers of transitions.
    pseudocounts
        Of each row, spread evenly: b is this over the number of states; 1 is Perks's prior.

    Raises
    ------
    ShapeError, DataError
        If the counts cannot be used, or a row is without counts.

    References
    ----------
    Trendelkamp-Schroer, Wu, Paul, Noé, J. Chem. Phys. 143, 174101 (2015), section II.
    """

    counts: Float[Tensor, "*rows states states"]
    pseudocounts: float = 0.0

    def __post_init__(self) -> None:
        if not bool((self.shapes.sum(-1) > 0).all()):
            raise DataError(expected("counts", "counts in each row", "an empty row", "leave that state out"))

    @property
    def shapes(self) -> Float[Tensor, "*rows states states"]:
        """Parameters of the rows."""
        return with_pseudocounts(self.counts, self.pseudocounts)

    @property
    def mean(self) -> Float[Tensor, "*rows states states"]:
        r""":math:`a_{ij} / a_i`."""
        return self.shapes / self.shapes.sum(-1, keepdim=True)

    @property
    def variance(self) -> Float[Tensor, "*rows states states"]:
        r""":math:`\bar p_{ij} (1 - \bar p_{ij}) / (a_i + 1)`."""
        mean = self.mean
        return mean * (1 - mean) / (self.shapes.sum(-1, keepdim=True) + 1)

    def sample(self, size: int, *, seed: int | torch.Generator) -> Float[Tensor, "size *rows states states"]:
        """Independent transition matrices."""
        shapes = self.shapes
        return log_gamma_draws(shapes.expand(size, *shapes.shape), seed=seed).softmax(-1)
