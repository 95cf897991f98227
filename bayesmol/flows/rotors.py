"""Rotors of three equal atoms, such as methyl groups: coordinates in which no label is left."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.representation.internal import wrapped

__all__ = ["LOG_VOLUME", "labelled", "unlabelled"]

LOG_VOLUME = 0.5 * math.log(3)
r"""Log-volume of labelled torsions for each unit of unlabelled ones, of one rotor and all its three labellings:
:math:`\tfrac12 \log 3` of the deformations, :math:`-\log 3` of the angle, :math:`\log 3` of the labellings."""

_THIRD = 2 * math.pi / 3

Triples = Float[Tensor, "points rotors 3"]
Columns = Int[Tensor, "rotors 3"]


def unlabelled(values: Triples, angles: Triples, torsions: Triples) -> tuple[Triples, Triples, Triples]:
    r"""Bonds, angles and torsions of each rotor as numbers that no cyclic relabelling changes.

    With the torsions :math:`\phi_k` of its atoms, the rotor is at :math:`\Phi = \frac13 \sum_k (\phi_k - 2\pi k / 3)`,
    which relabelling moves by 2π/3; :math:`\Theta = 3 \Phi` modulo 2π does not change. Bonds, angles and the deviations
    :math:`\phi_k - \Phi - 2\pi k / 3` become their mean and the components of

    .. math:: \sqrt{\tfrac23} \sum_k b_k\, e^{i (\Phi + 2\pi k / 3)},

    the first harmonic along directions that do not turn with the rotor. The density on this quotient has neither copies
    nor seams. Torsions come as the first one and the other two relative to it; their deviations have no mean.
    """
    second, third = wrapped(torsions[..., 1] - _THIRD), wrapped(torsions[..., 2] + _THIRD)
    phase = torsions[..., 0] + (second + third) / 3
    deviations = torch.stack([torch.zeros_like(second), second, third], -1)
    (bonds, bends, twists) = (_harmonic(b, phase) for b in (values, angles, deviations))
    return bonds, bends, torch.cat([wrapped(3 * phase)[..., None], twists[..., 1:]], -1)


def labelled(values: Triples, angles: Triples, torsions: Triples) -> tuple[Triples, Triples, Triples]:
    r"""Inverse of :func:`unlabelled`, with the labelling for which Φ is in :math:`[-\pi/3, \pi/3)`."""
    phase = wrapped(torsions[..., 0]) / 3
    still = torch.cat([torch.zeros_like(torsions[..., :1]), torsions[..., 1:]], -1)
    bonds, bends, deviations = (_back(b, phase) for b in (values, angles, still))
    second = deviations[..., 1] - deviations[..., 0] + _THIRD
    third = deviations[..., 2] - deviations[..., 0] - _THIRD
    return bonds, bends, torch.stack([phase + deviations[..., 0], second, third], -1)


def _basis(like: Tensor) -> Float[Tensor, "3 3"]:
    """Rows: mean, and the two of the first harmonic, orthonormal."""
    s, t, r = 1 / math.sqrt(3), 1 / math.sqrt(6), 1 / math.sqrt(2)
    return torch.tensor([[s, s, s], [2 * t, -t, -t], [0.0, r, -r]], dtype=like.dtype, device=like.device)


def _harmonic(b: Tensor, phase: Tensor) -> Tensor:
    mean, along, across = (b @ _basis(b).T).unbind(-1)
    c, s = phase.cos(), phase.sin()
    return torch.stack([mean, c * along - s * across, s * along + c * across], -1)


def _back(b: Tensor, phase: Tensor) -> Tensor:
    mean, along, across = b.unbind(-1)
    c, s = phase.cos(), phase.sin()
    return torch.stack([mean, c * along + s * across, c * across - s * along], -1) @ _basis(b)
