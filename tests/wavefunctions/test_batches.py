"""Functions of many walkers are those of each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesmol.wavefunctions.batches import _part, batched, laplacian_chunk


def single(parameters, r):
    return parameters * jnp.sum(r**2), r[0]


@pytest.mark.parametrize(("walkers", "chunk"), [(1, 4), (4, 4), (12, 4), (13, 4), (7, None), (40, None)])
def test_each_walker_on_its_own(walkers, chunk):
    r = np.random.default_rng(0).standard_normal((walkers, 2, 3)).astype(np.float32)
    square, first = jax.jit(batched(single, chunk=chunk))(2.0, r)
    assert np.allclose(square, 2 * (r**2).sum((1, 2)), rtol=1e-5)
    assert np.array_equal(first, r[:, 0])


def test_parts_are_equal_unless_they_would_be_small():
    assert _part(1000, 64) == 50 and _part(512, 64) == 64 and _part(4096, 64) == 64
    assert _part(1009, 64) == 64


def test_chunks_of_laplacians_shrink_with_the_electrons():
    """More walkers at once are as right, but out of the caches."""
    assert jax.default_backend() != "cpu" or [laplacian_chunk(n) for n in (1, 4, 5, 10, 40)] == [16, 16, 16, 4, 1]
