import numpy as np
import pytest
import torch

from bayesmol.data.trajectory import Trajectories
from bayesmol.errors import DataError, ShapeError


def test_one_array_several_and_themselves():
    one = Trajectories.of(np.zeros((5, 2), np.float32), time_step=0.5, unit="ps")
    assert (len(one), one.frames, one.lengths, one.time(4)) == (1, 5, [5], 2.0)
    assert one.parts[0].dtype == torch.float64 and not one.discrete
    several = Trajectories.of([np.zeros((5, 2)), torch.ones(3, 2)])
    assert (len(several), several.frames, several.unit) == (2, 8, "frames")
    assert Trajectories.of(several) is several


def test_a_row_of_numbers_is_one_feature_and_integers_are_states():
    assert Trajectories.of([0.5, 1.0, 2.0]).parts[0].shape == (3, 1)
    assert Trajectories.of(np.array([0, 1, 1])).discrete
    assert Trajectories.of([0, 1, 1]).discrete
    assert not Trajectories.of(np.array([[0, 1], [1, 1]])).discrete


def test_functions_of_the_frames_keep_the_time():
    states = Trajectories.of(np.array([-1.0, 1.0]), time_step=2.0, unit="ns").mapped(lambda x: (x[:, 0] > 0).long())
    assert states.discrete and states.unit == "ns" and states.parts[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ([], DataError, "trajector"),
        (np.array([[0.0], [np.nan]]), DataError, "frame 1"),
        ([np.zeros((3, 1)), np.zeros((3, 2))], ShapeError, "trajectory 1"),
        (np.zeros((0, 2)), ShapeError, "none empty"),
        (np.array([0, -1]), DataError, "indices"),
        (np.zeros((2, 2, 2)), ShapeError, "frames, features"),
        (np.array([True, False]), DataError, "real numbers"),
    ],
)
def test_bad_trajectories_are_refused(data, error, words):
    with pytest.raises(error, match=words):
        Trajectories.of(data)


def test_a_time_step_is_positive():
    with pytest.raises(DataError, match="time_step"):
        Trajectories.of(np.zeros(3), time_step=0.0)
