"""Distributions of torch, Pyro, NumPyro, GPyTorch and SciPy as posteriors, told by their attributes."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.inference.random import numpy_generator
from bayesmol.posterior import Draws, Gaussian, Mixture, Posterior
from bayesmol.posterior.location_scale import Laplace, StudentT

__all__ = ["as_tensor", "from_distribution", "from_frozen", "random_key", "seeded"]

_WRAPPERS = {"Independent", "ExpandedDistribution"}


def as_tensor(values: Any, name: str = "source") -> Tensor:
    """Floating-point tensor; a tensor keeps its precision and device, all else becomes float64.

    Raises
    ------
    DataError
        If the values are no rectangular array of numbers.
    """
    if isinstance(values, Tensor):
        return values.detach() if values.is_floating_point() else values.double()
    try:
        return torch.tensor(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise DataError(expected(name, "a rectangular array of numbers", type(values).__name__)) from error


@contextlib.contextmanager
def seeded(seed: int | torch.Generator) -> Iterator[None]:
    """What draws from torch's global generator draws by ``seed`` here; the global state is as before afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(int(numpy_generator(seed).integers(2**62)))
        yield


def random_key(seed: int | torch.Generator) -> np.ndarray:
    """Key of JAX's random numbers, as the two integers that it is made of."""
    return numpy_generator(seed).integers(2**32, size=2, dtype=np.uint32)


def from_distribution(source: Any, *, unit: str, size: int, seed: int | torch.Generator) -> Posterior:
    """Posterior of a distribution with ``batch_shape`` and ``event_shape``, as torch, Pyro, NumPyro and GPyTorch have.

    Normal (with or without covariance), StudentT, Laplace, and a mixture of normals with the same weights for all
    entries become the exact class; of all others ``size`` draws are taken.
    """
    shape = (*source.batch_shape, *source.event_shape)
    inner = source
    while type(inner).__name__ in _WRAPPERS:
        inner = inner.base_dist
    kinds = {kind.__name__ for kind in type(inner).__mro__}
    if kinds & {"Normal", "StudentT", "Laplace"}:
        location, scale = (as_tensor(part).expand(shape) for part in (inner.loc, inner.scale))
        if "StudentT" in kinds:
            return StudentT(location, scale, as_tensor(inner.df).to(location).expand(shape), unit=unit)
        if "Laplace" in kinds:
            return Laplace(location, scale, unit=unit)
        return Gaussian(location, scale.square(), unit=unit)
    if hasattr(inner, "covariance_matrix") and inner.event_shape:
        return _joint(inner, unit)
    mixture = _mixture(inner, unit) if "MixtureSameFamily" in kinds else None
    return _drawn(source, unit, size, seed) if mixture is None else mixture


def from_frozen(source: Any, *, unit: str, size: int, seed: int | torch.Generator) -> Posterior:
    """Posterior of a frozen distribution of SciPy.

    norm, t, laplace and multivariate_normal become the exact class; of others ``size`` draws are taken.
    """
    if not hasattr(source, "dist"):
        covariance = as_tensor(source.cov)
        return Gaussian(as_tensor(source.mean), covariance.diagonal(), unit=unit, covariance=covariance)
    name, median = source.dist.name, as_tensor(source.median())
    if name == "norm":
        return Gaussian(median, as_tensor(source.var()), unit=unit)
    if name == "laplace":
        return Laplace.from_stddev(median, as_tensor(source.std()), unit=unit)
    if name == "t":
        degrees = as_tensor(source.kwds["df"] if "df" in source.kwds else source.args[0]).expand(median.shape)
        standard = StudentT(torch.zeros_like(median), torch.ones_like(median), degrees, unit=unit)
        return StudentT(
            median, (as_tensor(source.ppf(0.75)) - median) / standard.interval(0.5).upper, degrees, unit=unit
        )
    draws = source.rvs(size=(size, *median.shape), random_state=numpy_generator(seed))
    return Draws(as_tensor(draws)[None], unit=unit)


def _joint(source: Any, unit: str) -> Gaussian:
    """Normal distribution with a covariance; a batch of them has one block each, GPyTorch's tasks are interleaved."""
    mean, covariance = as_tensor(source.mean), as_tensor(source.covariance_matrix)
    if len(source.event_shape) > 1 and not getattr(source, "_interleaved", True):
        rows = torch.arange(covariance.shape[-1], device=mean.device).reshape(*source.event_shape[::-1]).mT.reshape(-1)
        covariance = covariance[..., rows[:, None], rows]
    variance = covariance.diagonal(dim1=-2, dim2=-1).reshape(mean.shape)
    blocks = covariance if covariance.ndim == 2 else tuple(covariance.flatten(0, -3))
    return Gaussian(mean, variance, unit=unit, covariance=blocks)


def _mixture(source: Any, unit: str) -> Mixture | None:
    """Mixture of normals; ``None`` if the members are others, or have other weights in another entry."""
    named = "mixture_distribution" if hasattr(source, "mixture_distribution") else "mixing_distribution"
    weights = getattr(source, named)
    members = source.component_distribution
    while type(members).__name__ in _WRAPPERS:
        members = members.base_dist
    probabilities = as_tensor(weights.probs)
    first = probabilities.reshape(-1, probabilities.shape[-1])[0]
    same = bool(torch.isclose(probabilities, first).all())
    if not same or "Normal" not in {kind.__name__ for kind in type(members).__mro__}:
        return None
    axis = len(source.batch_shape)
    shape = (*source.batch_shape, len(first), *source.event_shape)
    location, scale = (as_tensor(part).expand(shape).movedim(axis, 0) for part in (members.loc, members.scale))
    return Mixture(location, scale.square(), first, unit=unit)


def _drawn(source: Any, unit: str, size: int, seed: int | torch.Generator) -> Draws:
    if "key" in inspect.signature(source.sample).parameters:
        return Draws(as_tensor(source.sample(random_key(seed), (size,)))[None], unit=unit)
    with seeded(seed), torch.no_grad():
        return Draws(as_tensor(source.sample(torch.Size((size,))))[None], unit=unit)
