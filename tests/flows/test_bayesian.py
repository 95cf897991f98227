"""Bayesian flows against conjugate posteriors of a Gaussian mean; which weights are open; fewer effective samples."""

import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.bayesian import Bayesian
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.mixture import disagreement
from bayesmol.flows.proposal import Proposal
from bayesmol.inference.svi import Variational

ENGINE = Variational(covariance="diagonal", steps=250, rate=0.05, draws=1, initial=0.3)


@pytest.fixture
def known(affine):
    """Two coordinates with deviations 0.7 and 1.5 that are known, and means that are not."""
    flow = affine([0.0, 0.0], [math.log(0.7), math.log(1.5)])
    flow.transform.log_scale.requires_grad_(False)
    return flow


@pytest.fixture
def samples(gaussian):
    return gaussian.sample(12, seed=5)


def conjugate(samples, share=1.0):
    """Mean and variance of the posterior of the means with the prior N(0, 1)."""
    precision = share * len(samples) / torch.tensor([0.7, 1.5], dtype=torch.float64).square()
    return precision * samples.mean(0) / (1 + precision), 1 / (1 + precision)


@pytest.mark.parametrize("effective", [None, 3.0])
def test_the_posterior_is_the_conjugate_one(known, samples, effective):
    found = Bayesian("all", engine=ENGINE).fit(known, samples, effective=effective, seed=0)
    mean, variance = conjugate(samples, 1.0 if effective is None else effective / 12)
    torch.testing.assert_close(found.posterior.mean, mean, rtol=0, atol=0.05)
    torch.testing.assert_close(found.posterior.stddev, variance.sqrt(), rtol=0.12, atol=0)
    assert float(known.transform.shift.detach().abs().max()) == 0


def test_the_predictive_density_is_the_known_gaussian(known, samples):
    found = Bayesian("all", engine=ENGINE).fit(known, samples[:3], seed=0)
    ensemble = found.ensemble(400, seed=1)
    assert isinstance(ensemble, Proposal)
    mean, variance = conjugate(samples[:3])
    law = torch.distributions.Normal(mean, (variance + torch.tensor([0.7, 1.5]).double().square()).sqrt())
    x = mean + torch.tensor([[0.0, 0.0], [1.0, -2.0], [-2.0, 3.0], [2.5, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(ensemble.log_prob(x), law.log_prob(x).sum(1), rtol=0, atol=0.2)
    plug_in = known.log_prob(x)
    assert float((ensemble.log_prob(x) - plug_in).detach()[2]) != 0


def test_members_disagree_by_the_posterior(known, samples):
    found = Bayesian("all", engine=ENGINE).fit(known, samples, seed=0)
    spread = disagreement(found.ensemble(60, seed=2), lambda x: x[:, 1], size=60_000, seed=3)
    assert spread.epistemic == pytest.approx(float(found.posterior.stddev[1]) ** 2, rel=0.5)
    assert spread.p_value < 1e-6


def test_last_layers_of_couplings():
    flow = Couplings(layers=2, width=8, bins=4).build(torch.tensor([False, False]), seed=0)
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    found = Bayesian(engine=Variational(steps=20), batch=20).fit(flow, x, seed=0)
    assert {name.split(".")[-2] for name in found.weights.names} == {"last", "0"}
    assert found.weights.size < sum(p.numel() for p in flow.parameters())
    members = found.ensemble(3, seed=0).members
    for name, value in flow.named_parameters():
        same = torch.equal(dict(members[0].named_parameters())[name], value)
        assert same == (f"flow.{name}" not in found.weights.names)
    assert len(found.bound) == 20


def test_bad_input(known, samples):
    with pytest.raises(DataError, match="weights"):
        Bayesian("first")
    with pytest.raises(DataError, match="effective"):
        Bayesian("all").fit(known, samples, effective=100.0, seed=0)
    with pytest.raises(DataError, match="chosen"):
        Bayesian("last").fit(known, samples, seed=0)
