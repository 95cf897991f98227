import pytest
import torch

from bayesmol.dynamics.multipliers import FixedPopulations, FreePopulations, PairSums, newton
from bayesmol.dynamics.reversible import reversible_estimate


def counts(draws, states, spread=1.0, seed=0):
    source = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(draws, states, states, generator=source, dtype=torch.float64)).exp() + 0.1


def free(batch):
    return FreePopulations(PairSums.of(batch), (batch.sum(-1) - batch.diagonal(dim1=1, dim2=2)).mT)


def fixed(batch):
    staying, populations = 2 * batch.diagonal(dim1=1, dim2=2).mT, torch.rand(*batch.shape[1::-1], dtype=torch.float64)
    return FixedPopulations(PairSums.of(batch), staying, populations / populations.sum(0))


def free_loss(problem, theta):
    u, sums = theta.exp(), problem.sums
    return (sums.values * (u[sums.first] + u[sums.second]).log()).sum() - (problem.out * theta).sum()


def fixed_loss(problem, u):
    sums = problem.sums
    value = (problem.populations * u).sum() - (sums.values * (u[sums.first] + u[sums.second]).log()).sum()
    return value - (problem.staying * u.log()).sum()


@pytest.mark.parametrize(("make", "loss"), [(free, free_loss), (fixed, fixed_loss)])
def test_slopes_and_curvatures_are_derivatives(make, loss):
    problem = make(counts(3, 5))
    value = torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5
    slope, coupling = problem.slope(value)
    torch.testing.assert_close(slope, -torch.func.grad(lambda x: loss(problem, x))(value))
    step = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    step = step - step.mean(0)  # along a constant the first problem has a spring instead
    wanted = torch.func.jvp(torch.func.grad(lambda x: loss(problem, x)), (value,), (step,))[1]
    torch.testing.assert_close(problem.curve(coupling, step.to(coupling)).double(), wanted, rtol=1e-5, atol=1e-5)
    columns = [problem.only(torch.tensor([k])) for k in range(3)]
    couplings = [one.slope(value[:, [k]])[1] for k, one in enumerate(columns)]
    matrices = [one.matrix(each) for one, each in zip(columns, couplings, strict=True)]
    torch.testing.assert_close(sum(matrices) / 3, problem.matrix(coupling), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(matrices[1] @ step[:, 1].to(coupling), problem.curve(coupling, step.to(coupling))[:, 1])


@pytest.mark.parametrize("make", [free, fixed])
def test_columns_that_need_longer_go_on_alone(make):
    batch = torch.cat([counts(7, 6, 0.1), counts(2, 6, 4.0, seed=1)])
    problem = make(batch)
    start = torch.ones(6, 9, dtype=torch.float64)
    together = newton(problem, start)
    assert float(problem.slope(together)[0].abs().max()) < 1e-8 * float(batch.max())
    alone = torch.cat([newton(problem.only(torch.tensor([k])), start[:, [k]]) for k in range(9)], 1)
    shift = (alone - together).mean(0) if make is free else 0.0
    torch.testing.assert_close(alone, together + shift, rtol=1e-7, atol=1e-8)
    assert bool((start == 1).all())


def test_counts_of_very_different_size():
    """Pairs that occur a million times beside one that occurs once, and populations over ten orders of magnitude."""
    batch = torch.tensor([[1e6, 3.0, 0.0], [1.0, 5.0, 1e-4], [0.0, 1e-3, 1e-5]]).double()
    found = reversible_estimate(batch)
    flows = found.stationary[:, None] * found.transition
    torch.testing.assert_close(flows, flows.mT, rtol=1e-12, atol=0)
    # A chain of states is reversible as it is: the estimate is the share of each row.
    torch.testing.assert_close(found.transition, batch / batch.sum(1, keepdim=True), rtol=1e-8, atol=1e-12)


def test_only_pairs_that_occur_are_kept():
    batch = torch.tensor([[[5.0, 2, 0], [0, 1, 3], [0, 4, 1]], [[5.0, 0, 0], [1, 1, 0], [0, 7, 1]]]).double()
    sums = PairSums.of(batch)
    assert sums.first.tolist() == [0, 1] and sums.second.tolist() == [1, 2]
    assert sums.values.tolist() == [[2.0, 1.0], [7.0, 7.0]]


def test_states_that_hang_by_a_thread():
    """Two sets of many counts between which a draw has next to none, as bootstrap weights make them."""
    batch = counts(4, 8).mul_(1e5)
    batch[:, :4, 4:], batch[:, 4:, :4] = 0, 0
    batch[:, 0, 4], batch[:, 4, 0] = torch.tensor([1.0, 1e-4, 1e-9, 1e-14]), torch.tensor([2.0, 1e-3, 1e-9, 3e-14])
    found = reversible_estimate(batch)
    flows = found.stationary[:, :, None] * found.transition
    torch.testing.assert_close(flows, flows.mT, rtol=1e-12, atol=0)
    # Flows between the sets balance, and the chance to leave a set is what was counted.
    into, back = flows[:, :4, 4:].sum((1, 2)), flows[:, 4:, :4].sum((1, 2))
    torch.testing.assert_close(into, back, rtol=1e-10, atol=0)
    for k in range(4):
        alone = reversible_estimate(batch[k, :4, :4]).stationary
        inside = found.stationary[k, :4] / found.stationary[k, :4].sum()
        torch.testing.assert_close(inside, alone, rtol=1e-3, atol=1e-6)
