"""Markov chains on |ψ|²: stationary and reversible, adapted on demand, with ages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bayesmol.errors import DataError
from bayesmol.wavefunctions.curves import stretched
from bayesmol.wavefunctions.exact import hydrogen
from bayesmol.wavefunctions.log_psi import LogPsi
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.walkers import MALA, Metropolis

STATE = hydrogen()
ALL = pytest.mark.parametrize("sampler", [MALA(step=1.2), Metropolis(step=1.0), Metropolis(step=1.0, hops=0.8)])


def exact_draws(walkers, seed=0):
    """Independent draws of |ψ|² of hydrogen: the radius has a Gamma law of shape 3."""
    source = np.random.default_rng(seed)
    direction = source.normal(size=(walkers, 1, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    return jnp.asarray(source.gamma(3, 0.5, size=(walkers, 1, 1)) * direction)


@ALL
def test_exact_draws_keep_their_law_and_moves_are_reversible(sampler):
    """Kolmogorov–Smirnov on the radius; E[f(x₀) g(x₁)] = E[g(x₀) f(x₁)] for moves in detailed balance."""
    with double():
        before = sampler.initial(exact_draws(20000))
        after = jax.jit(sampler.move(STATE.log_psi, STATE.system))((), before, jax.random.key(1), 3, stale=True)
    assert 0.2 < float(after.acceptance) < 0.8
    radius = np.linalg.norm(np.asarray(after.r)[:, 0], axis=-1)
    assert stats.kstest(radius, stats.gamma(3, scale=0.5).cdf).pvalue > 1e-3
    first = np.linalg.norm(np.asarray(before.r)[:, 0], axis=-1)
    difference = np.exp(-first) * radius**2 - first**2 * np.exp(-radius)
    assert abs(difference.mean()) < 4 * difference.std() / len(difference) ** 0.5
    np.testing.assert_allclose(np.asarray(after.log), -radius, rtol=1e-12)


def test_step_adapts_only_when_asked_and_steps_are_not_compiled_in():
    sampler = MALA(step=0.01)
    with double():
        move = jax.jit(sampler.move(STATE.log_psi, STATE.system))
        state = sampler.initial(exact_draws(500))
        fixed = move((), state, jax.random.key(0), 20, False, True)
        adapted = move((), state, jax.random.key(0), 300, True, True)
        later = move((), adapted, jax.random.key(1), 50, False, False)
        still = move((), later, jax.random.key(1), 0, False, False)
        assert move._cache_size() == 1
    assert float(fixed.step) == 0.01 and float(later.step) == float(adapted.step)
    assert float(later.acceptance) == pytest.approx(0.57, abs=0.05)
    assert np.array_equal(still.r, later.r)


def test_age_counts_rejections_and_undefined_proposals_are_rejected():
    """ψ is undefined for x < 0: nobody goes there, and huge steps are never accepted."""

    def log_psi(parameters, r):
        return LogPsi(jnp.ones(()), jnp.where(r[0, 0] < 0, jnp.nan, -jnp.sum(r**2)))

    with double():
        sampler = Metropolis(step=0.5, hops=0.0)
        move = jax.jit(sampler.move(log_psi, STATE.system))
        state = sampler.initial(jnp.abs(exact_draws(300)))
        after = move((), state, jax.random.key(1), 30, stale=True)
        assert bool((np.asarray(after.r)[:, 0, 0] >= 0).all()) and float(after.acceptance) > 0.1
        stuck = move((), after._replace(step=jnp.full((), 1e6)), jax.random.key(2), 30)
        assert int(stuck.age.min()) >= 30 and float(stuck.acceptance) == 0


def test_new_parameters_refresh_what_depends_on_them():
    def log_psi(parameters, r):
        return LogPsi(jnp.ones(()), -parameters * jnp.sum(r**2))

    with double():
        sampler = MALA()
        move = jax.jit(sampler.move(log_psi, STATE.system))
        state = sampler.initial(exact_draws(50))._replace(age=jnp.arange(50))
        for parameter in (1.0, 2.0):
            state = move(parameter, state, jax.random.key(0), 0, True, True)
            np.testing.assert_allclose(state.log, -parameter * np.sum(np.asarray(state.r) ** 2, (1, 2)), rtol=1e-12)
            np.testing.assert_allclose(state.drift, -2 * parameter * state.r, rtol=1e-12)
        assert np.array_equal(state.r, exact_draws(50)) and np.array_equal(state.age, range(50))
    assert float(state.step) == sampler.step


@ALL
def test_a_look_changes_no_move_and_without_it_nobody_moves(sampler):
    with double():
        move = jax.jit(sampler.move(STATE.log_psi, STATE.system))
        new = sampler.initial(exact_draws(200))
        seen = move((), new, jax.random.key(0), 0, True, True)
        wanted = move((), seen, jax.random.key(1), 5, True, False)
        for one, other in zip(move((), new, jax.random.key(1), 5, True, True), wanted, strict=True):
            np.testing.assert_array_equal(one, other)
        blind = move((), new, jax.random.key(1), 5, False, False)
    assert float(blind.acceptance) == 0 and np.array_equal(blind.r, new.r)


def test_hops_take_electrons_to_the_other_atom():
    """Two electrons in bonding orbitals, 30 bohr apart: all pairs start at one nucleus, half of them end at both."""
    molecule = stretched(Molecule.named("H2"), 30.0)

    def log_psi(parameters, r):
        away = jnp.linalg.norm(r[:, None] - molecule.positions, axis=-1)
        return LogPsi(jnp.ones(()), jnp.sum(jax.nn.logsumexp(-away, axis=-1)))

    for hops, expected in ((0.0, 0.0), (0.2, 0.5)):
        with double():
            sampler = MALA(step=0.3, hops=hops)
            state = sampler.initial(molecule.positions[0] + jnp.tile(exact_draws(1500), (1, 2, 1)))
            after = jax.jit(sampler.move(log_psi, molecule))((), state, jax.random.key(0), 120, stale=True)
        homes = np.linalg.norm(np.asarray(after.r)[:, :, None] - molecule.positions, axis=-1).argmin(-1)
        assert (homes[:, 0] != homes[:, 1]).mean() == pytest.approx(expected, abs=4 * (0.25 / 1500) ** 0.5)


def test_bad_settings_are_refused():
    for bad in ({"step": 0.0}, {"target": 1.0}, {"hops": 1.0}):
        with pytest.raises(DataError):
            MALA(**bad)
        with pytest.raises(DataError):
            Metropolis(**bad)
