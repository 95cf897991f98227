"""Probabilities of events: the Brier score and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["BrierDecomposition", "brier_decomposition"]


@dataclass(frozen=True)
class BrierDecomposition:
    r"""Brier score and its parts, :math:`\mathrm{BS} = \mathrm{REL} - \mathrm{RES} + \mathrm{UNC}`.

    Attributes
    ----------
    score
        Mean squared difference of probability and outcome.
    reliability
        Mean squared difference of a probability and the frequency of the event when it is stated; 0 is calibrated.
    resolution
        Variance of these frequencies: how much the statements distinguish.
    uncertainty
        Variance of the outcomes, which no forecast changes.
    """

    score: Float[Tensor, ""]
    reliability: Float[Tensor, ""]
    resolution: Float[Tensor, ""]
    uncertainty: Float[Tensor, ""]


def brier_decomposition(
    probability: Float[Tensor, " events"], outcome: Bool[Tensor, " events"], *, bins: int | None = None
) -> BrierDecomposition:
    r"""Reliability, resolution and uncertainty of stated probabilities.

    Without ``bins`` the frequencies are those of the isotonic regression of the outcomes on the probabilities, the
    nearest forecast that is calibrated and keeps their order; with ``bins`` they are those of blocks with equally many
    events. Probabilities that differ within a block enter the reliability with their distance from its frequency and
    with their covariance with the outcomes, so that the parts add up exactly.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, or a probability is outside of [0, 1].

    References
    ----------
    Murphy, J. Appl. Meteorol. 12, 595 (1973); Stephenson, Coelho, Jolliffe, Weather Forecast. 23, 752 (2008);
    Dimitriadis, Gneiting, Jordan, Proc. Natl. Acad. Sci. 118, e2016191118 (2021).
    """
    if probability.shape != outcome.shape or probability.ndim != 1 or len(probability) == 0:
        raise ShapeError(expected("outcome", f"shape (events,) {tuple(probability.shape)}", tuple(outcome.shape)))
    if not bool(((probability >= 0) & (probability <= 1)).all()):
        raise DataError(expected("probability", "numbers between 0 and 1", "others"))
    stated, event = probability.double(), outcome.double()
    block = _isotonic_blocks(stated, event) if bins is None else _equal_blocks(stated, bins)
    sizes = block.bincount().double()
    frequency = (block.bincount(event) / sizes)[block]
    mean, gap = event.mean(), stated - frequency
    return BrierDecomposition(
        score=(stated - event).square().mean(),
        reliability=gap.square().mean() + 2 * (gap * (frequency - event)).mean(),
        resolution=(frequency - mean).square().mean(),
        uncertainty=mean * (1 - mean),
    )


def _equal_blocks(stated: Tensor, bins: int) -> Tensor:
    place = torch.empty(len(stated), dtype=torch.long, device=stated.device)
    place[stated.argsort(stable=True)] = torch.arange(len(stated), device=stated.device) * bins // len(stated)
    return place.unique(return_inverse=True)[1]


def _isotonic_blocks(stated: Tensor, event: Tensor) -> Tensor:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression().fit_transform(stated.cpu().numpy(), event.cpu().numpy())
    return torch.from_numpy(fitted).unique(return_inverse=True)[1].to(stated.device)
