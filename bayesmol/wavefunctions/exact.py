"""Small systems whose wavefunctions are known in closed form, to test everything that computes with trial functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesmol.wavefunctions.local_energy import TrialFunction
from bayesmol.wavefunctions.log_psi import LogPsi

__all__ = [
    "ExactState",
    "ModelSystem",
    "helium_without_repulsion",
    "hookes_atom",
    "hydrogen",
    "hylleraas_helium",
    "screened_helium",
]


@dataclass(frozen=True)
class ModelSystem:
    r"""Electrons about one nucleus or in a trap, with or without their repulsion.

    Attributes
    ----------
    charge
        Z of the nucleus at the origin; 0 for none.
    frequency
        ω of the potential :math:`\frac12 \omega^2 r^2`, in Ha.
    up, down
        Numbers of electrons.
    repulsion
        Whether electrons repel each other.
    """

    charge: int = 0
    frequency: float = 0.0
    up: int = 1
    down: int = 1
    repulsion: bool = True
    nuclear_repulsion: float = 0.0

    @property
    def charges(self) -> np.ndarray:
        """The nucleus, if there is one."""
        return np.array([self.charge] * (self.charge > 0), dtype=int)

    @property
    def positions(self) -> Float[np.ndarray, "nuclei 3"]:
        """The origin, in bohr."""
        return np.zeros((len(self.charges), 3))

    @property
    def electrons(self) -> int:
        """Number of electrons."""
        return self.up + self.down

    def external(self, r: Float[Array, "electrons 3"]) -> Float[Array, ""]:
        """Energy in the trap, less the repulsion where there is none, in Ha."""
        energy = self.frequency**2 * jnp.sum(r**2) / 2
        if self.repulsion:
            return energy
        first, second = np.triu_indices(self.electrons, 1)
        return energy - jnp.sum(1 / jnp.linalg.norm(r[first] - r[second], axis=-1))


@dataclass(frozen=True)
class ExactState:
    """A system, a trial function of it without parameters, and its energy.

    Attributes
    ----------
    energy
        Mean of the local energy in Ha.
    eigenstate
        Whether the local energy is this number everywhere.
    """

    system: ModelSystem
    log_psi: TrialFunction
    energy: float
    eigenstate: bool = True
    parameters: Any = ()


def hydrogen(charge: int = 1) -> ExactState:
    r"""One electron, :math:`\psi = e^{-Zr}`, :math:`E = -Z^2/2`."""
    return ExactState(ModelSystem(charge=charge, down=0), _product(charge), -(charge**2) / 2)


def helium_without_repulsion() -> ExactState:
    r"""Two electrons that do not repel each other, :math:`\psi = e^{-2 r_1 - 2 r_2}`, E = −4."""
    return ExactState(ModelSystem(charge=2, repulsion=False), _product(2.0), -4.0)


def screened_helium() -> ExactState:
    r"""Helium with :math:`\psi = e^{-\zeta (r_1 + r_2)}`, :math:`\zeta = 27/16`, whose mean energy is :math:`-\zeta^2`.

    No eigenstate: a test of sampling, not only of derivatives.
    """
    return ExactState(ModelSystem(charge=2), _product(27 / 16), -((27 / 16) ** 2), eigenstate=False)


def hylleraas_helium() -> ExactState:
    r"""Helium with :math:`\psi = e^{-\zeta s} (1 + c_1 u + c_2 t^2)`, the energy −2.902432 Ha.

    :math:`s = r_1 + r_2`, :math:`t = r_1 - r_2`, :math:`u = r_{12}`; the three parameters are those of least energy, so
    1.3 mHa above the exact one.

    References
    ----------
    Hylleraas, Z. Phys. 54, 347 (1929).
    """
    exponent, linear, square = 1.8160677, 0.29178579, 0.13081481

    def log_psi(parameters: Any, r: Array) -> LogPsi:
        away = jnp.linalg.norm(r, axis=-1)
        factor = 1 + linear * jnp.linalg.norm(r[0] - r[1]) + square * (away[0] - away[1]) ** 2
        return LogPsi(jnp.ones(()), jnp.log(factor) - exponent * jnp.sum(away))

    return ExactState(ModelSystem(charge=2), log_psi, -2.902432028988, eigenstate=False)


def hookes_atom() -> ExactState:
    r"""Two electrons in a trap of ω = ½: :math:`\psi = (1 + r_{12}/2)\, e^{-(r_1^2 + r_2^2)/4}`, E = 2.

    References
    ----------
    Taut, Phys. Rev. A 48, 3561 (1993).
    """

    def log_psi(parameters: Any, r: Array) -> LogPsi:
        apart = jnp.linalg.norm(r[0] - r[1])
        return LogPsi(jnp.ones(()), jnp.log1p(apart / 2) - jnp.sum(r**2) / 4)

    return ExactState(ModelSystem(frequency=0.5), log_psi, 2.0)


def _product(exponent: float) -> Callable[[Any, Array], LogPsi]:
    def log_psi(parameters: Any, r: Array) -> LogPsi:
        return LogPsi(jnp.ones(()), -exponent * jnp.sum(jnp.linalg.norm(r, axis=-1)))

    return log_psi
