"""Steps of optimisers against dense stochastic reconfiguration, the formulas on paper and invariances."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from bayesmol.errors import DataError
from bayesmol.wavefunctions.optimise import Adam, MinSR, Spring, clipped
from bayesmol.wavefunctions.precision import double

WALKERS, PARAMETERS = 12, 7
FIXED = 1e9  # following so fast that the damping is always the largest


@pytest.fixture(autouse=True)
def sixty_four_bits():
    """All of this module in 64 bits."""
    with double():
        yield


@pytest.fixture
def problem():
    """Scores, energies, parameters and a last direction."""
    source = np.random.default_rng(4)
    shapes = [(WALKERS, PARAMETERS), (WALKERS,), (PARAMETERS,), (PARAMETERS,)]
    return tuple(jnp.asarray(source.normal(size=shape)) for shape in shapes)


def dense(scores, energies, damping):
    """(cov(O) + λI)⁻¹ cov(O, E), of the size of the parameters."""
    centred = np.asarray(scores) - np.mean(scores, 0)
    matrix = centred.T @ centred / len(centred) + damping * np.eye(centred.shape[1])
    return np.linalg.solve(matrix, centred.T @ np.asarray(energies) / len(centred))


@pytest.mark.parametrize("walkers", [5, WALKERS])
@pytest.mark.parametrize("optimiser", [Spring(0.0, 0.1, math.inf, FIXED), MinSR(0.1, math.inf)])
def test_without_momentum_the_step_is_dense_stochastic_reconfiguration(problem, optimiser, walkers):
    scores, energies, parameters, _ = problem
    scores, energies = scores[:walkers], energies[:walkers]
    moved, _ = optimiser.update(scores, energies, parameters, optimiser.initial(parameters), 0.3)
    np.testing.assert_allclose((parameters - moved) / 0.3, dense(scores, energies, 0.1), rtol=0, atol=1e-12)


def test_momentum_fits_what_the_last_direction_left_and_keeps_the_rest(problem):
    # SPRING is the ridge problem |O d − ε|² + λ |d − μ d_last|²; so its solution is dense reconfiguration, shifted.
    scores, energies, parameters, last = problem
    optimiser = Spring(0.9, 0.1, math.inf, FIXED)
    moved, direction = optimiser.update(scores, energies, parameters, last, 0.3)
    wanted = dense(scores, energies - scores @ (0.9 * last), 0.1) + 0.9 * last
    np.testing.assert_allclose(direction, wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(parameters - moved, 0.3 * direction, rtol=0, atol=1e-12)


def test_the_damping_follows_the_variance_of_the_energies_up_to_its_limit(problem):
    scores, energies, parameters, last = problem
    spread = float(jnp.var(energies))
    for scale, damping in ((0.01, 0.5 * 1e-4 * spread), (100.0, 0.1)):
        moved, _ = Spring(0.0, 0.1, math.inf, following=0.5).update(scores, scale * energies, parameters, last, 0.3)
        np.testing.assert_allclose((parameters - moved) / 0.3, dense(scores, scale * energies, damping), rtol=1e-9)


def test_directions_that_no_walker_sees_keep_the_momentum_alone(problem):
    scores, energies, parameters, last = problem
    scores = scores.at[:, 2].set(5.0)  # constant over the walkers: the norm of the wavefunction
    _, direction = Spring(momentum=0.9).update(scores, energies, parameters, last, 1.0)
    assert float(direction[2]) == pytest.approx(0.9 * float(last[2]), abs=1e-12)


@pytest.mark.parametrize("optimiser", [Spring(damping=0.1), MinSR(damping=0.1), Adam()])
def test_neither_order_of_walkers_nor_zero_of_energy_nor_norm_matters(problem, optimiser):
    scores, energies, parameters, _ = problem
    order = np.random.default_rng(0).permutation(WALKERS)
    state = optimiser.initial(parameters)
    one, _ = optimiser.update(scores, energies, parameters, state, 0.1)
    two, _ = optimiser.update(scores[order] + 3.0, energies[order] - 70.0, parameters, state, 0.1)
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-11)


@pytest.mark.parametrize("optimiser", [Spring(damping=0.1), MinSR(damping=0.1)])
def test_a_rotation_of_the_parameters_rotates_the_step(problem, optimiser):
    scores, energies, parameters, last = problem
    turn = jnp.asarray(np.linalg.qr(np.random.default_rng(1).normal(size=(PARAMETERS, PARAMETERS)))[0])
    spring = isinstance(optimiser, Spring)
    one, _ = optimiser.update(scores, energies, parameters, last if spring else (), 0.1)
    two, _ = optimiser.update(scores @ turn, energies, parameters @ turn, last @ turn if spring else (), 0.1)
    np.testing.assert_allclose(one @ turn, two, rtol=0, atol=1e-12)


def test_natural_steps_do_not_see_units_of_the_parameters(problem):
    scores, energies, parameters, _ = problem
    units = jnp.asarray(np.geomspace(0.1, 10, PARAMETERS))
    optimiser = MinSR(damping=1e-8, constraint=math.inf)
    one, _ = optimiser.update(scores, energies, parameters, (), 0.1)
    two, _ = optimiser.update(scores / units, energies, parameters * units, (), 0.1)
    np.testing.assert_allclose(one * units, two, rtol=1e-4)


def test_a_long_step_is_shortened_and_a_short_one_is_not(problem):
    scores, energies, parameters, last = problem
    free, _ = Spring(constraint=math.inf).update(scores, energies, parameters, last, 0.1)
    length = float(jnp.linalg.norm(free - parameters))
    for constraint, wanted in ((0.25 * length**2, 0.5 * length), (4 * length**2, length)):
        moved, direction = Spring(constraint=constraint).update(scores, energies, parameters, last, 0.1)
        assert float(jnp.linalg.norm(moved - parameters)) == pytest.approx(wanted, rel=1e-12)
        assert float(jnp.linalg.norm(direction)) == pytest.approx(10 * length, rel=1e-12)


def test_equal_energies_move_nothing(problem):
    scores, _, parameters, _ = problem
    moved, direction = Spring().update(scores, jnp.full(WALKERS, -2.9), parameters, jnp.zeros(PARAMETERS), 0.1)
    np.testing.assert_allclose(moved, parameters, rtol=0, atol=1e-12)
    assert bool(jnp.isfinite(direction).all())


def test_adam_is_its_recursion(problem):
    scores, energies, parameters, _ = problem
    optimiser, place = Adam(first=0.8, second=0.95, floor=1e-6), parameters
    state, mean, square = optimiser.initial(parameters), np.zeros(PARAMETERS), np.zeros(PARAMETERS)
    wanted = np.array(parameters)
    for step in range(1, 4):
        residuals = step * energies
        place, state = optimiser.update(scores, residuals, place, state, 0.01)
        gradient = 2 * np.cov(np.asarray(scores).T, np.asarray(residuals), ddof=0)[-1, :-1]
        mean, square = 0.8 * mean + 0.2 * gradient, 0.95 * square + 0.05 * gradient**2
        wanted -= 0.01 * (mean / (1 - 0.8**step)) / (np.sqrt(square / (1 - 0.95**step)) + 1e-6)
        np.testing.assert_allclose(place, wanted, rtol=0, atol=1e-14)


def test_the_first_step_of_adam_has_the_length_of_the_rate(problem):
    scores, energies, parameters, _ = problem
    moved, _ = Adam().update(scores, energies, parameters, Adam().initial(parameters), 0.01)
    np.testing.assert_allclose(jnp.abs(moved - parameters), 0.01, rtol=1e-5)


def test_clipping_by_hand():
    # Median 2, mean absolute deviation (2 + 1 + 0 + 1 + 96) / 5 = 20.
    found = clipped(jnp.asarray([0.0, 1.0, 2.0, 3.0, 98.0]), width=2.0)
    np.testing.assert_allclose(found.energies, [0.0, 1.0, 2.0, 3.0, 42.0], rtol=1e-15)
    assert float(found.share) == pytest.approx(0.2)


def test_equal_energies_are_not_clipped():
    found = clipped(jnp.full(6, -0.5))
    np.testing.assert_array_equal(found.energies, -0.5)
    assert float(found.share) == 0.0


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        (Spring, {"momentum": 1.0}, "momentum"),
        (Spring, {"damping": 0.0}, "damping"),
        (Spring, {"following": 0.0}, "following"),
        (MinSR, {"damping": math.nan}, "damping"),
        (MinSR, {"constraint": 0.0}, "constraint"),
        (Adam, {"second": 1.0}, "second"),
        (Adam, {"floor": 0.0}, "floor"),
    ],
)
def test_impossible_settings_are_refused(kind, options, name):
    with pytest.raises(DataError, match=name):
        kind(**options)
