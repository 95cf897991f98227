"""Checkpoints: what was written is read, and nothing else is."""

import numpy as np
import pytest
import safetensors.numpy
import torch

from bayesmol.checkpoints import (
    flattened,
    grouped,
    moments,
    read_checkpoint,
    read_tensors,
    set_moments,
    write_checkpoint,
    write_tensors,
)
from bayesmol.errors import DataError, FormatError

PURPOSE = {"molecule": "He", "seed": "3"}
HEADER = {"steps": [1, 2], "seconds": 0.1, "best": float("inf")}
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


@pytest.mark.parametrize("old", [b"0.1", b"seed", b"now.0", b"F64"], ids=repr)
def test_a_changed_header_is_noticed(path, old):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, old[:-1] + b"2"))
    with pytest.raises(FormatError, match="checkpoint"):
        read_checkpoint(path, PURPOSE)


def test_a_flipped_bit_is_noticed(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(FormatError, match="what was written"):
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


def test_tensors_keep_bits_and_types(path, normal):
    tensors = {"weight": normal(3).float()[::2], "random": torch.arange(9).byte(), "on": torch.tensor(True)}
    write_tensors(path, PURPOSE, HEADER, tensors)
    header, found = read_tensors(path, PURPOSE)
    assert header == HEADER
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in tensors)


def test_names_of_groups(normal):
    groups = {"adam": {"0.step": normal(1), "1.exp": normal(2)}, "data": {"x": normal(2)}}
    again = grouped(flattened(groups | {"empty": {}}))
    assert again == groups


def test_optimiser_goes_on_as_if_nothing_had_happened(normal):
    start, pulls = normal(4), normal(6, 4)

    def moved(weight, optimiser, steps):
        for pull in steps:
            optimiser.zero_grad()
            (weight * pull).sum().backward()
            optimiser.step()

    weight = start.clone().requires_grad_()
    optimiser = torch.optim.AdamW([weight], 0.1)
    moved(weight, optimiser, pulls[:3])
    other = weight.detach().clone().requires_grad_()
    second = torch.optim.AdamW([other], 0.1)
    set_moments(second, {name: value.clone() for name, value in moments(optimiser).items()})
    moved(weight, optimiser, pulls[3:])
    moved(other, second, pulls[3:])
    assert torch.equal(weight, other)
