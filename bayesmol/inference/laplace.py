r"""Posteriors of a last layer: normal about trained weights or about their posterior mean, by the conjugate algebra.

A model that is linear in its last layer, :math:`y = \Phi w + \varepsilon`, is fitted by its gram matrix
:math:`G = \Phi^\top N^{-1} \Phi` and the moment :math:`\eta = \Phi^\top N^{-1} y`, which
:class:`bayesmol.inference.streaming.Stream` sums up in chunks.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.inference.conjugate import LinearPosterior, cholesky, posterior_from_gram

__all__ = ["evidence_precision", "laplace", "ridge"]


def laplace(
    gram: Float[Tensor, "weights weights"],
    mean: Float[Tensor, " weights"],
    *,
    precision: float | Float[Tensor, " weights"] | None = None,
) -> LinearPosterior:
    r"""Laplace approximation :math:`\mathcal N(m, (G + \operatorname{diag}\alpha)^{-1})` about trained weights m.

    The variance of a functional with row :math:`\phi` is :math:`\phi^\top (G + \alpha)^{-1} \phi`, the inverse
    prediction rigidity.

    Parameters
    ----------
    precision
        :math:`\alpha`, of the prior of each weight; by the evidence, one for all weights, if ``None``. All in float64.

    Raises
    ------
    ConvergenceError
        If the evidence has no maximum.

    References
    ----------
    MacKay, Neural Comput. 4, 448 (1992); Bigi, Chong, Ceriotti, Grasselli, Mach. Learn.: Sci. Technol. 5, 045018
    (2024) (arXiv:2403.02251).
    """
    _check(gram, mean)
    chosen = evidence_precision(gram, mean=mean) if precision is None else _expanded(precision, gram)
    found = _posterior(gram, torch.zeros_like(mean), chosen)
    return LinearPosterior(mean.double(), found.root, found.factor)


def ridge(
    gram: Float[Tensor, "weights weights"],
    moment: Float[Tensor, " weights"],
    *,
    precision: float | Float[Tensor, " weights"] | None = None,
) -> LinearPosterior:
    r"""Bayesian linear regression :math:`\mathcal N((G + \alpha)^{-1}\eta, (G + \alpha)^{-1})`; as :func:`laplace`."""
    _check(gram, moment)
    chosen = evidence_precision(gram, moment=moment) if precision is None else _expanded(precision, gram)
    return _posterior(gram, moment, chosen)


def evidence_precision(
    gram: Float[Tensor, "weights weights"],
    *,
    mean: Float[Tensor, " weights"] | None = None,
    moment: Float[Tensor, " weights"] | None = None,
    groups: Int[Tensor, " weights"] | None = None,
    steps: int = 1000,
) -> Float[Tensor, " weights"]:
    r"""Prior precision of each weight that maximises the evidence, one value for each group of weights.

    At the maximum

    .. math:: \alpha_g = \frac{\gamma_g}{\sum_{i \in g} m_i^2}, \qquad
              \gamma_g = \sum_{i \in g} \left(1 - \alpha_g [(G + \alpha)^{-1}]_{ii}\right),

    where :math:`\gamma_g` counts the weights of the group that the data determine.

    Parameters
    ----------
    mean, moment
        Trained weights, which stay; or :math:`\eta`, with which m is the posterior mean. One of them.
    groups
        Number of the group of each weight; one group if ``None``.

    Raises
    ------
    DataError
        If not exactly one of mean and moment is given.
    ConvergenceError
        If the iteration does not end: the data do not tell the weights of a group from zero.

    References
    ----------
    MacKay, Neural Comput. 4, 415 (1992), the fixed point of the evidence.
    """
    given = [part for part in (mean, moment) if part is not None]
    if len(given) != 1:
        raise DataError(expected("mean, moment", "exactly one of them", "both or none"))
    _check(gram, given[0])
    owner = torch.zeros(len(gram), dtype=torch.long, device=gram.device) if groups is None else groups
    count, gram = int(owner.max()) + 1, gram.double()
    sizes = torch.bincount(owner, minlength=count).to(gram)
    log_precision = torch.zeros(count).to(gram) + gram.diagonal().mean().clamp_min(1e-12).log() * 0.5
    ceiling = gram.diagonal().max().clamp_min(1e-12).log() + math.log(1e10)
    for _ in range(steps):
        precision = log_precision.exp()[owner]
        root = cholesky(gram + torch.diag(precision), "precision of the weights")
        inverse = torch.cholesky_inverse(root)
        centre = given[0].to(gram) if moment is None else inverse @ moment.to(gram)
        zeros = torch.zeros(count).to(gram)
        determined = sizes - zeros.index_add(0, owner, precision * inverse.diagonal())
        found = (determined / zeros.index_add(0, owner, centre.square())).log()
        if bool((found - log_precision).abs().max() < 1e-6):
            return found.exp()[owner]
        log_precision = found
        if not bool((found < ceiling).all()):
            break
    remedy = "give the precision, or leave the group out"
    raise ConvergenceError(expected("precision", "a maximum of the evidence", "none", remedy))


def _posterior(gram: Tensor, moment: Tensor, precision: Tensor) -> LinearPosterior:
    """With the weights in units of their prior deviations, as the conjugate algebra has them, and back."""
    scale = precision.rsqrt()
    white = posterior_from_gram(scale[:, None] * gram.double() * scale, scale * moment.double())
    root = torch.diag(1 / scale) if white.root is None else white.root / scale[:, None]
    return LinearPosterior(scale * white.mean, root, white.factor)


def _expanded(precision: float | Tensor, gram: Tensor) -> Tensor:
    found = torch.as_tensor(precision, dtype=torch.float64, device=gram.device).expand(len(gram))
    if not bool((torch.isfinite(found) & (found > 0)).all()):
        raise DataError(expected("precision", "positive finite numbers", "others"))
    return found


def _check(gram: Tensor, vector: Tensor) -> None:
    if gram.shape != (len(vector), len(vector)):
        raise ShapeError(expected("gram", f"shape ({len(vector)}, {len(vector)})", tuple(gram.shape)))
    if not bool(torch.isfinite(gram).all() & torch.isfinite(vector).all()):
        raise DataError(expected("gram, weights", "finite numbers", "NaN or infinity"))
