"""Left-out predictions of a Gaussian process without a refit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bayesmol.errors import ApplicabilityError, expected
from bayesmol.posterior import Prediction
from bayesmol.potentials.gradient_frames import prediction, shift_of
from bayesmol.potentials.gradient_solver import Exact

if TYPE_CHECKING:
    from bayesmol.potentials.gradient_posterior import GradientGPPotential


def left_out(potential: GradientGPPotential) -> Prediction:
    """See :meth:`GradientGPPotential.leave_one_out`."""
    solver, frames, weights = potential._solver, potential._frames, potential._weights
    if not isinstance(solver, Exact):
        remedy = "raise exact_rows if the memory allows, or use fewer structures"
        limit = f"at most exact_rows = {potential.exact_rows}"
        raise ApplicabilityError(expected("rows", limit, len(weights), remedy))
    inverse = solver.inverse()
    outputs, (targets, noises) = frames.observed.shape[1], potential._labels
    means, blocks = [], []
    for index, seen in enumerate(frames.observed):
        at = index * outputs + seen.nonzero().flatten()
        held = torch.linalg.inv(inverse[at[:, None], at])
        if bool(seen.all()):
            means.append(targets[index] - held @ weights[at])
            blocks.append(held - noises[index])
            continue
        rest = inverse - inverse[:, at] @ held @ inverse[at]
        own = frames.rows[index : index + 1]
        cross = potential._cross(own)
        means.append(cross.mT @ (weights - inverse[:, at] @ (held @ weights[at])))
        blocks.append(potential._prior(own, own) - cross.mT @ rest @ cross)
    noise = (
        potential.noise_energy**2 + frames.energy_errors.square(),
        potential.noise_force**2 + frames.force_errors.square(),
    )
    mean, block = torch.stack(means), torch.stack(blocks)
    mean[:, 0] += shift_of(potential.training)
    return prediction(potential.training.structures, mean, block, frames.basis, noise)
