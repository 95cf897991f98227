"""No-U-turn sampling of an atomic network: what its cheaper posteriors are compared with."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from bayesmol.errors import DataError, expected
from bayesmol.inference.chains import Chains
from bayesmol.inference.random import generator
from bayesmol.potentials.neural_density import is_sampled, stiff_directions, weight_density
from bayesmol.potentials.neural_member import Member
from bayesmol.potentials.neural_run import Run
from bayesmol.potentials.neural_weights import WeightPosterior


@dataclass(frozen=True)
class NoUTurn:
    r"""Draws of the weights behind the invariants of an atomic network by the no-U-turn sampler (NumPyro).

    The posterior is the one that :class:`~bayesmol.potentials.neural_sampling.Hamiltonian` samples, but the mixing of
    the densities stays where training left it, so that the invariants x and their derivatives J are constant:

    .. math:: E = \sum_i s\,(\phi_{z_i}(x_i) \cdot w + b_{z_i}), \qquad F = -\sum_i J_i^T\, \partial E / \partial x_i

    The sampler moves in coordinates in which the posterior, linearised at the trained weights, has one width along its
    stiffest directions. Each chain starts at the trained weights turned by an angle towards a draw of the prior, in
    units of the prior deviations, where both have about one length. Hidden units can change places, so the chains are
    judged by forces of validation structures, never by weights.

    Attributes
    ----------
    warmup, draws, chains, depth
        Of the sampler, see :func:`bayesmol.inference.nuts.nuts`.
    kept
        Draws at equal distances that become networks; a prediction costs as many networks.
    stiff
        Number of directions whose widths are made one.
    turn
        Angle in rad.
    limit
        Largest :math:`\hat R` of a watched force; ``None`` accepts any.
    watched
        Validation structures whose forces must agree.
    """

    warmup: int = 300
    draws: int = 300
    chains: int = 2
    depth: int = 8
    kept: int = 20
    stiff: int = 128
    turn: float = 0.3
    limit: float | None = 1.1
    watched: int = 4

    def __post_init__(self) -> None:
        if not (2 <= self.kept <= self.draws * self.chains and self.watched >= 1):
            raise DataError(expected("kept, watched", "kept from 2 to all draws, watched positive", self))

    def members(self, run: Run) -> tuple[Member, ...]:
        """Draws as networks.

        Raises
        ------
        DataError
            If the network is not atomic, or structures differ in their number of atoms.
        ConvergenceError
            If the chains do not agree.
        """
        posterior = WeightPosterior.of(run, is_sampled)
        vectors = self.weights(run, posterior).thinned(self.kept) * posterior.target.prior.scale
        return posterior.drawn(vectors.to(posterior.start))

    def weights(self, run: Run, posterior: WeightPosterior) -> Chains:
        """All draws, of weights in units of their prior deviations; raises as :meth:`members`."""
        from bayesmol.inference.nuts import nuts

        watched = run.validation[torch.arange(min(self.watched, len(run.validation)), device=run.data.counts.device)]
        density, data = weight_density(run, posterior, run.data)
        judge, seen = weight_density(run, posterior, watched)
        white = (posterior.start / posterior.target.prior.scale).double()
        data |= stiff_directions(density, white, data, self.stiff, seed=run.seed)
        source = generator(run.seed, white.device)
        kind: dict[str, Any] = {"generator": source, "dtype": white.dtype, "device": white.device}
        prior = torch.randn(self.chains, len(white), **kind)
        turned = math.cos(self.turn) * white + math.sin(self.turn) * prior
        start = turned + (turned @ data["directions"]) * (1 / data["widths"] - 1) @ data["directions"].T
        options: dict[str, Any] = {
            "warmup": self.warmup,
            "draws": self.draws,
            "depth": self.depth,
            "limit": None,
            "seed": source,
        }
        chains = nuts(density, start, data=data, **options)
        found = replace(chains, values=density.widened(chains.values, data))
        return found if self.limit is None else found.checked(self.limit, lambda one: judge.observed(one, seen)[1])
