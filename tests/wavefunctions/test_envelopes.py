"""Functions without quantum chemistry have the cusps and decay."""

import jax
import numpy as np

from bayesmol.wavefunctions.envelopes import Envelopes
from bayesmol.wavefunctions.precision import double


def test_envelopes_decay_and_have_the_cusp(lithium_hydride):
    envelopes = Envelopes.of(lithium_hydride)
    near = np.asarray(lithium_hydride.positions)[0]
    with double():
        weights = envelopes.parameters(4, np.random.default_rng(0))
        value = jax.jit(lambda r: envelopes(weights, r))
        steps = 1e-6 * np.concatenate([sign * np.eye(3) for sign in (1, -1)])
        around, there = value(near + steps), value(np.repeat(near[None], 6, 0))
        far = value(near + np.array([[9.0, 0, 0]] * 5 + [[18.0, 0, 0]]))
    slope = (np.asarray(around).mean(0) / np.asarray(there)[0] - 1) / 1e-6
    np.testing.assert_allclose(slope, -3, atol=1e-3)
    assert (np.abs(far[5]) < 0.1 * np.abs(far[0])).all()
