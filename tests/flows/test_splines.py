"""The spline kernel against nflows, against autograd and at its limits."""

import math

import pytest
import torch
from nflows.transforms.splines import rational_quadratic as oracle

from bayesmol.flows.splines import UNIT_SLOPE, rational_quadratic

BINS, COORDINATES, ROWS = 8, 5, 300


@pytest.fixture
def parameters(normal):
    return normal(2, BINS, COORDINATES, ROWS), normal(BINS, COORDINATES, ROWS)


def spline(x, parameters, circular=False, bound=4.0, **options):
    kind = torch.full((len(x),), circular)
    return rational_quadratic(x, *parameters, torch.full((len(x),), bound, dtype=x.dtype), kind, **options)


def test_agrees_with_nflows(normal, parameters):
    x = 3 * normal(COORDINATES, ROWS)
    sizes, slopes = parameters
    w, h, d = sizes[0].permute(1, 2, 0), sizes[1].permute(1, 2, 0), slopes[1:].permute(1, 2, 0) + UNIT_SLOPE
    for inverse in (False, True):
        got = spline(x, parameters, inverse=inverse)
        want = oracle.unconstrained_rational_quadratic_spline(x, w, h, d, inverse=inverse, tail_bound=4.0)
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_circle_agrees_with_nflows(normal, parameters):
    x = (2 * torch.rand(COORDINATES, ROWS, dtype=torch.float64) - 1) * math.pi
    sizes, slopes = parameters
    w, h = sizes[0].permute(1, 2, 0), sizes[1].permute(1, 2, 0)
    d = torch.cat([slopes, slopes[:1]]).permute(1, 2, 0) + UNIT_SLOPE
    ends = {"left": -math.pi, "right": math.pi, "bottom": -math.pi, "top": math.pi}
    want = oracle.rational_quadratic_spline(x, w, h, d, **ends)
    torch.testing.assert_close(spline(x, parameters, True, math.pi), want, rtol=1e-9, atol=1e-9)


def test_zero_is_the_identity(normal):
    x = 3 * normal(COORDINATES, ROWS)
    zeros = torch.zeros(2, BINS, COORDINATES, 1, dtype=x.dtype), torch.zeros(BINS, COORDINATES, 1, dtype=x.dtype)
    for inverse in (False, True):
        value, slope = spline(x, zeros, inverse=inverse)
        torch.testing.assert_close(value, x, rtol=0, atol=1e-14)
        torch.testing.assert_close(slope, torch.zeros_like(x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("inverse", [False, True])
def test_log_slope_is_that_of_autograd(normal, parameters, circular, inverse):
    x = (3 * normal(COORDINATES, ROWS)).clamp(-4, 4).requires_grad_()
    value, slope = spline(x, parameters, circular, inverse=inverse)
    (derivative,) = torch.autograd.grad(value.sum(), x)
    inside = x.abs() < 4  # at the very end autograd takes the slope of one side
    torch.testing.assert_close(slope.exp()[inside], derivative[inside], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("circular", [False, True])
@pytest.mark.parametrize("inverse", [False, True])
def test_gradients_of_all_orders(normal, circular, inverse):
    x = (3.9 * torch.tanh(normal(2, 3))).requires_grad_()
    sizes, slopes = normal(2, 4, 2, 3).requires_grad_(), normal(4, 2, 3).requires_grad_()

    def call(x, *p):
        return spline(x, p, circular, inverse=inverse)

    assert torch.autograd.gradcheck(call, (x, sizes, slopes))
    assert torch.autograd.gradgradcheck(call, (x, sizes, slopes))


def test_shared_parameters_are_those_of_each_row(normal):
    x = 3 * normal(COORDINATES, ROWS)
    shared = normal(2, BINS, COORDINATES, 1).requires_grad_(), normal(BINS, COORDINATES, 1).requires_grad_()
    for inverse in (False, True):
        one = spline(x, shared, inverse=inverse)
        each = spline(x, tuple(p.expand(*p.shape[:-1], ROWS) for p in shared), inverse=inverse)
        torch.testing.assert_close(one, each, rtol=1e-12, atol=1e-12)
        gradients = [torch.autograd.grad((v + s.square()).sum(), shared) for v, s in (one, each)]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_round_trip(normal, parameters):
    for dtype, precise in ((torch.float64, 1e-11), (torch.float32, 1e-4)):
        x = 3 * normal(COORDINATES, ROWS).to(dtype)
        theirs = tuple(p.to(dtype) for p in parameters)
        value, slope = spline(x, theirs)
        back, opposite = spline(value, theirs, inverse=True)
        flat = torch.exp(-slope).clamp_min(1)  # where the spline is flat, rounding of the value is magnified
        assert ((back - x).abs() / flat).max() < precise
        assert (slope + opposite).abs().div(flat.square()).max() < 10 * precise


def test_circle_closes(normal, parameters):
    ends = torch.tensor([-math.pi, math.pi], dtype=torch.float64).expand(COORDINATES, 2)
    value, slope = spline(ends, tuple(p[..., :2] * 0 + p[..., :1] for p in parameters), True, math.pi)
    torch.testing.assert_close(value, ends, rtol=0, atol=1e-12)
    torch.testing.assert_close(slope[:, 0], slope[:, 1], rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_far_outside_all_is_finite(parameters, dtype):
    x = torch.tensor([-1e30, -1e6, -4.0, 4.0, 1e6, 1e30], dtype=dtype).expand(COORDINATES, 6).clone().requires_grad_()
    mine = tuple((30 * p[..., :6]).to(dtype).requires_grad_() for p in parameters)
    for inverse in (False, True):
        value, slope = spline(x, mine, inverse=inverse)
        torch.testing.assert_close(value[:, [0, 1, 4, 5]], x[:, [0, 1, 4, 5]], rtol=0, atol=0)
        assert not slope[:, [0, 1, 4, 5]].any()
        for gradient in torch.autograd.grad(value.sum() + slope.sum(), (x, *mine)):
            assert gradient.isfinite().all()


def test_steep_float32_inverse_has_no_negative_root(source):
    """The failure of nflows issue 87: rounding makes the discriminant negative."""
    sizes, slopes = (40 * torch.randn(s, 50, 400, generator=source) for s in (2 * BINS, BINS))
    x = 8 * torch.rand(50, 400, generator=source) - 4
    value, slope = spline(x, (sizes.unflatten(0, (2, BINS)), slopes), inverse=True)
    assert value.isfinite().all() and slope.isfinite().all()
    assert value.abs().max() < 4.01


def test_follows_vmap(normal, parameters):
    x = 3 * normal(COORDINATES, ROWS)
    sizes, slopes = parameters

    def volume(x, sizes, slopes):
        return spline(x[:, None], (sizes[..., None], slopes[..., None]))[1].square().sum()

    axes = (1, 3, 2)
    got = torch.func.vmap(torch.func.grad(volume, argnums=(0, 1, 2)), axes, axes)(x, sizes, slopes)
    leaves = [t.clone().requires_grad_() for t in (x, sizes, slopes)]
    want = torch.autograd.grad(spline(leaves[0], tuple(leaves[1:]))[1].square().sum(), leaves)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
