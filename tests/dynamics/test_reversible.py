import pytest
import torch
from scipy.optimize import minimize

from bayesmol.dynamics.reversible import fixed_stationary_estimate, nonreversible_estimate, reversible_estimate
from bayesmol.errors import DataError


def counts(states, seed=0):
    return torch.rand(states, states, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(9).round()


def flows(found):
    return found.stationary[..., None] * found.transition


def by_search(matrix):
    """Largest likelihood over symmetric flows, by a general optimiser."""
    rows, columns = torch.tril_indices(len(matrix), len(matrix))

    def transition(log_flows):
        x = torch.zeros_like(matrix)
        x[rows, columns] = log_flows.exp()
        x = x + x.mT
        return x / x.sum(1, keepdim=True)

    def loss(values):
        point = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        value = -(matrix * transition(point).log()).sum()
        value.backward()
        return float(value.detach()), point.grad.numpy()

    found = minimize(loss, torch.zeros(len(rows)).double().numpy(), jac=True, options={"gtol": 1e-9})
    return transition(torch.tensor(found.x))


@pytest.mark.parametrize("seed", range(3))
def test_the_likelihood_is_largest_among_reversible_matrices(seed):
    matrix = counts(4, seed) + 1
    found = reversible_estimate(matrix)
    torch.testing.assert_close(found.transition, by_search(matrix), rtol=1e-4, atol=1e-5)


def test_every_matrix_is_stochastic_and_reversible():
    batch = torch.stack([counts(6, k) for k in range(5)])
    for found in (reversible_estimate(batch), fixed_stationary_estimate(batch, torch.full((6,), 1 / 6).double())):
        assert float((found.transition.sum(-1) - 1).abs().max()) < 1e-12
        assert float((flows(found) - flows(found).mT).abs().max()) < 1e-12
        assert torch.allclose(found.stationary.sum(-1), torch.ones(5).double())


def test_batches_are_the_same_one_by_one_whatever_the_start():
    batch = torch.stack([counts(5, k) for k in range(4)])
    together = reversible_estimate(batch)
    for k, one in enumerate(batch):
        alone = reversible_estimate(one, start=torch.zeros(5).double())
        torch.testing.assert_close(together.transition[k], alone.transition, rtol=1e-9, atol=1e-12)


def test_symmetric_counts_are_their_own_estimate():
    matrix = counts(5)
    matrix = matrix + matrix.mT
    torch.testing.assert_close(reversible_estimate(matrix).transition, matrix / matrix.sum(1, keepdim=True))


def test_without_detailed_balance_rows_are_shares():
    found = nonreversible_estimate(counts(5) + 1)
    matrix = counts(5) + 1
    torch.testing.assert_close(found.transition, matrix / matrix.sum(1, keepdim=True))
    torch.testing.assert_close(found.stationary @ found.transition, found.stationary)


def test_known_populations_are_kept():
    populations = torch.tensor([0.5, 0.3, 0.2]).double()
    found = fixed_stationary_estimate(counts(3) + 1, populations)
    torch.testing.assert_close(populations @ found.transition, populations)
    torch.testing.assert_close(found.stationary, populations)


def test_it_agrees_with_deeptime():
    estimation = pytest.importorskip("deeptime.markov.tools.estimation")
    matrix = counts(6)
    wanted = torch.as_tensor(estimation.transition_matrix(matrix.numpy(), reversible=True, maxerr=1e-13, maxiter=10**6))
    torch.testing.assert_close(reversible_estimate(matrix).transition, wanted, rtol=1e-8, atol=1e-10)


def test_states_without_a_way_back_are_refused():
    for estimate in (reversible_estimate, nonreversible_estimate):
        with pytest.raises(DataError, match="sets"):
            estimate(torch.tensor([[1.0, 1], [0, 1]]))
