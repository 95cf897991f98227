"""Ensembles: several proposals as one density, and what their members do not agree on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.flows.proposal import Proposal, Target
from bayesmol.inference.random import generator
from bayesmol.posterior import Estimate

__all__ = ["Disagreement", "Ensemble", "disagreement"]

Observable = Callable[[Float[Tensor, "points dimension"]], Float[Tensor, " points"]]


class Ensemble:
    r"""The mixture :math:`q(x) = \sum_m c_m q_m(x)` of some proposals.

    Draws are stratified: of n draws, member m makes :math:`n c_m`, rounded at random. Weights :math:`p / q` with the
    density of the whole mixture (the balance heuristic) stay bounded wherever one member covers the target, and a mode
    that some members miss is drawn from the others.

    Parameters
    ----------
    members
        Proposals of one dimension: flows from several seeds or resampled data, or draws from a posterior of flows.
    shares
        c, positive numbers; normalised here, all equal by default.

    Raises
    ------
    DataError, ShapeError
        If there is no member, they differ in dimension, or shares are not one positive number each.

    References
    ----------
    Veach, Guibas, SIGGRAPH (1995), section 3.3 (balance heuristic); Owen, Zhou, J. Am. Stat. Assoc. 95, 135 (2000).
    """

    def __init__(self, members: Sequence[Proposal], shares: Float[Tensor, " members"] | None = None) -> None:
        dimensions = {member.dimension for member in members}
        if len(dimensions) != 1:
            raise DataError(expected("members", "one proposal or more, of one dimension", sorted(dimensions)))
        shares = torch.ones(len(members)) if shares is None else shares
        if shares.shape != (len(members),) or not bool((torch.isfinite(shares) & (shares > 0)).all()):
            raise ShapeError(expected("shares", f"{len(members)} positive numbers", shares))
        self.members, self.dimension = tuple(members), dimensions.pop()
        self.shares = shares.double() / shares.double().sum()

    def __len__(self) -> int:
        return len(self.members)

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the members compute."""
        return getattr(self.members[0], "dtype", torch.get_default_dtype())

    def member_log_prob(self, x: Float[Tensor, "points dimension"]) -> Float[Tensor, "members points"]:
        """Log-density of each row under each member, in nats."""
        return torch.stack([member.log_prob(x) for member in self.members])

    def log_prob(self, x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        """Log-density of the mixture, in nats."""
        logs = self.member_log_prob(x)
        return (logs + self.shares.log().to(logs)[:, None]).logsumexp(0)

    def sample(
        self, size: int, *, seed: int | torch.Generator
    ) -> tuple[Float[Tensor, "size dimension"], Float[Tensor, " size"]]:
        """Stratified rows in random order, and their log-density."""
        source = generator(seed, getattr(seed, "device", "cpu"))
        counts = self.allotted(size, seed=source).tolist()
        drawn = [m.sample(n, seed=source)[0] for m, n in zip(self.members, counts, strict=True) if n]
        x = torch.cat(drawn)[torch.randperm(size, generator=source, device=source.device)]
        return x, self.log_prob(x)

    def allotted(self, size: int, *, seed: int | torch.Generator) -> Int[Tensor, " members"]:
        """Draws that each member makes: within one of its share, which is right in the mean (systematic rounding)."""
        source = generator(seed, getattr(seed, "device", "cpu"))
        offset = torch.rand((), generator=source, dtype=torch.float64, device=source.device).cpu()
        edges = (size * self.shares.cpu().cumsum(0) + offset).floor()
        edges[-1] = size
        return edges.diff(prepend=edges.new_zeros(1)).long()


@dataclass(frozen=True, eq=False)
class Disagreement:
    r"""An expectation by each member of an ensemble and by all, by the law of total variance.

    .. math:: \mathrm{Var}(\hat\mu) = \underbrace{\mathrm{E}_m[s_m^2]}_{\text{sampling}}
              + \underbrace{\mathrm{Var}_m[\mu_m]}_{\text{epistemic}}

    Attributes
    ----------
    members, together
        Estimates of each member, and of the mixture.
    sampling
        Mean variance of the estimates of single members, from the number of their draws.
    epistemic
        Variance of what the members would give with draws without end; zero where sampling explains all of the spread.
    p_value
        Chance of a spread as large as this one if all members gave the same (Cochran's test).
    """

    members: Estimate
    together: Estimate
    sampling: float
    epistemic: float
    p_value: float


def disagreement(
    ensemble: Ensemble,
    observable: Observable,
    *,
    target: Target | None = None,
    size: int = 10_000,
    unit: str = "",
    seed: int | torch.Generator,
) -> Disagreement:
    r"""What the members say of one expectation, from ``size`` draws in all.

    Without a target, it is the mean over the proposals themselves: flows that differ have an epistemic error. With one,
    draws have weights :math:`e^{-u(x)} / q_m(x)`: every member then tends to the same number, and what is left of an
    epistemic error shows regions that some members miss.

    Raises
    ------
    DataError, ShapeError
        If there is but one member, draws are fewer than two a member, or the observable is no number for each row.
    """
    source = generator(seed, getattr(seed, "device", "cpu"))
    counts = ensemble.allotted(size, seed=source).tolist()
    if len(ensemble) < 2 or min(counts) < 2:
        raise DataError(expected("ensemble, size", "two members with two draws each", counts))
    drawn = [member.sample(n, seed=source) for member, n in zip(ensemble.members, counts, strict=True)]
    rows = [x.detach() for x, _ in drawn]
    energies = [None if target is None else target.reduced_energy(x).double() for x in rows]
    logs = [None if u is None else -u - log_q.detach() for u, (_, log_q) in zip(energies, drawn, strict=True)]
    parts = [_expectation(observable(x), log_w, unit) for x, log_w in zip(rows, logs, strict=True)]
    value, error, worth = (torch.stack([getattr(p, name) for p in parts]) for name in _FIELDS)
    members = Estimate(value, error, worth, unit)
    if target is None:
        together = _averaged(members, ensemble.shares)
    else:
        everything = torch.cat(rows)
        with torch.no_grad():
            log_w = -torch.cat([u for u in energies if u is not None]) - ensemble.log_prob(everything)
        together = _expectation(observable(everything), log_w, unit)
    return Disagreement(members, together, *_split(members, ensemble.shares))


_FIELDS = ("value", "standard_error", "effective_sample_size")


def _expectation(values: Tensor, log_weights: Tensor | None, unit: str) -> Estimate:
    """Mean of independent draws by the delta method, in double precision."""
    if values.ndim != 1 or (log_weights is not None and values.shape != log_weights.shape):
        raise ShapeError(expected("observable", "one number for each row", tuple(values.shape)))
    values = values.detach().double()
    weights = (torch.zeros_like(values) if log_weights is None else log_weights.double()).softmax(0)
    mean, count = weights @ values, len(values)
    variance = (weights * (values - mean)).square().sum() * count / (count - 1)
    return Estimate(mean, variance.sqrt(), 1 / weights.square().sum(), unit)


def _averaged(members: Estimate, shares: Tensor) -> Estimate:
    """Mean over the strata and its sampling error."""
    shares = shares.to(members.value)
    error = (shares * members.standard_error).square().sum().sqrt()
    return Estimate((shares * members.value).sum(), error, members.effective_sample_size.sum(), members.unit)


def _split(members: Estimate, shares: Tensor) -> tuple[float, float, float]:
    """Sampling variance, epistemic variance, and the probability of such a spread by chance."""
    shares, square = shares.to(members.value), members.standard_error.square()
    spread = (shares * (members.value - (shares * members.value).sum()).square()).sum()
    # The mean over members moves with each of them, which takes the share c(1 − c) of their variances into the spread.
    epistemic = (spread - (shares * (1 - shares) * square).sum()) / (1 - shares.square().sum())
    precision = 1 / square.clamp_min(torch.finfo(square.dtype).tiny)
    precise = (precision * members.value).sum() / precision.sum()
    statistic = float((precision * (members.value - precise).square()).sum())
    chance = float(stats.chi2.sf(statistic, len(shares) - 1))
    return float((shares * square).sum()), float(epistemic.clamp_min(0.0)), chance
