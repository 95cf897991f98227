"""What a trained wavefunction teaches the wavefunction of a neighbouring geometry."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesmol.wavefunctions.orbital_network import OrbitalNetwork
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.space_warp import SpaceWarp

if TYPE_CHECKING:
    from bayesmol.wavefunctions.ansatz import Trial

__all__ = ["warm_start"]

_ALIKE = 0.8  # cosine of two orbitals at the walkers, below which they are not the same one
_POINTS = 2000
_DETERMINANTS = ("mixing", "coefficients", "backflow")


def warm_start(
    trial: Trial, neighbour: Trial, parameters: Any, walkers: Float[Array | np.ndarray, "walkers electrons 3"]
) -> Trial:
    r"""``trial`` with the ``parameters`` of a neighbouring geometry as far as they mean the same there.

    Weights of the network act on distances and have the same meaning at every geometry. Orbitals have not: quantum
    chemistry gives them in any order and with any sign. At points x where the ``walkers`` of the neighbour are,
    carried to the new geometry by the :class:`~bayesmol.wavefunctions.space_warp.SpaceWarp` T, each old orbital is
    paired with the new one :math:`\phi'(Tx)` that is most like it, up to a sign, and this takes its place in the
    determinants and in their backflow; of their coefficients the change in training is carried. (An expansion of the
    old orbitals in the few new ones would keep the errors of the old geometry: H2 started 70 mHa higher at 1.1 bohr.)
    Where a pair is not alike (a crossing of levels, another active space, a degenerate pair that was turned),
    determinants start from the new orbitals, and only the network is carried. Learned orbitals are carried as they are.
    Parameters of another shape, of another ansatz or number of electrons, are not carried at all.
    """
    old, new = neighbour.log_psi, trial.log_psi
    if not (isinstance(old, OrbitalNetwork) and isinstance(new, OrbitalNetwork)) or old.up != new.up:
        return trial
    if jax.tree.leaves(trial.parameters["basis"]):
        return replace(trial, parameters=parameters) if _alike(parameters, trial.parameters) else trial
    network = {name: part for name, part in parameters.items() if name not in _DETERMINANTS}
    if not _alike(network, {name: trial.parameters.get(name) for name in network}):
        return trial
    with double():
        determinants = _carried(trial, neighbour, parameters, np.asarray(walkers))
    return replace(trial, parameters={**trial.parameters, **network, **determinants})


def _alike(one: Any, other: Any) -> bool:
    """Whether two trees have the same arrays but for their values."""
    leaves, others = jax.tree.leaves(one), jax.tree.leaves(other)
    trees: list[Any] = [jax.tree.structure(one), jax.tree.structure(other)]
    return trees[0] == trees[1] and all(np.shape(a) == np.shape(b) for a, b in zip(leaves, others, strict=True))


def _carried(trial: Trial, neighbour: Trial, parameters: Any, walkers: np.ndarray) -> dict[str, Any]:
    """Mixing, coefficients and backflow in the new orbitals; nothing if these cannot express the old ones."""
    source, target = neighbour.molecule, trial.molecule
    old, new = neighbour.log_psi, trial.log_psi
    assert isinstance(old, OrbitalNetwork) and isinstance(new, OrbitalNetwork), "see warm_start"
    if not np.array_equal(source.charges, target.charges) or ("backflow" in parameters) != new.backflow:
        return {}
    points = walkers.reshape(-1, 1, 3)[:_POINTS]
    warped, _ = SpaceWarp(source.positions, target.positions).forward(points)
    before = np.asarray(old.basis(parameters["basis"], jnp.asarray(points[:, 0])))
    after = np.asarray(new.basis(trial.parameters["basis"], jnp.asarray(warped[:, 0])))
    change = _paired(before, after)
    if change is None:
        return {}
    mixing = [jnp.einsum("vw,pwm->pvm", change, one) for one in parameters["mixing"]]
    found = {"mixing": mixing, "coefficients": _coefficients(trial, neighbour, parameters, change)}
    if new.backflow:
        out = [jnp.einsum("vw,kpwm->kpvm", change, one) for one in parameters["backflow"]["out"]]
        found["backflow"] = {"in": parameters["backflow"]["in"], "out": out}
    return found


def _coefficients(trial: Trial, neighbour: Trial, parameters: Any, change: np.ndarray) -> Any:
    """Those of the new reference and what was learned, where its determinants are the same; else the old ones."""
    same, sign = True, 1.0
    for old, new in zip(neighbour.parameters["mixing"], trial.parameters["mixing"], strict=True):
        moved = np.einsum("vw,pwm->pvm", change, np.asarray(old))
        same = same and np.array_equal(np.abs(moved), np.asarray(new))
        sign = sign * moved.sum(1).prod(-1)
    learned = np.asarray(parameters["coefficients"])
    if not same:
        return learned
    before, after = (np.asarray(one.parameters["coefficients"]) for one in (neighbour, trial))
    return sign * after + learned - before


def _paired(
    before: Float[np.ndarray, "points functions"], after: Float[np.ndarray, "points functions"]
) -> Float[np.ndarray, "functions functions"] | None:
    """Signed permutation that takes old orbitals to new ones; ``None`` if one has no likeness."""
    from scipy.optimize import linear_sum_assignment

    overlap = (after / np.linalg.norm(after, axis=0)).T @ (before / np.linalg.norm(before, axis=0))
    new, old = linear_sum_assignment(-np.abs(overlap))
    alike = overlap[new, old]
    if np.abs(alike).min(initial=1.0) < _ALIKE:
        return None
    change = np.zeros_like(overlap)
    change[new, old] = np.sign(alike)
    return change
