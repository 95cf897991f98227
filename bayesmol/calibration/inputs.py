"""What people have – arrays, distributions, fitted models of any library – as posteriors, told by their attributes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesmol.calibration.distributions import as_tensor, from_distribution, from_frozen, random_key, seeded
from bayesmol.errors import DataError, ShapeError, UnitError, expected
from bayesmol.posterior import Draws, Gaussian, Posterior, Prediction
from bayesmol.posterior.quantiles import Quantiles

__all__ = ["predictive"]

ACCEPTED = (
    "a Posterior; a Prediction; a tuple (mean, stddev); an array of draws along the first axis; a dict {level: "
    "quantiles} or {'obs': draws}; a distribution of SciPy, torch, Pyro, NumPyro or GPyTorch"
)
MODELS = (
    "with inputs: a callable that gives one of these (but no bare array); an estimator with predict(…, "
    "return_std=True); a forest; a GPyTorch model or (model, likelihood); a BoTorch model; a Predictive of Pyro or "
    "NumPyro; a potential; an ASE calculator with a spread, and ase.Atoms"
)
_PARTS = {"eV": "energy", "eV/Å": "forces", "eV/Å³": "stress"}
_SPREADS = ("stddev", "std", "uncertainty")


@dataclass(frozen=True)
class _Request:
    unit: str
    size: int
    seed: int | torch.Generator

    @property
    def part(self) -> str:
        """Energy, forces or stress, as the unit says."""
        if (self.unit or "eV") not in _PARTS:
            remedy = "the unit says which of energy, forces and stress"
            raise UnitError(expected("unit", f"one of {', '.join(_PARTS)}", repr(self.unit), remedy))
        return _PARTS[self.unit or "eV"]


def predictive(
    source: Any, inputs: Any = None, *, unit: str = "", size: int = 1000, seed: int | torch.Generator = 0
) -> Posterior:
    """Posterior of whatever carries a predictive distribution.

    Without ``inputs``:

    - a :class:`Posterior`: itself; a :class:`Prediction`: its energy, forces or stress, by ``unit``;
    - a tuple ``(mean, stddev)``: :class:`Gaussian`;
    - an array with draws along the first axis: :class:`Draws`; an xarray ``(chain, draw, …)`` keeps its chains;
    - a dict ``{level: quantiles}``: :class:`Quantiles`; ``{"obs": draws}``, or a single site: :class:`Draws`;
    - a distribution of SciPy, torch, Pyro, NumPyro or GPyTorch: :class:`Gaussian` (with its covariance),
      :class:`StudentT`, :class:`Laplace` or :class:`Mixture` where it is one, else :class:`Draws`.

    With ``inputs``:

    - a callable that returns one of the above; a bare array is refused, for it could be a point estimate;
    - an estimator with ``predict(inputs, return_std=True)``: :class:`Gaussian`;
    - a forest or bagging (``estimators_``): its members as :class:`Draws`, without the noise of the labels;
    - a GPyTorch model (and likelihood, as a tuple) or a BoTorch model: :class:`Gaussian` with covariance and noise;
    - ``Predictive`` of Pyro or NumPyro: :class:`Draws` of the site ``"obs"``, or of the only one;
    - a potential of this package, and structures: energy, forces or stress, by ``unit``;
    - an ASE calculator, and one or more ``ase.Atoms``: by ``unit`` (eV, eV/Å or eV/Å³) :class:`Gaussian` from results
      such as ``energy_stddev``, ``forces_std``, ``stress_var``, or :class:`Draws` of a committee, ``forces_comm``.

    Parameters
    ----------
    inputs
        What a model predicts for; a tuple is several arguments.
    unit
        Unit of the values.
    size, seed
        Number of draws where there must be draws, and their seed; no global state is touched.

    Raises
    ------
    DataError
        If the source is none of these, or its values cannot be used.
    UnitError
        If a posterior has another unit.
    """
    request = _Request(unit, size, seed)
    if inputs is None:
        return _given(source, request)
    for accepts, predicted in _PREDICTORS:
        if accepts(source):
            return predicted(source, inputs, request)
    raise DataError(expected("source", MODELS, type(source).__name__))


def _given(source: Any, request: _Request) -> Posterior:
    options: dict[str, Any] = {"unit": request.unit, "size": request.size, "seed": request.seed}
    if isinstance(source, Posterior):
        if request.unit not in ("", source.unit):
            raise UnitError(expected("unit", f"{source.unit!r} of the posterior", repr(request.unit), "convert it"))
        return source
    if isinstance(source, Prediction):
        return _part_of(source, request)
    if isinstance(source, Mapping):
        return _mapping(source, request)
    if hasattr(source, "batch_shape") and hasattr(source, "event_shape"):
        return from_distribution(source, **options)
    if hasattr(source, "rvs") and (hasattr(source, "ppf") or hasattr(source, "cov")):
        return from_frozen(source, **options)
    if isinstance(source, tuple) and len(source) == 2 and not any(callable(part) for part in source):
        return _moments(*source, request.unit)
    if _is_array(source):
        return _draws(source, request.unit)
    remedy = f"give the inputs if it is a model – {MODELS}"
    raise DataError(expected("source", ACCEPTED, type(source).__name__, remedy))


def _is_array(source: Any) -> bool:
    return isinstance(source, list | np.ndarray | Tensor) or hasattr(source, "__array__")


def _moments(mean: Any, stddev: Any, unit: str) -> Gaussian:
    mean, stddev = as_tensor(mean, "mean"), as_tensor(stddev, "stddev")
    if stddev.shape != mean.shape:
        raise ShapeError(expected("stddev", f"shape {tuple(mean.shape)} of the mean", tuple(stddev.shape)))
    if not bool((stddev >= 0).all()):
        raise DataError(expected("stddev", "numbers ≥ 0", "a negative one or NaN"))
    return Gaussian(mean, stddev.to(mean).square(), unit=unit)


def _draws(source: Any, unit: str) -> Draws:
    if tuple(getattr(source, "dims", ())[:2]) == ("chain", "draw"):
        return Draws(as_tensor(source), unit=unit)
    values = as_tensor(source)
    if values.ndim == 0 or len(values) < 2:
        got, remedy = f"shape {tuple(values.shape)}", "a point estimate has no distribution"
        raise ShapeError(expected("source", "at least two draws along the first axis", got, remedy))
    return Draws(values[None], unit=unit)


def _mapping(source: Mapping[Any, Any], request: _Request) -> Posterior:
    """Quantiles by level, or draws by the name of their site."""
    if source and all(isinstance(key, Real) for key in source):
        levels = sorted(source)
        values = torch.stack([as_tensor(source[level]) for level in levels])
        return Quantiles(as_tensor([float(level) for level in levels]).to(values.device), values, unit=request.unit)
    sites = sorted(map(str, source))
    if "obs" not in source and len(sites) != 1:
        remedy = "call the name of the labels 'obs', or hand in its draws alone"
        raise DataError(expected("source", "levels, or a site 'obs', or a single site", f"sites {sites}", remedy))
    return _draws(source["obs"] if "obs" in source else next(iter(source.values())), request.unit)


def _part_of(prediction: Prediction, request: _Request) -> Posterior:
    part = getattr(prediction, request.part)
    if part is None:
        raise DataError(expected("source", f"a prediction with {request.part}", "one without"))
    return part


def _called(source: Callable[..., Any], inputs: Any, request: _Request) -> Posterior:
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    if "rng_key" in _parameters(source):
        arguments = (random_key(request.seed), *arguments)
    with seeded(request.seed), torch.no_grad():
        return _not_bare(source(*arguments), request)


def _not_bare(result: Any, request: _Request) -> Posterior:
    if _is_array(result) and not isinstance(result, tuple):
        remedy = "return (mean, stddev), or draws as {'obs': draws}"
        raise DataError(expected("source", "a predictive distribution", "a bare array", remedy))
    return _given(result, request)


def _takes_std(source: Any) -> bool:
    last = source.steps[-1][1] if hasattr(source, "steps") else source
    return "return_std" in _parameters(last.predict)


def _parameters(function: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return inspect.signature(function).parameters
    except ValueError:  # some compiled functions do not tell
        return {}


def _estimated(source: Any, inputs: Any, request: _Request) -> Posterior:
    if _takes_std(source):
        mean, stddev = source.predict(inputs, return_std=True)
        return _moments(mean, stddev, request.unit)
    if hasattr(source, "estimators_"):
        return _forest(source, inputs, request.unit)
    return _not_bare(source.predict(inputs), request)


def _forest(source: Any, inputs: Any, unit: str) -> Draws:
    """Predictions of the members; an ensemble whose prediction is not their mean, such as boosting, is refused."""
    mean, rows = as_tensor(source.predict(inputs)), np.asarray(inputs)
    features = getattr(source, "estimators_features_", None)
    members = np.ravel(np.asarray(source.estimators_, dtype=object))
    columns = [slice(None)] * len(members) if features is None else features
    values = torch.stack([as_tensor(m.predict(rows[:, c])) for m, c in zip(members, columns, strict=True)])
    if values.shape[1:] != mean.shape or not torch.allclose(values.mean(0), mean, rtol=1e-6, atol=1e-9):
        got = f"{type(source).__name__}, whose prediction is not the mean of its members"
        raise DataError(expected("source", "a forest or another average of members", got))
    return _draws(values, unit)


def _process(source: Any, inputs: Any, request: _Request) -> Posterior:
    """GPyTorch: noise included, and the models left in the mode in which they were."""
    model, likelihood = source if isinstance(source, tuple) else (source, source.likelihood)
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    modes = [(part, part.training) for part in (model, likelihood)]
    try:
        with torch.no_grad(), seeded(request.seed):
            model.eval()
            if hasattr(model, "posterior"):  # BoTorch, whose call alone forgets the scaling of the labels
                return _given(model.posterior(*arguments, observation_noise=True).distribution, request)
            return _given(likelihood.eval()(model(*arguments)), request)
    finally:
        for part, mode in modes:
            part.train(mode)


def _calculated(source: Any, inputs: Any, request: _Request) -> Posterior:
    """Values and spread of an ASE calculator, structure after structure."""
    structures = [inputs] if hasattr(inputs, "get_positions") else list(inputs)
    part = request.part
    found = [_results(source, structure, part) for structure in structures]
    unit = request.unit or "eV"
    kind = _kind(found[0], part)
    if kind is None:
        got = f"only {sorted(found[0])}"
        aim = f"{part} with {part}_stddev, {part}_std, {part}_uncertainty, {part}_var or {part}_comm in the results"
        raise DataError(expected("source", aim, got))
    rows = torch.cat if part == "forces" else torch.stack
    spread = [_shaped(result[kind], part) for result in found]
    if kind.endswith(("comm", "committee", "energies")):
        return Draws(rows(spread, dim=1)[None], unit=unit)
    mean = rows([_shaped(result[part], part) for result in found])
    stddev = rows(spread).sqrt() if kind.endswith(("var", "variance")) else rows(spread)
    return _moments(mean, stddev, unit)


def _results(source: Any, structure: Any, part: str) -> dict[str, Any]:
    copy = structure.copy()
    copy.calc = source
    {"energy": copy.get_potential_energy, "forces": copy.get_forces, "stress": copy.get_stress}[part]()
    further = getattr(source, "uncertainty", None)
    return {**source.results, **(further if isinstance(further, Mapping) else {})}


def _kind(results: Mapping[str, Any], part: str) -> str | None:
    """Name of the spread of a quantity in the results of a calculator."""
    names = [f"{part}_{ending}" for ending in (*_SPREADS, "comm", "committee")]
    # MACE gives the energies of its committee this name, which in ASE is that of atomic energies.
    names += ["energies"] if part == "energy" and "energy_var" in results else []
    names += [f"{part}_var", f"{part}_variance"]
    return next((name for name in names if name in results), None)


def _shaped(values: Any, part: str) -> Tensor:
    """A stress as a matrix, whose Voigt order is xx, yy, zz, yz, xz, xy."""
    tensor = as_tensor(values)
    if part == "stress" and tensor.shape[-1] == 6:
        return tensor[..., [0, 5, 4, 5, 1, 3, 4, 3, 2]].unflatten(-1, (3, 3))
    return tensor


def _is_process(source: Any) -> bool:
    likelihood = source[1] if isinstance(source, tuple) and len(source) == 2 else getattr(source, "likelihood", None)
    return hasattr(likelihood, "expected_log_prob")


_PREDICTORS: tuple[tuple[Callable[[Any], bool], Callable[[Any, Any, _Request], Posterior]], ...] = (
    (_is_process, _process),
    (lambda source: hasattr(source, "calculate") and hasattr(source, "results"), _calculated),
    (lambda source: callable(getattr(source, "predict", None)), _estimated),
    (callable, _called),
)
