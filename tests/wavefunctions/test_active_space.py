"""Active spaces by hand, and the determinants that fill up an expansion."""

import numpy as np
import pytest

from bayesmol.errors import DataError
from bayesmol.wavefunctions.active_space import Expansion, check_active_space, completed, valence_space
from bayesmol.wavefunctions.molecule import Molecule


@pytest.mark.parametrize(
    ("charges", "spin", "active"),
    [
        ([4], 0, (2, 4)),
        ([3, 1], 0, (2, 5)),
        ([5], 1, (3, 4)),
        ([7, 7], 0, (6, 6)),
        ([1] * 10, 0, (6, 6)),
        ([3, 3], 0, (2, 8)),
    ],
)
def test_active_spaces(charges, spin, active):
    positions = 2.0 * np.outer(np.arange(len(charges)), [0, 0, 1])
    assert valence_space(Molecule(charges, positions, spin=spin)) == active


@pytest.mark.parametrize("active", [(3, 4), (6, 4), (2, 0), (0, 2), (4, 1)])
def test_active_spaces_that_cannot_be(active):
    with pytest.raises(DataError, match="electrons, orbitals: expected an active space"):
        check_active_space(Molecule.named("LiH"), *active)


def test_pairs_are_lifted():
    """From 1s² 2s² 3s with one more determinant; the unpaired electron stays where it is."""
    up, down = np.array([[0, 1, 2], [0, 2, 3]]), np.array([[0, 1], [0, 3]])
    start = Expansion(-1.0, np.eye(9), up, down, np.array([0.9, -0.2]), "name")
    found = completed(start, 4, np.array([5, 8]))
    assert found.up.tolist() == [[0, 1, 2], [0, 2, 3], [0, 2, 5], [0, 2, 8]]
    assert found.down.tolist() == [[0, 1], [0, 3], [0, 5], [0, 8]]
    assert found.coefficients.tolist() == [0.9, -0.2, 0.0, 0.0]
    assert completed(start, 1, np.array([5])).up.tolist() == [[0, 1, 2]]
    with pytest.raises(DataError, match="determinants: expected at most 3 in this basis, got 4"):
        completed(start, 4, np.array([5]))
