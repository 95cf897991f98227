"""Where the answer is known: eigenstates in closed form, determinants of Hartree–Fock, cusps and exchange."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesmol.report import Study
from bayesmol.wavefunctions.ansatz import Trial
from bayesmol.wavefunctions.evaluation import Evaluation
from bayesmol.wavefunctions.exact import ExactState, helium_without_repulsion, hookes_atom, hydrogen, screened_helium
from bayesmol.wavefunctions.log_psi import LogPsi, determinant_sum
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.pauli_net import PauliNet
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.reference import Reference, hartree_fock
from bayesmol.wavefunctions.report import DISTANCES, cusp_slopes
from bayesmol.wavefunctions.starting import start

__all__ = ["STATES", "bare", "determinants", "exact", "limits"]

STATES = {
    "hydrogen": hydrogen,
    "hydrogen_like_z3": lambda: hydrogen(3),
    "helium_without_repulsion": helium_without_repulsion,
    "hookes_atom": hookes_atom,
    "screened_helium": screened_helium,
}
DETERMINANTS = ("He", "H2", "LiH")
LIMITS = "LiH"
WALKERS = 128
MOST = 20_000  # draws


def exact(study: Study, *, draws: int, only: Sequence[str] = (), seed: int = 0) -> None:
    """Variance and energy of states in closed form; the variance of an eigenstate is zero."""
    for name, make in STATES.items():
        if only and name not in only:
            continue
        state = make()
        with study.stage(name):
            energy = _sampled(state, draws, seed)
        study.expectations = {**study.expectations, f"variance_{name}": {"upper": 1e-10} if state.eigenstate else {}}
        study.add(f"variance_{name}", float(energy.variance.value), "Ha²")
        error = 1000 * (float(energy.estimate.value) - state.energy)
        study.add(f"energy_error_mha_{name}", error, "mHa", error=1000 * float(energy.estimate.standard_error))


def determinants(study: Study, *, draws: int, error: float | None, only: Sequence[str] = (), seed: int = 0) -> None:
    """The bare determinant of the fitted orbitals, sampled, beside the Hartree–Fock energy of PySCF, in its errors.

    Parameters
    ----------
    error
        Standard error in Ha to reach; the draws alone decide if it is ``None``.
    """
    for name in DETERMINANTS:
        if only and name not in only:
            continue
        molecule = Molecule.named(name)
        with study.stage(name):
            reference = hartree_fock(molecule)
            evaluation, places = Evaluation(bare(reference), molecule), start(molecule, WALKERS, seed=seed)
            energy = evaluation.energy((), places, draws, seed=seed + 1)
            if error is not None and (ratio := float(energy.estimate.standard_error) / error) > 1:
                energy = evaluation.energy((), places, min(int(draws * ratio**2), MOST), seed=seed + 2)
        figure = f"hartree_fock_z_{name}"
        study.expectations = {**study.expectations, figure: {"lower": -3.0, "upper": 3.0}}
        difference = float(energy.estimate.value) - reference.hartree_fock
        standard_error = float(energy.estimate.standard_error)
        study.add(f"hartree_fock_difference_mha_{name}", 1000 * difference, "mHa", error=1000 * standard_error)
        study.add(figure, difference / standard_error)
        study.notes += [f"{name}, {reference.method}: {energy}"]


def limits(study: Study, *, only: Sequence[str] = (), seed: int = 0) -> None:
    """Largest deviation of slopes at coalescence, and of the exchange of equal spins, of a random network."""
    if only and LIMITS not in only:
        return
    molecule = Molecule.named(LIMITS)
    with study.stage("limits"):
        trial = PauliNet(width=8, layers=1).build(molecule, seed=seed)
        parameters = _shaken(trial.parameters, seed)
        positions = np.asarray(start(molecule, 64, seed=seed))
        slopes = cusp_slopes(trial, parameters, positions)
        swapped = _exchange(trial, parameters, positions)
    study.expectations = {
        **study.expectations, "cusp_deviation": {"upper": 1e-3}, "exchange_deviation": {"upper": 1e-12}
    }  # fmt: skip
    # The slope at a distance r differs from its limit by a multiple of r: it is carried on to r = 0.
    ends = {name: 2 * slope[0] - np.interp(2e-3, DISTANCES, slope) for name, (slope, _) in slopes.items()}
    deviations = {name: abs(float(ends[name]) - limit) for name, (_, limit) in slopes.items()}
    study.add("cusp_deviation", max(deviations.values()), "1/bohr")
    study.add("exchange_deviation", swapped)
    study.notes += [f"slope at 0, {name}: off by {value:.1e} / bohr" for name, value in deviations.items()]


def bare(reference: Reference) -> Any:
    """The determinants of a reference as a trial function: no cusps between electrons, nothing to learn."""
    molecule, coefficients = reference.molecule, reference.coefficients

    def log_psi(parameters: Any, r: Any) -> LogPsi:
        values = jax.vmap(reference.orbitals)(r)
        up, down = values[: molecule.up], values[molecule.up :]
        matrices = (
            jnp.stack([part[:, row] for row in rows]) for part, rows in ((up, reference.up), (down, reference.down))
        )
        return determinant_sum(*matrices, jnp.asarray(coefficients))

    return log_psi


def _sampled(state: ExactState, draws: int, seed: int) -> Any:
    evaluation = Evaluation(state.log_psi, state.system)
    return evaluation.energy(state.parameters, start(state.system, WALKERS, seed=seed), draws, seed=seed + 1)


def _shaken(parameters: Any, seed: int) -> Any:
    """Parameters of a network that does something; the orbitals and widths of cusps stay near what they are."""
    source = np.random.default_rng(seed)
    with double():
        return jax.tree.map(lambda leaf: jnp.asarray(leaf + 0.05 * source.standard_normal(np.shape(leaf))), parameters)


def _exchange(trial: Trial, parameters: Any, positions: np.ndarray) -> float:
    """Largest |ψ(swapped)/ψ + 1| over configurations, of the first two electrons."""
    swapped = positions.copy()
    swapped[:, [0, 1]] = positions[:, [1, 0]]
    with double():
        evaluate = jax.jit(jax.vmap(trial.log_psi, (None, 0)))
        before, after = (evaluate(parameters, jnp.asarray(rows)) for rows in (positions, swapped))
        ratio = before.sign * after.sign * jnp.exp(after.log - before.log)
        return float(jnp.abs(ratio + 1).max())
