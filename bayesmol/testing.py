"""Contract suites: what every posterior and every potential of this package must obey, for use in any test.

Each function raises :class:`AssertionError` with the broken rule; none needs pytest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from bayesmol.data import Labelled, Structures
from bayesmol.inference.random import generator
from bayesmol.posterior import Gaussian, Interval, Posterior, Prediction

__all__ = ["assert_calibrated", "assert_invariant", "check_posterior", "check_potential"]


def assert_calibrated(
    hits: int, trials: int, level: float, *, confidence: float = 0.99, calibration: int | None = None
) -> None:
    r"""Assert that an interval of ``level`` was right ``hits`` times in ``trials`` independent ones.

    The band is exact: binomial, or, for a split conformal interval of one calibration set of n points,
    Beta-binomial with :math:`\mathrm{Beta}(k, n + 1 - k)`, :math:`k = \lceil (n + 1)\,\mathrm{level} \rceil`.

    Parameters
    ----------
    confidence
        Probability that a true interval passes.
    calibration
        Number of calibration points; ``None`` for an interval that does not depend on any.

    References
    ----------
    Vovk, Machine Learning 92, 349 (2013), section 2; Angelopoulos, Bates, arXiv:2107.07511, section 3.2.
    """
    law = stats.binom(trials, level)
    if calibration is not None:
        rank = math.ceil((calibration + 1) * level - 1e-9)
        if rank > calibration:
            raise AssertionError(f"{calibration} calibration points give no interval of level {level}")
        law = stats.betabinom(trials, rank, calibration + 1 - rank)
    lower, upper = law.ppf((1 - confidence) / 2), law.ppf((1 + confidence) / 2)
    if not lower <= hits <= upper:
        raise AssertionError(f"{hits} of {trials} inside, expected {lower:.0f} to {upper:.0f} at level {level}")


def check_posterior(posterior: Posterior, *, size: int = 4000, seed: int = 0) -> None:
    """Assert that the derived quantities of ``posterior`` agree with its draws and with each other.

    Moments, quantiles, distribution function and intervals against ``size`` draws, nesting of the intervals, the law of
    total variance, selection, rules, and the same draws from the same seed. The chance of a false alarm is about 1e-6.
    """
    draws = posterior.sample(size, seed=seed)
    assert draws.shape == (size, *posterior.shape), f"draws have shape {tuple(draws.shape)}"
    assert torch.equal(draws, posterior.sample(size, seed=seed)), "the same seed must give the same draws"
    _check_moments(posterior, draws)
    _check_quantiles(posterior, draws)
    _check_parts(posterior)
    marked = posterior.with_rule(_Whole())
    assert bool(torch.isinf(marked.interval(0.5).width).all()), "a rule must make the interval"
    assert posterior.rule is not marked.rule, "with_rule must not change the original"
    if posterior.shape:
        assert marked[:1].rule is marked.rule, "a selection must keep the rule"
        for name in ("mean", "variance"):
            got, want = getattr(posterior[:1], name), getattr(posterior, name)[:1]
            torch.testing.assert_close(got, want, msg=_said(f"selection keeps the {name}"))


class _Whole:
    """Rule that gives the whole line."""

    def interval(self, posterior: Posterior, level: float) -> Interval:
        infinite = torch.full_like(posterior.mean, math.inf)
        return Interval(-infinite, infinite, level, posterior.unit, "always true")


def _check_moments(posterior: Posterior, draws: Tensor) -> None:
    size, tiny = len(draws), torch.finfo(draws.dtype).eps ** 0.5 * (1e-3 + posterior.mean.abs().max())
    gap = (draws.mean(0) - posterior.mean).abs()
    assert bool((gap <= 6 * posterior.stddev / math.sqrt(size) + tiny).all()), "mean and draws disagree"
    squares = (draws - posterior.mean).square()
    gap = (squares.mean(0) - posterior.variance).abs()
    assert bool((gap <= 6 * squares.std(0) / math.sqrt(size) + tiny**2).all()), "variance and draws disagree"


def _check_quantiles(posterior: Posterior, draws: Tensor) -> None:
    plain, size = posterior.with_rule(None), len(draws)
    levels = (0.1, 0.5, 0.9)
    quantiles = plain.quantile(torch.tensor(levels, dtype=torch.float64))
    assert bool((quantiles.diff(dim=0) >= 0).all()), "quantiles must rise with the probability"
    for level, value in zip(levels, quantiles, strict=True):
        assert bool((plain.cdf(value) >= level - 1e-6).all()), "cdf(quantile(p)) must reach p"
    middle = plain.quantile(0.5)
    share, band = (draws <= middle).double().mean(0), 6 * 0.5 / math.sqrt(size)
    assert bool(((share - plain.cdf(middle)).abs() <= band).all()), "cdf and draws disagree"
    inner, outer = plain.interval(0.5), plain.interval(0.9)
    assert bool(((outer.lower <= inner.lower) & (inner.upper <= outer.upper)).all()), "intervals must be nested"
    assert outer.unit == posterior.unit and outer.guarantee, "an interval must carry its unit and its guarantee"
    assert plain.apply(lambda x: 2 * x, posterior.unit).shape == posterior.shape, "apply must keep the axes"


def _check_parts(posterior: Posterior) -> None:
    known, noise = posterior.epistemic, posterior.aleatoric
    assert (known is None) == (noise is None), "epistemic and aleatoric parts come together"
    if known is not None and noise is not None:
        torch.testing.assert_close(known.variance + noise.variance, posterior.variance, rtol=1e-6, atol=1e-12)
        torch.testing.assert_close(known.mean + noise.mean, posterior.mean, rtol=1e-9, atol=1e-12)
        assert known.unit == noise.unit == posterior.unit, "the parts must carry the unit"


def assert_invariant(
    function: Callable[[Structures], Float[Tensor, " structures"]],
    structures: Structures,
    *,
    seed: int | torch.Generator = 0,
    rtol: float = 1e-9,
    atol: float = 1e-8,
) -> None:
    """Assert that ``function`` does not feel translation, rotation, inversion, or exchange of like atoms."""
    source, reference = generator(seed), function(structures)
    for proper in (True, False):
        turned, _ = _rotated(structures, source, proper=proper)
        law = _said("rotation" if proper else "improper rotation")
        torch.testing.assert_close(function(turned), reference, rtol=rtol, atol=atol, msg=law)
    shift = torch.randn(3, generator=source, dtype=torch.float64).to(structures.positions)
    moved = replace(structures, positions=structures.positions + 3 * shift)
    torch.testing.assert_close(function(moved), reference, rtol=rtol, atol=atol, msg=_said("translation"))
    exchanged, _ = _permuted(structures, source)
    torch.testing.assert_close(
        function(exchanged), reference, rtol=rtol, atol=atol, msg=_said("exchange of like atoms")
    )


def check_potential(
    model: Any,
    labelled: Labelled | Structures,
    *,
    seed: int | torch.Generator = 0,
    extensive: bool = True,
    atol: float = 1e-6,
) -> None:
    """Assert the laws of mechanics and the contract of a fitted potential on the structures of ``labelled``.

    Energy, its variance, forces and their covariance under rotation (inversion included), translation and exchange of
    like atoms; forces and stress as derivatives of the energy by finite differences; no net force; independence of the
    batch; two distant copies have twice the energy (unless ``extensive`` is false); bitwise equal predictions after
    ``state`` → JSON → ``from_state``. Give a few small structures: every law costs a prediction or more.

    Parameters
    ----------
    atol
        Absolute tolerance of the finite differences, in eV/Å, and of the symmetries, in eV and eV/Å.
    """
    structures, source = Structures.coerce(labelled), generator(seed)
    assert_invariant(lambda s: model.predict(s).energy.mean, structures, seed=source, atol=atol)
    assert_invariant(lambda s: model.predict(s).energy.variance, structures, seed=source, rtol=1e-6, atol=atol)
    reference = model.predict(structures, covariance=True)
    _check_shapes(reference, structures)
    _check_equivariance(model, structures, reference, source, atol)
    net = reference.forces.mean.new_zeros(len(structures), 3)
    net.index_add_(0, structures.structure_index, reference.forces.mean)
    torch.testing.assert_close(net, torch.zeros_like(net), rtol=0, atol=atol, msg=_said("sum of forces is zero"))
    alone = torch.cat([model.predict(structures[i]).energy.mean for i in range(len(structures))])
    torch.testing.assert_close(alone, reference.energy.mean, rtol=1e-9, atol=atol, msg=_said("batch independence"))
    _check_derivatives(model, structures, reference, source, atol)
    if extensive:
        _check_extensive(model, structures, reference, atol)
    _check_state(model, structures)


def _said(law: str) -> Callable[[str], str]:
    return lambda details: f"{law}: {details}"


def _orthogonal(source: torch.Generator, *, proper: bool) -> Tensor:
    """Random rotation, or with ``proper`` false a rotation times the inversion."""
    matrix, _ = torch.linalg.qr(torch.randn(3, 3, generator=source, dtype=torch.float64))
    sign = torch.linalg.det(matrix).sign()
    return matrix * (sign if proper else -sign)


def _rotated(structures: Structures, source: torch.Generator, *, proper: bool) -> tuple[Structures, Tensor]:
    matrix = _orthogonal(source, proper=proper).to(structures.positions)
    turned = replace(structures, positions=structures.positions @ matrix.mT, cell=structures.cell @ matrix.mT)
    return turned, matrix


def _permuted(structures: Structures, source: torch.Generator) -> tuple[Structures, Tensor]:
    """Structures with like atoms of each structure exchanged in one random cycle, and the permutation."""
    order = torch.arange(len(structures.species))
    key = structures.structure_index.cpu() * 1000 + structures.species.cpu()
    for value in key.unique():
        places = (key == value).nonzero().squeeze(1)
        cycle = places[torch.randperm(len(places), generator=source)]
        order[cycle] = cycle.roll(1)
    return replace(structures, positions=structures.positions[order.to(structures.positions.device)]), order


def _check_shapes(prediction: Prediction, structures: Structures) -> None:
    assert torch.equal(prediction.pointer, structures.pointer), "the prediction must keep the pointer"
    assert prediction.energy.unit == "eV" and prediction.forces.unit == "eV/Å", "energies in eV, forces in eV/Å"
    assert bool((prediction.energy.variance > 0).all()), "the variance of a new energy must be positive"
    check_posterior(prediction.energy, size=1000)
    check_posterior(prediction.forces, size=1000)


def _check_equivariance(
    model: Any, structures: Structures, reference: Prediction, source: torch.Generator, atol: float
) -> None:
    for proper in (True, False):
        turned, matrix = _rotated(structures, source, proper=proper)
        prediction = model.predict(turned, covariance=True)
        forces = reference.forces.mean @ matrix.mT
        torch.testing.assert_close(prediction.forces.mean, forces, rtol=1e-7, atol=atol, msg=_said("forces rotate"))
        for got, block in zip(_blocks(prediction.forces), _blocks(reference.forces), strict=True):
            turn = torch.block_diag(*[matrix] * (len(block) // 3))
            want = turn @ block @ turn.mT
            torch.testing.assert_close(got, want, rtol=1e-5, atol=atol, msg=_said("covariance rotates"))
        if reference.stress is not None and prediction.stress is not None:
            want = matrix @ reference.stress.mean @ matrix.mT
            torch.testing.assert_close(prediction.stress.mean, want, rtol=1e-7, atol=atol, msg=_said("stress rotates"))
    exchanged, order = _permuted(structures, source)
    got, want = model.predict(exchanged).forces.mean, reference.forces.mean[order]
    torch.testing.assert_close(got, want, rtol=1e-7, atol=atol, msg=_said("forces follow exchanged atoms"))


def _blocks(forces: Posterior) -> tuple[Tensor, ...]:
    covariance = forces.covariance if isinstance(forces, Gaussian) else None
    assert covariance is not None, "predict(covariance=True) must give forces with a covariance"
    return covariance if isinstance(covariance, tuple) else (covariance,)


def _slope(energy: Callable[[float], Tensor], step: float) -> Tensor:
    """Derivative at zero by the five-point formula."""
    near, far = energy(step) - energy(-step), energy(2 * step) - energy(-2 * step)
    return (8 * near - far) / (12 * step)


def _check_derivatives(
    model: Any, structures: Structures, reference: Prediction, source: torch.Generator, atol: float
) -> None:
    """Forces and stress against the energy, along three random directions for all structures at once."""
    volume = torch.linalg.det(structures.cell).abs()
    for _ in range(3):
        direction = torch.randn(structures.positions.shape, generator=source, dtype=torch.float64)
        direction = (direction / direction.norm() * math.sqrt(len(structures))).to(structures.positions)
        work = reference.energy.mean.new_zeros(len(structures))
        work.index_add_(0, structures.structure_index, (reference.forces.mean * direction).sum(1))

        def energy(step: float, along: Tensor = direction) -> Tensor:
            return model.predict(replace(structures, positions=structures.positions + step * along)).energy.mean

        slope = _slope(energy, 2e-3)
        torch.testing.assert_close(slope, -work, rtol=1e-5, atol=atol, msg=_said("forces are −dE/dx"))
        if reference.stress is not None and bool((volume > 0).all()):
            strain = torch.randn(3, 3, generator=source, dtype=torch.float64).to(structures.positions)
            strain = (strain + strain.mT) / 2
            slope = _slope(lambda h: model.predict(_strained(structures, h * strain)).energy.mean, 5e-4)  # noqa: B023
            want = volume * (reference.stress.mean * strain).sum((1, 2))
            torch.testing.assert_close(slope, want, rtol=1e-5, atol=10 * atol, msg=_said("stress is dE/dε/V"))


def _strained(structures: Structures, strain: Tensor) -> Structures:
    deformation = torch.eye(3).to(strain) + strain
    return replace(structures, positions=structures.positions @ deformation, cell=structures.cell @ deformation)


def _check_extensive(model: Any, structures: Structures, reference: Prediction, atol: float) -> None:
    """Two copies of a structure, side by side in a doubled cell or far apart, have twice its energy."""
    doubled = []
    for i in range(len(structures)):
        one = structures[i]
        periodic, cell = bool(one.pbc[0, 0]), one.cell.clone()
        shift = one.cell[0, 0] if periodic else one.positions.new_tensor([1000.0, 0.0, 0.0])
        if periodic:
            cell[0, 0] *= 2
        positions = torch.cat([one.positions, one.positions + shift])
        doubled.append(Structures(positions, one.species.repeat(2), one.pointer * 2, cell, one.pbc))
    energies = model.predict(Structures.concatenate(doubled)).energy.mean
    torch.testing.assert_close(energies, 2 * reference.energy.mean, rtol=1e-9, atol=atol, msg=_said("extensivity"))


def _check_state(model: Any, structures: Structures) -> None:
    header, arrays = model.state()
    other = type(model).from_state(json.loads(json.dumps(header)), {k: v.clone() for k, v in arrays.items()})
    before, after = model.predict(structures), other.predict(structures)
    for name in ("energy", "forces"):
        first, second = getattr(before, name), getattr(after, name)
        assert torch.equal(first.mean, second.mean), f"{name}: the mean must survive saving bit by bit"
        assert torch.equal(first.variance, second.variance), f"{name}: the variance must survive saving bit by bit"
