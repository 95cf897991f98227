"""The Gaussian process of one molecule for more labels than a matrix can hold: inducing structures and a stream."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.potentials.gradient_frames import Frames
from bayesmol.potentials.gradient_gp import GradientGP
from bayesmol.potentials.gradient_posterior import GradientGPPotential
from bayesmol.potentials.guards import frame_keys
from bayesmol.potentials.inducing_posterior import InducingGPPotential
from bayesmol.progress import progress

__all__ = ["InducingGP", "streamed"]


@dataclass(frozen=True)
class InducingGP:
    r"""The process of :class:`~bayesmol.potentials.GradientGP`, seen through its energies and forces at m structures.

    With :math:`u`, the energies and forces of the inducing structures, and the noise N of the labels,

    .. math:: q(u) \propto p(u)\, \mathcal N(y; K_{nm} K_{mm}^{-1} u, N), \qquad
        \mathrm{Cov}(f_*) = K_{**} - Q_{**} + K_{*m} K_{mm}^{-1}\, \mathrm{Cov}_q(u)\, K_{mm}^{-1} K_{m*}

    is, of all processes that know the labels through u alone, the one nearest to the exact process for given scales
    (Kullback–Leibler). Its variance returns to that of the prior away from the inducing structures. With all structures
    inducing it is the exact process. Time grows as the labels times m², memory as m², whatever the number of labels;
    :class:`~bayesmol.potentials.GradientGP` itself solves for the mean of large sets by conjugate gradients, exactly,
    but takes its variances from a part of the labels, and its predictions cost the more the more it has learned.

    Attributes
    ----------
    process
        Kernel and how its scales are learned, on the inducing structures.
    inducing
        Number of inducing structures; the others are used for their labels only.

    References
    ----------
    Titsias, AISTATS, PMLR 5, 567 (2009); Quiñonero-Candela, Rasmussen, J. Mach. Learn. Res. 6, 1939 (2005).
    """

    process: GradientGP = field(default_factory=GradientGP)
    inducing: int = 100

    def __post_init__(self) -> None:
        if self.inducing < 2:
            raise DataError(expected("inducing", "at least two structures", self.inducing))

    def fit(self, labelled: Labelled, *, seed: int | torch.Generator = 0) -> InducingGPPotential:
        """Potential given all labels; ``seed`` chooses the inducing structures and those that the scales come from.

        Raises
        ------
        DataError
            If the structures are not one molecule without cell, or there are fewer than two.
        """
        source = generator(seed)
        chosen = torch.randperm(len(labelled), generator=source)[: self.inducing].sort().values
        scales = self.process.fit(labelled[chosen], seed=source)
        return streamed(scales, labelled)


def streamed(scales: GradientGPPotential, labelled: Labelled) -> InducingGPPotential:
    """Posterior given ``labelled`` with the scales of a potential, whose training structures are the inducing ones.

    Those structures count as labels only where they are in ``labelled``.
    """
    return learned(InducingGPPotential.prior(scales), labelled)


def learned(potential: InducingGPPotential, labelled: Labelled) -> InducingGPPotential:
    """The potential after more labels, a bounded amount of memory at a time."""
    stream = potential.stream
    with progress("summing the normal equations", len(labelled)) as advance:
        for part in torch.arange(len(labelled)).split(potential.portion):
            stream = stream.updated(*_rows(potential, potential.frames(labelled[part])))
            advance(len(part))
    seen = torch.cat([potential.seen, frame_keys(labelled.structures)])
    return replace(potential, stream=stream, seen=seen)


def _rows(potential: InducingGPPotential, frames: Frames) -> tuple[Tensor, Tensor, Tensor]:
    """White rows and targets of the labels of some structures, with noise one."""
    white = potential.white(frames.rows)
    variances = white.new_tensor([potential.noise_energy**2, potential.noise_force**2])
    targets, noise = frames.targets(*variances)
    both = torch.cat([white, targets[..., None]], 2)
    found = torch.linalg.solve_triangular(torch.linalg.cholesky(noise), both, upper=False)[frames.observed]
    return found[:, :-1], found[:, -1], torch.ones_like(found[:, -1])
