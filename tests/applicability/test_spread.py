import math

import pytest
import torch

from bayesmol.applicability import Domain
from bayesmol.applicability.linear import Leverage
from bayesmol.applicability.scores import check_score
from bayesmol.applicability.spread import EpistemicSpread
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Draws, Gaussian, Mixture

NOISE = 0.5


def bayesian_line(training):
    """Predictive posterior of a linear model with unit noise, as a function of features."""
    covariance = torch.linalg.inv(training.T @ training)

    def posterior(features):
        known = torch.einsum("ni,ij,nj->n", features, covariance, features)
        return Gaussian(features[:, 0], known + NOISE**2, unit="eV", epistemic_variance=known)

    return posterior


def ensemble(weights):
    """Mixture of linear models of a vector."""

    def posterior(features):
        means = features[None, :, None] * weights[:, None]
        return Mixture(means, torch.full_like(means, NOISE**2), unit="eV/Å")

    return posterior


def test_a_linear_model_gives_the_root_of_the_leverage(normal):
    training, new = normal(30, 3), normal(10, 3)
    leverage = Leverage(ridge=0.0).fit(training)
    spread = EpistemicSpread(bayesian_line(training))
    assert torch.allclose(spread(new), leverage(new).sqrt())


def test_an_ensemble_gives_the_deviation_of_its_members_over_all_axes(normal):
    weights, features = normal(5, 1), normal(8)
    spread = EpistemicSpread(ensemble(weights))
    assert torch.allclose(spread(features), weights.std(0, correction=0) * features.abs())
    vectors = normal(4, 3)
    several = EpistemicSpread(ensemble(vectors))
    want = vectors.var(0, correction=0).sum().sqrt() * features.abs()
    assert torch.allclose(several(features), want), "the root of the sum over components, whatever the frame"


def test_contract_and_domain(normal):
    spread = EpistemicSpread(bayesian_line(normal(30, 3)))
    check_score(spread, normal(20, 3))
    domain = Domain(spread, level=0.05).calibrate(normal(300, 3))
    assert not bool(domain.assess(20 * normal(5, 3)).inside.any())


def test_bad_posteriors(normal):
    with pytest.raises(DataError, match="epistemic"):
        EpistemicSpread(lambda features: Gaussian(features, torch.ones_like(features), unit="eV"))(normal(5))
    with pytest.raises(DataError, match="epistemic"):
        EpistemicSpread(lambda features: Draws(features.expand(1, 4, 5), unit="eV"))(normal(5))
    line = bayesian_line(normal(9, 2))
    with pytest.raises(ShapeError, match="one entry a row"):
        EpistemicSpread(lambda features: line(features[1:]))(normal(5, 2))
    with pytest.raises(DataError, match=r"NaN|finite"):
        EpistemicSpread(bayesian_line(normal(9, 2)))(normal(4, 2) * math.nan)
