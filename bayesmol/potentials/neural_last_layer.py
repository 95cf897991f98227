"""Posteriors of the last layer of a network: shallow ensemble, Laplace, regression on the features, variational."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.inference.conjugate import LinearPosterior
from bayesmol.inference.laplace import laplace, ridge
from bayesmol.potentials.neural_energy import NeuralEnergy
from bayesmol.potentials.neural_member import Member
from bayesmol.potentials.neural_run import Run
from bayesmol.potentials.training import trained
from bayesmol.potentials.training_loss import probability_loss


@dataclass(frozen=True)
class LastLayerLaplace:
    r"""Laplace approximation about the trained last layer: the variance of an energy is its inverse rigidity.

    .. math:: \mathrm{Cov}(w) = (\Phi^T N^{-1} \Phi + \alpha)^{-1}

    with the rows of all training energies and forces, the noise of the validation residuals, and the prior of
    :func:`prior_precision`. Forces have the exact covariance of the same weights.

    References
    ----------
    Bigi, Chong, Ceriotti, Grasselli, Mach. Learn.: Sci. Technol. 5, 045018 (2024), arXiv:2403.02251.
    """

    def members(self, run: Run) -> tuple[Member, ...]:
        """The trained network with a Gaussian last layer."""
        member = Member(run.energy, run.normal_equations[0].new_zeros(0, 0))
        return (_member(run.energy, laplace(run.normal_equations[0], member.mean, precision=prior_precision(member))),)


@dataclass(frozen=True)
class FrozenFeatures:
    """Bayesian linear regression on the features of the trained network: mean and covariance of the last layer.

    The prior is normal about zero, see :func:`prior_precision`.
    """

    def members(self, run: Run) -> tuple[Member, ...]:
        """The trained features with the posterior of the last layer."""
        member = Member(run.energy, run.normal_equations[0].new_zeros(0, 0))
        return (_member(run.energy, ridge(*run.normal_equations, precision=prior_precision(member))),)


@dataclass(frozen=True)
class VariationalLastLayer:
    """Normal approximation of the posterior of the last layer by stochastic variational inference (Pyro).

    For a Gaussian likelihood the posterior *is* normal, and :class:`FrozenFeatures` has it in closed form; this one
    shows what the stochastic search loses.

    Attributes
    ----------
    steps, rate
        Of the search, on weights in units of their prior deviations.
    """

    steps: int = 2000
    rate: float = 0.02

    def members(self, run: Run) -> tuple[Member, ...]:
        """The trained features with a variational posterior of the last layer."""
        from bayesmol.inference.svi import Variational
        from bayesmol.inference.targets import NormalPrior, Target

        gram, moment = run.normal_equations
        member = Member(run.energy, gram.new_zeros(0, 0))
        prior = prior_precision(member)
        exact = ridge(gram, moment, precision=prior)
        # In these coordinates the posterior is isotropic, which is what makes a few thousand steps enough.
        axes = exact.spread(torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
        wide = torch.full_like(moment, 2.0)
        precision = gram + torch.diag(prior)
        # The search has a prior of its own, which is taken off again.
        inner = axes.T @ precision @ axes - torch.diag(wide**-2)
        pull = axes.T @ (moment - precision @ exact.mean)

        def log_likelihood(vector: Tensor, rows: Tensor) -> Tensor:
            return vector @ pull - 0.5 * vector @ inner @ vector

        target = Target(log_likelihood, NormalPrior.centred(wide), 1)
        search = Variational(covariance="dense", steps=self.steps, rate=self.rate, initial=0.2)
        found = search.fit(target, torch.zeros_like(moment), seed=run.seed).posterior.linear()
        spread = axes @ found.spread(torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
        return (Member(with_heads(run.energy, (exact.mean + axes @ found.mean)[:, None]), spread),)


@dataclass(frozen=True)
class ShallowEnsemble:
    r"""Several last layers on one network, trained together to give probable energies and forces.

    The heads start as draws of :class:`LastLayerLaplace` and are trained with the whole network by a proper score of
    the normal distribution with their mean and variance, for energies and for each component of the forces.

    Attributes
    ----------
    heads
        Number of last layers.
    epochs, rate
        Of the training with the score, after the usual one.
    score
        Negative log-likelihood, or continuous ranked probability score.

    Raises
    ------
    DataError
        If there are fewer than two heads, no epoch, no rate, or another score.

    References
    ----------
    Kellner and Ceriotti, Mach. Learn.: Sci. Technol. 5, 035006 (2024), arXiv:2402.16621, for the heads;
    Schaefer, Kellner, Kaestner, Ceriotti, arXiv:2602.15747 (2026), for the score of the forces.
    """

    heads: int = 8
    epochs: int = 10
    rate: float = 5e-4
    score: Literal["nll", "crps"] = "nll"

    def __post_init__(self) -> None:
        if self.heads < 2:
            raise DataError(expected("heads", "two or more", self.heads, "one head has no spread"))
        if not (self.epochs >= 1 and self.rate > 0):
            raise DataError(expected("epochs, rate", "positive numbers", (self.epochs, self.rate)))
        if self.score not in ("nll", "crps"):
            raise DataError(expected("score", "nll or crps", repr(self.score)))

    def members(self, run: Run) -> tuple[Member, ...]:
        """The fine-tuned network with the mean and covariance of its heads."""
        start = self._start(run)
        schedule = replace(run.schedule, epochs=self.epochs, rate=self.rate, checks=min(10, self.epochs))
        loss = probability_loss(self.score, *run.noise)
        found = trained(start, run.data, run.validation, schedule, seed=run.seed + 1, loss=loss)
        heads = torch.cat([found.head, found.shift]).detach().double()
        mean = heads.mean(1)
        root = (heads - mean[:, None]) / (self.heads - 1) ** 0.5
        return (Member(with_heads(found, mean[:, None]), root),)

    def _start(self, run: Run) -> NeuralEnergy:
        (member,) = LastLayerLaplace().members(run)
        source = torch.Generator(device=member.root.device).manual_seed(run.seed)
        normal = torch.randn(
            member.root.shape[1], self.heads, generator=source, dtype=torch.float64, device=source.device
        )
        return with_heads(member.energy, member.mean[:, None] + member.root @ normal)


def prior_precision(member: Member) -> Float[Tensor, " weights"]:
    """Prior precision of each weight of the last layer: features as large as the trained ones are on average, constants
    of the elements of at least one unit of the network's energies.

    The evidence chooses no better where features are few and labels many, and has no maximum after a short training.
    """
    width = member.energy.network.width
    sizes = [part.square().mean().clamp_min(1e-6) for part in (member.mean[:width], member.mean[width:])]
    head, shift = sizes[0].expand(width), sizes[1].clamp_min(1.0).expand(len(member.mean) - width)
    return 1 / torch.cat([head, shift])


def with_heads(energy: NeuralEnergy, heads: Tensor) -> NeuralEnergy:
    """A copy with other last layers, (width + species, heads)."""
    found = copy.deepcopy(energy)
    head, shift = heads.to(energy.head).split([energy.network.width, len(energy.shift)])
    found.head, found.shift = torch.nn.Parameter(head.clone()), torch.nn.Parameter(shift.clone())
    return found


def _member(energy: NeuralEnergy, posterior: LinearPosterior) -> Member:
    size = len(posterior.mean)
    root = posterior.spread(torch.eye(size, dtype=posterior.mean.dtype, device=posterior.mean.device))
    return Member(with_heads(energy, posterior.mean[:, None]), root)
