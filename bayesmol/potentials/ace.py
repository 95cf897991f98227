"""BayesianACE: Bayesian linear regression on body-ordered invariants, the workhorse of the package."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.inference.conjugate import LeftOut
from bayesmol.potentials.ace_learning import MixingSchedule, initial_model, learned_mixing, subset
from bayesmol.potentials.ace_posterior import ACEPotential
from bayesmol.potentials.ace_rows import ENERGY, FORCE, Model, Rows, all_rows, joined, rows_in_chunks
from bayesmol.potentials.ace_scales import (
    DualJudge,
    PrimalJudge,
    dual_posterior,
    fitted_scales,
    inflation,
    judged_error,
    left_out_of,
    members_of,
)
from bayesmol.progress import progress
from bayesmol.representation.design import Representation, channel_counts
from bayesmol.representation.radial import RadialBasis


@dataclass(frozen=True)
class BayesianACE:
    r"""A finite-rank Gaussian process on atomic environments.

    .. math:: E = \sum_i \sum_{kp} w_{z_i kp} B_{ikp} + \sum_z N_z e_z + E_\mathrm{repulsion}, \quad w \sim
    \mathcal N(0, \Lambda)

    with energies, forces and stresses as labels, each with its own standard error where given. The mixing weights
    of the channels and the prior scales are learned from left-out structures (:mod:`bayesmol.potentials.ace_learning`),
    the noise from structures that the mixing has not seen (:mod:`bayesmol.potentials.ace_scales`).

    Attributes
    ----------
    basis
        Radial functions.
    cutoffs
        Candidate cutoffs in Å; the one whose left-out labels have the least squared error is taken, a longer one only
        if it is better by a tenth.
    degrees
        Largest degree of the spherical harmonics in 2- and 3-body, 4-body and 5-body invariants.
    channels
        Channels for 2- and 3-body, 4-body and 5-body invariants; ``None`` chooses them by the number of labels.
    mixing
        How the mixing weights are learned.
    dual_rows
        Up to so many labels the covariance of the labels is factorised, above it that of the weights.

    References
    ----------
    van der Oord et al., npj Comput. Mater. 9, 168 (2023) for Bayesian linear ACE; Darby et al., Phys. Rev. Lett.
    131, 028001 (2023) for the mixing of channels.
    """

    basis: RadialBasis = field(default_factory=lambda: RadialBasis(size=6, scale=0.9))
    cutoffs: tuple[float, ...] = (4.0, 5.5, 7.0)
    degrees: tuple[int, int, int] = (4, 4, 3)
    channels: tuple[int, int, int] | None = None
    mixing: MixingSchedule = field(default_factory=MixingSchedule)
    dual_rows: int = 6000

    def fit(self, labelled: Labelled, *, seed: int = 0) -> ACEPotential:
        """Posterior of the potential given labelled structures.

        Raises
        ------
        DataError
            If there are fewer than two structures, or neither energies nor forces.
        """
        data = labelled.to(dtype=torch.float64)
        labels = checked_labels(data)
        basis = self._chosen_basis(data, seed)
        model = initial_model(self._untrained(data, basis, labels, seed), data, seed=seed)
        model, unseen = learned_mixing(model, data, self.mixing, seed=seed)
        fitted = _dual(model, data, unseen) if labels <= self.dual_rows else primal_fit(model, data, unseen, seed)
        return replace(fitted, provenance=provenance_of(labelled, seed))

    def _chosen_basis(self, data: Labelled, seed: int) -> RadialBasis:
        """Radial functions with the shortest cutoff that no longer one beats clearly on left-out labels."""
        if len(self.cutoffs) == 1:
            return replace(self.basis, cutoff=self.cutoffs[0])
        sample = data[subset(data, 500, seed)]
        best, least = self.basis, float("inf")
        for cutoff in sorted(self.cutoffs):
            basis = replace(self.basis, cutoff=cutoff)
            small = replace(self, channels=(16, 16, 8))
            model = initial_model(small._untrained(sample, basis, 1, seed), sample, seed=seed)
            judge = DualJudge.of(model, all_rows(model, sample), torch.arange(len(sample)))
            error = judged_error(judge)
            best, least = (basis, error) if error < 0.9 * least else (best, least)
        return best

    def _untrained(self, data: Labelled, basis: RadialBasis, labels: int, seed: int) -> Model:
        species = tuple(sorted(set(data.structures.species.tolist())))
        channels = self.channels or channel_counts(labels, len(species), self.degrees)
        representation = Representation.random(species, basis, channels, self.degrees, seed=seed)
        zeros = data.structures.positions.new_zeros
        model = Model(
            representation,
            zeros(int(representation.families.max()) + 1),
            zeros(FORCE + len(species)),
            zeros(len(species)),
        )
        return replace(model, references=reference_energies(model, data)).to(zeros(0).device)


def provenance_of(labelled: Labelled, seed: int) -> dict[str, Any]:
    source = None if labelled.source is None else asdict(labelled.source)
    return {"structures": len(labelled), "training_hash": labelled.fingerprint, "source": source, "seed": seed}


def checked_labels(data: Labelled) -> int:
    """Number of labels."""
    if len(data) < 2 or (data.energies is None and not bool(data.has_forces.any())):
        got = f"{len(data)} structures, energies: {data.energies is not None}, forces: {bool(data.has_forces.any())}"
        raise DataError(expected("labelled", "two or more structures with energies or forces", got, "add labels"))
    energies = len(data) if data.energies is not None else 0
    return energies + 3 * int(data.structures.counts[data.has_forces].sum()) + 6 * int(data.has_stresses.sum())


def reference_energies(model: Model, data: Labelled) -> Tensor:
    """Least-squares energy of an atom of each element; the model keeps a broad prior about it, so nothing leaks."""
    composition = model.representation.composition(data.structures)
    if data.energies is None:
        return composition.new_zeros(composition.shape[1])
    return torch.linalg.pinv(composition) @ data.energies


def _dual(model: Model, data: Labelled, unseen: Tensor) -> ACEPotential:
    rows = all_rows(model, data)
    model = fitted_scales(model, DualJudge.of(model, rows, unseen))
    found = DualJudge.of(model, rows, torch.arange(len(data))).left_out(0.0, 0.0)
    factors = inflation(found, rows, unseen)
    moments = _left_out_moments(model, rows, found, data, unseen, float(factors[ENERGY]))
    return ACEPotential(
        model, dual_posterior(model, rows), model.guards(data.structures), data[unseen], moments, factors
    )


def primal_fit(model: Model, data: Labelled, unseen: Tensor, seed: int, *, kept: int = 200) -> ACEPotential:
    """Rows are streamed: only those of the judged and of some more structures stay in memory."""
    others = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    stay = torch.cat([unseen, others[~torch.isin(others, unseen)]])[:kept].sort().values
    size, parts = len(model.scales()) + len(model.references), []
    gram, moment = model.references.new_zeros(size, size), model.references.new_zeros(size)
    with progress("summing the normal equations", len(data)) as advance:
        for rows in rows_in_chunks(model, data):
            white, noise = rows.whitened(model), rows.noise(model)
            scaled = white / noise[:, None]
            gram.addmm_(scaled.T, white)
            moment += scaled.T @ rows.targets
            parts.append(_only(rows, stay))
            advance(len(rows.group.unique()))
    rows = _renumbered(joined(parts), stay)
    position = torch.searchsorted(stay, unseen)
    judge = PrimalJudge(model, rows, gram, moment, members_of(rows, position))
    fitted = fitted_scales(model, judge)
    shift = float(fitted.log_noise[0] - model.log_noise[0])
    posterior = judge.posterior(shift, 2 * float(fitted.log_prior[0] - model.log_prior[0]))
    found = left_out_of(posterior, fitted, rows, members_of(rows, torch.arange(len(stay))))
    factors = inflation(found, rows, position)
    moments = _left_out_moments(fitted, rows, found, data[stay], position, float(factors[ENERGY]))
    return ACEPotential(fitted, posterior, fitted.guards(data.structures), data[unseen], moments, factors)


def _only(rows: Rows, groups: Tensor) -> Rows:
    keep = torch.isin(rows.group, groups.to(rows.group.device))
    return Rows(**{name: getattr(rows, name)[keep] for name in Rows.__dataclass_fields__})


def _renumbered(rows: Rows, groups: Tensor) -> Rows:
    return replace(rows, group=torch.searchsorted(groups.to(rows.group.device), rows.group))


def _left_out_moments(
    model: Model, rows: Rows, found: LeftOut, data: Labelled, unseen: Tensor, factor: float
) -> dict[str, Tensor]:
    """Left-out predictions of the frames that the mixing has not seen, and the left-out strangeness of all."""
    moments: dict[str, Tensor] = {}
    counts = data.structures.counts.to(found.variance)
    if data.energies is not None:
        energy = rows.kind == ENERGY
        residual = torch.zeros_like(counts).index_copy(0, rows.group[energy], found.residual[energy])
        variance = torch.zeros_like(counts).index_copy(0, rows.group[energy], found.variance[energy])
        moments["energy_mean"] = (data.energies - residual)[unseen]
        moments["energy_variance"] = factor * variance[unseen]
        noise = torch.zeros_like(counts).index_copy(0, rows.group[energy], rows.noise(model)[energy])
        moments["strangeness"] = (factor * (variance - noise).clamp_min(0) / counts).sqrt()
    force = (rows.kind == FORCE) & torch.isin(rows.group, unseen.to(rows.group.device))
    if bool(force.any()):
        order = torch.argsort(rows.group[force], stable=True)
        moments["force_residual"] = found.residual[force][order].reshape(-1, 3)
        moments["force_variance"] = found.variance[force][order].reshape(-1, 3)
    return moments
