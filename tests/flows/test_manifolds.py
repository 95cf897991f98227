"""Flows on the sphere and on rotations: charts, measures, and a density that integrates to one."""

import math

import pytest
import torch

from bayesmol.flows.autoregressive import Autoregressive
from bayesmol.flows.manifolds import Rotation, Sphere
from bayesmol.flows.viewed import Seen


def uniform_rotations(size, source):
    q, r = torch.linalg.qr(torch.randn(size, 3, 3, generator=source, dtype=torch.float64))
    q = q * torch.diagonal(r, dim1=1, dim2=2).sign()[:, None]
    return (q * torch.linalg.det(q)[:, None, None]).flatten(1)


def points(size, source):
    x = torch.randn(size, 3, generator=source, dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)


def test_charts_invert(source):
    for chart, x in ((Sphere(), points(500, source)), (Rotation(), uniform_rotations(500, source))):
        y, volume = chart(x)
        back, opposite = chart.inverse(y)
        torch.testing.assert_close(back, x, rtol=0, atol=1e-7)
        torch.testing.assert_close(volume, -opposite, rtol=0, atol=1e-9)


def test_volume_of_the_sphere(source):
    """The area of the image of a small square, from the Jacobian of the point."""
    chart = Sphere()
    y = torch.randn(50, 2, generator=source, dtype=torch.float64)
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(lambda r: chart.inverse(r[None])[0][0], row) for row in y]
    )
    area = torch.linalg.det(jacobian.mT @ jacobian).log() / 2
    torch.testing.assert_close(chart.inverse(y)[1], area, rtol=0, atol=1e-9)


def test_volume_of_rotations(source):
    r"""Haar's measure by the angular velocities: :math:`d\alpha\, d\cos\beta\, d\gamma = |\det(\omega)| dy`."""
    chart = Rotation()
    y = torch.randn(20, 3, generator=source, dtype=torch.float64)
    for row in y:
        rate = torch.autograd.functional.jacobian(lambda r: chart.inverse(r[None])[0][0], row).T.reshape(3, 3, 3)
        matrix = chart.inverse(row[None])[0].reshape(3, 3)
        spin = rate @ matrix.T
        omega = torch.stack([spin[:, 2, 1], spin[:, 0, 2], spin[:, 1, 0]], 1)
        want = torch.linalg.det(omega).abs().log()
        torch.testing.assert_close(chart.inverse(row[None])[1][0], want, rtol=0, atol=1e-8)


def test_new_flows_are_uniform(source):
    spheres, turns = (Sphere(), points(200, source)), (Rotation(), uniform_rotations(200, source))
    for (chart, x), total in ((spheres, 4 * math.pi), (turns, 8 * math.pi**2)):
        flow = Autoregressive(8, 4).build(chart.circular, seed=0).double()
        log_prob = Seen(flow, chart).log_prob(x)
        torch.testing.assert_close(log_prob, torch.full_like(log_prob, -math.log(total)), rtol=0, atol=1e-5)


def log_bumps(x, kappa=8.0):
    """Two von Mises–Fisher bumps, one of them over a pole."""
    directions = torch.tensor([[0.0, 0.0, 1.0], [0.8, 0.0, -0.6]], dtype=torch.float64)
    constant = math.log(kappa / (2 * math.pi * (1 - math.exp(-2 * kappa)))) - kappa
    return torch.logsumexp(kappa * x @ directions.T, 1) + constant - math.log(2)


@pytest.mark.slow
def test_density_on_the_sphere(source):
    """Row G22: a mixture is learned, and integrates to one over the sphere."""
    chart, x = Sphere(), points(600_000, source)
    kept = x[torch.rand(len(x), generator=source).log() < log_bumps(x) - math.log(0.7)]
    flow, y = Autoregressive(32, 8).build(chart.circular, seed=0), chart(kept)[0].float()
    optimiser = torch.optim.Adam(flow.parameters(), 3e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 500)
    for _ in range(500):
        optimiser.zero_grad()
        (-flow.log_prob(y[torch.randint(len(y), (1024,), generator=source)]).mean()).backward()
        optimiser.step()
        schedule.step()
    proposal = Seen(flow, chart)
    height = (torch.arange(2000, dtype=torch.float64) + 0.5) / 1000 - 1
    longitude = (torch.arange(120, dtype=torch.float64) + 0.5) / 60 * math.pi - math.pi
    z, phi = torch.cartesian_prod(height, longitude).T
    radius = (1 - z**2).sqrt()
    x, cell = torch.stack([radius * phi.cos(), radius * phi.sin(), z], 1), (1 / 1000) * (math.pi / 60)
    with torch.no_grad():
        log_q = proposal.log_prob(x)
    assert abs(float(log_q.exp().sum()) * cell - 1) < 1e-3
    log_p = log_bumps(x)
    assert abs(float(log_p.exp().sum()) * cell - 1) < 1e-3
    assert float((log_p.exp() * (log_p - log_q)).sum()) * cell < 0.02
    with torch.no_grad():
        draws, log_prob = proposal.sample(500, seed=0)
    torch.testing.assert_close(draws.norm(dim=1), torch.ones(500, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(proposal.log_prob(draws).detach(), log_prob, rtol=0, atol=1e-3)
