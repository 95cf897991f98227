"""State of a training in a file."""

import pytest
import torch

from bayesmol.errors import FormatError
from bayesmol.flows.checkpoint import flattened, grouped, moments, read_checkpoint, set_moments, write_checkpoint


def test_round_trip_keeps_bits_and_numbers(tmp_path, normal):
    tensors = {"weight.0": normal(3, 2), "weight.1": normal(3).float()[::2], "random.state": torch.arange(9).byte()}
    header = {"step": 3, "loss": [[1, 0.1], [2, float("nan")]], "reason": ""}
    write_checkpoint(tmp_path / "state", header, tensors)
    again, found = read_checkpoint(tmp_path / "state")
    assert str(again) == str(header) and found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in tensors)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x02" + bytes(7) + b"{}"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(FormatError, match="a file of a training"):
        read_checkpoint(tmp_path / "state")


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
