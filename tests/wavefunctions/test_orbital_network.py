"""Antisymmetry and cusps hold for any weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesmol.wavefunctions.precision import double


@pytest.fixture(scope="module")
def value(stirred):
    """ψ over that of the first row, for any number of configurations up to 64."""
    log_psi, parameters = stirred
    compiled = jax.jit(jax.vmap(log_psi, (None, 0)))

    def evaluate(r):
        with double():
            rows = jnp.asarray(np.concatenate([r, np.repeat(r[:1], 64 - len(r), 0)]))
            found = jax.tree.map(np.asarray, compiled(parameters, rows))
        return (found.sign * found.sign[0] * np.exp(found.log - found.log[0]))[: len(r)]

    return evaluate


def test_exchange_of_equal_spins(value, places):
    for order in ([1, 0, 2, 3], [0, 1, 3, 2]):
        both = value(np.concatenate([places[:1], places, places[:, order]]))
        np.testing.assert_allclose(both[1:7], -both[7:], rtol=1e-12)
    assert abs(value(np.stack([places[0], places[0][[2, 1, 0, 3]]]))[1]) != pytest.approx(1, abs=1e-3)


def slope(value, place, electron, steps=(1e-5, 2e-5)):
    """Slope of the spherical average of ψ about a place, over its value there."""
    directions = np.concatenate([sign * np.eye(3) for sign in (1, -1)])
    rows = [place] + [place.copy() for _ in range(12)]
    for k, (t, n) in enumerate([(t, n) for t in steps for n in directions]):
        rows[k + 1][electron] += t * n
    found = value(np.stack(rows))[1:].reshape(2, 6).mean(1) - 1
    return (4 * found[0] - found[1]) / (2 * steps[0])


@pytest.mark.parametrize("electron", [0, 2])
@pytest.mark.parametrize("nucleus", [0, 1])
def test_cusps_at_nuclei(value, lithium_hydride, places, electron, nucleus):
    place = places[0].copy()
    place[electron] = np.asarray(lithium_hydride.positions)[nucleus]
    assert slope(value, place, electron) == pytest.approx(-lithium_hydride.charges[nucleus], abs=1e-3)


def test_cusp_between_unlike_spins(value, places):
    place = places[0].copy()
    place[2] = place[0]
    assert slope(value, place, 2) == pytest.approx(0.5, abs=1e-3)


def test_cusp_between_like_spins(value, places):
    # Apart by t about one centre, ψ is t (1 + t / 4) times a constant.
    rows, t = np.stack([places[0]] * 2), 1e-4
    rows[:, 1] = rows[:, 0]
    for row, apart in zip(rows, (t, 2 * t), strict=True):
        row[0, 2] -= apart / 2
        row[1, 2] += apart / 2
    assert (value(rows)[1] / 2 - 1) / t == pytest.approx(0.25, abs=5e-3)
