import math

import pytest
import torch
from scipy import stats

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.continuous import Continuous, ContinuousFlow, Integrated, MeanFreeGaussian, integration
from bayesmol.flows.coordinates import MeanFree
from bayesmol.flows.proposal import Proposal


def _shaken(flow, source, size=0.2):
    with torch.no_grad():
        for weight in flow.transform.field.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=source))
        flow.transform.log_scale.fill_(0.4)
    return flow.double().requires_grad_(False)


@pytest.fixture
def flow(source):
    """A small flow in space with weights that are not small."""
    return _shaken(Continuous(radial=12, hidden=8, steps=20).build(4, 3, seed=0), source, 0.1)


class _Swelling(torch.nn.Module):
    """Velocity a x: a flow from a Gaussian to a Gaussian of the deviation exp(a)."""

    def __init__(self, particles, space, rate):
        super().__init__()
        self.particles, self.space, self.rate = particles, space, rate

    def forward(self, t, x):
        return self.rate * x

    def with_divergence(self, t, x):
        return self.rate * x, x.new_full((len(x),), self.rate * (self.particles - 1) * self.space)


def _swelling(steps, rate=0.7):
    flow = ContinuousFlow.__new__(ContinuousFlow)
    torch.nn.Module.__init__(flow)
    flow.base, flow.transform = MeanFreeGaussian(3, 2), Integrated.__new__(Integrated)
    torch.nn.Module.__init__(flow.transform)
    flow.transform.field, flow.transform.steps = _Swelling(3, 2, rate), steps
    flow.transform.log_scale = torch.nn.Parameter(torch.zeros((), dtype=torch.float64), requires_grad=False)
    return flow


def test_the_base_is_a_gaussian_in_orthonormal_coordinates():
    base, coordinates = MeanFreeGaussian(5, 3), MeanFree(5, 3)
    z = base.sample(200, seed=0, dtype=torch.float64)
    y, _ = coordinates(z)
    torch.testing.assert_close(base.log_prob(z), torch.distributions.Normal(0.0, 1.0).log_prob(y).sum(1))
    torch.testing.assert_close(base.log_prob(z + 3.0), base.log_prob(z))


def test_draws_of_the_base_are_centred_and_have_its_law():
    z = MeanFreeGaussian(5, 3).sample(2000, seed=0, dtype=torch.float64)
    assert float(z.unflatten(1, (5, 3)).mean(1).abs().max()) < 1e-12
    assert stats.kstest(z.square().sum(1).numpy(), stats.chi2(12).cdf).pvalue > 1e-3


def test_a_new_flow_is_the_base():
    flow = Continuous().build(4, 2, seed=0)
    x, log_q = flow.sample(10, seed=1)
    torch.testing.assert_close(log_q, flow.base.log_prob(x))
    assert isinstance(flow, Proposal) and flow.dimension == 8


def test_a_swelling_cloud_is_a_wider_gaussian():
    flow = _swelling(20)
    x = flow.sample(50, seed=0)[0].double()
    wide = math.exp(0.7)
    expected = flow.base.log_prob(x / wide) - 4 * math.log(wide)
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=0, atol=1e-6)


def test_the_error_falls_with_the_fourth_power_of_the_step():
    z = MeanFreeGaussian(3, 2).sample(20, seed=0, dtype=torch.float64)
    errors = [float((_swelling(steps).push(z)[0].detach() - math.exp(0.7) * z).abs().max()) for steps in (2, 4)]
    assert 11 < errors[0] / errors[1] < 21


def test_the_integral_of_the_divergence_is_of_order_four(flow):
    z, volumes = flow.base.sample(10, seed=0, dtype=torch.float64), []
    for steps in (6, 12, 60):
        flow.transform.steps = steps
        volumes.append(flow.transform.inverse(z)[1].detach())
    first, second = ((volume - volumes[2]).abs().mean() for volume in volumes[:2])
    assert float(first / second) > 8


def test_the_density_is_that_of_the_map(flow):
    """Against the determinant of the Jacobian in orthonormal coordinates, by automatic differentiation."""
    coordinates = MeanFree(4, 3).double()
    flow.transform.steps = 20
    y = torch.randn(2, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def end(y):
        return coordinates(flow.transform.inverse(coordinates.inverse(y)[0])[0])[0]

    jacobian = torch.autograd.functional.jacobian(lambda y: end(y).sum(0), y).transpose(0, 1)
    volume = flow.transform.inverse(coordinates.inverse(y)[0])[1]
    torch.testing.assert_close(volume, torch.linalg.slogdet(jacobian).logabsdet, rtol=0, atol=1e-3)


def test_the_density_has_the_symmetries(flow, normal, source):
    x = normal(5, 12)
    turn, _ = torch.linalg.qr(normal(3, 3))
    order = torch.randperm(4, generator=source)
    for other in (x.unflatten(1, (4, 3)) @ turn, x.unflatten(1, (4, 3)) @ -turn, x.unflatten(1, (4, 3))[:, order] + 2):
        torch.testing.assert_close(flow.log_prob(other.flatten(1)), flow.log_prob(x), rtol=0, atol=1e-10)


def test_the_density_integrates_to_one(source):
    """Two particles in a plane: the density of the distance r, with the length r / √2 of the orthonormal vector."""
    flow = _shaken(Continuous(radial=12, hidden=8).build(2, 2, seed=0), source, 0.1)
    s = torch.linspace(0, 20, 2001, dtype=torch.float64)
    x = torch.stack([s, 0 * s, -s, 0 * s], 1) / 2**0.5
    with torch.no_grad():
        total = torch.trapezoid(2 * math.pi * s * flow.log_prob(x).exp(), s)
    assert abs(float(total) - 1) < 1e-3
    assert float((flow.log_prob(x) - flow.base.log_prob(x)).detach().abs().max()) > 0.1


def test_there_and_back(flow):
    found = integration(flow, draws=200, seed=0)
    assert found.round_trip < 1e-4 and found.centre < 1e-6 and found.log_density <= found.largest < 1e-2
    x, log_q = flow.sample(50, seed=2)
    torch.testing.assert_close(flow.log_prob(x), log_q, rtol=0, atol=1e-3)


def test_coarse_steps_are_seen(flow):
    fine = integration(flow, draws=200, seed=0)
    flow.transform.steps = 4
    coarse = integration(flow, draws=200, seed=0)
    assert coarse.log_density > 10 * fine.log_density and coarse.round_trip > 10 * fine.round_trip


def test_the_gradient_in_the_parameters_is_that_of_finite_differences(flow):
    flow.requires_grad_()
    z, weight = flow.base.sample(4, seed=0, dtype=torch.float64), flow.transform.field.strength
    x, log_q = flow.push(z)
    (gradient,) = torch.autograd.grad(log_q.sum() + x.square().sum(), weight)
    ends = []
    for shift in (1e-5, -1e-5):
        with torch.no_grad():
            weight[3, 2] += shift
            x, log_q = flow.push(z)
            ends.append(float(log_q.sum() + x.square().sum()))
            weight[3, 2] -= shift
    assert float(gradient[3, 2]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


def test_chunks_change_nothing(flow):
    z = flow.base.sample(4000, seed=0, dtype=torch.float64)
    flow.transform.steps = 2
    with torch.no_grad():
        x, log_q = flow.push(z)
        part, log_part = flow.push(z[-5:])
    torch.testing.assert_close((x[-5:], log_q[-5:]), (part, log_part))


def test_same_seed_same_flow():
    flows = [Continuous().build(3, 2, seed=seed) for seed in (0, 0)]
    assert torch.equal(flows[0].transform.field.clock, flows[1].transform.field.clock)
    assert torch.equal(flows[0].sample(5, seed=3)[0], flows[1].sample(5, seed=3)[0])


def test_bad_input_is_refused(flow):
    with pytest.raises(ShapeError, match=r"\(points, 12\)"):
        flow.log_prob(torch.zeros(2, 9, dtype=torch.float64))
    with pytest.raises(DataError, match="finite"):
        flow.log_prob(torch.full((2, 12), math.nan, dtype=torch.float64))
    with pytest.raises(DataError, match="even"):
        Continuous(steps=5).build(4, 3, seed=0)
