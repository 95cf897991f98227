"""Energy test: are two samples from one distribution, by the distances of their rows?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.calibration.density_ratio import check_samples
from bayesmol.calibration.two_sample import (
    Groups,
    TwoSample,
    guarantee,
    permutation_p_value,
    pooled_groups,
    quadratic_forms,
    shuffled_labels,
    signed_weights,
    standardised_rows,
)
from bayesmol.inference.random import numpy_generator

__all__ = ["EnergyTest"]


@dataclass(frozen=True)
class EnergyTest:
    r"""Energy distance of standardised features; no width has to be chosen.

    .. math:: \mathcal E = \frac{2}{nm} \sum_{ij} |x_i - y_j| - \frac{1}{n^2} \sum_{ij} |x_i - x_j|
       - \frac{1}{m^2} \sum_{ij} |y_i - y_j|

    Strong where whole distributions are shifted or stretched; for a small mode that is missing use
    :class:`~bayesmol.calibration.local_test.LocalTest`.

    Attributes
    ----------
    permutations
        The smallest p-value is 1/(permutations + 1).

    References
    ----------
    Székely and Rizzo, J. Stat. Plan. Inference 143, 1249 (2013).
    """

    permutations: int = 999

    def __call__(
        self,
        first: Float[Tensor, "first features"],
        second: Float[Tensor, "second features"],
        *,
        groups: Groups | None = None,
        seed: int | torch.Generator,
    ) -> TwoSample:
        """Test of two samples; arguments and errors as in :class:`~bayesmol.calibration.KernelTest`."""
        check_samples(first, second, 2)
        owner, count = pooled_groups(groups, (len(first), len(second)), 2)
        rows = standardised_rows(first, second)
        labels = shuffled_labels(count, self.permutations, numpy_generator(seed))[:, owner]
        found = -quadratic_forms(rows, signed_weights(labels.to(rows.device)))
        return TwoSample(float(found[0]), permutation_p_value(found), guarantee(groups, "exact"))
