"""Sixty-four bits for JAX, and for nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import jax

__all__ = ["double"]


@contextmanager
def double() -> Iterator[None]:
    """Within the context JAX computes in 64 bits.

    In 32 bits JAX 0.10 has returned wrong batched second derivatives on CPUs without a word, and wrong Laplacians make
    energies that look better than the exact ones.
    """
    with jax.enable_x64(True):
        yield
