"""Standard errors of the spectrum and the populations of a transition matrix to first order: no draws at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.dynamics.leading_spectrum import leading_spectrum
from bayesmol.dynamics.reversible import nonreversible_estimate, reversible_estimate
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Gaussian

__all__ = ["DeltaMethod", "delta_method"]


@dataclass(frozen=True, eq=False)
class DeltaMethod:
    """Eigenvalues and populations at the maximum of the likelihood, with variances of first order.

    Intervals are normal; they hold for many independent counts.

    Attributes
    ----------
    lag
        Of the counts, in ``unit``.
    eigenvalues
        Largest in size without the stationary one; complex without detailed balance.
    eigenvalue_variance
        Of their sizes.
    stationary, stationary_variance
        Populations.
    """

    lag: float
    unit: str
    eigenvalues: Tensor
    eigenvalue_variance: Float[Tensor, " count"]
    stationary: Float[Tensor, " states"]
    stationary_variance: Float[Tensor, " states"]

    @property
    def log_timescales(self) -> Gaussian:
        r"""Logarithms of :math:`t = -\tau / \ln|\lambda|`, of :math:`t` in ``unit``; they are less skewed than t."""
        size = self.eigenvalues.abs()
        slope = 1 / (size * size.log())
        return Gaussian((-self.lag / size.log()).log(), slope.square() * self.eigenvalue_variance, unit="")

    @property
    def timescales(self) -> Gaussian:
        r"""Implied timescales, :math:`\sigma_t = t^2 \sigma_\lambda / (\tau |\lambda|)`."""
        size = self.eigenvalues.abs()
        times = -self.lag / size.log()
        slope = times.square() / (self.lag * size)
        return Gaussian(times, slope.square() * self.eigenvalue_variance, unit=self.unit)

    @property
    def populations(self) -> Gaussian:
        """Stationary distribution."""
        return Gaussian(self.stationary, self.stationary_variance, unit="")


def delta_method(
    counts: Float[Tensor, "states states"],
    count: int = 3,
    *,
    lag: float = 1,
    unit: str = "frames",
    reversible: bool = True,
) -> DeltaMethod:
    r"""Variances of eigenvalues, timescales and populations from independent transition counts.

    Without detailed balance the rows are Dirichlet with covariance
    :math:`(\mathrm{diag}(p_i) - p_i p_i^\top) / (c_i + 1)`, and with the sensitivities
    :math:`s_{ij} = \partial f / \partial p_{ij}`

    .. math:: \mathrm{var} f = \sum_i \frac{1}{c_i + 1} \Big[ \sum_j p_{ij} s_{ij}^2 - \Big(\sum_j p_{ij} s_{ij}\Big)^2
        \Big], \qquad \frac{\partial \lambda}{\partial p_{ij}} = \frac{l_i r_j}{l^\top r}, \qquad
        \frac{\partial \pi_k}{\partial p_{ij}} = \pi_i Z_{jk}, \quad Z = (I - P + 1 \pi^\top)^{-1} .

    With detailed balance the posterior of :class:`~bayesmol.dynamics.reversible_gibbs.ReversibleGibbs` is linearised:
    :math:`d \ln x_{ij} = \varepsilon_{ij} - (u_i\,d\theta_i + u_j\,d\theta_j)/(u_i + u_j)` with independent
    :math:`\varepsilon_{ij}` of variance :math:`1/(c_{ij} + c_{ji})`, :math:`1/c_{ii}` on the diagonal, and
    :math:`d\theta` normal with the inverse curvature of the likelihood.

    Raises
    ------
    ShapeError, DataError
        If the counts cannot be used, or there are not ``count`` eigenvalues beside the stationary one.

    References
    ----------
    Hinrichs, Pande, J. Chem. Phys. 126, 244101 (2007) (eigenvalues); Schweitzer, J. Appl. Probab. 5, 401 (1968)
    (populations).
    """
    if counts.ndim != 2:
        raise ShapeError(expected("counts", "(states, states)", tuple(counts.shape)))
    if not 1 <= count < len(counts):
        raise DataError(expected("count", f"from 1 to {len(counts) - 1}", count))
    method = _reversible if reversible else _nonreversible
    return DeltaMethod(lag, unit, *method(counts.double(), count))


def _nonreversible(counts: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    estimate = nonreversible_estimate(counts)
    p, pi, weight = estimate.transition, estimate.stationary, 1 / (counts.sum(1) + 1)
    values, right = torch.linalg.eig(p)
    order = values.abs().argsort(descending=True, stable=True)[1 : count + 1]
    chosen = torch.zeros(len(values), count, dtype=right.dtype, device=right.device)
    chosen[order, torch.arange(count, device=order.device)] = 1
    left = torch.linalg.solve(right.mT, chosen)
    values, right = values[order], right[:, order]
    phase = left * (values.conj() / values.abs())
    variance = torch.stack([_row_variance(p, torch.outer(phase[:, k], right[:, k]).real, weight) for k in range(count)])
    z = torch.linalg.inv(torch.eye(len(p)).to(p) - p + pi)
    spread = (weight * pi.square()) @ (p @ z.square() - (p @ z).square())
    return values, variance, pi, spread.clamp_min(0)


def _row_variance(p: Tensor, sensitivity: Tensor, weight: Tensor) -> Tensor:
    mean = (p * sensitivity).sum(1, keepdim=True)
    return weight @ (p * (sensitivity - mean).square()).sum(1)


def _reversible(counts: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    estimate = reversible_estimate(counts)
    pi = estimate.stationary
    flows = pi[:, None] * estimate.transition
    share = torch.sigmoid(estimate.potentials[:, None] - estimate.potentials)  # u_i / (u_i + u_j)
    sums = counts + counts.mT
    sums.diagonal().copy_(counts.diagonal())
    noise = torch.where(sums > 0, flows.square() / sums, 0.0)
    # Curvature of the likelihood in θ, with the free constant held: c u_i u_j / (u_i + u_j)².
    coupling = sums * share * share.mT
    coupling.diagonal().zero_()
    degree = coupling.sum(1)
    factor = torch.linalg.cholesky(torch.diag(degree) - coupling + degree.mean() / len(pi))
    values, spread = _eigenvalue_variance(estimate.transition, pi, flows, share, noise, factor, count)
    return values, spread, pi, _population_variance(pi, flows, share, noise, factor)


def _eigenvalue_variance(
    transition: Tensor, pi: Tensor, flows: Tensor, share: Tensor, noise: Tensor, factor: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    r"""From :math:`d\lambda = \sum_{ij} dx_{ij}\,[r_i r_j - \lambda (r_i^2 + r_j^2) / 2]`."""
    spectrum = leading_spectrum(transition, pi, count + 1)
    values, vectors = spectrum.values[1:], spectrum.right[:, 1:]
    variances = []
    for value, r in zip(values, vectors.mT, strict=True):
        slope = torch.outer(r, r) - value * (r.square()[:, None] + r.square()) / 2
        drift = 2 * (slope * flows * share).sum(1)
        squares = slope.square() * noise
        direct = 2 * squares.sum() - squares.trace()
        variances.append(direct + (torch.linalg.solve_triangular(factor, drift[:, None], upper=False)).square().sum())
    return values, torch.stack(variances)


def _population_variance(pi: Tensor, flows: Tensor, share: Tensor, noise: Tensor, factor: Tensor) -> Tensor:
    r"""From :math:`d\pi = (I - \pi 1^\top)\,dx`, :math:`x_i = \sum_j x_{ij}`."""
    response = flows * share.mT
    response.diagonal().copy_((flows * share).sum(1) + flows.diagonal() / 2)
    response = response - pi[:, None] * response.sum(0)
    indirect = torch.linalg.solve_triangular(factor, response.mT, upper=False).square().sum(0)
    covariance = noise.clone()
    covariance.diagonal().copy_(noise.sum(1))
    rows = covariance.sum(1)
    return indirect + covariance.diagonal() - 2 * pi * rows + pi.square() * rows.sum()
