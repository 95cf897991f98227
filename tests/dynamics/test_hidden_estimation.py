"""Expectation–maximisation of hidden Markov models, and the response of its maximum to weights."""

import pytest
import torch

from bayesmol.data.exact_chains import MarkovChain
from bayesmol.dynamics.hidden_markov_model import HiddenMarkovModel
from bayesmol.dynamics.markov_state_model import MarkovStateModel
from bayesmol.errors import ConvergenceError

T = torch.tensor([[0.9, 0.08, 0.02], [0.1, 0.8, 0.1], [0.05, 0.15, 0.8]]).double()
B = torch.tensor([[0.8, 0.1, 0.05, 0.05], [0.1, 0.7, 0.1, 0.1], [0.05, 0.05, 0.4, 0.5]]).double()


def hidden(frames=1500, seed=0):
    return MarkovChain(T).simulate(frames, seed=seed).parts[0]


def symbols(states, seed=1):
    return torch.multinomial(B[states], 1, generator=torch.Generator().manual_seed(seed))[:, 0]


def features(states, width=1.0, seed=1):
    noise = torch.randn(len(states), 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 3.0 * states[:, None] + width * noise


def problem_and_start(spec, data):
    trajectories = spec.checked(data)
    problem = spec.problem(trajectories, spec.family(trajectories))
    source = torch.Generator().manual_seed(0)
    sharp = torch.full((trajectories.frames, 3), 0.05, dtype=torch.float64)
    random = torch._sample_dirichlet(torch.stack([sharp, 4 * sharp]), generator=source)
    guess = 0.5 * random + 0.5 * torch.nn.functional.one_hot(torch.cat(trajectories.parts).flatten().long() % 3, 3)
    return problem, problem.start(guess[:, problem.chains.order])


@pytest.mark.parametrize("reversible", [True, False])
@pytest.mark.parametrize(("emissions", "make"), [("discrete", symbols), ("gaussian", features)])
def test_no_iteration_lowers_the_density(emissions, make, reversible):
    spec = HiddenMarkovModel(3, lag=2, emissions=emissions, reversible=reversible)
    problem, place = problem_and_start(spec, make(hidden(400)))
    values = []
    for _ in range(40):
        place, value = problem.improved(place)
        values.append(value)
    steps = torch.stack(values).diff(dim=0)
    assert float(steps.min()) > -1e-8
    assert float(steps.max()) > 1


def test_the_density_is_that_of_its_definition():
    spec = HiddenMarkovModel(3, pseudocount=2.0)
    problem, place = problem_and_start(spec, symbols(hidden(50)))
    model = problem.parameters(place)
    matrix, law = model.transition.transition, model.emissions.probabilities
    prior = 2 / 3 * (matrix.log().sum((1, 2)) + model.initial.log().sum(1))
    prior = prior + 2 * (problem.family.shares * law.log()).sum((1, 2))
    assert torch.allclose(problem.improved(place)[1], problem.paths(model).predictive.sum(1) + prior)


@pytest.mark.parametrize("reversible", [True, False])
def test_known_states_are_a_markov_state_model(reversible):
    """Gaussians far apart hide nothing: estimate and every draw are those of the Markov state model."""
    states = hidden()
    markov = MarkovStateModel(lag=2, reversible=reversible, draws=20, block=5).fit(states, seed=0)
    spec = HiddenMarkovModel(3, 2, "gaussian", reversible, pseudocount=1e-9, block=5, starts=1)
    trajectories = spec.checked(features(states, 0.01))
    problem, place = spec.maximum(trajectories, spec.family(trajectories), seed=torch.Generator().manual_seed(0))
    block, owner = problem.chains.blocks(5)
    assert owner.tolist() == markov.counts.trajectory.tolist()
    found = problem.reweighted(place, block, markov.weights.values)
    means = problem.family.natural(problem.parameters(place).emissions).means[0, :, 0]
    order = means.argsort()
    torch.testing.assert_close(found.transition.stationary[:, order], markov.stationary().values[0], atol=1e-6, rtol=0)
    wanted = markov._transitions
    torch.testing.assert_close(found.transition.transition[:, order][:, :, order], wanted, atol=1e-6, rtol=0)


def test_the_response_is_that_of_the_maximum():
    """Half the blocks a little heavier: the maximum by iteration is the one to first order."""
    spec = HiddenMarkovModel(3, emissions="gaussian", starts=1)
    trajectories = spec.checked(features(hidden()))
    problem, place = spec.maximum(trajectories, spec.family(trajectories), seed=torch.Generator().manual_seed(0))
    block = torch.arange(1500) // 750
    weights = torch.tensor([[1.01, 0.99], [1.0, 1.0]]).double()
    found = problem.reweighted(place, block, weights).transition.transition
    exact = place.expand(2, -1)
    for _ in range(60):
        rows = [_weighted_iteration(problem, one, block, row) for one, row in zip(exact, weights, strict=True)]
        exact = torch.cat(rows)
    wanted = problem.parameters(exact).transition.transition
    change = wanted[0] - wanted[1]
    assert float((found[0] - found[1] - change).abs().max()) < 0.05 * float(change.abs().max())
    torch.testing.assert_close(found[1], problem.parameters(place).transition.transition[0])


def _weighted_iteration(problem, place, block, weights):
    parts = problem._block_expected(place[None], block, len(weights))
    return problem.coordinates(*(torch.tensordot(weights[None], part, 1) for part in parts))


def test_a_state_that_dies():
    problem, place = problem_and_start(HiddenMarkovModel(3, emissions="gaussian"), features(hidden(200)))
    place[0, -2] = 1e3  # mean of the last state, in widths of all frames
    with pytest.raises(ConvergenceError, match="state 2 with"):
        problem._check(place[:1])
