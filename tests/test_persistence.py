"""A saved model is the same model in a fresh process, and every damaged file is refused."""

import json
import struct
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import safetensors.torch
import torch

import bayesmol as bm
from bayesmol import persistence
from bayesmol.errors import DataError, FormatError
from bayesmol.persistence import KINDS, describe, load, packed, save, unpacked
from bayesmol.potentials import DiatomicPotential
from bayesmol.potentials.gradient_gp import GradientGP

FRESH = """
import sys, torch, bayesmol as bm
from safetensors.torch import save_file
test = bm.data.load("rmd17/ethanol")[20:23]
found = bm.load(sys.argv[1]).predict(test, covariance=True)
arrays = {"e": found.energy.mean, "ev": found.energy.variance, "f": found.forces.mean, "fv": found.forces.variance}
save_file({name: array.contiguous() for name, array in arrays.items()}, sys.argv[2])
"""


@dataclass(frozen=True)
class Toy:
    """Model with arrays of several types, two of which share memory, and one that is not contiguous."""

    header: dict
    arrays: dict

    def state(self):
        return self.header, self.arrays

    @classmethod
    def from_state(cls, header, arrays):
        return cls({"size": header["size"], **header}, arrays)


@pytest.fixture
def toy(monkeypatch, normal):
    monkeypatch.setitem(KINDS, "Toy", f"{__name__}:Toy")
    table = normal(4, 3)
    arrays = {"table": table, "turned": table.T, "row": table[1], "flags": table[0] > 0, "none": torch.zeros(0, 3)}
    return Toy({"size": 0.1 + 0.2, "name": "Ångström", "pair": (1, 2), "by": {10: 1, 9: 2}}, arrays)


@pytest.fixture(scope="module")
def model():
    train = bm.data.load("rmd17/ethanol")[:6]
    return GradientGP(length_scale=3.0, energy_noise=2e-3, force_noise=0.02).fit(train, seed=0)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.bm"
    save(model, path)
    return path


def written(folder, data):
    path = folder / "damaged.bm"
    path.write_bytes(data)
    return path


def parts(data):
    """Safetensors header, bayesmol header and array bytes of a file."""
    length = struct.unpack("<Q", data[:8])[0]
    content = json.loads(data[8 : 8 + length])
    return content, json.loads(content["__metadata__"]["bayesmol"]), data[8 + length :]


def joined(content, header, arrays):
    text = json.dumps({**content, "__metadata__": {"bayesmol": json.dumps(header)}}).encode()
    return struct.pack("<Q", len(text)) + text + arrays


def edited(data, **changes):
    content, header, arrays = parts(data)
    return joined(content, {**header, **changes}, arrays)


def test_predictions_are_bitwise_equal_in_a_fresh_process(model, saved, tmp_path):
    target = tmp_path / "there.safetensors"
    result = subprocess.run(
        [sys.executable, "-c", FRESH, str(saved), str(target)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    there, test = safetensors.torch.load_file(target), bm.data.load("rmd17/ethanol")[20:23]
    for found in (model.predict(test, covariance=True), load(saved).predict(test, covariance=True)):
        assert torch.equal(found.energy.mean, there["e"]) and torch.equal(found.energy.variance, there["ev"])
        assert torch.equal(found.forces.mean, there["f"]) and torch.equal(found.forces.variance, there["fv"])


def test_same_model_same_bytes(model, saved, tmp_path):
    save(model, tmp_path / "again.bm")
    assert (tmp_path / "again.bm").read_bytes() == saved.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.bm"]


def test_arrays_and_header_return(toy, tmp_path):
    save(toy, tmp_path / "toy.bm")
    back = load(tmp_path / "toy.bm")
    assert back.header == {"size": 0.1 + 0.2, "name": "Ångström", "pair": [1, 2], "by": {"10": 1, "9": 2}}
    assert back.arrays.keys() == toy.arrays.keys()
    for name, array in toy.arrays.items():
        assert back.arrays[name].dtype == array.dtype and torch.equal(back.arrays[name], array)
    save(back, tmp_path / "again.bm")
    assert (tmp_path / "again.bm").read_bytes() == (tmp_path / "toy.bm").read_bytes()


def test_device(toy, tmp_path):
    save(toy, tmp_path / "toy.bm")
    assert load(tmp_path / "toy.bm", device="meta").arrays["table"].device.type == "meta"


def test_header_says_what_the_model_is(model, saved):
    header = describe(saved)
    assert header["format"] == 1 and header["kind"] == "GradientGPPotential"
    assert header["header"]["noise_force"] == model.noise_force
    assert header["units"]["forces"] == "eV/Å"
    assert header["versions"]["bayesmol"] == bm.__version__ and header["versions"]["torch"] == torch.__version__
    assert {"numpy", "safetensors", "gpytorch"} <= header["versions"].keys()
    assert header["provenance"]["training_hash"] == model.training.fingerprint
    assert "CC" in header["provenance"]["source"]["licence"] and header["provenance"]["source"]["citation"]
    assert len(header["sha256"]) == 64 and list(parts(saved.read_bytes())[0]["__metadata__"]) == ["bayesmol"]


def test_provenance_of_the_model_comes_first(toy, tmp_path):
    object.__setattr__(toy, "provenance", {"guarantee": "90 %"})
    save(toy, tmp_path / "toy.bm")
    assert describe(tmp_path / "toy.bm")["provenance"] == {"guarantee": "90 %"}


def test_provenance_of_a_certified_model(model, tmp_path):
    calibration = bm.data.load("rmd17/ethanol")[10:30]
    certified = bm.certify(model, calibration, level=0.8, domain=bm.applicability.Domain(level=0.2))
    save(certified, tmp_path / "certified.bm")
    provenance = describe(tmp_path / "certified.bm")["provenance"]
    assert provenance["training_hash"] == model.training.fingerprint
    assert provenance["guarantees"] == certified.guarantees
    there, test = load(tmp_path / "certified.bm"), bm.data.load("rmd17/ethanol")[30:32]
    ours, theirs = certified.predict(test), there.predict(test)
    for name in ("energy", "forces"):
        one, other = getattr(ours, name), getattr(theirs, name)
        assert torch.equal(one.mean, other.mean)
        assert torch.equal(one.interval(0.8).upper, other.interval(0.8).upper)
    assert torch.equal(ours.p_value, theirs.p_value) and torch.equal(ours.inside, theirs.inside)


def test_describe_reads_no_arrays(saved, tmp_path):
    data = bytearray(saved.read_bytes())
    data[-1] ^= 1
    path = written(tmp_path, data)
    assert describe(path) == describe(saved)
    with pytest.raises(FormatError, match="SHA-256"):
        load(path)


def test_nested_models(toy):
    header, arrays = packed(toy)
    assert header["kind"] == "Toy"
    assert unpacked(header, arrays).arrays["row"] is toy.arrays["row"]


def test_every_changed_byte_is_noticed(toy, tmp_path):
    save(toy, tmp_path / "toy.bm")
    data = (tmp_path / "toy.bm").read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 4
        with pytest.raises(FormatError):
            load(written(tmp_path, changed))


def test_every_truncation_is_noticed(saved, tmp_path):
    data = saved.read_bytes()
    for size in [0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1]:
        path = written(tmp_path, data[:size])
        for reader in (load, describe):
            with pytest.raises(FormatError):
                reader(path)
    with pytest.raises(FormatError, match=r"truncated file; copy"):
        load(written(tmp_path, data[:-1]))


def test_oversized(saved, tmp_path):
    data = saved.read_bytes()
    with pytest.raises(FormatError, match=r"bytes as declared.*oversized"):
        load(written(tmp_path, data + b"\0"))
    text = b"{" + b" " * 10_000_001 + b"}"
    with pytest.raises(FormatError, match="header of 2 to 10000000 bytes"):
        load(written(tmp_path, struct.pack("<Q", len(text)) + text))
    with pytest.raises(FormatError, match="header of 2 to"):
        load(written(tmp_path, struct.pack("<Q", 2**63) + data[8:]))


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_unknown_version(saved, tmp_path, version):
    with pytest.raises(FormatError, match=r"format: expected 1, got .*; install"):
        load(written(tmp_path, edited(saved.read_bytes(), format=version)))


def test_edited_header_is_tampering(saved, tmp_path):
    data = saved.read_bytes()
    header = parts(data)[1]
    for change in ({"provenance": {}}, {"header": {**header["header"], "noise_force": 0.0}}, {"sha256": "0" * 64}):
        with pytest.raises(FormatError, match="SHA-256"):
            load(written(tmp_path, edited(data, **change)))
    load(written(tmp_path, edited(data)))


@pytest.mark.parametrize("kind", ["Nonsense", "os:system", None, []])
def test_unknown_kind(kind):
    with pytest.raises(FormatError, match=r"kind: expected one of .*ACEPotential.*upgrade"):
        unpacked({"kind": kind, "header": {}}, {})


def test_missing_entries(toy, saved, tmp_path):
    with pytest.raises(FormatError, match="Toy: expected all entries"):
        unpacked({"kind": "Toy", "header": {}}, {})
    with pytest.raises(FormatError, match="all entries"):
        unpacked({"kind": "Toy"}, {})
    content, header, arrays = parts(saved.read_bytes())
    del header["units"]
    with pytest.raises(FormatError, match="'units'"):
        load(written(tmp_path, joined(content, header, arrays)))


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F64", "shape": [1]},
        {"dtype": "F64", "shape": [1], "data_offsets": [0, None]},
        {"dtype": "F64", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F64", "shape": [1], "data_offsets": [8, 0]},
        {"dtype": "F9", "shape": [1], "data_offsets": [0, 8]},
        5,
    ],
)
def test_bad_declarations(saved, tmp_path, entry):
    header = parts(saved.read_bytes())[1]
    header["sha256"] = persistence._digest(header, joined({"a": entry}, header, b"\0" * 8))
    with pytest.raises(FormatError, match=r"as declared|data offsets|as the header declares"):
        load(written(tmp_path, joined({"a": entry}, header, b"\0" * 8)))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94.",
        b"PK\x03\x04" + b"\0" * 100,
        b'{"format": 1}',
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 20_000) + b"[" * 20_000,
        safetensors.torch.save({"a": torch.zeros(2)}),
        safetensors.torch.save({"a": torch.zeros(2)}, {"bayesmol": "3"}),
        safetensors.torch.save({"a": torch.zeros(2)}, {"bayesmol": "no"}),
    ],
    ids=["pickle", "torch", "json", "list", "deep", "plain", "number", "text"],
)
def test_strange_files(data, tmp_path):
    path = written(tmp_path, data)
    for reader in (load, describe):
        with pytest.raises(FormatError, match=r"expected .*, got .*; give a file of bayesmol\.save"):
            reader(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.bm")


def test_only_what_can_be_loaded_is_saved(toy, tmp_path):
    with pytest.raises(DataError, match=r"model: expected one of .*, got GradientGP; fit"):
        save(GradientGP(), tmp_path / "model.bm")
    big = replace(toy, header={"size": "x" * 10_000_001})
    with pytest.raises(DataError, match="header of at most"):
        save(big, tmp_path / "model.bm")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_keeps_the_old_file(toy, tmp_path, monkeypatch):
    path = tmp_path / "model.bm"
    save(toy, path)
    before = path.read_bytes()

    def fails(source, target):
        raise OSError("full")

    monkeypatch.setattr(persistence.os, "replace", fails)
    with pytest.raises(OSError, match="full"):
        save(replace(toy, header={"size": 1}), path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["model.bm"]


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_damaged_model_is_refused_in_words(count, tmp_path, damaged):
    grid = torch.linspace(0.4, 1.6, 41, dtype=torch.float64)
    curves = torch.randn(20, 41, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    save(DiatomicPotential.of(torch.tensor([1, 1]), grid, curves, {}), tmp_path / "valid.bm")
    valid, path = (tmp_path / "valid.bm").read_bytes(), tmp_path / "damaged.bm"
    for content in damaged(valid, count):
        path.write_bytes(content)
        if content != valid:
            with pytest.raises(FormatError):
                load(path)
