"""Score by what a posterior does not know: its epistemic standard deviation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Posterior

__all__ = ["EpistemicSpread"]


@dataclass(frozen=True)
class EpistemicSpread:
    r"""Epistemic standard deviation of the prediction for each row, :math:`\bigl(\sum_e \sigma_e^2\bigr)^{1/2}`.

    The sum runs over the axes of the event (the components of a force, say), so the score of a vector does not depend
    on the frame. It is a score as it is: the model has been fitted. Noise of the labels does not enter: where labels
    are noisy is not where the model is ignorant.

    Attributes
    ----------
    posterior
        Function of features that returns a posterior of shape ``(rows, *event)`` with a known epistemic part:
        a Gaussian process, an ensemble (:class:`~bayesmol.posterior.Mixture`), a Bayesian linear model.
    """

    posterior: Callable[[Tensor], Posterior]

    def __call__(self, features: Tensor) -> Float[Tensor, " rows"]:
        """Epistemic standard deviation of each row, in the unit of the posterior.

        Raises
        ------
        DataError
            If the posterior does not know its epistemic part, or that is NaN.
        ShapeError
            If it has not one entry a row.
        """
        with torch.no_grad():
            known = self.posterior(features).epistemic
            if known is None:
                remedy = "give Gaussian its epistemic_variance, or use an ensemble"
                raise DataError(expected("posterior", "one that knows its epistemic part", "none", remedy))
            variance = known.variance
        if variance.ndim == 0 or len(variance) != len(features):
            aim = f"one entry a row, shape ({len(features)}, …)"
            raise ShapeError(expected("posterior", aim, tuple(variance.shape)))
        spread = variance.flatten(1).sum(1).sqrt() if variance.ndim > 1 else variance.sqrt()
        if bool(spread.isnan().any()):
            raise DataError(expected("features", "rows with a variance", "NaN", "look for NaN in the features"))
        return spread
