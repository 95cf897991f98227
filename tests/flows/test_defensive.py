"""Defensive mixtures: normalised, the density of their draws, weights with bounded tails."""

import math

import pytest
import torch
from nflows.transforms import PointwiseAffineTransform

from bayesmol.errors import DataError
from bayesmol.flows.bases import GaussianUniform
from bayesmol.flows.defensive import Defensive
from bayesmol.flows.flow import Flow
from bayesmol.flows.proposal import Proposal
from bayesmol.inference.importance import effective_size, smoothed_weights


def flow(scale, circular=(False, False)):
    affine = PointwiseAffineTransform(torch.zeros(2), torch.full((2,), 1 / scale))
    return Flow(GaussianUniform(torch.tensor(circular)), affine)


def test_it_is_the_mixture():
    x = torch.linspace(-4, 4, 9).unsqueeze(1).expand(-1, 2).contiguous()
    law = torch.distributions.Normal(torch.zeros(2), torch.tensor(0.8))
    wide = torch.distributions.Normal(torch.zeros(2), torch.tensor(0.8 * 1.5))
    parts = [law.log_prob(x).sum(1) + math.log(0.9), wide.log_prob(x).sum(1) + math.log(0.1)]
    torch.testing.assert_close(Defensive(flow(0.8), share=0.1, scale=1.5).log_prob(x), torch.logaddexp(*parts))


def test_draws_carry_their_density():
    proposal = Defensive(flow(0.8))
    assert isinstance(proposal, Proposal)
    x, log_q = proposal.sample(20_000, seed=0)
    torch.testing.assert_close(log_q, proposal.log_prob(x), rtol=1e-4, atol=1e-5)
    second = 0.8**2 * (0.8 + 0.2 * proposal.scale**2)
    torch.testing.assert_close(x.square().mean(0), torch.full((2,), second), rtol=0.04, atol=0)


def test_angles_stay_uniform():
    proposal = Defensive(flow(1.0, (True, True)))
    x, log_q = proposal.sample(100, seed=0)
    torch.testing.assert_close(log_q, torch.full((100,), -2 * math.log(2 * math.pi)))
    assert x.abs().max() <= math.pi


def test_it_bounds_the_weights_of_a_narrow_flow():
    found = {}
    for name, proposal in {"narrow": flow(0.7), "defended": Defensive(flow(0.7), scale=1.5)}.items():
        x, log_q = proposal.sample(5000, seed=1)
        log_weights = (-x.square().sum(1) / 2 - log_q).detach()
        found[name] = smoothed_weights(log_weights).pareto_k, effective_size(log_weights).fraction
    assert found["narrow"][0] > 0.35
    assert found["defended"][0] < 0.2
    assert found["defended"][1] > found["narrow"][1]


@pytest.mark.parametrize(("share", "scale"), [(0.0, 2.0), (1.0, 2.0), (0.1, 1.0)])
def test_bad_settings(share, scale):
    with pytest.raises(DataError, match="share"):
        Defensive(flow(1.0), share=share, scale=scale)
