import numpy as np
import pytest

from bayesmol.errors import ShapeError
from bayesmol.wavefunctions.space_warp import SpaceWarp

SOURCE = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.4]])
TARGET = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 1.6]])


@pytest.fixture
def points():
    return np.random.default_rng(0).normal(size=(5, 2, 2, 3))


def test_inverse_undoes_forward(points):
    warp = SpaceWarp(SOURCE, TARGET)
    carried, volume = warp.forward(points)
    back, again, found = warp.inverse(carried)
    assert found
    np.testing.assert_allclose(back, points, atol=1e-9)
    np.testing.assert_allclose(again, volume, atol=1e-9)


def test_volume_is_the_determinant_by_differences(points):
    warp, one, step = SpaceWarp(SOURCE, TARGET), points[0, 0, :1], 1e-5
    slope = [(warp.forward(one + h)[0] - warp.forward(one - h)[0])[0] / (2 * step) for h in step * np.eye(3)]
    np.testing.assert_allclose(warp.forward(one)[1], np.log(np.linalg.det(np.array(slope).T)), atol=1e-8)


def test_electrons_follow_their_nucleus_and_a_common_shift():
    near = SOURCE[None] + 1e-3
    np.testing.assert_allclose(SpaceWarp(SOURCE, TARGET).forward(near)[0], TARGET[None] + 1e-3, atol=1e-6)
    shifted, volume = SpaceWarp(SOURCE, SOURCE + 0.7).forward(near)
    np.testing.assert_allclose(shifted, near + 0.7, atol=1e-12)
    np.testing.assert_allclose(volume, 0.0, atol=1e-12)


def test_says_when_space_is_folded(points):
    assert not SpaceWarp(SOURCE, SOURCE[::-1]).inverse(points)[2]


def test_rest_changes_nothing(points):
    warp = SpaceWarp(SOURCE, SOURCE)
    assert not warp.moves
    assert warp.forward(points)[0] is points


def test_counts_nuclei():
    with pytest.raises(ShapeError, match="2 nuclei"):
        SpaceWarp(SOURCE, TARGET[:1])
