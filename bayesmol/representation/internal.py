"""Bonds, angles and torsions ↔ positions, with the exact volume of the change."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import ShapeError, expected
from bayesmol.representation.zmatrix import ZMatrix

__all__ = ["dihedral", "internal_coordinates", "internal_volume", "positions", "wrapped"]


def wrapped(angles: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""Angles in :math:`[-\pi, \pi)`."""
    return torch.remainder(angles + math.pi, 2 * math.pi) - math.pi


def dihedral(
    x: Float[Tensor, "points coordinates"], indices: Int[Tensor, "torsions 4"]
) -> Float[Tensor, "points torsions"]:
    r"""Torsion of each quadruple of atoms a–b–c–d, in rad.

    .. math:: \phi = \operatorname{atan2}(|b_2|\, b_1 \cdot n_2, n_1 \cdot n_2), \quad
        b_1 = x_b - x_a, \; b_2 = x_c - x_b, \; b_3 = x_d - x_c, \; n_1 = b_1 \times b_2, \; n_2 = b_2 \times b_3

    Parameters
    ----------
    x
        Positions, atom by atom.

    References
    ----------
    Blondel, Karplus, J. Comput. Chem. 17, 1132 (1996).
    """
    atoms = x.reshape(len(x), -1, 3)
    a, b, c, d = (atoms[:, indices[:, place]] for place in range(4))
    return _torsion(b - a, c - b, d - c)


def internal_coordinates(
    x: Float[Tensor, "points coordinates"], matrix: ZMatrix
) -> tuple[Float[Tensor, "points bonds"], Float[Tensor, "points angles"], Float[Tensor, "points torsions"]]:
    """Bonds in Å, angles and torsions in rad of each configuration; torsions of siblings relative to the first.

    Raises
    ------
    ShapeError
        If a row is not the positions of the atoms of ``matrix``.
    """
    places, at = len(matrix.atoms), _places(matrix, x.device)
    if x.shape[1] != 3 * places:
        raise ShapeError(expected("x", f"(points, {3 * places})", tuple(x.shape)))
    atoms = x.reshape(len(x), places, 3)[:, at.atoms]
    b, c, d = at.references.unbind(1)
    along = torch.cat([atoms[:, [0, 2]] - atoms[:, [1, 1]], atoms[:, 3:] - atoms[:, b]], 1)
    lever = torch.cat([atoms[:, [2]] - atoms[:, [1]], atoms[:, c] - atoms[:, b]], 1)
    lengths = along.norm(dim=2)
    turned = along[:, [0, *range(2, places - 1)]]
    angles = torch.atan2(torch.linalg.cross(turned, lever).norm(dim=2), (turned * lever).sum(2))
    torsions = _torsion(atoms[:, c] - atoms[:, d], -lever[:, 1:], along[:, 2:])
    return lengths, angles, wrapped(torsions - _of_siblings(torsions, at))


def positions(
    lengths: Float[Tensor, "points bonds"],
    angles: Float[Tensor, "points angles"],
    torsions: Float[Tensor, "points torsions"],
    matrix: ZMatrix,
) -> Float[Tensor, "points coordinates"]:
    r"""Positions with the centre at zero, from bonds, angles and torsions; all atoms of one level at once.

    An atom with the bond r, the angle θ and the torsion φ in the frame :math:`F = (e, m, n)` of its parent, e along the
    bond to it, is at :math:`x + r F (-\cos\theta, \sin\theta\cos\phi, \sin\theta\sin\phi)`; its own frame is F turned
    by

    .. math:: \begin{pmatrix} -\cos\theta & -\sin\theta & 0 \\ \sin\theta\cos\phi & -\cos\theta\cos\phi & -\sin\phi \\
        \sin\theta\sin\phi & -\cos\theta\sin\phi & \cos\phi \end{pmatrix}

    so that no cross product and no root is needed.

    References
    ----------
    Parsons, Holmes, Rojas, Tsai, Strauss, J. Comput. Chem. 26, 1063 (2005) (the frames).
    """
    at = _places(matrix, lengths.device)
    absolute = torsions + _of_siblings(torsions, at)
    r, cosine, sine = lengths.T[:, None], angles.T.cos()[:, None], angles.T.sin()[:, None]
    turns = (cosine[1:], sine[1:], absolute.T.cos()[:, None], absolute.T.sin()[:, None])
    frames, atoms = _start(r, cosine[0], sine[0])
    for first, last, parents in at.levels:
        turned = _turned([axis[parents] for axis in frames], [q[first:last] for q in turns])
        atoms = torch.cat([atoms, atoms[parents] + r[first + 2 : last + 2] * turned[0]])
        frames = [torch.cat([old, new]) for old, new in zip(frames, turned, strict=True)]
    atoms = atoms[at.order]
    return (atoms - atoms.mean(0)).permute(2, 0, 1).flatten(1)


def internal_volume(
    lengths: Float[Tensor, "points bonds"], angles: Float[Tensor, "points angles"]
) -> Float[Tensor, " points"]:
    r"""Logarithm of the volume of centred configurations, in all orientations, for each unit of internal coordinates.

    .. math:: \log 8\pi^2 - \tfrac32 \log N + \sum_b 2 \log r_b + \sum_a \log \sin\theta_a

    The volume is that of orthonormal coordinates of the centred configurations of N atoms (3N − 3 numbers), with the
    rotations integrated out.
    """
    atoms = lengths.shape[1] + 1
    constant = math.log(8 * math.pi**2) - 1.5 * math.log(atoms)
    return constant + 2 * lengths.log().sum(1) + angles.sin().log().sum(1)


def _torsion(first: Tensor, along: Tensor, last: Tensor) -> Tensor:
    one, two = torch.linalg.cross(first, along), torch.linalg.cross(along, last)
    return torch.atan2(along.norm(dim=-1) * (first * two).sum(-1), (one * two).sum(-1))


class _Places(NamedTuple):
    """Indices of a Z-matrix on one device."""

    atoms: Tensor
    order: Tensor
    references: Tensor
    relative: Tensor
    siblings: Tensor
    levels: tuple[tuple[int, int, Tensor], ...]


@lru_cache(maxsize=64)
def _places(matrix: ZMatrix, device: torch.device) -> _Places:
    on = lambda index: index.to(device)  # noqa: E731
    levels = [(int(q[0]), int(q[-1]) + 1, on(matrix.parents[q])) for q in matrix.levels]
    relative, siblings = matrix.siblings >= 0, matrix.siblings.clamp(min=0)
    order = matrix.atoms.argsort()
    return _Places(on(matrix.atoms), on(order), on(matrix.references), on(relative), on(siblings), tuple(levels))


def _of_siblings(torsions: Tensor, at: _Places) -> Tensor:
    """Torsion that each row is counted from; zero for absolute ones."""
    return torch.where(at.relative, torsions[:, at.siblings], 0.0)


def _turned(frame: list[Tensor], turn: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Frames of rows from those of their parents and the cosines and sines of angle and torsion."""
    (e, m, n), (c, s, cos, sin) = frame, turn
    aside = cos * m + sin * n
    return s * aside - c * e, -s * e - c * aside, cos * n - sin * m


def _start(r: Tensor, cosine: Tensor, sine: Tensor) -> tuple[list[Tensor], Float[Tensor, "3 3 points"]]:
    """Axes e, m, n of the first three atoms, and where they are; in the plane of x and y, points last."""
    zero, one = torch.zeros_like(cosine), torch.ones_like(cosine)
    x, y, z = (torch.cat(parts) for parts in ((one, zero, zero), (zero, one, zero), (zero, zero, one)))
    first, aside = cosine * x + sine * y, sine * x - cosine * y
    atoms = torch.stack([r[0] * first, torch.zeros_like(first), r[1] * x])
    return [torch.stack(axis) for axis in ((first, -x, x), (aside, y, y), (-z, -z, z))], atoms
