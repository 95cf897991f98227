"""Shared fixtures: reproducible random tensors."""

import random

import pytest
import torch


@pytest.fixture
def source() -> torch.Generator:
    """Generator with a fixed seed."""
    return torch.Generator().manual_seed(20261121)


@pytest.fixture
def normal(source):
    """Standard normal float64 tensor of a shape."""
    return lambda *shape: torch.randn(*shape, generator=source, dtype=torch.float64)


_TOKENS = (b"nan", b"inf", b"-1", b"1e400", b"", b"999999999999", b"\x00", b"Xx", b"0", b"\xff\xff\xff\xff")


@pytest.fixture
def damaged():
    """Damaged copies of the bytes of a file: cut, changed, longer, shorter, with a number that no one expects."""

    def copies(content: bytes, count: int):
        source = random.Random(20261122)
        for _ in range(count):
            data, place = bytearray(content), source.randrange(len(content))
            kind = source.randrange(5)
            if kind == 0:
                del data[place:]
            elif kind == 1:
                for _ in range(source.randrange(1, 6)):
                    data[source.randrange(len(data))] ^= source.randrange(1, 256)
            elif kind == 2:
                data[place:place] = source.randbytes(source.randrange(1, 20))
            elif kind == 3:
                del data[place : place + source.randrange(1, 30)]
            else:
                data[place : place + source.randrange(5)] = source.choice(_TOKENS)
            yield bytes(data)

    return copies
