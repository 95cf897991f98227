"""What a learned surface has wrong about populations: told by labels of a few draws, not by what it believes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior.draws import Draws

__all__ = ["label_correction"]

_FEWEST = 10  # labels of a state, below which the error bar of their mean is not worth printing


def label_correction(
    differences: Float[Tensor, " labels"],
    states: Int[Tensor, " labels"],
    kt: float,
    *,
    seed: int | torch.Generator,
    draws: int = 1000,
) -> Draws:
    r"""Factors by which the populations of states change from a learned surface to the reference, as logarithms.

    With labels of configurations that are draws of the learned density within each state s,

    .. math:: \frac{P'_s}{P_s} \propto c_s = \big\langle e^{-\delta / k_B T} \big\rangle_s, \qquad
        \delta = E' - E, \qquad \ln \frac{P'_a}{P'_b} = \ln \frac{P_a}{P_b} + \ln c_a - \ln c_b ,

    so a free-energy difference of the learned surface becomes one of the reference, without bias, and its error falls
    with the number of labels: a scatter of :math:`\delta` of a fifth of :math:`k_B T` and 50 labels in each state leave
    0.04. The posterior of the potential does not enter: what it has wrong in the same way everywhere within a state,
    and does not know of, is found here. Only differences between states mean anything: the energies may have another
    zero.

    The draws are those of the Bayesian bootstrap, independent for each state, with weights from a Dirichlet
    distribution, and spread by :math:`\sqrt{(n + 1) / (n - 1)}` about their mean, so that their variance is that of a
    mean of n values.

    Parameters
    ----------
    differences
        Energy by the reference less that of the learned surface, of each label.
    states
        State of each label, from 0; labels of one state are independent draws within it.
    kt
        Thermal energy, in the unit of the differences.

    Returns
    -------
    Draws
        :math:`\ln c_s` (states,); all share the mean of the differences as their zero.

    Raises
    ------
    ShapeError, DataError
        If labels and states do not fit, a difference is not finite, or a state has fewer than ten labels.

    References
    ----------
    Zwanzig, J. Chem. Phys. 22, 1420 (1954), equation 14 (the mean); Rubin, Ann. Stat. 9, 130 (1981) (the draws).
    """
    values = _checked(differences, states, kt)
    source, found = generator(seed, values.device), []
    for state in range(int(states.max()) + 1):
        own = (-values[states == state]).exp()
        if len(own) < _FEWEST:
            got = f"{len(own)} of state {state}"
            raise DataError(expected("states", f"at least {_FEWEST} labels of each", got, "label more draws"))
        found.append(_bootstrapped(own, draws, source))
    return Draws(torch.stack(found, 1)[None], unit="")


def _checked(differences: Tensor, states: Tensor, kt: float) -> Float[Tensor, " labels"]:
    """Differences in units of the thermal energy, about their mean."""
    if differences.ndim != 1 or differences.shape != states.shape or not len(states):
        raise ShapeError(expected("states", f"one for each of {tuple(differences.shape)}", tuple(states.shape)))
    if not bool(torch.isfinite(differences).all()) or not kt > 0 or int(states.min()) < 0:
        raise DataError(expected("differences, kt, states", "finite; positive; from 0", (differences, kt, states)))
    values = differences.double() / kt
    return values - values.mean()


def _bootstrapped(values: Tensor, draws: int, source: torch.Generator) -> Float[Tensor, " draws"]:
    """Logarithms of the mean of positive values under random weights."""
    uniform = torch.rand(draws, len(values), generator=source, dtype=values.dtype, device=values.device)
    weights = -(-uniform).log1p()  # exponential numbers: a Dirichlet distribution, once their sum is one
    means = (weights @ values / weights.sum(1)).log()
    centre = values.mean().log()
    return centre + ((len(values) + 1) / (len(values) - 1)) ** 0.5 * (means - centre)
