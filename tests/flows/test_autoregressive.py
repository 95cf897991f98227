"""Autoregressive flows: exact densities and draws, order, and what they can learn."""

import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.autoregressive import Autoregressive

CIRCULAR = torch.tensor([False, True, False, True, False])


def bent(flow, source, size=0.3):
    with torch.no_grad():
        for name, p in flow.named_parameters():
            if "last.weight" in name:
                p.copy_(size * torch.randn(p.shape, generator=source) / math.sqrt(p.shape[1]))
            elif "last.bias" in name or name.endswith("0.weight"):
                p.copy_(size * torch.randn(p.shape, generator=source))
    return flow


def fitted(flow, data, steps, rate=3e-2, batch=512, seed=0):
    """Maximum likelihood by Adam with a falling rate."""
    source, optimiser = torch.Generator().manual_seed(seed), torch.optim.Adam(flow.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        (-flow.log_prob(data[torch.randint(len(data), (batch,), generator=source)]).mean()).backward()
        optimiser.step()
        schedule.step()
    return flow


@pytest.mark.parametrize("spec", [Autoregressive(24, 8), Autoregressive(24, 8, layers=2, order=(3, 0, 4, 1, 2))])
def test_identity_inverse_and_determinant(spec, source):
    flow = spec.build(CIRCULAR, seed=0)
    x = torch.randn(100, 5, generator=source).clamp(-3, 3)
    z, volume = flow.transform(x)
    assert (z - x).abs().max() < 1e-5 and volume.abs().max() < 1e-5
    flow, x = bent(flow, source).double(), x.double()
    z, volume = flow.transform(x)
    back, opposite = flow.transform.inverse(z)
    assert (back - x).abs().max() < 1e-9 and (volume + opposite).abs().max() < 1e-8
    jacobians = torch.func.vmap(torch.func.jacrev(lambda row: flow.transform(row[None])[0][0]))(x[:30])
    assert (torch.linalg.slogdet(jacobians)[1] - volume[:30]).abs().max() < 1e-9


def test_each_coordinate_sees_those_before_it(source):
    order = [3, 0, 4, 1, 2]
    flow = bent(Autoregressive(24, 8, order=tuple(order)).build(CIRCULAR, seed=0), source, 2.0).double()
    x = torch.randn(4, 5, generator=source).double()
    jacobian = torch.autograd.functional.jacobian(lambda rows: flow.transform(rows)[0].sum(0), x)[:, :, :].sum(1)
    ranked = jacobian[order][:, order]
    assert not ranked.triu(1).any()
    assert (ranked.tril(-1) != 0).sum() == 10


def test_draws_have_their_density(source):
    flow = bent(Autoregressive(24, 8).build(CIRCULAR, seed=0, context=3), source).double()
    context = torch.randn(200, 3, generator=source).double()
    x, log_prob = flow.sample(200, seed=1, context=context)
    torch.testing.assert_close(flow.log_prob(x, context), log_prob, rtol=0, atol=1e-8)
    assert (flow.log_prob(x, 0 * context) - log_prob)[:, None].abs().max() > 0.01


@pytest.mark.parametrize("circular", [[False, False], [True, True], [True, False]])
def test_density_integrates_to_one(circular, source):
    circular = torch.tensor(circular)
    flow = bent(Autoregressive(16, 12).build(circular, seed=0), source).double()
    reach = [math.pi if c else 12 for c in circular]
    axes = [((torch.arange(700, dtype=torch.float64) + 0.5) / 350 - 1) * r for r in reach]
    cell = math.prod(r / 350 for r in reach)
    with torch.no_grad():
        assert abs(float(flow.log_prob(torch.cartesian_prod(*axes)).exp().sum()) * cell - 1) < 1e-3


@pytest.mark.slow
def test_gaussian_chain(source):
    """Row G09: the likelihood of an autoregressive Gaussian comes to its entropy."""
    length, rho = 4, 0.7
    noise = torch.randn(460_000, length, generator=source)
    columns = [noise[:, 0]]
    for i in range(1, length):
        columns.append(rho * columns[-1] + math.sqrt(1 - rho**2) * noise[:, i])
    chain = torch.stack(columns, 1)
    flow = fitted(
        Autoregressive(16, 4).build(torch.zeros(length, dtype=torch.bool), seed=0), chain[:60_000], 1500, 2e-2, 1024
    )
    places = torch.arange(length)
    exact = torch.distributions.MultivariateNormal(torch.zeros(length), rho ** (places[:, None] - places).abs())
    with torch.no_grad():
        gap = exact.log_prob(chain[400_000:]) - flow.log_prob(chain[400_000:])
    assert abs(float(gap.mean())) < 1e-3 + 3 * float(gap.std()) / 60_000**0.5


@pytest.mark.slow
def test_mixture_on_the_torus(source):
    """Row G22: KL of two bumps on T² below 0.01 nat, integral one."""
    centres, concentration = torch.tensor([[-2.8, 0.5], [1.0, -2.0]]), torch.tensor(6.0)
    pick = torch.rand(100_000, generator=source) < 0.35
    with torch.random.fork_rng():
        torch.manual_seed(0)
        around = torch.distributions.VonMises(torch.zeros(100_000, 2), concentration).sample()
    x = torch.remainder(centres[pick.long()] + around + math.pi, 2 * math.pi) - math.pi
    flow = fitted(Autoregressive(32, 8).build(torch.tensor([True, True]), seed=0), x, 800, batch=1024)
    axis = (torch.arange(300) + 0.5) / 150 * math.pi - math.pi
    grid = torch.cartesian_prod(axis, axis)
    parts = torch.distributions.VonMises(centres, concentration).log_prob(grid[:, None]).sum(2)
    log_p = torch.logsumexp(parts + torch.tensor([0.65, 0.35]).log(), 1)
    with torch.no_grad():
        log_q, cell = flow.log_prob(grid), (math.pi / 150) ** 2
    assert abs(float(log_q.exp().sum()) * cell - 1) < 1e-3
    divergence = float((log_p.exp() * (log_p - log_q)).sum()) * cell
    assert divergence < 0.01, divergence


def test_bad_specifications():
    with pytest.raises(DataError, match="order"):
        Autoregressive(order=(0, 0, 1)).build(torch.zeros(3, dtype=torch.bool), seed=0)
    with pytest.raises(DataError, match="layers"):
        Autoregressive(layers=0)
