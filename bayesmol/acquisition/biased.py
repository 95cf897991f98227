"""Uncertainty-biased sampling: dynamics that are drawn to structures whose energy the potential does not know."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from bayesmol.data import Structures
from bayesmol.errors import DataError, expected
from bayesmol.posterior import Gaussian, Posterior, Prediction

__all__ = ["Biased", "strength"]


@dataclass(frozen=True, eq=False)
class Biased:
    r"""A potential less τ standard deviations of its energy: ``Biased(model, strength(model, structures))``.

    .. math:: E_\tau = E - \tau \sigma_E, \quad F_\tau = F + \tau \nabla \sigma_E

    Its dynamics conserve :math:`E_\tau`, and visit with the Boltzmann weight of :math:`E_\tau` what the potential
    would find improbable and is unsure of. Variances are those of the potential. There is no stress: the cell is fixed.

    Attributes
    ----------
    model
        Has ``predict(structures)`` and ``deviation_gradient(structures) -> (deviation, gradient)``.
    strength
        τ, without unit.

    References
    ----------
    van der Oord et al., npj Comput. Mater. 9, 168 (2023); Zaverkin et al., npj Comput. Mater. (2024),
    doi:10.1038/s41524-024-01254-1.
    """

    model: Any
    strength: float

    def __post_init__(self) -> None:
        if not 0 <= self.strength < float("inf"):
            raise DataError(expected("strength", "a finite number of at least 0", self.strength))
        if not hasattr(self.model, "deviation_gradient"):
            got = f"{type(self.model).__name__} without deviation_gradient"
            raise DataError(expected("model", "a potential whose deviation has a gradient", got))

    def predict(self, structures: Any) -> Prediction:
        """Prediction of the potential with the means of the biased energy and forces."""
        batch = Structures.coerce(structures)
        prediction = self.model.predict(batch)
        deviation, slope = self.model.deviation_gradient(batch)
        energy = _moved(prediction.energy, -self.strength * deviation)
        forces = _moved(prediction.forces, self.strength * slope)
        return replace(prediction, energy=energy, forces=forces, stress=None)

    def strangeness(self, structures: Any, prediction: Prediction | None = None) -> Float[Tensor, " structures"]:
        """Strangeness of structures to the potential."""
        return self.model.strangeness(structures, prediction)

    def calculator(self, **options: Any) -> Any:
        """ASE calculator of the biased potential; options as for that of the potential."""
        calculator = self.model.calculator(**options)
        calculator.model = self
        return calculator


def strength(model: Any, structures: Any, fraction: float = 0.25) -> float:
    """Strength at which the bias is a fraction of the force, in root mean square over some structures.

    Take structures like those at which the dynamics start: the bias grows where the deviation does.

    Raises
    ------
    DataError
        If the fraction is negative, or the deviation has no gradient on any of the structures.
    """
    if not 0 <= fraction < float("inf"):
        raise DataError(expected("fraction", "a finite number of at least 0", fraction))
    batch = Structures.coerce(structures)
    force = float(model.predict(batch).forces.mean.square().mean().sqrt())
    slope = float(model.deviation_gradient(batch)[1].square().mean().sqrt())
    if slope == 0:
        raise DataError(expected("structures", "some with an uncertain energy", "none", "give others"))
    return fraction * force / slope


def _moved(posterior: Posterior, by: Tensor) -> Gaussian:
    known = posterior.epistemic
    epistemic = None if known is None else known.variance
    mean = posterior.mean + by.to(posterior.mean)
    return Gaussian(mean, posterior.variance, unit=posterior.unit, epistemic_variance=epistemic)
