"""One step of a training: skipped where something is not finite; walkers that are stuck are drawn anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesmol.wavefunctions.log_psi import LogPsi
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.optimise import Spring
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.training_step import Learning, compiled, redrawn
from bayesmol.wavefunctions.walkers import MALA, State

HELIUM, SPRING = Molecule.named("He"), Spring(momentum=0.0)


@pytest.fixture(autouse=True)
def sixty_four_bits():
    """All of this module in 64 bits."""
    with double():
        yield


def log_psi(parameters, r):
    return LogPsi(jnp.ones(()), -parameters * jnp.sum(jnp.linalg.norm(r, axis=-1)))


def state(walkers=16):
    r = jnp.asarray(np.random.default_rng(2).normal(size=(walkers, 2, 3)))
    one = jnp.ones(())
    return State(r, jnp.zeros(walkers), jnp.zeros_like(r), 0.1 * one, one, jnp.zeros(walkers, jnp.int32))


def learned(parameters, walkers):
    parameters = jnp.asarray(parameters)
    now = Learning(parameters, parameters, SPRING.initial(parameters[None]), walkers)
    _, learn = compiled(log_psi, HELIUM, MALA(), SPRING, 5.0, 100)
    return now, *learn(now, jax.random.key(0), 0.1, 1.0)


def by_hand(parameter, r):
    """Local energies of an exponential, and scores."""
    r = np.asarray(r)
    near = np.linalg.norm(r, axis=-1)
    energy = -(parameter**2) + ((parameter - 2) / near).sum(1) + 1 / np.linalg.norm(r[:, 0] - r[:, 1], axis=-1)
    return energy, -near.sum(1)


def test_a_step_by_hand():
    now, new, seen = learned(1.5, state())
    energy, score = by_hand(1.5, now.walkers.r)
    np.testing.assert_allclose(seen[:2], [energy.mean(), energy.var()], rtol=1e-10)
    middle = np.median(energy)
    limit = 5 * np.abs(energy - middle).mean()
    cut = np.clip(energy, middle - limit, middle + limit)
    direction = np.cov(score, cut, ddof=0)[0, 1] / (score.var() + SPRING.damping)
    step = np.clip(0.1 * direction, -np.sqrt(SPRING.constraint), np.sqrt(SPRING.constraint))
    assert float(new.parameters) == pytest.approx(1.5 - step, abs=1e-12)
    assert float(new.average) == pytest.approx(1.5 - step / 2, abs=1e-12)  # memory of one step
    assert [float(part) for part in seen[2:]] == [1.0, np.mean(cut != energy), 0.0, 1.0]


def test_a_walker_without_an_energy_skips_the_step_and_is_drawn_anew():
    walkers = state()
    _, new, seen = learned(1.5, walkers._replace(r=walkers.r.at[3].set(0.0)))
    assert (float(new.parameters), float(new.average), float(seen[4]), float(seen[5])) == (1.5, 1.5, 1.0, 0.0)
    np.testing.assert_array_equal(new.optimiser, 0.0)
    others = np.delete(np.asarray(walkers.r), 3, 0)
    assert (np.asarray(new.walkers.r[3]) == others).all((1, 2)).sum() == 1
    np.testing.assert_array_equal(np.delete(np.asarray(new.walkers.r), 3, 0), others)


def test_parameters_that_are_no_numbers_do_not_spread():
    now, new, seen = learned(np.nan, state())
    assert float(seen[5]) == 0.0
    np.testing.assert_array_equal(new.walkers.r, now.walkers.r)  # no walker is fine, so none is copied


def test_stuck_walkers_are_drawn_anew():
    walkers = state(6)
    walkers = walkers._replace(age=jnp.asarray([0, 100, 101, 5, 200, 1], jnp.int32))
    new, copies = redrawn(walkers, jnp.zeros(6), 100, jax.random.key(1))
    assert int(copies) == 2
    np.testing.assert_array_equal(new.age, [0, 100, 0, 5, 0, 1])
    for place in (2, 4):
        assert (np.asarray(new.r[place]) == np.asarray(walkers.r)[[0, 1, 3, 5]]).all((1, 2)).any()
    for place in (0, 1, 3, 5):
        np.testing.assert_array_equal(new.r[place], walkers.r[place])


def test_walkers_move_on_the_density_of_the_parameters():
    walk, _ = compiled(log_psi, HELIUM, MALA(), SPRING, 5.0, 100)
    walkers = walk(jnp.asarray(3.0), state(400), jax.random.key(3), 200, True)
    radii = np.linalg.norm(walkers.r, axis=-1)
    assert radii.mean() == pytest.approx(0.5, abs=5 * np.sqrt(1 / 12 / 800))  # variance 3 / (2 a)² of each radius
    np.testing.assert_allclose(walkers.log, -3 * radii.sum(1), rtol=1e-12)
