"""Bridge to BoTorch: posteriors over a list of candidates as a BoTorch model; the only file that imports botorch.

An input of the model is the number of a candidate, as a float in an array of shape (…, 1); so every acquisition
function of BoTorch works with :func:`botorch.optim.optimize_acqf_discrete` over :func:`choices`. BoTorch maximises:
:func:`candidate_model` turns the sign of what is to be minimised, and so must those who give it observed values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.acquisition.improvement import Goal
from bayesmol.errors import DataError, DependencyError, ShapeError, expected
from bayesmol.inference.random import numpy_generator
from bayesmol.posterior import Gaussian, Posterior

try:
    from botorch.models.model import FantasizeMixin, Model
    from botorch.posteriors import GPyTorchPosterior
    from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
except ImportError as error:
    raise DependencyError.extra("botorch", "acquisition") from error

__all__ = [
    "CandidateModel",
    "candidate_model",
    "choices",
    "hypervolume",
    "hypervolume_batch",
    "hypervolume_improvement",
]


def candidate_model(
    outputs: Posterior | Sequence[Posterior],
    *,
    goals: Goal | Sequence[Goal],
    noise: float | Sequence[float] = 0.0,
    size: int = 1000,
    seed: int | torch.Generator = 0,
) -> CandidateModel:
    """BoTorch model over a list of candidates, from the posterior of one or more of their properties.

    Parameters
    ----------
    outputs
        One posterior a property, of shape ``(candidates,)``, such as ``model.predict(pool, covariance=True).energy``.
        The epistemic part is taken where it is known. A Gaussian brings its covariance (without one the candidates are
        independent); any other posterior is taken as the Gaussian with the moments of its joint draws.
    goals
        ``"minimise"`` or ``"maximise"``, one for all or one a property.
    noise
        Standard deviation of a label, one for all or one a property; used by what looks ahead, such as qNIPV.
    size
        Draws of a posterior that is no Gaussian and no draws itself.

    Raises
    ------
    ShapeError
        If the properties are not of the same candidates.
    """
    properties = [outputs] if isinstance(outputs, Posterior) else list(outputs)
    signs = [1.0 if goal == "maximise" else -1.0 for goal in _each(goals, len(properties), "goals")]
    spreads = torch.tensor(_each(noise, len(properties), "noise"), dtype=torch.float64)
    moments = [_moments(one, size, seed) for one in properties]
    if len({len(mean) for mean, _ in moments}) != 1:
        lengths = [tuple(one.shape) for one in properties]
        raise ShapeError(expected("outputs", "posteriors of the same candidates", lengths))
    mean = torch.stack([sign * part for sign, (part, _) in zip(signs, moments, strict=True)], 1)
    return CandidateModel(mean, torch.stack([covariance for _, covariance in moments]), spreads.square().to(mean))


def choices(model: CandidateModel) -> Float[Tensor, "candidates 1"]:
    """All inputs of the model: what ``optimize_acqf_discrete`` chooses from."""
    return torch.arange(len(model.mean), dtype=torch.float64, device=model.mean.device).unsqueeze(1)


class CandidateModel(Model, FantasizeMixin):
    """Joint Gaussian of properties of candidates, the properties independent of each other; higher is better.

    Made by :func:`candidate_model`. Conditioning on labels is exact and lazy: the labels are kept, and only the entries
    of the covariance that are asked for are computed.
    """

    def __init__(
        self,
        mean: Float[Tensor, "candidates outputs"],
        covariance: Float[Tensor, "outputs candidates candidates"],
        noise: Float[Tensor, " outputs"],
        seen: tuple[Tensor, Tensor, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.mean, self.covariance, self.noise, self.seen = mean, covariance, noise, seen
        self.likelihood = None  # FantasizeMixin asks whether it brings noise of its own

    @property
    def num_outputs(self) -> int:
        """Number of properties."""
        return self.mean.shape[1]

    @property
    def batch_shape(self) -> torch.Size:
        """Batch axes of the labels that the model was conditioned on."""
        return torch.Size() if self.seen is None else self.seen[1].shape[:-2]

    def posterior(  # type: ignore[override]  # BoTorch's own classes disagree on it
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: Any = None,
    ) -> Any:
        """Joint BoTorch posterior of the properties of some candidates, the noise of labels added where asked for."""
        index = self._index(X)
        mean, covariance = self._joint(index)
        if observation_noise is not False:
            noise = self.noise.expand_as(mean) if observation_noise is True else observation_noise.expand_as(mean)
            covariance = covariance + torch.diag_embed(noise.mT)
        outputs = range(self.num_outputs) if output_indices is None else output_indices
        parts = [MultivariateNormal(mean[..., k], covariance[..., k, :, :]) for k in outputs]
        joint = parts[0] if len(parts) == 1 else MultitaskMultivariateNormal.from_independent_mvns(parts)
        found = GPyTorchPosterior(joint)
        return found if posterior_transform is None else posterior_transform(found)

    def condition_on_observations(self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **_: Any) -> CandidateModel:
        """Model after labels Y of the candidates X; their noise is the model's unless variances are given."""
        if self.seen is not None:
            raise DataError(expected("model", "one without labels", "one with labels", "give all labels at once"))
        index = self._index(X)
        spread = (self.noise if noise is None else noise).expand_as(Y)
        if not bool((spread > 0).all()):
            raise DataError(expected("noise", "a positive standard deviation of a label, to look ahead", "zero"))
        return CandidateModel(self.mean, self.covariance, self.noise, (index, Y, spread))

    def subset_output(self, idcs: list[int]) -> CandidateModel:
        """The model of some of the properties."""
        seen = None if self.seen is None else (self.seen[0], self.seen[1][..., idcs], self.seen[2][..., idcs])
        return CandidateModel(self.mean[:, idcs], self.covariance[idcs], self.noise[idcs], seen)

    def _index(self, X: Tensor) -> Int[Tensor, "*batch points"]:
        if X.shape[-1] != 1:
            raise ShapeError(expected("X", "numbers of candidates, last axis 1", tuple(X.shape), "use choices(model)"))
        index = X[..., 0].round().long()
        if bool(((X[..., 0] - index).abs() > 1e-6).any() | (index < 0).any() | (index >= len(self.mean)).any()):
            raise DataError(expected("X", f"numbers of candidates, 0 to {len(self.mean) - 1}", "others"))
        return index

    def _joint(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (…, points, outputs) and covariance (…, outputs, points, points)."""
        if self.seen is None:
            return self.mean[index], self._cross(index, index)
        known, labels, noise = self.seen
        lead = torch.broadcast_shapes(index.shape[:-1], labels.shape[:-2])
        index = index.expand(*lead, -1)
        among = self._cross(known, known) + torch.diag_embed(noise.mT)
        cross = self._cross(known.expand(*lead, -1), index)
        lower = torch.linalg.cholesky(among).expand(*lead, -1, -1, -1)
        half = torch.linalg.solve_triangular(lower, cross, upper=False)
        gap = (labels - self.mean[known]).mT.unsqueeze(-1)
        shift = half.mT @ torch.linalg.solve_triangular(lower, gap.expand(*lead, -1, -1, -1), upper=False)
        return self.mean[index] + shift.squeeze(-1).mT, self._cross(index, index) - half.mT @ half

    def _cross(self, first: Tensor, second: Tensor) -> Float[Tensor, "*batch outputs first second"]:
        return self.covariance[:, first[..., :, None], second[..., None, :]].movedim(0, -3)


def hypervolume(points: Float[Tensor, "points objectives"], reference: Float[Tensor, " objectives"]) -> float:
    """Volume between the reference and the points that dominate it, all objectives to be maximised."""
    from botorch.utils.multi_objective.hypervolume import Hypervolume
    from botorch.utils.multi_objective.pareto import is_non_dominated

    better = points[(points > reference).all(1)]
    return float(Hypervolume(reference).compute(better[is_non_dominated(better)])) if len(better) else 0.0


def hypervolume_improvement(
    model: CandidateModel, observed: Float[Tensor, "points objectives"], reference: Float[Tensor, " objectives"]
) -> Float[Tensor, " candidates"]:
    """Expected gain in hypervolume by each candidate alone, in closed form, all objectives to be maximised.

    References
    ----------
    Yang, Emmerich, Deutz, Bäck, J. Glob. Optim. 75, 3 (2019), as implemented in BoTorch.
    """
    from botorch.acquisition.multi_objective.analytic import ExpectedHypervolumeImprovement
    from botorch.utils.multi_objective.box_decompositions import NondominatedPartitioning

    boxes = NondominatedPartitioning(reference, Y=observed)
    return ExpectedHypervolumeImprovement(model, reference.tolist(), boxes)(choices(model).unsqueeze(1))


def hypervolume_batch(
    model: CandidateModel,
    observed: Float[Tensor, "points objectives"],
    reference: Float[Tensor, " objectives"],
    size: int,
    *,
    seed: int | torch.Generator = 0,
) -> tuple[Int[Tensor, " size"], Float[Tensor, " size"]]:
    """Candidates with the largest expected gain in hypervolume (qLogEHVI), each given those before it.

    ``observed`` and ``reference`` are to be maximised, like the outputs of the model.

    References
    ----------
    Daulton, Balandat, Bakshy, NeurIPS 2020; Ament, Daulton, Eriksson, Balandat, Bakshy, NeurIPS 2023.
    """
    from botorch.acquisition.multi_objective.logei import qLogExpectedHypervolumeImprovement
    from botorch.optim import optimize_acqf_discrete
    from botorch.sampling import SobolQMCNormalSampler
    from botorch.utils.multi_objective.box_decompositions import FastNondominatedPartitioning

    boxes: Any = FastNondominatedPartitioning(reference, Y=observed)
    number = int(numpy_generator(seed).integers(2**31))
    sampler = SobolQMCNormalSampler(torch.Size([256]), seed=number)
    value = qLogExpectedHypervolumeImprovement(model, reference, boxes, sampler=sampler)
    chosen, values = optimize_acqf_discrete(value, size, choices(model))
    return chosen.round().long().flatten(), values.flatten()


def _each(values: Any, count: int, name: str) -> list[Any]:
    """One value a property."""
    found = [values] * count if isinstance(values, str | float | int) else list(values)
    if len(found) != count:
        raise ShapeError(expected(name, f"one, or {count} of them", len(found)))
    unknown = {value for value in found if isinstance(value, str)} - {"minimise", "maximise"}
    if unknown:
        raise DataError(expected(name, "'minimise' or 'maximise'", sorted(unknown)))
    return found


def _moments(posterior: Posterior, size: int, seed: int | torch.Generator) -> tuple[Tensor, Tensor]:
    """Mean and covariance of one property of all candidates, in float64."""
    known = posterior if posterior.epistemic is None else posterior.epistemic
    if len(known.shape) != 1:
        raise ShapeError(expected("outputs", "one value a candidate", f"shape {tuple(known.shape)}"))
    if not isinstance(known, Gaussian):
        draws = known.apply(lambda values: values, known.unit, size=size, seed=seed)
        root = draws.weights.flatten().sqrt()[:, None] * (draws.values - draws.mean).flatten(0, 1)
        return draws.mean.double(), (root.mT @ root).double()
    covariance = known.covariance
    if covariance is None:
        covariance = torch.diag(known.variance)
    elif isinstance(covariance, tuple):
        covariance = torch.block_diag(*covariance)
    return known.mean.double(), covariance.double()
