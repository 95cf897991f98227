"""Posteriors of Koopman operators from correlated pairs: the bootstrap, and two closed forms to check it with."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.dynamics.moments import Moments
from bayesmol.dynamics.reweighting import EquilibriumMoments
from bayesmol.dynamics.spectra import reversible
from bayesmol.dynamics.weights import BlockWeights, covariance_root, distances
from bayesmol.errors import ConvergenceError, expected

__all__ = ["POSTERIORS", "bootstrap", "effective_pairs", "matrix_normal", "matrix_normal_draws", "sandwich"]

Three = tuple[Tensor, Tensor, Tensor]


def bootstrap(white: Moments | EquilibriumMoments, weights: BlockWeights, source: torch.Generator) -> Iterator[Three]:
    """Moments from each row of weights: all of them move, whatever the estimator makes of them."""
    size = max(1, int(2e7 / white.early[0].numel()))
    return (white.mean(part) for part in weights.values.split(size))


def sandwich(white: Moments, weights: BlockWeights, source: torch.Generator) -> Iterator[Three]:
    r"""Operators drawn from a normal about the estimate, with a covariance that knows of the correlation of the pairs.

    .. math:: \mathrm{Cov}(\mathrm{vec}\, K) = H^{-1} J H^{-1}, \quad H = N C_{00}, \quad
              J = \sum_{bc} e^{-d_{bc}^2 / 2 h^2}\, \mathrm{vec}\, S_b\, (\mathrm{vec}\, S_c)^\top,

    where :math:`S_b = \sum \psi(x_t) [\psi(x_{t+\tau}) - K^\top \psi(x_t)]^\top` over the pairs of block b: the
    sandwich with the kernel of the bootstrap in its long-run variance. Each draw is scaled by
    :math:`\sqrt{\nu / \chi^2_\nu}`.

    References
    ----------
    Newey, West, Econometrica 55, 703 (1987); Ribatet, Cooley, Davison, Stat. Sin. 22, 813 (2012).
    """
    early, cross, late = white.mean()
    operator = torch.linalg.solve(early, cross)
    draws = len(weights.values)
    normal = torch.randn(draws, len(white.sizes), generator=source, dtype=early.dtype, device=early.device)
    fields = normal @ covariance_root(_kernel(white, weights)) / _shrinkage(weights, draws, source).sqrt()[:, None]
    moved = torch.einsum("db,bij->dij", fields, white.cross - white.early @ operator) / white.pairs
    yield early.expand_as(moved), cross + moved, late.expand_as(moved)


def matrix_normal(white: Moments, weights: BlockWeights, source: torch.Generator) -> Iterator[Three]:
    r"""Operators drawn from the tempered matrix-normal/inverse-Wishart posterior of :func:`matrix_normal_draws`.

    The likelihood of the pairs counts as that of :func:`effective_pairs`, a number that is itself estimated: each draw
    takes it times :math:`\chi^2_\nu / \nu`. One number cannot suit all processes: it is that of the slowest, and the
    intervals of processes whose errors are forgotten sooner are too wide.

    Raises
    ------
    ConvergenceError
        If there are fewer effective pairs than functions need.
    """
    early, cross, late = white.mean()
    pairs = effective_pairs(white, weights) * _shrinkage(weights, len(weights.values), source)
    operators = matrix_normal_draws(early, cross[:, 1:], late[1:, 1:], pairs, source)
    constant = cross[:, :1].expand(len(operators), -1, 1)
    drawn = torch.cat([constant, early @ operators], 2)
    yield early.expand_as(drawn), drawn, late.expand_as(drawn)


def effective_pairs(white: Moments, weights: BlockWeights) -> float:
    r"""Number of independent pairs that are worth as much as these: fewer, as J is larger than for independent ones.

    .. math:: n = N\, \frac{N\, \overline{\psi_1^2}\; \overline{r_1^2}}{v^\top J v}, \qquad
              v^\top J v = \sum_{bc} e^{-d_{bc}^2 / 2 h^2} g_b\, g_c, \qquad g_b = \sum \psi_1(x_t)\, r_1(t)

    with the slowest eigenfunction :math:`\psi_1`, its residual :math:`r_1 = \psi_1(x_{t+\tau}) - K^\top \psi_1(x_t)`,
    and J that of :func:`sandwich`: the magnitude adjustment of a composite likelihood, for the process whose errors are
    correlated over most pairs.

    References
    ----------
    Ribatet, Cooley, Davison, Stat. Sin. 22, 813 (2012), section 3.
    """
    early, cross, late = white.mean()
    operator, slow = torch.linalg.solve(early, cross), reversible(early, cross, late).right[:, 1]
    scores = torch.einsum("i,bij,j->b", slow, white.cross - white.early @ operator, slow)
    found = float((covariance_root(_kernel(white, weights)) @ scores).square().sum())
    missed = late - cross.mT @ operator
    return white.pairs**2 * float((slow @ early @ slow) * (slow @ missed @ slow)) / found


def matrix_normal_draws(
    early: Float[Tensor, "functions functions"],
    cross: Float[Tensor, "functions targets"],
    late: Float[Tensor, "targets targets"],
    pairs: Float[Tensor, " draws"],
    source: torch.Generator,
) -> Float[Tensor, "draws functions targets"]:
    r"""Posterior of K in :math:`y = K^\top x + e`, :math:`e \sim N(0, \Sigma)`, prior :math:`|\Sigma|^{-(q+1)/2}`.

    .. math:: \Sigma \sim IW(n - p,\; n (C_{11} - C_{01}^\top C_{00}^{-1} C_{01})), \qquad
              K \mid \Sigma \sim MN(C_{00}^{-1} C_{01},\; (n C_{00})^{-1},\; \Sigma)

    for n pairs, p functions x and q targets y.

    Parameters
    ----------
    early, cross, late
        Means over pairs of :math:`x x^\top`, :math:`x y^\top` and :math:`y y^\top`.
    pairs
        n of each draw.

    Raises
    ------
    ConvergenceError
        If a draw has fewer than :math:`p + q` pairs.

    References
    ----------
    Zellner, An introduction to Bayesian inference in econometrics, Wiley (1971), section 8.1.
    """
    functions, targets = cross.shape
    if not float(pairs.min()) > functions + targets:
        aim, got = f"more than {functions + targets} effective pairs", f"{float(pairs.min()):.3g}"
        raise ConvergenceError(expected("trajectories", aim, got, "sample longer, or take fewer functions"))
    mean = torch.linalg.solve(early, cross)
    factor = torch.linalg.cholesky(torch.linalg.inv(late - cross.mT @ mean))
    wishart = _bartlett(pairs - functions, targets, source) / pairs.sqrt()[:, None, None]
    noise = torch.randn(len(pairs), functions, targets, generator=source, dtype=mean.dtype, device=mean.device)
    # Σ = (L A)⁻ᵀ (L A)⁻¹ with the factor L of the inverse scale and A of a standard Wishart matrix.
    noise = torch.linalg.solve_triangular(factor @ wishart, noise, upper=False, left=False)
    lower = torch.linalg.cholesky(early)
    return mean + torch.linalg.solve_triangular(lower.mT, noise, upper=True) / pairs.sqrt()[:, None, None]


def _bartlett(freedom: Float[Tensor, " draws"], size: int, source: torch.Generator) -> Float[Tensor, "draws size size"]:
    """Lower factors of Wishart matrices of the identity."""
    lower = torch.randn(len(freedom), size, size, generator=source, dtype=freedom.dtype, device=freedom.device).tril(-1)
    shapes = (freedom[:, None] - torch.arange(size).to(freedom)) / 2
    return lower + torch.diag_embed((2 * torch._standard_gamma(shapes, generator=source)).sqrt())


def _kernel(white: Moments, weights: BlockWeights) -> Float[Tensor, "blocks blocks"]:
    """Kernel of the long-run variance; what the estimate of the mean takes away is given back."""
    kernel = torch.exp(-(distances(white.trajectory) * (white.length / weights.bandwidth)).square() / 2)
    return kernel / (1 - kernel.mean())


def _shrinkage(weights: BlockWeights, draws: int, source: torch.Generator) -> Float[Tensor, " draws"]:
    r""":math:`\chi^2_\nu / \nu`: how well a variance from these blocks is known."""
    shape = weights.values.new_full((draws,), weights.freedom / 2)
    return torch._standard_gamma(shape, generator=source) * 2 / weights.freedom


POSTERIORS: dict[str, Callable[..., Iterator[Three]]] = {
    "bootstrap": bootstrap,
    "matrix-normal": matrix_normal,
    "sandwich": sandwich,
}
