"""Averages over finite groups: exact values, unbiased gradients, exact draws."""

import itertools
import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.symmetrised import Symmetrised, exchanges

PLAIN = torch.zeros(4, dtype=torch.bool)
GROUP = exchanges([(0, 1)], 2, space=2).repeat(2, 1)  # exchange of two particles in the plane, and a mirror
SIGNS = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1], [-1, 1, -1, 1], [-1, 1, -1, 1]])


@pytest.fixture
def flow(source):
    flow = Couplings(2, 8, 4).build(PLAIN, seed=0).double()
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=source).double())
    return flow


def test_value_is_the_average(flow, normal):
    x = normal(50, 4)
    images = [flow.log_prob(SIGNS[g].double() * x[:, GROUP[g]]) for g in range(4)]
    want = torch.logsumexp(torch.stack(images), 0) - math.log(4)
    average = Symmetrised(flow, GROUP, SIGNS)
    torch.testing.assert_close(average.log_prob(x), want, rtol=0, atol=1e-12)
    with torch.no_grad():
        for g in range(4):
            moved = average.log_prob(SIGNS[g].double() * x[:, GROUP[g]])
            torch.testing.assert_close(moved, want, rtol=0, atol=1e-12)


def flat(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients])


def test_gradient_is_right_in_the_mean(flow, normal):
    x = normal(1, 4)
    images = torch.stack([flow.log_prob(SIGNS[g].double() * x[:, GROUP[g]]) for g in range(4)])
    weights = list(flow.parameters())
    want = flat(torch.autograd.grad(torch.logsumexp(images, 0).sum(), weights, retain_graph=True))
    each = torch.stack([flat(torch.autograd.grad(image.sum(), weights, retain_graph=True)) for image in images])
    spread = (torch.softmax(images, 0) * (each - want).square()).sum(0).sqrt()
    repeats = 4000
    average = Symmetrised(flow, GROUP, SIGNS, seed=1)
    got = flat(torch.autograd.grad(average.log_prob(x.expand(repeats, -1)).sum(), weights)) / repeats
    assert ((got - want).abs() <= 5 * spread / math.sqrt(repeats) + 1e-12).all()
    again = Symmetrised(flow, GROUP, SIGNS, seed=1)
    assert torch.equal(flat(torch.autograd.grad(again.log_prob(x.expand(repeats, -1)).sum(), weights)) / repeats, got)


def test_draws_have_the_averaged_density(flow):
    cycles = exchanges([(0, 1, 2)], 4, space=1, cyclic=True)
    average = Symmetrised(flow, cycles, seed=0)
    with torch.no_grad():
        x, log_prob = average.sample(40_000, seed=2)
        torch.testing.assert_close(average.log_prob(x), log_prob)
        y, _ = flow.sample(40_000, seed=3)
        # The weights of the draws as draws of the flow are at most the number of elements, and their mean is one.
        weights = torch.exp(flow.log_prob(x) - log_prob)
        assert weights.max() < 3 + 1e-9
        for function in (torch.ones_like, torch.tanh, lambda rows: torch.tanh(rows * rows.roll(1, 1))):
            there, here = weights[:, None] * function(x), function(y)
            error = torch.sqrt(there.var(0) + here.var(0)) / 200
            assert ((there.mean(0) - here.mean(0)).abs() < 5 * error).all()


def test_sampling_inverts_elements_of_order_three():
    """A sharp density: a wrong direction of the permutation would move draws to where there is no density."""

    class Sharp:
        dimension = 3
        centre = torch.tensor([0.0, 5.0, 10.0])

        def log_prob(self, x):
            return -((x - self.centre) ** 2).sum(1) / 2 - 1.5 * math.log(2 * math.pi)

        def sample(self, size, *, seed):
            x = self.centre + torch.randn(size, 3, generator=torch.Generator().manual_seed(0))
            return x, self.log_prob(x)

    one = torch.tensor([[1, 2, 0]])  # alone it is no group, and the direction matters
    _, log_prob = Symmetrised(Sharp(), one).sample(100, seed=0)
    assert log_prob.min() > -20


def test_exchanges_of_particles_and_rotors():
    everyone = exchanges([(0, 1, 2)], 4, space=2)
    assert sorted(map(tuple, everyone[:, ::2].div(2, rounding_mode="floor").tolist())) == sorted(
        (*p, 3) for p in itertools.permutations(range(3))
    )
    assert len(exchanges([(1, 2, 3), (5, 6, 7)], 8, cyclic=True)) == 9
    assert len(exchanges([(1, 2, 3), (5, 6)], 8)) == 12
    assert torch.equal(exchanges([], 2)[0], torch.arange(6))


def test_bad_groups(flow):
    with pytest.raises(DataError, match="equivariant"):
        exchanges([tuple(range(13))], 13)
    with pytest.raises(DataError, match="distinct"):
        exchanges([(0, 1), (1, 2)], 3)
    with pytest.raises(DataError, match="permutation"):
        Symmetrised(flow, torch.tensor([[0, 0, 1, 2]]))
    with pytest.raises(DataError, match="signs"):
        Symmetrised(flow, GROUP, 2 * SIGNS)
    with pytest.raises(DataError, match="symmetry"):
        Symmetrised(flow, GROUP[:, :3])


def test_no_density_has_no_gradient():
    class Nowhere:
        dimension = 2

        def log_prob(self, x):
            return torch.where(x[:, 0] + x[:, 1] > 0, -x.square().sum(1), -torch.inf)

    x = torch.tensor([[1.0, 2.0], [-1.0, -2.0]], requires_grad=True)
    log_prob = Symmetrised(Nowhere(), exchanges([(0, 1)], 2, space=1)).log_prob(x)
    assert log_prob[0].isfinite() and log_prob[1] == -torch.inf
    (gradient,) = torch.autograd.grad(log_prob[:1].sum(), x)
    assert gradient.isfinite().all()
