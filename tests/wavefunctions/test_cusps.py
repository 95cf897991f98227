"""Slopes of ln ψ where two electrons meet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesmol.wavefunctions.cusps import electron_cusps
from bayesmol.wavefunctions.precision import double


@pytest.mark.parametrize(("pair", "slope"), [((0, 1), 0.25), ((0, 2), 0.5), ((2, 3), 0.25)])
def test_slope(pair, slope):
    draw = np.random.default_rng(1).normal
    r = draw(size=(4, 3)) * 2
    r[pair[1]] = r[pair[0]]
    with double():
        widths = jnp.asarray([0.4, -0.3])

        slopes = jax.jit(jax.vmap(jax.grad(lambda t: electron_cusps(widths, jnp.asarray(r).at[pair[1], 2].add(t), 2))))
        found = slopes(jnp.asarray([1e-7, -1e-7]))
    assert float(found[0] - found[1]) / 2 == pytest.approx(slope, abs=1e-6)
