"""What a page says of a wavefunction: its energy beside known ones, extrapolated energies, cusps, and all plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from bayesmol.wavefunctions import plots
from bayesmol.wavefunctions.ansatz import Trial
from bayesmol.wavefunctions.energy import Energy
from bayesmol.wavefunctions.exact_energies import ExactEnergy, known_energy
from bayesmol.wavefunctions.extrapolation import Extrapolated, ZeroVarianceExtrapolation
from bayesmol.wavefunctions.fitted import FittedWavefunction
from bayesmol.wavefunctions.precision import double

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DISTANCES", "Judged", "cusp_slopes", "snapshot_energies"]

_CONFIGURATIONS = 64
DISTANCES = np.geomspace(1e-3, 0.5, 24)


@dataclass(frozen=True, eq=False)
class Judged:
    """A wavefunction, its evaluated energy, and what is known of the molecule from elsewhere.

    Attributes
    ----------
    snapshots
        Energies of earlier parameters of the training, for the extrapolation; none without one.
    reference
        Energy to compare with, in place of the listed one of the molecule.
    """

    wavefunction: FittedWavefunction
    energy: Energy
    snapshots: Sequence[Energy] = ()
    reference: ExactEnergy | None = None

    @cached_property
    def known(self) -> ExactEnergy | None:
        """Exact energy of the molecule, if it is given or listed."""
        return self.reference or known_energy(self.wavefunction.molecule)

    @property
    def hartree_fock(self) -> float | None:
        """Hartree–Fock energy in Ha, in a complete basis where that is listed, else in that of the orbitals."""
        if self.known is not None and self.known.hartree_fock is not None:
            return self.known.hartree_fock
        reference = self.wavefunction.trial.reference
        return None if reference is None else reference.hartree_fock

    @property
    def correlation(self) -> tuple[float, float] | None:
        """Share of the correlation energy that is recovered, with its standard error; ``None`` if it is not known."""
        if self.known is None or self.hartree_fock is None or self.energy.verdict == "refused":
            return None
        whole = self.hartree_fock - self.known.energy
        if not whole > 1e-4:
            return None
        found = self.energy.estimate
        share, error = (self.hartree_fock - float(found.value)) / whole, float(found.standard_error)
        return share, float(np.hypot(error, self.known.uncertainty * share)) / whole

    @property
    def below_bound(self) -> bool:
        """Whether the energy is lower than the exact one by more than 3 standard errors, which it cannot be."""
        if self.known is None or self.energy.verdict == "refused":
            return False
        error = float(np.hypot(float(self.energy.estimate.standard_error), self.known.uncertainty))
        return float(self.energy.estimate.value) < self.known.energy - 3 * error - 1e-6

    @cached_property
    def extrapolated(self) -> Extrapolated:
        """Energy at variance zero; refused where the energy itself is."""
        every = [] if self.energy.verdict == "refused" else [*self.snapshots, self.energy]
        return ZeroVarianceExtrapolation().of(every, runs=torch.zeros(len(every), dtype=torch.long))

    @property
    def lines(self) -> dict[str, float]:
        """Energies to draw beside, in Ha."""
        lines = {} if self.hartree_fock is None else {"Hartree–Fock": self.hartree_fock}
        return lines if self.known is None else lines | {"exact": self.known.energy}

    def plots(self, *, seed: int) -> list[tuple[str, Figure]]:
        """All plots with their captions."""
        return [(_CAPTIONS[name], figure) for name, figure in self.figures(seed=seed)]

    def figures(self, *, seed: int) -> list[tuple[str, Figure]]:
        """All plots with their names."""
        history, molecule = self.wavefunction.trained.history, self.wavefunction.molecule
        exact = {name: value for name, value in self.lines.items() if name == "exact"}
        positions = self.wavefunction.sample(100, seed=seed).values.flatten(0, 1).numpy()
        slopes = cusp_slopes(self.wavefunction.trial, self.wavefunction.parameters, positions)
        made = {
            "training": plots.training(history.energy, history.variance, seconds=history.seconds, lines=self.lines),
            "histogram": plots.histogram(self.energy, lines=self.lines),
            "densities": plots.densities(positions, molecule.positions, molecule.up, symbols=molecule.symbols),
            "cusps": plots.cusps(DISTANCES, slopes),
            "autocorrelation": plots.autocorrelation(self.energy),
        }
        if self.energy.verdict != "refused":
            made["extrapolation"] = plots.extrapolation(self.extrapolated, lines=exact)
        return list(made.items())


_CAPTIONS = {
    "training": "Training: energy and variance of changing parameters. No result is taken from these energies.",
    "histogram": "Local energies at fixed parameters. A tail steeper than the dashed line has a finite variance.",
    "extrapolation": "Energy against variance at earlier parameters and the last: an eigenstate has variance zero.",
    "densities": "Where the electrons are: around the nuclei, and around each other.",
    "cusps": "Slope of ln|ψ| where two particles meet, averaged over opposite directions (median over configurations).",
    "autocorrelation": "How long the walkers remember, and the standard error of the energy estimated in three ways.",
}


def snapshot_energies(
    wavefunction: FittedWavefunction, *, draws: int, seed: int, walkers: Float[np.ndarray, "walkers electrons 3"]
) -> list[Energy]:
    """Energies at the parameters that were kept during training, each from walks of its own from ``walkers``."""
    evaluation, tree = wavefunction.evaluation, wavefunction.parameters
    with double():
        restore = ravel_pytree(jax.tree.map(jnp.asarray, tree))[1]
        parameters = [restore(jnp.asarray(vector)) for vector in wavefunction.trained.snapshots]
    return [evaluation.energy(one, walkers, draws, seed=seed + k) for k, one in enumerate(parameters)]


def cusp_slopes(
    trial: Trial, parameters: Any, positions: Float[np.ndarray, "configurations electrons 3"]
) -> dict[str, tuple[Float[np.ndarray, " points"], float]]:
    r"""Slope of :math:`\ln|\psi|` at the distances of the plot and its exact limit, for each kind of pair there is.

    One electron is moved through a nucleus, or two through each other about their middle; half the difference of the
    slopes at :math:`\pm r` has the limit −Z, ½ (different spins) or, without the :math:`1/r` of the node, ¼ (the same
    spin).
    """
    molecule = trial.molecule
    rows = np.asarray(positions)[np.linspace(0, len(positions) - 1, _CONFIGURATIONS).astype(int)]
    found: dict[str, Any] = {}
    for symbol in dict.fromkeys(molecule.symbols):
        place = molecule.symbols.index(symbol)
        moved, weight = rows.copy(), np.zeros(molecule.electrons)
        moved[:, 0], weight[0] = molecule.positions[place], 1.0
        found[f"electron and {symbol}"] = (
            _slopes(trial, parameters, moved, weight, 0.0),
            -float(molecule.charges[place]),
        )
    pairs = {"different spins": (0, molecule.up, 0.5, 0.0), "same spin": (0, 1, 0.25, 1.0)}
    for name, (i, j, limit, node) in pairs.items():
        if (molecule.down if node == 0 else molecule.up - 1) > 0:
            moved, weight = rows.copy(), np.zeros(molecule.electrons)
            moved[:, j], weight[[i, j]] = rows[:, i], [0.5, -0.5]
            found[f"electrons of {name}"] = _slopes(trial, parameters, moved, weight, node), limit
    return found


def _slopes(trial: Trial, parameters: Any, rows: np.ndarray, weight: np.ndarray, node: float) -> np.ndarray:
    """Median over the configurations of the mean slope along ± a random direction, less ``node`` / distance."""
    axis = np.random.default_rng(0).standard_normal((len(rows), 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)

    def along(t: Any, row: Any, direction: Any) -> Any:
        return trial.log_psi(parameters, row + t * weight[:, None] * direction).log

    with double():
        slope = jax.vmap(jax.vmap(jax.grad(along), (0, None, None)), (None, 0, 0))
        ends = jnp.asarray(np.concatenate([DISTANCES, -DISTANCES]))
        values = np.asarray(jax.jit(slope)(ends, jnp.asarray(rows), jnp.asarray(axis)))
    forth, back = values[:, : len(DISTANCES)], values[:, len(DISTANCES) :]
    return np.median((forth - back) / 2, 0) - node / DISTANCES
