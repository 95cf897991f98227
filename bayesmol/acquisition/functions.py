"""What the labels of each structure of a pool are worth: spreads, information, and the chance of a large error.

Only what labels can narrow counts: where a posterior knows its epistemic part, that is taken, and the noise of labels
attracts nobody. A function judges each structure alone; a batch whose structures do not repeat each other is made from
joint factors, see :func:`~bayesmol.acquisition.select`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from numpy.polynomial.legendre import leggauss
from torch import Tensor

from bayesmol.acquisition.batches import information_gain
from bayesmol.acquisition.improvement import reducible
from bayesmol.acquisition.information import predictive_information, variance_reduction
from bayesmol.data import Structures
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import integer_seed
from bayesmol.posterior import Draws, Gaussian, Posterior, Prediction
from bayesmol.typing import Energies

__all__ = ["FUNCTIONS", "ball_exceedance", "exceedance", "values"]

FUNCTIONS: dict[str, str] = {
    "energy_variance": "variance of the energy per atom, eV²",
    "force_variance": "variance of the force vector of an atom, mean over the atoms, (eV/Å)²",
    "max_force_deviation": "largest standard deviation of a force vector in the structure, eV/Å",
    "relative_force_deviation": "largest deviation of a force vector relative to its length + 0.2 eV/Å",
    "information": "information of the forces about the model, nat",
    "predictive_information": "information of the forces about those of target structures, nat an atom",
    "integrated_variance": "variance of the forces of target structures that the labels take away, (eV/Å)²",
    "exceedance": "probability that the force on some atom is wrong by more than the tolerance",
}
_SOFTENING = 0.2  # eV/Å; without it atoms at rest would be infinitely uncertain
_RANK = 2048  # force labels of one factor, about
_MEMORY = 2**24  # numbers at once
_NODES = 48


def values(
    function: str,
    model: Any,
    structures: Any,
    *,
    target: Any = None,
    tolerance: float | None = None,
    seed: int | torch.Generator = 0,
) -> Energies:
    r"""Value of labelling each structure, higher is better, by one of :data:`FUNCTIONS`.

    With :math:`\sigma_i` the epistemic standard deviations of the three components of the force on atom i and
    :math:`\Sigma` the epistemic covariance of all forces of a structure of n atoms:

    ========================  ==================================================================
    energy_variance           :math:`\operatorname{var}(E / n)`
    force_variance            :math:`\tfrac1n \sum_i \lVert\sigma_i\rVert^2`
    max_force_deviation       :math:`\max_i \lVert\sigma_i\rVert`
    relative_force_deviation  :math:`\max_i \lVert\sigma_i\rVert / (\lVert F_i\rVert + 0.2\,\mathrm{eV/Å})`
    information               :math:`\tfrac12 \ln\det(1 + N^{-1/2}\, \Sigma\, N^{-1/2})`, N the noise of the labels
    predictive_information    :func:`~bayesmol.acquisition.information.predictive_information`
    integrated_variance       :func:`~bayesmol.acquisition.information.variance_reduction`
    exceedance                :func:`exceedance`
    ========================  ==================================================================

    All but the first two grow with the size of a structure; divide by costs where these grow too. The two functions of
    a target rest on joint factors with a column for each force, which is exact for potentials that factor their
    covariance, as ours do; a model that draws its factors would let n labels explain by chance what they do not.

    Parameters
    ----------
    model
        Anything with ``predict(structures) → Prediction``; for "information" and "exceedance"
        ``predict(structures, covariance=True)``, and for the functions of a target
        ``force_factor(structures, rank, seed)`` and ``noise_force``.
    target
        Structures on which the model shall be good, at most 2048 atoms; for the two functions of a target.
    tolerance
        Largest harmless error of a force vector, in eV/Å; for "exceedance".

    Raises
    ------
    DataError
        If the function is unknown, or a target or a tolerance is missing or not used.

    References
    ----------
    Zhang et al., Comput. Phys. Commun. 253, 107206 (2020) (maximum deviation of forces in DP-GEN).
    """
    if function not in FUNCTIONS:
        raise DataError(expected("function", f"one of {sorted(FUNCTIONS)}", repr(function)))
    aimed = function in ("predictive_information", "integrated_variance")
    for name, given, needed in (("target", target, aimed), ("tolerance", tolerance, function == "exceedance")):
        if (given is not None) != needed:
            said = "to be given" if needed else "nothing"
            raise DataError(expected(name, f"{said} for {function!r}", "none" if given is None else "one"))
    batch = Structures.coerce(structures)
    if tolerance is not None:
        return exceedance(model, batch, tolerance, seed=seed)
    if aimed:
        return _aimed(function, model, batch, Structures.coerce(target), seed)
    covariance = {"covariance": True} if function == "information" else {}
    parts = (batch[chunk] for chunk in _chunks(9 * batch.counts.square(), _MEMORY))
    return torch.cat([_PLAIN[function](model.predict(part, **covariance), model) for part in parts])


def exceedance(
    model: Any,
    structures: Any,
    tolerance: float,
    *,
    noisy: bool = False,
    size: int = 1000,
    seed: int | torch.Generator = 0,
) -> Energies:
    r"""Probability that the predicted force on at least one atom of each structure is wrong by more than ``tolerance``.

    .. math:: P\bigl(\max_i \lVert F_i - \mu_i \rVert > \mathrm{tol}\bigr),

    by ``size`` joint draws of all forces of a structure. Of a Gaussian the probability of each atom alone is known
    exactly (:func:`ball_exceedance`), and the result is kept between the largest of these and their sum, which it must
    be; so rare events still rank. Gaussian forces without a covariance are independent: then it is exact.

    Parameters
    ----------
    tolerance
        In eV/Å.
    noisy
        Of the difference to a label, noise included, which is what a test set shows; by default of the epistemic part
        alone, the error that labels can mend.
    """
    if not tolerance > 0:
        raise DataError(expected("tolerance", "a positive error of a force, in eV/Å", tolerance))
    batch, found = Structures.coerce(structures), []
    source = torch.Generator().manual_seed(integer_seed(seed))
    for chunk in _chunks(9 * batch.counts.square() + 3 * size * batch.counts, _MEMORY):
        prediction = model.predict(batch[chunk], covariance=True)
        forces = prediction.forces if noisy else reducible(prediction.forces)
        owner = _owner(prediction)
        if not isinstance(forces, Gaussian):
            found.append(_share(forces, owner, tolerance, size, source))
            continue
        blocks = [b.unflatten(0, (-1, 3)).unflatten(2, (-1, 3)) for b in _blocks(forces, prediction)]
        alone = ball_exceedance(torch.cat([b.diagonal(dim1=0, dim2=2).movedim(-1, 0) for b in blocks]), tolerance)
        if forces.covariance is None:
            found.append(-torch.expm1(_summed(torch.log1p(-alone), owner)))
            continue
        upper = _summed(alone, owner).clamp_max(1.0)
        share = _share(forces, owner, tolerance, size, source)
        found.append(torch.minimum(torch.maximum(share, _largest(alone, owner)), upper))
    return torch.cat(found)


def ball_exceedance(covariance: Float[Tensor, "atoms 3 3"], tolerance: float) -> Float[Tensor, " atoms"]:
    r"""Probability that a Gaussian vector of mean zero is longer than ``tolerance``, exact to about 1e-10.

    With eigenvalues :math:`\lambda_1 \ge \lambda_2 \ge \lambda_3`, by Gauss–Legendre quadrature of

    .. math:: 1 - \int\!\!\int_{x_2^2 + x_3^2 < t^2} \mathcal N(x_2; 0, \lambda_2)\, \mathcal N(x_3; 0, \lambda_3)
              \operatorname{erf} \sqrt{\frac{t^2 - x_2^2 - x_3^2}{2 \lambda_1}}\, dx_2\, dx_3.
    """
    spread = torch.linalg.eigvalsh(covariance.double()).clamp_min(1e-24 * tolerance**2).sqrt()
    nodes, weights = (torch.from_numpy(part).to(spread) * math.pi / 4 for part in leggauss(_NODES))
    nodes = nodes + math.pi / 4  # angles from 0 to π/2

    def axis(sigma: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        # x = a sin θ: the square root at the surface becomes smooth. Beyond nine deviations nothing is left.
        extent = torch.minimum(radius, 9 * sigma)[..., None]
        place, slope = extent * nodes.sin(), extent * nodes.cos()
        density = (-0.5 * (place / sigma[..., None]).square()).exp() / (sigma[..., None] * math.sqrt(2 * math.pi))
        return place, 2 * weights * slope * density

    third, outer = axis(spread[:, 0], torch.full_like(spread[:, 0], tolerance))
    radius = (tolerance**2 - third.square()).clamp_min(0.0).sqrt()
    second, inner = axis(spread[:, 1:2].expand_as(radius), radius)
    left = (radius[..., None].square() - second.square()).clamp_min(0.0).sqrt()
    inside = torch.erf(left / (math.sqrt(2) * spread[:, 2, None, None]))
    return (1 - (outer * (inner * inside).sum(-1)).sum(-1)).clamp(0.0, 1.0)


def _energy_variance(prediction: Prediction, _: Any) -> Tensor:
    return reducible(prediction.energy).variance.double() / prediction.pointer.diff().square()


def _force_variance(prediction: Prediction, _: Any) -> Tensor:
    square = reducible(prediction.forces).variance.double().sum(1)
    return _summed(square, _owner(prediction)) / prediction.pointer.diff()


def _max_force_deviation(prediction: Prediction, _: Any) -> Tensor:
    return _largest(reducible(prediction.forces).variance.double().sum(1).sqrt(), _owner(prediction))


def _relative_force_deviation(prediction: Prediction, _: Any) -> Tensor:
    deviation = reducible(prediction.forces).variance.double().sum(1).sqrt()
    return _largest(deviation / (prediction.forces.mean.double().norm(dim=1) + _SOFTENING), _owner(prediction))


def _information(prediction: Prediction, model: Any) -> Tensor:
    noise = prediction.forces.aleatoric
    spread = torch.full_like(prediction.forces.mean, model.noise_force) if noise is None else noise.stddev
    sizes = (3 * prediction.pointer.diff()).tolist()
    pairs = zip(_blocks(reducible(prediction.forces), prediction), spread.flatten().split(sizes), strict=True)
    gains = [information_gain((block / torch.outer(own, own)).double(), 1.0) for block, own in pairs]
    return torch.tensor(gains, dtype=torch.float64, device=spread.device)


_PLAIN: dict[str, Callable[[Prediction, Any], Tensor]] = {
    "energy_variance": _energy_variance,
    "force_variance": _force_variance,
    "max_force_deviation": _max_force_deviation,
    "relative_force_deviation": _relative_force_deviation,
    "information": _information,
}


def _aimed(function: str, model: Any, batch: Structures, target: Structures, seed: int | torch.Generator) -> Tensor:
    """Functions of a target: its factors are made anew with each part of the pool, because only a joint call fits."""
    found, number, noise, room = [], integer_seed(seed), model.noise_force, 3 * len(target.positions)
    if len(target.positions) > _RANK:
        raise DataError(expected("target", f"at most {_RANK} atoms in all", len(target.positions), "take a part of it"))
    for chunk in _chunks(3 * batch.counts, max(_RANK - room, _RANK // 2)):
        part = batch[chunk]
        # A truncated factor would not rank: it leaves out variance of the labels, not of the target.
        rank = room + 3 * len(part.positions)
        factors = model.force_factor(Structures.concatenate([part, target]), rank=rank, seed=number)
        aim = torch.cat(factors[len(part) :]).unflatten(0, (-1, 3))
        for factor in factors[: len(part)]:
            if function == "integrated_variance":
                found.append(variance_reduction(factor, aim, noise))
            else:
                found.append(predictive_information(factor, aim, noise, noise))
    return torch.stack(found)


def _owner(prediction: Prediction) -> Tensor:
    counts = prediction.pointer.diff()
    return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)


def _summed(values: Tensor, owner: Tensor) -> Tensor:
    return values.new_zeros(int(owner[-1]) + 1).index_add_(0, owner, values)


def _largest(values: Tensor, owner: Tensor) -> Tensor:
    return values.new_zeros(int(owner[-1]) + 1).scatter_reduce(0, owner, values, "amax")


def _blocks(forces: Posterior, prediction: Prediction) -> list[Tensor]:
    """Covariance of the forces of each structure."""
    sizes = (3 * prediction.pointer.diff()).tolist()
    if isinstance(forces, Gaussian):
        if forces.covariance is None:
            return [torch.diag(part) for part in forces.variance.flatten().split(sizes)]
        if isinstance(forces.covariance, tuple):
            return list(forces.covariance)
        ends = torch.tensor(sizes).cumsum(0).tolist()
        return [forces.covariance[e - n : e, e - n : e] for n, e in zip(sizes, ends, strict=True)]
    draws = forces if isinstance(forces, Draws) else forces.apply(lambda f: f, forces.unit)
    centred = draws.weights.flatten().sqrt()[:, None] * (draws.values - draws.mean).flatten(0, 1).flatten(1)
    return [part.mT @ part for part in centred.split(sizes, dim=1)]


def _share(forces: Posterior, owner: Tensor, tolerance: float, size: int, source: torch.Generator) -> Tensor:
    """Share of joint draws in which some atom of a structure is off by more than the tolerance."""
    mean, structures = forces.mean, int(owner[-1]) + 1

    def missed(draws: Tensor) -> Tensor:
        wrong = ((draws - mean).norm(dim=2) > tolerance).double()
        none = wrong.new_zeros(len(draws), structures)
        return none.scatter_reduce(1, owner.expand(len(draws), -1), wrong, "amax")

    return forces.apply(missed, "", size=size, seed=source).mean


def _chunks(sizes: Tensor, limit: int) -> Iterator[slice]:
    """Runs of structures whose sizes together are at most the limit; at least one structure each."""
    start = total = 0
    for index, own in enumerate(sizes.tolist()):
        if total and total + own > limit:
            yield slice(start, index)
            start, total = index, 0
        total += own
    yield slice(start, len(sizes))
