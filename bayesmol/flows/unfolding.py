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
from bayesmol.flows.objectives import ForwardKL, forward_loss
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
    """

    def __init__(self, flow: Flow, system: Composed, density: BoltzmannDensity) -> None:
        super().__init__()
        self.flow, self.dimension, self.space = flow, density.dimension, density.space
        self.one = Seen(flow, system)
        self._average = Symmetrised(self.one, density.symmetry, density.signs)

    def log_prob(self, x: Tensor) -> Float[Tensor, " points"]:
        """Log-density of each row, in nats."""
        return self._average.log_prob(x.double())

    def sample(self, size: int, *, seed: int | torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws and their log-density."""
        return self._average.sample(size, seed=seed)

    def likely(self, x: Tensor, source: torch.Generator) -> Tensor:
        """An image of each row, drawn by its share of the average."""
        return torch.cat([self._average.image(part, source) for part in x.split(_CHUNK)])

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
    replaced by images drawn with their shares :math:`q(gx) / \sum_h q(hx)`, and then the flow learns these alone, at
    the cost of one density each. In the first round it is the image nearest to one of the samples: the flow begins in a
    fundamental domain, which a flow that has the symmetry itself could never choose.

    Attributes
    ----------
    rounds, unfolded
        Number of rounds, which share the budget equally, and samples of each but the first.

    References
    ----------
    Celeux, Diebolt, Comput. Stat. Q. 2, 73 (1985) (stochastic expectation–maximisation).
    """

    rounds: int = 12  # type: ignore[misc]  # a setting here, fixed in the base
    unfolded: int = 8192

    def __post_init__(self) -> None:
        super().__post_init__()
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
            return {**data, "images": flow.aligned(x, x[0]), "rows": torch.arange(len(x), device=x.device)}
        rows = torch.randperm(len(x), generator=source, device=x.device)[: self.unfolded]
        return {**data, "images": flow.likely(x[rows], source), "rows": rows}

    def loss(
        self, flow: Flow | SymmetricFlow, target: Counted, data: dict[str, Tensor], source: torch.Generator
    ) -> tuple[Float[Tensor, ""], None]:
        """Cross-entropy of one batch of images."""
        assert isinstance(flow, SymmetricFlow), "see refresh"
        images, weights = data["images"], data["weights"][data["rows"]]
        some = torch.randint(len(images), (self.optimisation.batch,), generator=source, device=images.device)
        return forward_loss(flow.one, images[some], weights[some]), None
