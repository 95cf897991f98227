"""Hyper-parameters of the gradient-domain Gaussian process by its leave-one-structure-out predictive score."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from bayesmol.errors import ConvergenceError, expected
from bayesmol.potentials.gradient_frames import CONSTANT, Frames
from bayesmol.potentials.gradient_kernel import GradientKernel
from bayesmol.progress import progress

__all__ = ["Scales", "learned_scales", "score"]

_SMALLEST_NOISE, _SHORTEST, _LONGEST = 1e-9, 0.1, 40.0  # relative variance; length scales in 1/Å


@dataclass(frozen=True)
class Scales:
    """Variances of the model: kernel amplitude in eV², label noise in eV² and (eV/Å)²."""

    amplitude: Tensor
    energy_noise: Tensor
    force_noise: Tensor


class _Inverse(torch.autograd.Function):
    """Diagonal blocks of the inverse of a covariance, and the inverse times the targets, with a cheap gradient."""

    @staticmethod
    def forward(context: Any, covariance: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        structures, outputs = targets.shape
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        weights = (inverse @ targets.flatten()).view_as(targets)
        context.save_for_backward(inverse, weights)
        every = torch.arange(structures, device=targets.device)
        return inverse.view(structures, outputs, structures, outputs)[every, :, every], weights

    @staticmethod
    def backward(context: Any, blocks: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        inverse, weights = context.saved_tensors
        structures, outputs = weights.shape
        left = (blocks @ inverse.view(structures, outputs, -1)).reshape_as(inverse)
        solved = inverse @ vector.flatten()
        gradient = -inverse @ left - torch.outer(solved, weights.flatten())
        return gradient, solved.view_as(weights)


def score(
    prior: Float[Tensor, "rows rows"], frames: Frames, scales: Scales
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    r"""Mean leave-one-structure-out negative log density of a label, in nats, and the mean squared normalised residual.

    .. math:: r_b = C_b\, [K^{-1} y]_b, \quad C_b = ([K^{-1}]_{bb})^{-1}, \quad S = -\sum_b \ln \mathcal N(r_b; 0, C_b)

    Parameters
    ----------
    prior
        Covariance matrix of the kernel, without the constant of the energy.

    References
    ----------
    Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), section 5.4.2, here with a block for each
    structure.
    """
    targets, noise = frames.targets(scales.energy_noise, scales.force_noise)
    mask = frames.observed.flatten().to(prior)
    constant = torch.nn.functional.pad(CONSTANT * frames.observed[:, :1], (0, targets.shape[1] - 1)).flatten()
    covariance = scales.amplitude * prior * torch.outer(mask, mask) + torch.outer(constant, constant)
    inverse, weights = _Inverse.apply(covariance + torch.block_diag(*noise), targets)
    factor = torch.linalg.cholesky(inverse)
    squares = torch.linalg.solve_triangular(factor, weights.unsqueeze(-1), upper=False).square().sum()
    logarithms = factor.diagonal(dim1=1, dim2=2).log().sum()
    labels = frames.observed.sum()
    return 0.5 * squares / labels - logarithms / labels + 0.5 * math.log(2 * math.pi), squares / labels


def learned_scales(
    kernel: GradientKernel,
    frames: Frames,
    *,
    energy_noise: float | None,
    force_noise: float | None,
    length_scales: bool,
    iterations: int = 40,
) -> Scales:
    """Scales with the best score; with ``length_scales`` those of ``kernel`` are learned as well, in place.

    Noises, standard deviations in eV and eV/Å, are learned where they are ``None``. The starting amplitude is the
    closed-form one for which the squared normalised residuals average to one.

    Raises
    ------
    ConvergenceError
        If the covariance matrix cannot be factorised at the start.
    """
    logarithms = frames.rows.new_tensor([0.0, math.log(1e-6), 0.0]).requires_grad_()
    kernel.raw_lengthscale.requires_grad_(length_scales)
    parameters, bounds = [logarithms], [(None, None), (math.log(_SMALLEST_NOISE), 0.0), (-8.0, 8.0)]
    if length_scales:
        parameters.append(kernel.raw_lengthscale)
        bounds += [(math.log(_SHORTEST), math.log(_LONGEST))] * kernel.raw_lengthscale.numel()
    fixed = None if length_scales else kernel(frames.rows, frames.rows).to_dense()

    def state() -> tuple[Tensor, Scales]:
        prior = kernel(frames.rows, frames.rows).to_dense() if fixed is None else fixed
        return prior, _scales(prior, frames, logarithms, energy_noise, force_noise)

    try:
        with torch.no_grad():
            prior, scales = state()
            logarithms[0] += score(prior, frames, scales)[1].log()
    except torch.linalg.LinAlgError as error:
        remedy = "raise the noise or shorten the length scale"
        raise ConvergenceError(expected("covariance", "a positive definite matrix", error, remedy)) from error

    def objective() -> Tensor:
        prior, scales = state()
        return score(prior, frames, scales)[0]

    _minimise(objective, parameters, bounds, iterations)
    with torch.no_grad():
        return state()[1]


def _scales(
    prior: Tensor, frames: Frames, logarithms: Tensor, energy_noise: float | None, force_noise: float | None
) -> Scales:
    """Scales from the logarithms of the prior variance of forces, the relative force noise, and energy over force."""
    outputs = frames.observed.shape[1]
    unit = prior.diagonal().view(-1, outputs)[:, 1:].mean()
    force = (logarithms[0] + logarithms[1]).exp() if force_noise is None else prior.new_tensor(force_noise**2)
    energy = force * logarithms[2].exp() if energy_noise is None else prior.new_tensor(energy_noise**2)
    return Scales(logarithms[0].exp() / unit, energy, force)


def _minimise(function: Callable[[], Tensor], parameters: list[Tensor], bounds: list[tuple], iterations: int) -> None:
    """Minimise by L-BFGS-B over ``parameters``, in place; a covariance without a factor counts as very bad."""

    def assign(values: np.ndarray) -> None:
        parts = parameters[0].new_tensor(values).split([p.numel() for p in parameters])
        with torch.no_grad():
            for parameter, part in zip(parameters, parts, strict=True):
                parameter.copy_(part.view_as(parameter))

    def evaluation(values: np.ndarray) -> tuple[float, np.ndarray]:
        assign(values)
        try:
            result = function()
        except torch.linalg.LinAlgError:
            return 1e6, np.zeros(len(values))
        gradients = torch.autograd.grad(result, parameters)
        return result.item(), torch.cat([g.flatten() for g in gradients]).cpu().numpy()

    start = torch.cat([p.detach().flatten() for p in parameters]).cpu().numpy()
    with progress("learning", iterations) as advance:
        options = {"maxiter": iterations}
        found = minimize(
            evaluation, start, jac=True, method="L-BFGS-B", bounds=bounds, callback=lambda _: advance(), options=options
        )
    assign(found.x)
