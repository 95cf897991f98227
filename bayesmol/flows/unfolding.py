"""Forward divergence of a symmetric density, on one image of each sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmol.errors import DataError, expected
from bayesmol.flows.coordinates import Composed
from bayesmol.flows.counted import Counted
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.flow import Flow
from bayesmol.flows.objectives import ForwardKL
from bayesmol.flows.own_draws import BEGIN, balanced_loss, check_own, mean_one, mixed, remembered, settled
from bayesmol.flows.symmetrised import Symmetrised
from bayesmol.flows.viewed import Seen

__all__ = ["SymmetricFlow", "UnfoldedKL"]

_CHUNK = 4096


class SymmetricFlow(nn.Module):
    """A flow in coordinates, whose average over the symmetry of a density is its density.

    Attributes
    ----------
    one
        The density before the average.

    Raises
    ------
    DataError
        If the density has no symmetry.
    """

    def __init__(self, flow: Flow, system: Composed, density: BoltzmannDensity) -> None:
        super().__init__()
        if density.symmetry is None:
            raise DataError(expected("density", "one with a symmetry", "none", "take ForwardKL"))
        self.flow, self.dimension, self.space = flow, density.dimension, density.space
        self.one = Seen(flow, system)
        self._average = Symmetrised(self.one, density.symmetry, density.signs)

    def log_prob(self, x: Tensor) -> Float[Tensor, " points"]:
        """Log-density of each row, in nats."""
        return self._average.log_prob(x.double())

    def sample(self, size: int, *, seed: int | torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws and their log-density."""
        return self._average.sample(size, seed=seed)

    def likely(self, x: Tensor, source: torch.Generator) -> tuple[Tensor, Float[Tensor, " points"]]:
        """An image of each row, drawn by its share of the average, and the logarithm of this share."""
        parts = [self._average.image(part, source) for part in x.split(_CHUNK)]
        images, shares = zip(*parts, strict=True)
        return torch.cat(images), torch.cat(shares)

    def aligned(self, x: Tensor, like: Float[Tensor, " dimension"]) -> Tensor:
        """The image of each row that is nearest to a configuration, where it may be turned if the energy allows."""
        return torch.cat([self._nearest(part, like) for part in x.split(_CHUNK)])

    def _nearest(self, x: Tensor, like: Tensor) -> Tensor:
        images = self._average.images(x)
        overlap = (
            images @ like if not self.space else _overlap(*(r.unflatten(-1, (-1, self.space)) for r in (images, like)))
        )
        return images[torch.arange(len(x), device=x.device), overlap.argmax(1)]


def _overlap(x: Float[Tensor, "points images particles space"], y: Float[Tensor, "particles space"]) -> Tensor:
    r"""Largest :math:`\sum_i R x_i \cdot y_i` over all rotations R: the singular values, the last with the sign."""
    matrix = torch.einsum("...is,it->...st", x, y)
    values = torch.linalg.svdvals(matrix)
    return values[..., :-1].sum(-1) + torch.linalg.det(matrix).sign() * values[..., -1]


@dataclass(frozen=True)
class UnfoldedKL(ForwardKL):
    r"""Maximum likelihood of a :class:`SymmetricFlow` by stochastic expectation–maximisation.

    Which of the :math:`|G|` images of a sample the flow makes is a hidden variable. In every round some samples are
    replaced by images drawn with their shares :math:`s(gx) = q(gx) / \sum_h q(hx)`, and then the flow learns these
    alone, at the cost of one density each. In the first round it is the image nearest to one of the samples: the flow
    begins in a fundamental domain, which a flow that has the symmetry itself could never choose.

    Images have the density :math:`p\, s` with the share s of the flow of this round. So after the first rounds a share
    of each batch is draws of the flow itself with their weights, and the energy says of images and draws how much
    density is right there (:func:`~bayesmol.flows.own_draws.balanced_loss`): samples are few, and would be learnt by
    heart.

    Attributes
    ----------
    rounds, unfolded
        Number of rounds, which share the budget equally, and samples of each but the first.
    own
        Share of a batch that are draws of the flow itself, as many in a round as samples.

    References
    ----------
    Celeux, Diebolt, Comput. Stat. Q. 2, 73 (1985) (stochastic expectation–maximisation).
    """

    rounds: int = 12  # type: ignore[misc]  # a setting here, fixed in the base
    unfolded: int = 8192
    own: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_own(self.own)
        if min(self.rounds, self.unfolded) < 1:
            raise DataError(expected("rounds, unfolded", "positive counts", self))

    def refresh(
        self, flow: Flow | SymmetricFlow, target: Counted, data: dict[str, Tensor], turn: int, source: torch.Generator
    ) -> dict[str, Tensor]:
        """One image of each sample.

        Raises
        ------
        DataError
            If the flow has no symmetry.
        """
        if not isinstance(flow, SymmetricFlow):
            got = f"a {type(flow).__name__}"
            raise DataError(expected("flow", "the flow of a density with a symmetry", got, "take ForwardKL"))
        x = data["x"]
        if not turn:
            images, rows = flow.aligned(x, x[0]), torch.arange(len(x), device=x.device)
            energy = target.reduced_energy(x)
            return {**data, "images": images, "rows": rows, "energy": energy, "log_pi": -energy}
        rows = torch.randperm(len(x), generator=source, device=x.device)[: self.unfolded]
        images, shares = flow.likely(x[rows], source)
        found = {**data, "images": images, "rows": rows, "log_pi": shares.double() - data["energy"][rows]}
        if not self.own or turn < BEGIN * self.rounds:
            return found
        return remembered(found, self._own(flow, target, source))

    @torch.no_grad()
    def _own(self, flow: SymmetricFlow, target: Counted, source: torch.Generator) -> dict[str, Tensor]:
        """Draws of the flow before the average, with the weights of all their images."""
        x, log_pi = settled(*flow.one.sample(self.unfolded, seed=source))
        weights = mean_one(-target.reduced_energy(x) - flow.log_prob(x).double())
        return {"own_x": x, "own_weights": weights, "own_log_pi": log_pi}

    def loss(
        self, flow: Flow | SymmetricFlow, target: Counted, data: dict[str, Tensor], source: torch.Generator
    ) -> tuple[Float[Tensor, ""], None]:
        """Forward divergence on one batch of images and own draws."""
        assert isinstance(flow, SymmetricFlow), "see refresh"
        samples = {"x": data["images"], "weights": data["weights"][data["rows"]], "log_pi": data["log_pi"]}
        count, (x, weights, log_pi) = mixed(samples, data, self.own, self.optimisation.batch, source)
        return balanced_loss(flow.one.log_prob(x), weights, log_pi, count), None
