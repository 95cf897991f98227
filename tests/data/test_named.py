"""One word names a file or a set, and some of its frames."""

import pytest
import torch

from bayesmol.data import load, write
from bayesmol.data.named import checked_device, named
from bayesmol.errors import DataError


@pytest.mark.parametrize(
    ("frames", "chosen"),
    [
        ("", slice(None)),
        ("@2:5", slice(2, 5)),
        ("@:3", slice(3)),
        ("@::20", slice(None, None, 20)),
        ("@-1", slice(-1, None)),
    ],
)
def test_frames_of_a_set_and_of_a_file(tmp_path, frames, chosen):
    data = load("ethanol/h-removal")
    expected = data.energies[chosen]
    assert torch.equal(named(f"ethanol/h-removal{frames}").energies, expected)
    write(tmp_path / "scan.extxyz", data)
    found = named(f"{tmp_path / 'scan.extxyz'}{frames}").energies
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_a_file_goes_before_a_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ethanol").mkdir()
    write("dimers.extxyz", load("ethanol/dimers")[20:22])
    (tmp_path / "dimers.extxyz").rename(tmp_path / "ethanol" / "dimers")
    assert len(named("ethanol/dimers")) == 2


def test_units_of_a_file_are_converted(tmp_path):
    write(tmp_path / "scan.extxyz", load("ethanol/h-removal")[:2])
    plain, other = (named(str(tmp_path / "scan.extxyz"), energy_unit=unit) for unit in ("eV", "meV"))
    torch.testing.assert_close(1000 * other.energies, plain.energies)


@pytest.mark.parametrize("frames", ["@60:", "@61", "@-61", "@a:b", "@1:2:3:4", "@1:9:0", "@"])
def test_frames_that_are_not_there_are_refused(frames):
    with pytest.raises(DataError, match="frames"):
        named(f"ethanol/h-removal{frames}")


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(DataError, match="rmd17/ethanol"):
        named("rmd17/etanol@:50")


def test_devices():
    assert checked_device("cpu") == torch.device("cpu")
    for name in ("cuda:99", "meta", "tpu", ""):
        with pytest.raises(DataError, match="cpu"):
            checked_device(name)
