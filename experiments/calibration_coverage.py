"""Coverage of the conformal methods in simulations, against the exact law of the hits given one calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import pairwise

import torch
from harness import average
from jaxtyping import Int
from scipy import stats
from torch import Tensor

from bayesmol.calibration import Conformal, coverage_band
from bayesmol.calibration.vectors import ConformalRegion
from bayesmol.inference.random import generator
from bayesmol.posterior import Gaussian
from bayesmol.progress import progress
from bayesmol.report import Study

LEVEL = 0.9

Hits = tuple[float, int, int | None]  # hits, trials, exchangeable units (None: no exact law given the calibration)


def coverage(study: Study, *, replications: int = 1000, seed: int | torch.Generator = 0) -> None:
    """Hits of each method against the exact law, in simulations whose standard deviations are wrong everywhere.

    ``outside_*``: replications outside of their exact 99 % Beta-binomial band; the target allows for chance, 1e-3. Of
    methods for a random entry of a structure only the average over calibrations has a bound, from the level to the
    level + 2/(G + 1), here 0.9 to 0.967.
    """
    source = generator(seed)
    with study.stage("coverage"), progress("replications", replications * len(CASES)) as advance:
        for name, case in CASES.items():
            found = []
            for _ in range(replications):
                found += list(case(source))
                advance()
            shares = torch.tensor([hits / trials for hits, trials, _ in found], dtype=torch.float64)
            study.add(f"coverage_{name}", average(shares))
            exact = [one for one in found if one[2] is not None]
            if exact:
                outside = sum(not _inside(*one) for one in exact)
                most = float(stats.binom(len(exact), 0.01).ppf(0.999)) / len(exact)
                study.expectations = {**study.expectations, f"outside_{name}": {"upper": 1000 * most}}
                study.add(f"outside_{name}", 1000 * outside / len(exact), "per 1000")


@cache
def _band(count: int, trials: int) -> tuple[float, float]:
    return coverage_band(count, trials, LEVEL, confidence=0.99)


def _inside(hits: int, trials: int, count: int) -> bool:
    low, high = _band(count, trials)
    return low <= hits / trials <= high


def _normal(source: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=source, dtype=torch.float64)


def _entries(source: torch.Generator, spec: Conformal, count: int = 99, test: int = 200) -> Iterator[Hits]:
    """Skewed residuals about zero; standard deviations have nothing to do with them."""
    posterior, truth = _case(source, count + test)
    rule = spec.fit(posterior[:count], truth[:count])
    inside = rule.interval(posterior[count:], LEVEL).contains(truth[count:])
    yield int(inside.sum()), test, count


def _case(source: torch.Generator, *shape: int) -> tuple[Gaussian, Tensor]:
    truth = _normal(source, *shape).exp() - 1.5
    return Gaussian(torch.zeros_like(truth), (2 * _normal(source, *shape)).exp(), unit=""), truth


def _categories(source: torch.Generator, kinds: int = 3, count: int = 40, test: int = 60) -> Iterator[Hits]:
    posterior, truth = _case(source, kinds * (count + test))
    category = torch.arange(kinds).repeat(count + test)
    truth, old = truth * (1.0 + category), kinds * count
    rule = Conformal().fit(posterior[:old], truth[:old], categories=category[:old])
    interval = rule.interval(posterior[old:], LEVEL, categories=category[old:])
    for hits in interval.contains(truth[old:]).reshape(test, kinds).T:
        yield int(hits.sum()), test, count


def _bins(source: torch.Generator, bins: int = 3, count: int = 119, test: int = 180) -> Iterator[Hits]:
    posterior, truth = _case(source, count + test)
    rule = Conformal(bins=bins).fit(posterior[:count], truth[:count])
    inside = rule.interval(posterior[count:], LEVEL).contains(truth[count:])
    place = torch.searchsorted(rule.edges, posterior.stddev[count:], right=True)
    for number, sample in enumerate(rule.samples):
        if bool((place == number).any()):
            yield int(inside[place == number].sum()), int((place == number).sum()), sample.count


def _structures(source: torch.Generator, count: int) -> tuple[Gaussian, Tensor, Int[Tensor, " atoms"]]:
    """Vectors of structures of 1 to 6 atoms, whose errors have a size of their own, and correlated components."""
    atoms = torch.randint(1, 7, (count,), generator=source)
    groups = torch.arange(count).repeat_interleave(atoms)
    shear = torch.eye(3, dtype=torch.float64) + 0.5 * _normal(source, 3, 3)
    size = (0.5 * _normal(source, count)).exp()[groups, None]
    residual = size * (_normal(source, len(groups), 3) @ shear.mT)
    scale = (0.3 * _normal(source, len(groups))).exp()[:, None]
    covariance = torch.block_diag(*((shear @ shear.mT) * scale.square()[:, None]))
    variance = covariance.diagonal().reshape(-1, 3).contiguous()
    return Gaussian(torch.zeros_like(residual), variance, unit="", covariance=covariance), residual, groups


def _grouped(
    source: torch.Generator, contains: Callable[..., Tensor], together: bool, count: int = 29, test: int = 40
) -> Iterator[Hits]:
    posterior, truth, groups = _structures(source, count + test)
    starts = torch.searchsorted(groups, torch.arange(count + test + 1))
    old = int(starts[count])
    inside = contains(posterior[:old], truth[:old], groups[:old], posterior[old:], truth[old:])
    parts = [inside[a - old : b - old] for a, b in pairwise(starts[count:].tolist())]
    if together:
        yield sum(bool(part.all()) for part in parts), test, count
    else:
        yield sum(float(part.double().mean()) for part in parts), test, None


def _intervals(known: Gaussian, truth: Tensor, groups: Tensor, ahead: Gaussian, new: Tensor, spec: Conformal) -> Tensor:
    return spec.fit(known, truth, groups=groups).interval(ahead, LEVEL).contains(new)


def _regions(
    known: Gaussian, truth: Tensor, groups: Tensor, ahead: Gaussian, new: Tensor, spec: ConformalRegion
) -> Tensor:
    return spec.fit(known, truth, groups=groups).region(ahead, LEVEL).contains(new)


CASES: dict[str, Callable[[torch.Generator], Iterator[Hits]]] = {
    name: partial(_entries, spec=spec)
    for name, spec in {
        "absolute": Conformal("absolute"),
        "normalised": Conformal(),
        "floor": Conformal(floor="auto"),
        "quantile": Conformal("quantile"),
    }.items()
}
CASES |= {"categories": _categories, "bins": _bins}
for _name, _together in {"structure": False, "simultaneous": True}.items():
    _spec = Conformal(unit="structure", simultaneous=_together)
    CASES[_name] = partial(_grouped, contains=partial(_intervals, spec=_spec), together=_together)
    for _shape in ("ball", "ellipsoid"):
        _region = ConformalRegion(_shape, simultaneous=_together)
        _contains = partial(_regions, spec=_region)
        CASES[f"{_shape}_{_name}"] = partial(_grouped, contains=_contains, together=_together)
