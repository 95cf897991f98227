"""Free-energy difference of two densities from a generator of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ShapeError, expected
from bayesmol.flows.mixture import Ensemble
from bayesmol.flows.weighted import tail_index
from bayesmol.flows.weighted_estimate import Untrusted, influenced
from bayesmol.inference.importance import k_hat_limit
from bayesmol.inference.random import generator
from bayesmol.posterior import Estimate
from bayesmol.posterior.estimate import kish

if TYPE_CHECKING:
    from bayesmol.flows.fitted import FittedGenerator

__all__ = ["free_energy_difference"]

_GUARANTEE = "asymptotic in the number of draws; given that neither proposal misses a region of its density"


def free_energy_difference(
    first: FittedGenerator, second: FittedGenerator, *, draws: int = 20_000, seed: int | torch.Generator
) -> Estimate:
    r"""Free energy of the second density minus that of the first, :math:`-\ln (Z_2 / Z_1)`, in units of kT.

    Half of the draws are from either generator, and both partition functions are estimated from all of them by the
    density of the mixture:

    .. math:: \hat Z_k = \frac1n \sum_i \frac{e^{-u_k(x_i)}}{\tfrac12 q_1(x_i) + \tfrac12 q_2(x_i)}

    This is the multistate Bennett estimator for states whose free energies are known, as those of flows are. Two
    densities that do not overlap need no states between; where they do, the errors of the two cancel in part. At two
    temperatures it is the difference of the reduced free energies :math:`F / k_B T`.

    Parameters
    ----------
    first, second
        Generators of configurations of one system.
    draws
        In all.

    Returns
    -------
    Estimate
        An :class:`~bayesmol.flows.weighted_estimate.Untrusted` one if a report is red or weights have too heavy a tail.

    Raises
    ------
    ShapeError
        If the configurations differ in length.

    References
    ----------
    Shirts, Chodera, J. Chem. Phys. 129, 124105 (2008), equation 11; Owen, Zhou, J. Am. Stat. Assoc. 95, 135 (2000).
    """
    if first.density.dimension != second.density.dimension:
        raise ShapeError(expected("second", f"{first.density.dimension} coordinates", second.density.dimension))
    source = generator(seed, first.coordinates.circular.device)
    with torch.no_grad():
        x, log_q = Ensemble([first.proposal, second.proposal]).sample(draws, seed=source)
        logarithms = torch.stack([_log_weights(one, x, log_q) for one in (first, second)])
    totals = logarithms.logsumexp(1)
    value = totals[0] - totals[1]
    if reasons := _reasons(first, second, logarithms):
        return Untrusted.like(value, "", "; ".join(reasons))
    influence = draws * (logarithms.softmax(1)[0] - logarithms.softmax(1)[1])
    return influenced(value, influence, torch.stack([kish(row) for row in logarithms]).amin(), "", _GUARANTEE)


def _log_weights(one: FittedGenerator, x: Tensor, log_q: Tensor) -> Float[Tensor, " points"]:
    usable = torch.isfinite(log_q)
    energy = torch.full_like(log_q, torch.inf)
    energy[usable] = one.density.reduced_energy(x[usable]).to(energy)
    return torch.where(usable, -energy - log_q, -torch.inf)


def _reasons(first: FittedGenerator, second: FittedGenerator, logarithms: Tensor) -> list[str]:
    """Why there is no number; none if there is one."""
    found = []
    for name, one, row in zip(("first", "second"), (first, second), logarithms, strict=True):
        if one.trust.verdict == "red":
            found.append(f"{name}: {'; '.join(one.trust.reasons)}")
        k_hat, limit = tail_index(row), k_hat_limit(len(row))
        if k_hat > limit:
            found.append(f"{name}: k-hat {k_hat:.2f} > {limit:.2f}")
    return found
