"""Stochastic normalising flows: maps and noisy moves in turn, with a weight for each path."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import torch
from jaxtyping import Bool, Float
from nflows.transforms.base import Transform
from torch import Tensor, nn

from bayesmol.errors import ApplicabilityError, DataError, expected
from bayesmol.flows.bases import GaussianUniform
from bayesmol.flows.counted import Counted
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.flow import Flow
from bayesmol.flows.moves import Energy, Langevin, Metropolis, Move
from bayesmol.flows.objectives import ReverseKL
from bayesmol.flows.proposal import Target
from bayesmol.flows.training import Training, train
from bayesmol.inference.importance import effective_size
from bayesmol.inference.random import generator, integer_seed

__all__ = ["PathDivergence", "Stochastic", "StochasticFlow"]

_CHUNK = 8192


class StochasticFlow(Flow):
    r"""Paths from the base through maps and noisy moves, with the density of each path beside that of its reverse.

    .. math:: \log w = -u(x) + u_0(z) + \sum_t \Delta S_t, \qquad
              u_\lambda = (1 - \lambda)\,u_0 + \lambda\,u

    :math:`u_0` is minus the log-density of the base; maps have :math:`\Delta S = \log|\det \partial y' / \partial y|`.
    Draws come with :math:`\log \tilde q = -u_0(z) - \sum \Delta S`, so that :math:`-u(x) - \log \tilde q` is the weight
    as for any other proposal, :math:`\langle w \rangle = Z` (Jarzynski), and weighted means are right. It is
    the density of a whole path over that of its reverse given x, and no function of x: there is no ``log_prob``.

    Parameters
    ----------
    base
        Density of the first rows.
    target
        Its energy u steers the moves and must be twice differentiable for training.
    layers
        Transforms, which are passed backwards as in every flow here, and moves, from the base to the configurations.

    References
    ----------
    Wu, Köhler, Noé, NeurIPS 33 (2020) (arXiv:2002.06707); Jarzynski, Phys. Rev. Lett. 78, 2690 (1997).
    """

    target: Target

    def __init__(
        self, base: GaussianUniform, target: Target, layers: Sequence[Transform | Langevin | Metropolis]
    ) -> None:
        nn.Module.__init__(self)
        if target.dimension != base.dimension:
            raise DataError(expected("target", f"of {base.dimension} numbers", target.dimension))
        self.base, self.target, self.layers = base, target, nn.ModuleList(layers)
        self.angles = bool(base.circular.any())

    @property
    def evaluations(self) -> int:
        """Energies that one path costs, with that of its end."""
        layers: list[Any] = list(self.layers)
        return 1 + sum(layer.evaluations for layer in layers if not isinstance(layer, Transform))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> NoReturn:
        """There is none: the density of a draw is an integral over all paths to it.

        Raises
        ------
        ApplicabilityError
            Always.
        """
        remedy = "use the log-density that comes with draws, in weights, or a flow without moves"
        raise ApplicabilityError(expected("flow", "one with a density of rows", "a stochastic one", remedy))

    def push(self, z: Tensor, context: Tensor | None = None) -> NoReturn:
        """As :meth:`log_prob`."""
        self.log_prob(z, context)

    def path(self, z: Float[Tensor, "points dimension"], source: torch.Generator) -> Move:
        r"""Ends of paths that start at z, :math:`\sum \Delta S`, and what is accepted; differentiable if enabled."""
        circular = self.base.circular if self.angles else None
        rows, entropy, chance = z, z.new_zeros(len(z)), z.new_zeros(len(z))
        layers: list[Any] = list(self.layers)
        for layer in layers:
            if isinstance(layer, Transform):
                rows, volume = layer.inverse(rows, None)
                entropy = entropy + volume
            else:
                move = layer(rows, self._energy(layer.share), circular, source)
                rows, entropy, chance = move.rows, entropy + move.entropy, chance + move.chance
        return Move(rows, entropy, chance)

    @torch.no_grad()
    def sample(
        self, size: int, *, seed: int | torch.Generator, context: Tensor | None = None
    ) -> tuple[Float[Tensor, "size dimension"], Float[Tensor, " size"]]:
        r"""Ends of independent paths, and :math:`\log \tilde q` of each, without gradients.

        Raises
        ------
        DataError
            If a weight is not a number.
        """
        source = generator(seed, self.base.circular.device)
        rows, logs = [], []
        for z in self.base.sample(size, seed=source, dtype=self.dtype).split(_CHUNK):
            move = self.path(z, source)
            rows.append(move.rows)
            logs.append(self.base.log_prob(z) - move.entropy)
        log_q = torch.cat(logs)
        if bool(torch.isnan(log_q).any()):
            raise DataError(expected("path", "numbers", "NaN", "check the energy, or take shorter steps"))
        return torch.cat(rows), log_q

    def weighted(
        self, size: int, *, seed: int | torch.Generator
    ) -> tuple[Float[Tensor, "size dimension"], Float[Tensor, " size"]]:
        """Ends of independent paths and their log-weights, in double precision."""
        x, log_q = self.sample(size, seed=seed)
        return x, -self.target.reduced_energy(x).double() - log_q.double()

    def _energy(self, share: float) -> Energy:
        def energy(rows: Tensor) -> Tensor:
            first = (share - 1) * self.base.log_prob(rows)
            return first + share * self.target.reduced_energy(rows).to(first) if share else first

        return energy


@dataclass(frozen=True)
class Stochastic:
    r"""Architecture: blocks of couplings with noisy moves between them, at :math:`\lambda = 1/B, 2/B, \ldots`

    Attributes
    ----------
    blocks, couplings
        Number B of blocks, and what each is made of.
    moves
        ``"metropolis"`` or ``"langevin"``.
    steps, step
        Steps between two blocks and their length at the start, see :class:`Metropolis` and :class:`Langevin`.

    References
    ----------
    Wu, Köhler, Noé, NeurIPS 33 (2020) (arXiv:2002.06707).
    """

    blocks: int = 4
    couplings: Couplings = field(default_factory=lambda: Couplings(layers=2, width=32))
    moves: Literal["metropolis", "langevin"] = "metropolis"
    steps: int = 5
    step: float = 0.2

    def __post_init__(self) -> None:
        if self.moves not in ("metropolis", "langevin") or self.blocks < 1:
            raise DataError(expected("moves, blocks", "'metropolis' or 'langevin', a positive number", self))

    def build(
        self, circular: Bool[Tensor, " dimension"], target: Target, *, seed: int | torch.Generator
    ) -> StochasticFlow:
        """A new flow; its maps are the identity, and its moves anneal from the base to the target."""
        first, move = integer_seed(seed) % 2**62, Metropolis if self.moves == "metropolis" else Langevin
        layers: list[Transform | Langevin | Metropolis] = []
        for block in range(self.blocks):
            layers.append(self.couplings.build(circular, seed=first + block).transform)
            if block < self.blocks - 1:
                layers.append(move((block + 1) / self.blocks, steps=self.steps, step=self.step))
        return StochasticFlow(GaussianUniform(circular), target, layers)


@dataclass(frozen=True)
class PathDivergence(ReverseKL):
    r"""Divergence of paths from their reverses up to a constant, :math:`-\langle \log w \rangle`.

    With :math:`\log Z` it bounds the reverse divergence of the ends, :math:`\mathrm{KL}(q \| p) \le \log Z - \langle
    \log w \rangle`. Acceptance is a choice, whose probability is differentiated by the score with the mean as baseline.
    Step lengths are trained with the maps.

    References
    ----------
    Wu, Köhler, Noé, NeurIPS 33 (2020) (arXiv:2002.06707); Williams, Mach. Learn. 8, 229 (1992) (score with baseline).
    """

    def fit(
        self,
        flow: Flow,
        target: Target,
        samples: Float[Tensor, "points dimension"] | None = None,
        *,
        seed: int | torch.Generator,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Training:
        """Fit the parameters of a :class:`StochasticFlow` in place; samples are of no use to it.

        Raises
        ------
        DataError
            If the flow is not stochastic or of another target.
        """
        if not isinstance(flow, StochasticFlow) or flow.target is not target:
            raise DataError(expected("flow", "a stochastic flow of this target", type(flow).__name__))
        return train(self, flow, target, cut=self.cut, seed=seed, checkpoint=checkpoint)

    def loss(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], source: torch.Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """Minus the mean log-weight of the paths that have one, and a term of value zero for the choices."""
        assert isinstance(flow, StochasticFlow), "see fit"
        size = self.optimisation.batch
        z = flow.base.sample(size, seed=source, dtype=flow.dtype)
        move = flow.path(z, source)
        energy = flow.target.reduced_energy(move.rows)
        target.evaluations += size * flow.evaluations
        log_q = flow.base.log_prob(z) - move.entropy
        cost = target.regularised(energy).to(log_q) + log_q
        known = torch.isfinite(cost)
        cost, chance = cost[known], move.chance[known]
        excess = (cost - cost.mean()).detach()
        loss = cost.mean() + (excess * (chance - chance.detach())).mean()
        log_w = (-energy.double() - log_q.double()).detach()
        share = effective_size(log_w[known]).fraction if bool(known.any()) else math.nan
        return loss, loss.new_tensor(share)
