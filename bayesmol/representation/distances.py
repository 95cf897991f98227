"""Inverse distances between all atoms of one molecule, with their Jacobian."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import ShapeError, expected

__all__ = ["internal_basis", "inverse_distances", "jacobian", "pair_permutations", "pairs"]


def pairs(atoms: int, device: torch.device | str = "cpu") -> Int[Tensor, "2 pairs"]:
    """First and second atom of every pair ``i < j``, row by row of the upper triangle."""
    return torch.triu_indices(atoms, atoms, offset=1, device=device)


def inverse_distances(positions: Float[Tensor, "structures atoms 3"]) -> Float[Tensor, "structures pairs"]:
    r"""Descriptor :math:`x_{ij} = 1 / |r_i - r_j|` of every pair, in 1/Å.

    Invariant under translation, rotation and reflection; smooth as long as no two atoms coincide.

    Raises
    ------
    ShapeError
        If there are fewer than two atoms.
    """
    first, second = pairs(_atoms(positions), positions.device)
    return 1.0 / (positions[:, first] - positions[:, second]).norm(dim=-1)


def jacobian(positions: Float[Tensor, "structures atoms 3"]) -> Float[Tensor, "structures pairs coordinates"]:
    r"""Derivative of the inverse distances to the coordinates, in 1/Å².

    .. math:: \partial x_{ij} / \partial r_i = -x_{ij}^3 (r_i - r_j) = -\partial x_{ij} / \partial r_j
    """
    atoms = _atoms(positions)
    first, second = pairs(atoms, positions.device)
    slope = -(positions[:, first] - positions[:, second]) * inverse_distances(positions).pow(3).unsqueeze(-1)
    rows = torch.arange(len(first), device=positions.device)
    result = positions.new_zeros(len(positions), len(first), atoms, 3)
    result[:, rows, first] = slope
    result[:, rows, second] = -slope
    return result.flatten(2)


def internal_basis(
    jacobian: Float[Tensor, "structures pairs coordinates"],
) -> Float[Tensor, "structures coordinates internal"]:
    """Orthonormal basis of the displacements that change distances: ``3 atoms − 6`` columns, 1 for two atoms.

    Every force of an invariant energy lies in its span; translations and rotations do not.
    """
    coordinates = jacobian.shape[-1]
    internal = max(coordinates - 6, 1)
    return torch.linalg.eigh(jacobian.mT @ jacobian).eigenvectors[..., coordinates - internal :]


def pair_permutations(permutations: Int[Tensor, "group atoms"]) -> Int[Tensor, "group pairs"]:
    """Action of permutations on pairs: ``inverse_distances(r[:, p]) == inverse_distances(r)[:, pair_permutation]``."""
    atoms = permutations.shape[1]
    first, second = pairs(atoms, permutations.device)
    number = permutations.new_zeros(atoms, atoms)
    number[first, second] = number[second, first] = torch.arange(len(first), device=permutations.device)
    return number[permutations[:, first], permutations[:, second]]


def _atoms(positions: Tensor) -> int:
    if positions.ndim != 3 or positions.shape[-1] != 3 or positions.shape[1] < 2:
        raise ShapeError(expected("positions", "(structures, atoms ≥ 2, 3) in Å", tuple(positions.shape)))
    return positions.shape[1]
