"""Affine maps of straight coordinates and splines of angles: invertible, with the right volume, expressive enough."""

import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.mixed_couplings import MixedCouplings

CIRCULAR = torch.tensor([True, False, False, True, False, True])


def shaken(**options):
    """A flow that is far from the identity."""
    flow = MixedCouplings(blocks=2, width=16, bins=4, **options).build(CIRCULAR, seed=0).double()
    source = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in flow.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=source, dtype=weight.dtype)
    return flow


def rows(count=50):
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(2)).double()
    return torch.where(CIRCULAR, torch.remainder(x + math.pi, 2 * math.pi) - math.pi, x)


def test_a_new_flow_is_the_identity():
    flow = MixedCouplings().build(CIRCULAR, seed=0)
    x = rows().float()
    torch.testing.assert_close(flow.log_prob(x), flow.base.log_prob(x), rtol=0, atol=1e-4)


def test_inverse_and_volume():
    flow, x = shaken(), rows(10)
    z, volume = flow.transform(x)
    back, other = flow.transform.inverse(z)
    turned = torch.where(CIRCULAR, torch.remainder(back - x + math.pi, 2 * math.pi) - math.pi, back - x)
    assert float(turned.detach().abs().max()) < 1e-6
    torch.testing.assert_close(other, -volume, rtol=0, atol=1e-7)
    jacobian = torch.autograd.functional.jacobian(lambda row: flow.transform(row[None])[0][0], x[0])
    assert float(jacobian.slogdet().logabsdet) == pytest.approx(float(volume[0].detach()), abs=1e-7)


def test_angles_are_periodic():
    flow, x = shaken(), rows()
    torch.testing.assert_close(flow.log_prob(x), flow.log_prob(x + 2 * math.pi * CIRCULAR), rtol=0, atol=1e-9)


@pytest.mark.parametrize("circular", [[True], [False], [True, True, True], [False, False, True]])
def test_any_mixture_of_kinds(circular):
    flow = MixedCouplings(blocks=1, width=8).build(torch.tensor(circular), seed=0)
    x, log_q = flow.sample(20, seed=0)
    torch.testing.assert_close(flow.log_prob(x), log_q, rtol=1e-4, atol=1e-4)


def test_context_matters():
    flow = MixedCouplings(blocks=1, width=8).build(CIRCULAR, seed=0, context=1)
    with torch.no_grad():
        for weight in flow.parameters():
            weight += 0.2
    x = rows(3).float()
    one, other = (flow.log_prob(x, torch.full((3, 1), value)) for value in (0.0, 1.0))
    assert not torch.allclose(one, other)


def test_no_blocks_are_refused():
    with pytest.raises(DataError, match="blocks"):
        MixedCouplings(blocks=0)
