"""Where and how precisely JAX computes: sixty-four bits, on one device, for as long as a context lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from bayesmol.errors import DataError, expected

__all__ = ["double", "placed"]


@contextmanager
def double() -> Iterator[None]:
    """Within the context JAX computes in 64 bits.

    In 32 bits JAX 0.10 has returned wrong batched second derivatives on CPUs without a word, and wrong Laplacians make
    energies that look better than the exact ones.
    """
    with jax.enable_x64(True):
        yield


@contextmanager
def placed(device: str) -> Iterator[None]:
    """Compute on this device.

    Raises
    ------
    DataError
        If JAX does not see it.
    """
    kind, _, number = device.partition(":")
    try:
        chosen = jax.devices({"cuda": "gpu"}.get(kind, kind))[int(number or 0)]
    except (RuntimeError, IndexError, ValueError) as error:
        remedy = "install jax with support of this device"
        raise DataError(expected("--device", "a device that JAX sees", repr(device), remedy)) from error
    with jax.default_device(chosen):
        yield
