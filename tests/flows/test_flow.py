"""Change of variables: closed form of an affine map of a Gaussian."""

import torch
from nflows.transforms import PointwiseAffineTransform

from bayesmol.flows.bases import GaussianUniform
from bayesmol.flows.flow import Flow
from bayesmol.flows.proposal import Proposal

SHIFT, SCALE = torch.tensor([1.0, -2.0]), torch.tensor([2.0, 0.5])


def flow():
    return Flow(GaussianUniform(torch.zeros(2, dtype=torch.bool)), PointwiseAffineTransform(SHIFT, SCALE))


def test_log_density_is_that_of_the_gaussian():
    law = torch.distributions.Normal(-SHIFT / SCALE, 1 / SCALE)
    x = torch.randn(7, 2)
    torch.testing.assert_close(flow().log_prob(x), law.log_prob(x).sum(1))


def test_draws_carry_their_density():
    x, log_prob = flow().sample(1000, seed=0)
    torch.testing.assert_close(log_prob, flow().log_prob(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.mean(0), -SHIFT / SCALE, rtol=0, atol=0.3)


def test_it_is_a_proposal():
    assert isinstance(flow(), Proposal)
    assert flow().dimension == 2
    assert flow().dtype == torch.float32
