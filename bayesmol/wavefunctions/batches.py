"""Functions of one configuration, taken for many walkers: a few at once on a CPU, many on an accelerator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

__all__ = ["batched", "laplacian_chunk"]

_CHUNK = {"cpu": 16}  # walkers at once whose arrays stay in the caches: 16 take ⅔ of the time of 128, ½ of that of 512
_CHUNK_ELSEWHERE = 1024
_DERIVATIVES = 12000  # of all pairs of electrons at once, likewise: four walkers of water


def laplacian_chunk(electrons: int) -> int:
    """Walkers at once for Laplacians, whose arrays grow with the cube of the electrons: 16 of B, four of water."""
    each = 3 * max(electrons, 2) ** 3
    fits = max(1, _DERIVATIVES // each)
    return min(_CHUNK["cpu"], fits) if jax.default_backend() == "cpu" else _CHUNK_ELSEWHERE


def batched(
    single: Callable[[Any, Float[Array, "electrons 3"]], Any], *, chunk: int | None = None
) -> Callable[[Any, Float[Array, "walkers electrons 3"]], Any]:
    """Function of parameters and walkers that gives ``single`` for each of them; compile it with ``jax.jit``.

    Parameters
    ----------
    chunk
        Walkers are taken in parts of at most so many, of equal size where that is possible. JAX 0.10 has returned
        wrong Laplacians for large batches in 32 bits.
    """
    size = _CHUNK.get(jax.default_backend(), _CHUNK_ELSEWHERE) if chunk is None else chunk

    def many(parameters: Any, walkers: Array) -> Any:
        if len(walkers) <= size:
            return jax.vmap(single, (None, 0))(parameters, walkers)
        return jax.lax.map(lambda r: single(parameters, r), walkers, batch_size=_part(len(walkers), size))

    return many


def _part(walkers: int, chunk: int) -> int:
    """Size of equal parts of at most ``chunk``, so that no remainder is compiled; ``chunk`` if they would be small."""
    parts = next(n for n in range(-(-walkers // chunk), walkers + 1) if walkers % n == 0)
    return walkers // parts if 2 * walkers // parts >= chunk else chunk
