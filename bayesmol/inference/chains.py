"""Markov chains of a vector of parameters, and whether they agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Draws
from bayesmol.posterior.estimate import effective_sample_size

__all__ = ["Chains", "r_hat"]


def r_hat(values: Float[Tensor, "chain draw *event"]) -> Float[Tensor, "*event"]:
    r"""Potential scale reduction of split chains; 1 if the chains agree in location and in spread.

    .. math:: \hat R = \sqrt{\frac{n-1}{n} + \frac{B}{n W}}

    with the variances B/n between and W within half chains of length n, the larger of that of the normal scores of the
    ranks and that of the normal scores of the ranks of the distances from the median. Infinite where a chain does not
    move.

    Raises
    ------
    DataError
        If a chain has fewer than four draws.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter, Bürkner, Bayesian Analysis 16, 667 (2021).
    """
    if values.shape[1] < 4:
        raise DataError(expected("values", "at least 4 draws a chain", values.shape[1]))
    half = values.shape[1] // 2
    parts = torch.cat([values[:, :half], values[:, -half:]]).double()
    ordered = parts.flatten(0, 1).sort(0).values
    median = ordered[[(len(ordered) - 1) // 2, len(ordered) // 2]].mean(0)
    found = torch.maximum(_reduction(_scores(parts)), _reduction(_scores((parts - median).abs())))
    return torch.where((parts.amax(1) > parts.amin(1)).all(0), found, torch.inf)


def _scores(values: Tensor) -> Tensor:
    """Normal scores of the ranks over all chains; equal values share their mean rank."""
    flat = values.flatten(0, 1).reshape(values.shape[0] * values.shape[1], -1)
    ordered = flat.mT.sort(1).values.contiguous()
    search = flat.mT.contiguous()
    ranks = (torch.searchsorted(ordered, search) + torch.searchsorted(ordered, search, right=True) + 1) / 2
    scores = torch.special.ndtri((ranks.double() - 0.375) / (flat.shape[0] + 0.25))
    return scores.mT.reshape(values.shape)


def _reduction(values: Tensor) -> Tensor:
    draws = values.shape[1]
    within, between = values.var(1).mean(0), values.mean(1).var(0)
    ratio = torch.where(between > 0, between / within, 0.0)
    return ((draws - 1) / draws + ratio).sqrt()


@dataclass(frozen=True, eq=False)
class Chains:
    """Draws of a vector of parameters from one or more chains.

    Attributes
    ----------
    values
        The draws.
    divergences
        Number of draws whose trajectory left the typical energies: above zero the posterior has corners that the
        sampler does not reach.
    gradients
        How often the gradient of the log-density was evaluated, all in all.
    """

    values: Float[Tensor, "chain draw parameters"]
    divergences: int = 0
    gradients: int = 0

    @cached_property
    def r_hat(self) -> Float[Tensor, " parameters"]:
        """Disagreement of the chains in each parameter, see :func:`r_hat`."""
        return r_hat(self.values)

    @cached_property
    def effective_sample_size(self) -> Float[Tensor, " parameters"]:
        """Number of independent draws that these are worth, for the mean of each parameter."""
        return effective_sample_size(self.values)

    @property
    def mean(self) -> Float[Tensor, " parameters"]:
        """Mean of all draws."""
        return self.values.mean((0, 1))

    def sample(self, size: int, *, seed: int | torch.Generator) -> Float[Tensor, "size parameters"]:
        """``size`` of the draws, with replacement."""
        flat = self.values.flatten(0, 1)
        source = generator(seed, flat.device)
        return flat[torch.randint(len(flat), (size,), generator=source, device=flat.device)]

    def thinned(self, size: int) -> Float[Tensor, "size parameters"]:
        """``size`` draws at equal distances along all chains.

        Raises
        ------
        DataError
            If there are fewer draws.
        """
        flat = self.values.flatten(0, 1)
        if not 1 <= size <= len(flat):
            raise DataError(expected("size", f"from 1 to the {len(flat)} draws", size))
        places = (torch.arange(size, device=flat.device) + 0.5) * (len(flat) / size)
        return flat[places.long()]

    def draws(self, unit: str = "") -> Draws:
        """As a posterior, with its estimates and export to ArviZ."""
        return Draws(self.values, unit=unit)

    def checked(self, limit: float = 1.05, monitor: Callable[[Tensor], Tensor] | None = None) -> Chains:
        r"""These chains, if they agree: :math:`\hat R` of everything that is monitored is at most ``limit``.

        Parameters
        ----------
        monitor
            Function of one vector: the values that must agree. By default the parameters themselves, which hidden
            units that can change places never do: monitor the predictions of a network.

        Raises
        ------
        ConvergenceError
            If they do not agree.
        """
        values = self.values
        if monitor is not None:
            flat = torch.stack([monitor(vector).reshape(-1) for vector in values.flatten(0, 1)])
            values = flat.unflatten(0, values.shape[:2])
        found = r_hat(values)
        if not bool((found <= limit).all()):
            worst = int(found.nan_to_num(torch.inf).argmax())
            remedy = "make the warm-up and the chains longer"
            raise ConvergenceError(
                expected("R-hat", f"at most {limit}", f"{float(found[worst]):.3f} of {worst}", remedy)
            )
        return self
