"""Shared fixtures: reproducible random tensors."""

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
