"""Gate: may a potential be trusted at a structure, by its bound of the force error and by its strangeness?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.data import Structures
from bayesmol.posterior import Prediction

__all__ = ["Gate", "Look"]


class Look(NamedTuple):
    """Of each structure: whether it is trusted; the bound and what it is a multiple of (eV/Å); the strangeness."""

    trusted: Bool[Tensor, " structures"]
    bound: Float[Tensor, " structures"]
    deviation: Float[Tensor, " structures"]
    strangeness: Float[Tensor, " structures"]


@dataclass(frozen=True)
class Gate:
    r"""Trusted where :math:`c \max_i \sqrt{\mathrm{tr}\, \Sigma_i}` and the strangeness are within their limits.

    Attributes
    ----------
    factor
        c, calibrated; infinite trusts nothing.
    tolerance
        Of the largest force error of an atom, in eV/Å.
    widest
        Largest strangeness that was ever labelled: beyond it nobody knows what the bound is worth. Structures that
        the physical guards of the potential refuse are infinitely strange.
    """

    factor: float
    tolerance: float
    widest: float

    def look(self, model: Any, structures: Any, prediction: Prediction | None = None) -> Look:
        """Verdict on each structure; a ``prediction`` of them, where there is one, saves the work."""
        batch = Structures.coerce(structures)
        prediction = prediction or model.predict(batch)
        spread = prediction.forces.variance.sum(1).sqrt().double()
        deviation = spread.new_zeros(len(batch)).scatter_reduce(0, batch.structure_index, spread, "amax")
        bound = max(0.0, self.factor) * deviation
        strangeness = model.strangeness(batch, prediction).double()
        return Look((bound <= self.tolerance) & (strangeness <= self.widest), bound, deviation, strangeness)
