"""Checkpoints: what was written is read, and nothing else is."""

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from bayesmol.errors import DataError, FormatError
from bayesmol.wavefunctions.checkpoint import leaves, read_checkpoint, restored, write_checkpoint
from bayesmol.wavefunctions.precision import double

PURPOSE = {"molecule": "He", "seed": "3"}
HEADER = {"steps": [1, 2], "seconds": 0.1}
ARRAYS = {
    "scalar": np.array(2.5),
    "now.0": np.linspace(0, 1, 5)[::2],
    "history": np.zeros((0, 7)),
    "age": np.arange(3, dtype=np.int32),
}


@pytest.fixture
def path(tmp_path):
    """A checkpoint."""
    path = tmp_path / "training.ckpt"
    write_checkpoint(path, PURPOSE, HEADER, ARRAYS)
    return path


def test_numbers_and_arrays_come_back_bit_by_bit(path):
    header, arrays = read_checkpoint(path, PURPOSE)
    assert header == HEADER
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("other", [{"molecule": "Li", "seed": "3"}, {"molecule": "He", "seed": "4"}])
def test_another_purpose_is_refused(path, other):
    with pytest.raises(DataError, match="give another file"):
        read_checkpoint(path, other)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 0.999])
def test_a_cut_file_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FormatError, match="checkpoint"):
        read_checkpoint(path, PURPOSE)


def test_a_flipped_bit_is_noticed(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(FormatError, match="other ones"):
        read_checkpoint(path, PURPOSE)


def test_other_files_are_refused(path):
    path.write_text("no checkpoint at all, but a long enough text")
    with pytest.raises(FormatError):
        read_checkpoint(path, PURPOSE)
    path.write_bytes(safetensors.numpy.save({"a": np.zeros(2)}, {"other": "metadata"}))
    with pytest.raises(FormatError):
        read_checkpoint(path, PURPOSE)


def test_a_failed_write_leaves_the_last_file(path):
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_checkpoint(path, PURPOSE, {"seconds": object()}, ARRAYS)
    assert path.read_bytes() == before


def test_trees_come_back_in_their_form():
    with double():
        tree = {"b": (jnp.arange(3.0), ()), "a": jnp.asarray(2.0)}
        arrays = leaves("now", tree)
        found = restored("now", tree, arrays)
    assert found.keys() == tree.keys() and found["b"][1] == ()
    np.testing.assert_array_equal(found["b"][0], [0.0, 1.0, 2.0])
    assert float(found["a"]) == 2.0


@pytest.mark.parametrize("change", [lambda a: {}, lambda a: {"now.0": np.zeros(4)}, lambda a: {"now.0": np.arange(3)}])
def test_trees_of_another_form_are_refused(change):
    with double(), pytest.raises(FormatError, match="now"):
        restored("now", {"a": jnp.zeros(3)}, change(None))
