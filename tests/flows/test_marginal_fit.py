"""Marginals of a sample are in place after the fit, and nothing else has moved."""

import math

import torch
from nflows.transforms import PointwiseAffineTransform
from nflows.transforms.base import CompositeTransform

from bayesmol.flows.bases import GaussianUniform
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.flow import Flow
from bayesmol.flows.marginal_fit import fit_marginals


def wells(size, seed):
    """A coordinate with two peaks, and an angle with one."""
    source = torch.Generator().manual_seed(seed)
    side = torch.where(torch.rand(size, generator=source) < 0.3, -1.5, 1.5)
    straight = side + 0.4 * torch.randn(size, generator=source)
    angle = torch.remainder(math.pi + 0.5 * torch.randn(size, generator=source) + math.pi, 2 * math.pi) - math.pi
    return torch.stack([straight, angle], 1)


def entropy_gap(flow):
    """Divergence of the density from the flow, from fresh draws."""
    x = wells(20_000, 1)
    peaks = [math.log(share) - (x[:, 0] - m).square() / 0.32 for share, m in ((0.3, -1.5), (0.7, 1.5))]
    straight = torch.stack(peaks).logsumexp(0) - math.log(0.4 * math.sqrt(2 * math.pi))
    away = torch.remainder(x[:, 1], 2 * math.pi) - math.pi
    circle = -away.square() / 0.5 - math.log(0.5 * math.sqrt(2 * math.pi))
    return float((straight + circle - flow.log_prob(x).detach()).mean())


def test_the_product_of_marginals_is_learned():
    flow = Couplings(layers=2, width=8, bins=16).build(torch.tensor([False, True]), seed=0)
    before = {name: p.clone() for name, p in flow.named_parameters()}
    assert entropy_gap(flow) > 0.5
    fit_marginals(flow, wells(20_000, 0), seed=0)
    assert entropy_gap(flow) < 0.02
    changed = [name for name, p in flow.named_parameters() if not torch.equal(p, before[name])]
    assert changed == ["transform._transforms.0.weight"]


def test_other_flows_stay():
    layer = PointwiseAffineTransform(torch.tensor(1.0), torch.tensor(2.0))
    flow = Flow(GaussianUniform(torch.zeros(2, dtype=torch.bool)), CompositeTransform([layer]))
    fit_marginals(flow, wells(100, 0), seed=0)
    assert not list(flow.parameters())
