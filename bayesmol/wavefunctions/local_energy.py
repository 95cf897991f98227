"""The local energy of a trial function, its two estimators of the kinetic energy, and a check of the derivatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesmol.errors import ConvergenceError, expected
from bayesmol.wavefunctions.batches import batched, laplacian_chunk
from bayesmol.wavefunctions.compilation import shared
from bayesmol.wavefunctions.log_psi import LogPsi
from bayesmol.wavefunctions.precision import double

__all__ = ["LocalEnergy", "Nuclei", "System", "checked", "kinetic", "local_energies", "potential"]

TrialFunction = Callable[[Any, Array], LogPsi]
_STEP, _PATTERN = 1e-4, np.array([1.0, -8, 8, -1]) / 12  # bohr; five-point formula at −2, −1, 1, 2 steps


@runtime_checkable
class System(Protocol):
    """What a Hamiltonian must say of itself; a :class:`Molecule` does.

    One that also has a method ``external(r)`` (in Ha, of one configuration) gets this added to its potential.
    """

    def __hash__(self) -> int: ...

    @property
    def charges(self) -> np.ndarray: ...

    @property
    def positions(self) -> np.ndarray: ...

    @property
    def nuclear_repulsion(self) -> float: ...

    @property
    def up(self) -> int: ...

    @property
    def down(self) -> int: ...


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["positions", "nuclear_repulsion"],
    meta_fields=["numbers", "up", "down"],
)
@dataclass(frozen=True, eq=False)
class Nuclei:
    """A molecule as compiled functions take it: positions (bohr) and repulsion (Ha) are arrays of a tree."""

    positions: Any
    nuclear_repulsion: Any
    numbers: tuple[float, ...]
    up: int
    down: int

    @classmethod
    def of(cls, system: System) -> System:
        """The nuclei of a system, or itself where it has more."""
        if hasattr(system, "external"):
            return system
        numbers = tuple(np.asarray(system.charges).tolist())
        return cls(np.asarray(system.positions), np.asarray(system.nuclear_repulsion), numbers, system.up, system.down)

    @property
    def charges(self) -> np.ndarray:
        """Of the nuclei, in elementary charges."""
        return np.array(self.numbers)


class LocalEnergy(NamedTuple):
    r"""Local energies of walkers and their parts, all in Ha.

    Attributes
    ----------
    total
        :math:`E_L = 2 T_P - T_F + V`.
    kinetic_laplacian, kinetic_gradient
        :math:`T_P` and :math:`T_F`, whose means under :math:`\psi^2` are equal: a test of everything before them.
    potential
        V.
    """

    total: Float[Array, " walkers"]
    kinetic_laplacian: Float[Array, " walkers"]
    kinetic_gradient: Float[Array, " walkers"]
    potential: Float[Array, " walkers"]


def potential(molecule: System, r: Float[Array, "electrons 3"]) -> Float[Array, ""]:
    r"""Coulomb energy :math:`-\sum_{ia} Z_a / r_{ia} + \sum_{i<j} 1 / r_{ij} + V_{nn}` in Ha, r in bohr."""
    away = jnp.linalg.norm(r[:, None] - jnp.asarray(molecule.positions), axis=-1)
    total = molecule.nuclear_repulsion - jnp.sum(jnp.asarray(molecule.charges, away.dtype) / away)
    first, second = np.triu_indices(len(r), 1)
    total += jnp.sum(1 / jnp.linalg.norm(r[first] - r[second], axis=-1))
    external = getattr(molecule, "external", None)
    return total if external is None else total + external(r)


def kinetic(
    log_psi: TrialFunction, parameters: Any, r: Float[Array, "electrons 3"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Estimators :math:`T_P = -\frac14 \nabla^2 \ln|\psi|` and :math:`T_F = \frac12 |\nabla \ln|\psi||^2` in Ha.

    Value, gradient and Laplacian go forward through the function together (Li et al.), which takes half the time of
    derivatives of the gradient along each coordinate.

    References
    ----------
    Ceperley, Chester, Kalos, Phys. Rev. B 16, 3081 (1977); Li et al., Nat. Mach. Intell. 6, 209 (2024), by folx.
    """
    from folx import forward_laplacian

    found = forward_laplacian(lambda x: log_psi(parameters, x.reshape(r.shape)).log, sparsity_threshold=0)(r.ravel())
    return -found.laplacian / 4, jnp.sum(found.jacobian.dense_array**2) / 2


def local_energies(
    log_psi: TrialFunction, molecule: System, *, chunk: int | None = None
) -> Callable[[Any, Float[Array, "walkers electrons 3"]], LocalEnergy]:
    """Function of parameters and walkers that gives their local energies; compile it with ``jax.jit``.

    Parameters
    ----------
    chunk
        Walkers at once, as in :func:`~bayesmol.wavefunctions.batches.batched`; fewer the more electrons there are.
    """

    def single(parameters: Any, r: Array) -> LocalEnergy:
        laplacian, gradient = kinetic(log_psi, parameters, r)
        energy = potential(molecule, r)
        return LocalEnergy(2 * laplacian - gradient + energy, laplacian, gradient, energy)

    return batched(single, chunk=laplacian_chunk(molecule.up + molecule.down) if chunk is None else chunk)


def checked(
    energies: Callable[[Any, Array], LocalEnergy],
    log_psi: TrialFunction,
    parameters: Any,
    walkers: Float[Array | np.ndarray, "walkers electrons 3"],
    *,
    walkers_checked: int = 16,
    tolerance: float = 1e-4,
) -> None:
    """Raise if the kinetic energies of a batch are not those of finite differences, walker by walker.

    T_P is compared with differences of the gradient and T_F with those of ln|ψ|, so that a wrong rule of
    differentiation is found as well as a wrong batch.

    The whole batch is evaluated; of it, walkers at equal distances from the first to the last are compared, because
    errors of a batch have been seen beyond a certain row only.

    Parameters
    ----------
    tolerance
        Of the kinetic energies, relative to their size (at least 1 Ha).

    Raises
    ------
    ConvergenceError
        If a kinetic energy of the batch is wrong.
    """
    with double():
        walkers = jnp.asarray(walkers)
        rows = np.unique(np.linspace(0, len(walkers) - 1, walkers_checked).astype(int))
        found = jax.tree.map(np.asarray, energies(parameters, walkers))
        wanted = shared(_by_differences, log_psi)
        for row in rows:
            laplacian, gradient = (float(part) for part in wanted(parameters, walkers[row].astype(jnp.float64)))
            got = (float(found.kinetic_laplacian[row]), float(found.kinetic_gradient[row]))
            size = max(1.0, abs(laplacian), gradient)
            if not np.allclose(got, (laplacian, gradient), rtol=0, atol=tolerance * size):
                raise ConvergenceError(
                    expected(
                        f"T_P, T_F of walker {row} of {len(walkers)}",
                        f"{laplacian:.6g}, {gradient:.6g} Ha by finite differences",
                        f"{got[0]:.6g}, {got[1]:.6g} Ha",
                        "a derivative of log_psi is wrong, by its own rule or in a batch this large: "
                        "use 64 bits and a smaller chunk",
                    )
                )


def _by_differences(log_psi: TrialFunction, parameters: Any, r: Array) -> tuple[Array, Array]:
    """T_P from five-point differences of the gradient of one walker, T_F from those of ln|ψ|."""
    flat, unit = r.ravel(), jnp.eye(r.size, dtype=r.dtype)
    value = jax.value_and_grad(lambda x: log_psi(parameters, x.reshape(r.shape)).log)

    def derivatives(i: Array) -> tuple[Array, Array]:
        values, slopes = jax.lax.map(lambda step: value(flat + step * unit[i]), _STEP * np.array([-2.0, -1, 1, 2]))
        return _PATTERN @ values / _STEP, _PATTERN @ slopes[:, i] / _STEP

    slope, second = jax.lax.map(derivatives, jnp.arange(r.size))
    return -jnp.sum(second) / 4, jnp.sum(slope**2) / 2
