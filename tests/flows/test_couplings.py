"""Coupling flows: exact inverses and determinants, normalisation, identity at the start."""

import copy
import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.couplings import Couplings, _half

CIRCULAR = torch.tensor([False, True, False, True, False])
KINDS = [Couplings(4, 24, 8), Couplings(4, 24, kind="affine")]


def bent(flow, source, size=0.3):
    """The flow with random weights, of moderate slopes."""
    with torch.no_grad():
        for name, p in flow.named_parameters():
            if "last.weight" in name:
                p.copy_(size * torch.randn(p.shape, generator=source) / math.sqrt(p.shape[1]))
            elif "last.bias" in name or name.endswith("0.weight"):
                p.copy_(size * torch.randn(p.shape, generator=source))
    return flow


def rows(points, circular, source):
    straight = torch.randn(points, len(circular), generator=source)
    angles = (2 * torch.rand(points, len(circular), generator=source) - 1) * math.pi
    return torch.where(circular, angles, straight)


def apart(a, b, circular):
    """Distances, angles modulo 2π."""
    gap = (a - b).abs()
    return torch.where(circular, torch.minimum(gap, (2 * math.pi - gap).abs()), gap)


@pytest.mark.parametrize("spec", KINDS)
def test_a_new_flow_is_the_identity(spec, source):
    flow, x = spec.build(CIRCULAR, seed=0), rows(500, CIRCULAR, source)
    z, volume = flow.transform(x)
    assert apart(z, x, CIRCULAR).max() < 1e-5 and volume.abs().max() < 1e-5
    torch.testing.assert_close(flow.log_prob(x), flow.base.log_prob(x), rtol=0, atol=2e-5)


@pytest.mark.parametrize("spec", KINDS)
def test_inverse_and_determinant(spec, source):
    flow = bent(spec.build(CIRCULAR, seed=0), source).double()
    x = rows(200, CIRCULAR, source).double()
    z, volume = flow.transform(x)
    back, opposite = flow.transform.inverse(z)
    assert apart(back, x, CIRCULAR).max() < 1e-9 and (volume + opposite).abs().max() < 1e-9
    jacobians = torch.func.vmap(torch.func.jacrev(lambda row: flow.transform(row[None])[0][0]))(x[:40])
    assert (torch.linalg.slogdet(jacobians)[1] - volume[:40]).abs().max() < 1e-9
    single = copy.deepcopy(flow).float()
    assert apart(single.transform.inverse(single.transform(x.float())[0])[0], x, CIRCULAR).max() < 1e-4


@pytest.mark.parametrize("spec", KINDS)
def test_gradients_by_vmap_and_far_away(spec, source):
    flow = bent(spec.build(CIRCULAR, seed=0), source).double()
    x = rows(50, CIRCULAR, source).double().requires_grad_()
    (want,) = torch.autograd.grad(flow.log_prob(x).sum(), x)
    got = torch.func.vmap(torch.func.grad(lambda row: flow.log_prob(row[None])[0]))(x)
    torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-8)
    far = torch.where(CIRCULAR, x, 1e4 * x).detach().requires_grad_()
    gradients = torch.autograd.grad(flow.log_prob(far).sum(), [far, *flow.parameters()], allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("circular", [[False, False], [True, True], [True, False]])
def test_density_integrates_to_one(circular, source):
    circular = torch.tensor(circular)
    flow = bent(Couplings(4, 16, 6).build(circular, seed=0), source, 0.2).double()
    reach = [math.pi if c else 14 for c in circular]
    axes = [((torch.arange(800, dtype=torch.float64) + 0.5) / 400 - 1) * r for r in reach]
    grid = torch.cartesian_prod(*axes)
    cell = math.prod(float(axis[1] - axis[0]) for axis in axes)
    with torch.no_grad():
        assert abs(float(flow.log_prob(grid).exp().sum()) * cell - 1) < 1e-3


def test_circles_close(source):
    circular = torch.tensor([True, True, False])
    flow = bent(Couplings(4, 16, 6).build(circular, seed=0), source).double()
    x = rows(100, circular, source).double()
    turned = x + torch.tensor([2 * math.pi, -4 * math.pi, 0])
    torch.testing.assert_close(flow.log_prob(turned), flow.log_prob(x), rtol=0, atol=1e-9)
    z, _ = flow.sample(500, seed=0)
    assert z[:, :2].abs().max() <= math.pi


def test_draws_have_their_density(source):
    flow = bent(Couplings(3, 16, 6).build(CIRCULAR, seed=0, context=2), source).double()
    context = torch.randn(300, 2, generator=source).double()
    x, log_prob = flow.sample(300, seed=5, context=context)
    torch.testing.assert_close(flow.log_prob(x, context), log_prob, rtol=0, atol=1e-8)
    assert torch.equal(x, flow.sample(300, seed=5, context=context)[0])
    assert (flow.log_prob(x, context.flip(0)) - log_prob).abs().max() > 0.01
    with pytest.raises(DataError, match="context: expected 2"):
        flow.log_prob(x)


def test_one_seed_one_flow(source):
    before = torch.random.get_rng_state()
    one, two, other = (Couplings(4, 16, 6).build(CIRCULAR, seed=s) for s in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))
    bent(one, source)
    other.load_state_dict(one.state_dict())  # masks and turns are in the state, so any seed will do
    x = rows(50, CIRCULAR, source)
    assert torch.equal(one.log_prob(x), other.log_prob(x))
    assert torch.equal(one.log_prob(x), copy.deepcopy(one).log_prob(x))


@pytest.mark.parametrize("angles", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("lines", [1, 2, 5])
def test_halves_hold_some_of_both(angles, lines):
    circular = torch.arange(angles + lines) < angles
    with torch.random.fork_rng():
        moved = _half(circular)
    for half in (moved, ~moved):
        assert abs(int(half.sum()) - len(circular) / 2) <= 0.5
        assert not angles > 1 or (half & circular).any()
        assert not lines > 1 or (half & ~circular).any()


def test_one_coordinate_needs_no_couplings(source):
    flow = bent(Couplings(2, 8, 6).build(torch.tensor([False]), seed=0), source).double()
    grid = torch.linspace(-30, 30, 30001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        assert abs(float(torch.trapezoid(flow.log_prob(grid).exp(), grid[:, 0])) - 1) < 1e-5
    conditional = bent(Couplings(2, 8, 6).build(torch.tensor([False]), seed=0, context=1), source).double()
    with torch.no_grad():
        one, two = (conditional.log_prob(grid, torch.full_like(grid, c)).exp() for c in (0.0, 3.0))
    assert abs(float(torch.trapezoid(two, grid[:, 0])) - 1) < 1e-5
    assert (one - two).abs().max() > 1e-3


def test_bad_specifications():
    with pytest.raises(DataError, match="kind"):
        Couplings(kind="cubic")
    with pytest.raises(DataError, match="layers"):
        Couplings(-1)
    with pytest.raises(DataError, match="bins"):
        Couplings(bins=1000).build(CIRCULAR, seed=0)
    with pytest.raises(DataError, match="width"):
        Couplings(width=0).build(CIRCULAR, seed=0)
