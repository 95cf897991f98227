"""PairGP: a potential of pair functions, each a Gaussian process of the distance."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.potentials.ace import checked_labels, primal_fit, provenance_of, reference_energies
from bayesmol.potentials.ace_rows import ENERGY, FORCE, Model, all_rows
from bayesmol.potentials.ace_scales import PrimalJudge, judged_error, members_of
from bayesmol.potentials.pair_gp_kernel import PairKernel, PairRepresentation
from bayesmol.potentials.pair_gp_posterior import PairGPPotential

_JUDGED = 100  # structures that are left out in turn, at most


@dataclass(frozen=True)
class PairGP:
    r"""Sum over pairs of atoms with a Gaussian-process prior on each pair function.

    .. math:: E = \tfrac12 \sum_{i \ne j} f_{z_i z_j}(r_{ij}) + \sum_z N_z e_z + E_\mathrm{repulsion}, \quad
        f \sim \mathcal{GP}(0, s^2 k)

    with the kernel of :class:`~bayesmol.potentials.pair_gp_kernel.PairKernel`. Labels are energies, forces and stresses
    with their standard errors. Cutoff and length scale are the pair of candidates with the least squared error of
    left-out structures; noise and amplitude are fitted to left-out structures as in
    :class:`~bayesmol.potentials.BayesianACE`. What a sum over pairs cannot say, the noise holds: wide error bars where
    bonding has angles.

    It is made to be tabulated: :func:`bayesmol.potentials.tabulated` turns mean and variance into splines.

    Attributes
    ----------
    cutoffs
        Candidates in Å.
    length_scales
        Candidates, relative to the distance.

    References
    ----------
    Glielmo, Zeni, De Vita, Phys. Rev. B 97, 184307 (2018) for n-body kernels and their mapping to fixed forms.
    """

    cutoffs: tuple[float, ...] = (4.5, 6.0)
    length_scales: tuple[float, ...] = (0.1, 0.2, 0.4)

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name):
                raise DataError(expected(field.name, "at least one candidate", "none"))

    def fit(self, labelled: Labelled, *, seed: int = 0) -> PairGPPotential:
        """Posterior of the pair functions given labelled structures.

        Raises
        ------
        DataError
            If there are fewer than two structures, neither energies nor forces, or no pair within a cutoff.
        """
        data = labelled.to(dtype=torch.float64)
        checked_labels(data)
        order = torch.randperm(len(data), generator=generator(seed))
        model = self._chosen(data, order[:_JUDGED])
        fitted = primal_fit(model, data, order[:_JUDGED].sort().values, seed, kept=_JUDGED)
        parts = {field.name: getattr(fitted, field.name) for field in fields(fitted)}
        parts["provenance"] = {"model": "PairGP", **provenance_of(labelled, seed)}
        return PairGPPotential(**parts)

    def _chosen(self, data: Labelled, sample: Tensor) -> Model:
        """The model with the best candidates on some structures, each left out in turn, by the scale of its rows."""
        candidates = [PairKernel(cutoff, length) for cutoff in self.cutoffs for length in self.length_scales]
        models = [_initial(kernel, data, sample) for kernel in candidates]
        if len(models) == 1:
            return models[0]
        errors = [judged_error(_judge(model, data[sample[:40]])) for model in models]
        return models[errors.index(min(errors))]


def _judge(model: Model, sample: Labelled) -> PrimalJudge:
    """Judge over all structures of a sample; there are fewer weights than labels."""
    rows = all_rows(model, sample)
    white, noise = rows.whitened(model), rows.noise(model)
    scaled = white / noise[:, None]
    members = members_of(rows, torch.arange(len(sample)))
    return PrimalJudge(model, rows, scaled.T @ white, scaled.T @ rows.targets, members)


def _initial(kernel: PairKernel, data: Labelled, sample: Tensor) -> Model:
    """Amplitude for which the prior varies ten times as much as the labels do, and noise of a fifth of their spread."""
    species = tuple(sorted(set(data.structures.species.tolist())))
    representation = PairRepresentation(species, kernel)
    zeros = data.structures.positions.new_zeros
    families = int(representation.families.max()) + 1
    model = Model(representation, zeros(families), zeros(FORCE + len(species)), zeros(len(species)))
    model = replace(model, references=reference_energies(model, data))
    rows = all_rows(model, data[sample])
    kind = FORCE if bool((rows.kind == FORCE).any()) else ENERGY
    picked = rows.kind == kind
    targets = rows.targets[picked]
    spread = float(targets.square().mean() if kind == FORCE else targets.var()) + 1e-8
    power = float(rows.design[picked].square().sum(1).mean())
    if not power > 0:
        got = f"no pair within {kernel.cutoff} Å"
        raise DataError(expected("labelled", "structures with pairs of atoms within the cutoff", got, "raise cutoffs"))
    log_noise = torch.full_like(model.log_noise, 0.5 * math.log(0.04 * spread))
    log_noise[:FORCE] += math.log(0.1)
    return replace(model, log_prior=model.log_prior + 0.5 * math.log(10 * spread / power), log_noise=log_noise)
