"""Joint draws of the energies of many structures from the posterior of a learned potential, by its methods alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Mixture

__all__ = ["energy_surfaces", "mean_surface"]

_PROBES = 12  # structures on which a factor is compared with the variance that the potential states
_DENSE = 3000  # structures whose joint covariance is decomposed


def mean_surface(model: Any, structures: Structures) -> tuple[Float[Tensor, " structures"], Float[Tensor, "atoms 3"]]:
    """Mean energies (eV) and forces (eV/Å) of a fitted or certified potential."""
    model = _bare(model)
    with torch.no_grad():
        if callable(own := getattr(model, "surface", None)):
            found = own(structures)
            return found.energies, found.forces
        if not callable(getattr(model, "predict", None)):
            raise DataError(expected("model", "a fitted potential", type(model).__name__, "fit it"))
        prediction = model.predict(structures)
        return prediction.energy.mean, prediction.forces.mean


def energy_surfaces(
    model: Any, parts: list[Structures], draws: int, *, seed: int | torch.Generator
) -> Float[Tensor, "draws structures"]:
    r"""Draws of the energies of all structures together, in eV.

    A draw is one surface: the same function at all structures, so that differences of energies have the variance that
    they have. Where a potential is linear in weights with posterior :math:`\mathcal N(m, S)`, as most here are,

    .. math:: E_k = \bar E + \sqrt a\,\Phi A z_k, \quad A A^T = S, \; z_k \sim \mathcal N(0, 1)

    with its features :math:`\Phi` and the inflation a of its energies: n structures cost n rows of features. What a
    potential offers is compared with the variance that it states before it is used. In order of preference: features
    and the posterior of their weights; features that are a factor of the covariance; members of an ensemble; the
    joint covariance of at most 3000 structures; ``draws``, each a potential, at the cost of as many evaluations.

    Parameters
    ----------
    parts
        Portions of the structures that fit into memory.

    Raises
    ------
    DataError
        If the potential offers none of these.
    """
    model, source = _bare(model), None
    mean = torch.cat([mean_surface(model, part)[0] for part in parts])
    source = generator(seed, mean.device)
    with torch.no_grad():
        for way in (_linear, _ensemble, _dense, _functions):
            deviations = way(model, parts, draws, source)
            if deviations is not None:
                return mean + deviations
    got = f"{type(model).__name__} with {sum(map(len, parts))} structures"
    raise DataError(expected("model", "features, members, a joint covariance, or draws", got, "take fewer rows"))


def _bare(model: Any) -> Any:
    """The potential of a certified model."""
    return model.model if hasattr(model, "domain") and hasattr(model, "model") else model


def _linear(model: Any, parts: list[Structures], draws: int, source: torch.Generator) -> Tensor | None:
    """Deviations by features, if these explain the variance that the potential states."""
    if not callable(getattr(model, "features", None)):
        return None
    probe = parts[0][:_PROBES]
    rows, stated = model.features(probe), model.predict(probe).energy.epistemic.variance
    for posterior in _posteriors(model):
        implied = rows.square().sum(1) if posterior is None else _variance(posterior, rows)
        inflation = None if implied is None else _ratio(stated, implied)
        if inflation is not None:
            break
    else:
        return None
    if posterior is None:
        weights = torch.randn(draws, rows.shape[1], generator=source, dtype=rows.dtype, device=rows.device)
    else:
        weights = posterior.sample(draws, seed=source) - posterior.mean
    return inflation**0.5 * torch.cat([model.features(part) @ weights.T for part in parts]).T


def _posteriors(model: Any) -> Iterator[Any]:
    """Distributions that the weights of the features may have; ``None`` for the standard normal one."""
    for owner in (model, getattr(model, "residual", None), getattr(model, "exact", None)):
        if callable(getattr(posterior := getattr(owner, "posterior", None), "sample", None)):
            yield posterior
    yield None


def _variance(posterior: Any, rows: Tensor) -> Tensor | None:
    return posterior.variance(rows) if len(posterior.mean) == rows.shape[1] else None


def _ratio(stated: Tensor, implied: Tensor) -> float | None:
    """Factor between two sets of variances; ``None`` if it is not one factor."""
    if not bool((stated > 0).any()):
        return 0.0
    ratio = stated / implied
    middle = float(ratio.median())
    return middle if bool((ratio - middle).abs().max() <= 1e-3 * middle) else None


def _ensemble(model: Any, parts: list[Structures], draws: int, source: torch.Generator) -> Tensor | None:
    """Deviations of members drawn with replacement."""
    if not isinstance(model.predict(parts[0][:1]).energy, Mixture):
        return None
    members = torch.cat([model.predict(part).energy.means for part in parts], 1)
    chosen = torch.randint(len(members), (draws,), generator=source, device=members.device)
    return (members - members.mean(0))[chosen]


def _dense(model: Any, parts: list[Structures], draws: int, source: torch.Generator) -> Tensor | None:
    """Deviations by a root of the joint covariance of all energies."""
    count = sum(map(len, parts))
    if count > _DENSE:
        return None
    whole = Structures.concatenate(parts)
    known = model.predict(whole, covariance=True).energy.epistemic
    covariance = getattr(known, "covariance", None)
    if not isinstance(covariance, Tensor) or covariance.shape != (count, count):
        return None
    values, vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
    normal = torch.randn(draws, count, generator=source, dtype=values.dtype, device=values.device)
    return (normal * values.clamp_min(0).sqrt()) @ vectors.mT


def _functions(model: Any, parts: list[Structures], draws: int, source: torch.Generator) -> Tensor | None:
    """Deviations of potentials drawn from the posterior."""
    if not callable(getattr(model, "draws", None)):
        return None
    mean = torch.cat([mean_surface(model, part)[0] for part in parts])
    drawn = [torch.cat([mean_surface(own, part)[0] for part in parts]) for own in model.draws(draws, seed=source)]
    return torch.stack(drawn) - mean
