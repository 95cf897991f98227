"""More labels for a fitted Bayesian ACE, and where its energy is least certain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.errors import ConvergenceError
from bayesmol.inference.conjugate import LinearPosterior, cholesky
from bayesmol.potentials.ace_rows import ENERGY, rows_in_chunks
from bayesmol.potentials.guards import unknown_variance

if TYPE_CHECKING:
    from bayesmol.potentials.ace_posterior import ACEPotential


def updated_posterior(potential: ACEPotential, labelled: Labelled) -> LinearPosterior:
    """Posterior of the weights after more labels, in O(rows · weights²) whatever was learned before."""
    posterior = compact(potential.posterior)
    for rows in rows_in_chunks(potential.model, labelled):
        posterior = posterior.updated(rows.whitened(potential.model), rows.targets, rows.noise(potential.model))
    return posterior


def compact(posterior: LinearPosterior) -> LinearPosterior:
    """The same distribution without its factor where that is wider than there are weights.

    Predictions then cost the square of the weights and not the weights times the labels. The factor stays where the
    data leave a variance that rounding hides.
    """
    weights, rank = posterior.factor.shape
    if rank <= weights:
        return posterior
    identity = torch.eye(weights, dtype=posterior.factor.dtype, device=posterior.factor.device)
    covariance = posterior.covariance(identity)
    try:
        precision = torch.cholesky_inverse(cholesky((covariance + covariance.T) / 2, "covariance of the weights"))
        root = cholesky((precision + precision.T) / 2, "precision of the weights")
    except ConvergenceError:
        return posterior
    return LinearPosterior(posterior.mean, root, posterior.factor[:, :0])


def deviation_gradient(
    potential: ACEPotential, structures: Any
) -> tuple[Float[Tensor, " structures"], Float[Tensor, "atoms 3"]]:
    r"""Epistemic standard deviation of each energy in eV, and its gradient in eV/Å.

    .. math:: \nabla_R\, \sigma_E = -\mathrm{Cov}(E, F) / \sigma_E

    because the force is minus the gradient of the energy under every draw of the weights. The gradient is zero where
    the deviation is. An unknown composition adds to the deviation, not to its slope.
    """
    batch = Structures.coerce(structures).to(dtype=torch.float64)
    deviations, gradients = [], []
    for chunk in potential.model.representation.chunks(batch):
        part = batch[chunk]
        design = potential.model.representation.design(potential.model.representation.environments(part))
        composition = potential.model.representation.composition(part)
        rows = potential.model.whitened(design.energy, composition)
        crossed = potential.posterior.covariance(potential.model.whitened(design.forces), rows)
        owner = part.structure_index.repeat_interleave(3)
        slope = potential.inflation[ENERGY] * crossed.gather(1, owner[:, None])[:, 0]
        variance = potential.inflation[ENERGY] * potential.posterior.variance(rows)
        deviation = (variance + unknown_variance(composition, potential.guards)).sqrt()
        deviations.append(deviation)
        gradients.append(torch.where(deviation[owner] > 0, -slope / deviation[owner], 0.0).view(-1, 3))
    return torch.cat(deviations), torch.cat(gradients)
