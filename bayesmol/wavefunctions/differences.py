"""Energy differences between two wavefunctions or geometries, from walkers of both whose noise cancels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.inference.bridge import free_energy_difference
from bayesmol.inference.random import integer_seed
from bayesmol.posterior import Estimate
from bayesmol.wavefunctions.batches import batched
from bayesmol.wavefunctions.compilation import shared
from bayesmol.wavefunctions.energy import Energy
from bayesmol.wavefunctions.energy_checks import tail_index
from bayesmol.wavefunctions.energy_errors import error_estimates
from bayesmol.wavefunctions.local_energy import Nuclei, System, TrialFunction, local_energies
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.space_warp import SpaceWarp

if TYPE_CHECKING:
    from bayesmol.wavefunctions.fitted import FittedWavefunction

__all__ = ["EnergyDifference", "Sampled", "difference_of_samples", "energy_difference"]

_TAIL = 0.7
_WALKERS = 128


class Sampled(NamedTuple):
    """A wavefunction and walkers that sampled it.

    Attributes
    ----------
    r
        Configurations in bohr.
    energy
        Of these walkers, with their log-densities.
    """

    log_psi: TrialFunction
    parameters: Any
    system: System
    r: Float[np.ndarray, "walkers draws electrons 3"]
    energy: Energy


@dataclass(frozen=True)
class EnergyDifference:
    """Energy of the second wavefunction minus that of the first.

    Attributes
    ----------
    estimate
        In Ha; its error is infinite if it is refused.
    independent
        The plain difference of the two energies, errors in quadrature.
    method
        Which one ``estimate`` is: ``"correlated"``, ``"independent"``, or ``"refused"``.
    overlap
        :math:`4 \\langle p (1 - p) \\rangle` over the walkers, p the probability that a walker belongs to the second:
        1 for equal densities, 0 for densities without overlap.
    pareto_k
        Tail index of the summands of the correlated estimate.
    reason
        Why it is not the correlated one; empty if it is.
    """

    estimate: Estimate
    independent: Estimate
    method: Literal["correlated", "independent", "refused"]
    overlap: float
    pareto_k: float
    reason: str = ""

    @property
    def gain(self) -> float:
        """By what factor the error is smaller than that of independent runs."""
        return (
            float(self.independent.standard_error / self.estimate.standard_error) if self.method != "refused" else 0.0
        )

    @property
    def guarantee(self) -> str:
        """The sentence that holds for the error."""
        if self.method == "refused":
            return f"none: {self.reason}"
        return (
            "sampling error of the difference of two fixed wavefunctions, asymptotic in the number of walkers; the "
            "errors of the wavefunctions themselves cancel in part or not, and no bound holds for a difference"
        )

    def __str__(self) -> str:
        if self.method == "refused":
            return f"refused: {self.reason}"
        return f"{self.estimate} ({self.method}{': ' + self.reason if self.reason else ''})"


def energy_difference(
    first: FittedWavefunction,
    second: FittedWavefunction,
    draws: int = 1000,
    *,
    seed: int | torch.Generator,
) -> EnergyDifference:
    """Energy of the second wavefunction minus that of the first, in Ha, by correlated sampling where that is better.

    See :func:`difference_of_samples`. Either is sampled by its own walkers.

    Parameters
    ----------
    draws
        Of each walker, of which there are at most 128 for each wavefunction.

    Raises
    ------
    DataError
        If the two have not the same numbers of electrons.
    """
    _check_electrons(first.molecule, second.molecule)
    seeds = np.random.SeedSequence(integer_seed(seed)).generate_state(2)
    sides = [_sampled(one, draws, int(each)) for one, each in zip((first, second), seeds, strict=True)]
    return difference_of_samples(*sides)


def difference_of_samples(first: Sampled, second: Sampled) -> EnergyDifference:
    r"""Energy difference from walkers of both wavefunctions, each used for both energies.

    The walkers of both sides are one sample of a mixture of :math:`|\psi_A|^2` and :math:`|\psi_B|^2`, the latter
    carried to the geometry of A by the :class:`~bayesmol.wavefunctions.space_warp.SpaceWarp` T with volume J:

    .. math:: p = \frac{n_B J |\psi_B(Tr)|^2 / Z_B}{n_A |\psi_A(r)|^2 / Z_A + n_B J |\psi_B(Tr)|^2 / Z_B}, \qquad
        \Delta E = \frac{\sum p\, E_B(Tr)}{\sum p} - \frac{\sum (1 - p)\, E_A(r)}{\sum (1 - p)},

    with :math:`Z_B / Z_A` from Bennett's equation. For equal wavefunctions the terms cancel walker by walker, without
    overlap they are the independent means. Weights are bounded; those of the usual one-sided reweighting are not:
    at a node of A that is none of B they grow as :math:`1/d^2`, which is a tail with k = 2/3 and no variance.

    The error is that of the linearised estimate, :math:`Z_B/Z_A` included, the largest of three for the walkers of
    either side (:func:`~bayesmol.wavefunctions.energy_errors.error_estimates`), in quadrature.

    It falls back to the difference of the two energies, and says so, if the densities hardly overlap, a summand has a
    tail with k > 0.7, or the error is not smaller. It is refused if one of the two energies is.

    Raises
    ------
    DataError
        If the two have not the same numbers of electrons, or a log-density was not kept.

    References
    ----------
    Bennett, J. Comput. Phys. 22, 245 (1976); Shirts, Chodera, J. Chem. Phys. 129, 124105 (2008), equations 8-11;
    Filippi, Umrigar, Phys. Rev. B 61, R16291 (2000) (correlated sampling of geometries).
    """
    _check_electrons(first.system, second.system)
    independent = _independent(first.energy, second.energy)
    if not math.isfinite(float(independent.standard_error)):
        named = zip(("first", "second"), (first.energy, second.energy), strict=True)
        reason = "; ".join(f"{name}: {'; '.join(one.reasons)}" for name, one in named if one.verdict == "refused")
        return EnergyDifference(independent, independent, "refused", math.nan, math.nan, reason)
    shared = _shared(first, second)
    try:
        estimate, overlap, k = _correlated(*shared)
    except ConvergenceError as error:
        return EnergyDifference(independent, independent, "independent", 0.0, math.nan, str(error))
    reason = ""
    if k > _TAIL:
        reason = f"heavy tail of the summands: Pareto k {k:.2f} > {_TAIL}"
    elif estimate.standard_error >= independent.standard_error:
        reason = f"correlated sampling is no better at an overlap of {overlap:.2g}"
    chosen = independent if reason else estimate
    return EnergyDifference(chosen, independent, "independent" if reason else "correlated", overlap, k, reason)


class _Walkers(NamedTuple):
    """Both log-densities (in the frame of A, up to constants) and both local energies at the walkers of one side."""

    log_first: Float[Tensor, "walkers draws"]
    log_second: Float[Tensor, "walkers draws"]
    first: Float[Tensor, "walkers draws"]
    second: Float[Tensor, "walkers draws"]


def _shared(first: Sampled, second: Sampled) -> tuple[_Walkers, _Walkers]:
    warp = _warp(first.system, second.system)
    back, volume, found = warp.inverse(second.r)
    if not found:  # a displacement that folds space: compare the configurations as they are
        warp = SpaceWarp(first.system.positions, first.system.positions)
        back, volume, _ = warp.inverse(second.r)
    energy_a, log_a = _looked(first, back)
    carried, other_volume = warp.forward(first.r)
    energy_b, log_b = _looked(second, carried)
    mine = _Walkers(_density(first), log_b + torch.from_numpy(other_volume), first.energy.local, energy_b)
    theirs = _Walkers(log_a, _density(second) + torch.from_numpy(volume), energy_a, second.energy.local)
    return mine, theirs


def _density(side: Sampled) -> Float[Tensor, "walkers draws"]:
    if side.energy.log_density is None:
        raise DataError(expected("energy", "the log-densities of its walkers", "none"))
    return side.energy.log_density


def _warp(first: System, second: System) -> SpaceWarp:
    same = np.array_equal(first.charges, second.charges)
    return SpaceWarp(first.positions, second.positions if same else first.positions)


def _correlated(mine: _Walkers, theirs: _Walkers) -> tuple[Estimate, float, float]:
    """Estimate, overlap and tail index."""
    sides = (mine, theirs)
    logs = [side.log_second - side.log_first for side in sides]
    ratio = free_energy_difference(-logs[0].flatten(), logs[1].flatten()).value
    counts = [side.first.numel() for side in sides]
    share = [torch.sigmoid(log + ratio + math.log(counts[1] / counts[0])) for log in logs]
    means = [_weighted(sides, [1 - p for p in share], 0), _weighted(sides, share, 1)]
    # Of the linearised estimate, Σ z; without weight an energy does not count, not even an infinite one.
    terms = [
        (_times(p, side.second - means[1]) / counts[1], _times(1 - p, side.first - means[0]) / counts[0])
        for p, side in zip(share, sides, strict=True)
    ]
    common = sum(float((p * (1 - p)).sum()) for p in share)
    slope = sum(float(((1 - p) * up + p * down).sum()) for p, (up, down) in zip(share, terms, strict=True)) / common
    z = [up - down - slope * p for p, (up, down) in zip(share, terms, strict=True)]
    rounding = 8 * torch.finfo(torch.float64).eps * max(map(abs, map(float, means)))
    k = max(tail_index(part)[0] if float(part.std()) * sum(counts) > rounding else -math.inf for part in z)
    return _summed(means[1] - means[0], z, rounding), 4 * common / sum(counts), k


def _summed(value: Tensor, z: list[Tensor], rounding: float) -> Estimate:
    """Estimate whose deviation is the sum of all z."""
    error = max(math.hypot(*(error_estimates(part).largest.value * part.numel() for part in z)), rounding)
    variance, count = sum(float(part.var()) * part.numel() for part in z), sum(part.numel() for part in z)
    effective = count * min(variance / error**2, 1.0)
    return Estimate(value, value.new_tensor(error), value.new_tensor(effective), "Ha")


def _times(weight: Tensor, energy: Tensor) -> Tensor:
    return torch.where(weight > 0, weight * energy, 0.0)


def _weighted(sides: tuple[_Walkers, _Walkers], weights: list[Tensor], which: int) -> Float[Tensor, ""]:
    energies = [(side.first, side.second)[which] for side in sides]
    total = reduce(torch.add, [_times(w, e).sum() for w, e in zip(weights, energies, strict=True)])
    return total / reduce(torch.add, [w.sum() for w in weights])


def _independent(first: Energy, second: Energy) -> Estimate:
    a, b = first.estimate, second.estimate
    error = torch.hypot(a.standard_error, b.standard_error)
    return Estimate(b.value - a.value, error, torch.minimum(a.effective_sample_size, b.effective_sample_size), "Ha")


def _sampled(wavefunction: FittedWavefunction, draws: int, seed: int) -> Sampled:
    evaluation, places = wavefunction.evaluation, np.asarray(wavefunction.trained.walkers)[:_WALKERS]
    parts = list(evaluation.blocks(wavefunction.parameters, places, draws, seed=seed))
    energies, log, r = jax.tree.map(
        lambda *arrays: np.swapaxes(np.concatenate(arrays)[:draws], 0, 1), *[(p.energy, p.log, p.r) for p in parts]
    )
    acceptance = float(np.mean([part.acceptance.mean() for part in parts]))
    energy = Energy.of(*energies, log_density=2 * log, acceptance=acceptance, steps=evaluation.moves)
    return Sampled(wavefunction.trial.log_psi, wavefunction.parameters, wavefunction.molecule, r, energy)


def _looked(side: Sampled, r: Float[np.ndarray, "walkers draws electrons 3"]) -> tuple[Tensor, Tensor]:
    """Local energies and log-densities of a wavefunction at walkers of the other."""
    with double():
        flat = jnp.asarray(r).reshape(-1, *r.shape[2:])
        found = shared(_look, side.log_psi, Nuclei.of(side.system))(side.parameters, flat)
        energy, log = (torch.from_numpy(np.array(part)).reshape(r.shape[:2]) for part in found)
    return energy, log


def _look(log_psi: TrialFunction, system: System, parameters: Any, r: jax.Array) -> tuple[jax.Array, jax.Array]:
    logs = batched(lambda parameters, r: log_psi(parameters, r).log)
    return local_energies(log_psi, system)(parameters, r).total, 2 * logs(parameters, r)


def _check_electrons(first: System, second: System) -> None:
    if (first.up, first.down) != (second.up, second.down):
        wanted = f"{first.up} electrons with spin up and {first.down} with spin down"
        raise DataError(expected("second", wanted, f"{second.up} and {second.down}"))
