"""Slopes of ln ψ where two electrons meet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesmol.wavefunctions.cusps import electron_cusps
from bayesmol.wavefunctions.pair_features import places
from bayesmol.wavefunctions.precision import double


@pytest.mark.parametrize("charges", [(1.0,), (8.0, 1.0)], ids=["one scale", "a core"])
@pytest.mark.parametrize(("pair", "slope"), [((0, 1), 0.25), ((0, 2), 0.5), ((2, 3), 0.25)])
def test_slope(pair, slope, charges):
    draw = np.random.default_rng(1).normal
    r = draw(size=(4, 3)) * 0.5
    r[pair[1]] = r[pair[0]]
    nuclei = np.arange(3.0 * len(charges)).reshape(-1, 3)
    with double():
        widths = jnp.asarray([0.4, -0.3])

        def factor(t):
            return electron_cusps(widths, places(jnp.asarray(r).at[pair[1], 2].add(t), nuclei, charges), 2)

        found = jax.jit(jax.vmap(jax.grad(factor)))(jnp.asarray([1e-7, -1e-7]))
    assert float(found[0] - found[1]) / 2 == pytest.approx(slope, abs=1e-6)


def test_in_a_core_the_factor_is_that_of_helium_on_a_smaller_scale():
    """At the nucleus of charge 8 all lengths are a quarter: so is γ."""
    r = np.array([[0, 0, 1e-3], [0, 2e-3, 0]])
    with double():
        widths, centre = jnp.zeros(2), np.zeros((1, 3))
        small = electron_cusps(widths, places(jnp.asarray(r), centre, (8.0,)), 1)
        large = electron_cusps(widths, places(jnp.asarray(4 * r), centre, (2.0,)), 1)
    assert 4 * float(small) == pytest.approx(float(large), rel=1e-4)
