import pytest
import torch

from bayesmol.dynamics.gaussian_emissions import GaussianEmissions, GaussianFamily
from bayesmol.errors import ConvergenceError, DataError, ShapeError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


FRAMES = normal(40, 2) @ torch.tensor([[3.0, 1.0], [0.0, 0.1]]).double() + 100


@pytest.fixture
def family():
    return GaussianFamily.of(FRAMES, 2)


def law():
    root = normal(1, 2, 2, 2, seed=1)
    covariances = root @ root.mT + torch.eye(2).double()
    return GaussianEmissions(FRAMES[None, :2], covariances)


def test_densities_are_those_of_the_features(family):
    found = family.log_density(family.scaled(law()), family.prepared(FRAMES))[0]
    for k in range(2):
        wanted = torch.distributions.MultivariateNormal(law().means[0, k], law().covariances[0, k]).log_prob(FRAMES)
        assert torch.allclose(found[:, k], wanted)


def test_units_and_back(family):
    again = family.natural(family.scaled(law()))
    assert torch.allclose(again.means, law().means)
    assert torch.allclose(again.covariances, law().covariances)


def test_coordinates_give_the_weighted_moments(family):
    gamma = normal(3, 40, 2, seed=2).softmax(-1)
    sums = family.sums(family.prepared(FRAMES), gamma)
    found = family.natural(family.emissions(family.coordinates(sums)))
    share = gamma / gamma.sum(1, keepdim=True)
    means = share.mT @ FRAMES
    off = FRAMES[None, None] - means[:, :, None]
    assert torch.allclose(found.means, means)
    assert torch.allclose(found.covariances, torch.einsum("mtk,mkti,mktj->mkij", share, off, off))
    block = torch.arange(40) // 10
    assert torch.allclose(family.block_sums(family.prepared(FRAMES), gamma[1], block, 4).sum(0), sums[1])


def test_the_prior_is_that_of_all_frames(family):
    one = family.scaled(law())
    wanted = family.log_density(one, family.prepared(FRAMES)).mean(1).sum(1)
    other = GaussianEmissions(one.means.flip(0) * 0, one.covariances * 2)
    there = family.log_density(other, family.prepared(FRAMES)).mean(1).sum(1)
    found = family.log_prior(one, 1.0) - family.log_prior(other, 1.0)
    assert torch.allclose(found, wanted - there)


def test_bad_input(family):
    with pytest.raises(DataError, match="vary"):
        GaussianFamily.of(torch.cat([FRAMES, torch.ones(40, 1).double()], 1), 2)
    with pytest.raises(DataError, match="independent"):
        GaussianFamily.of(torch.cat([FRAMES, FRAMES.sum(1, keepdim=True)], 1), 2)
    with pytest.raises(DataError, match="different frames"):
        GaussianFamily.of(torch.tensor([[0.0], [1.0], [1.0]]).double(), 3)
    with pytest.raises(ShapeError, match="features"):
        family.prepared(FRAMES[:, :1])
    single = torch.zeros(40, 2).double()
    single[:20, 0], single[20:, 1] = 1.0, 1.0
    frames = family.prepared(FRAMES)
    frames[:20] = frames[0]
    with pytest.raises(ConvergenceError, match="single value"):
        family.check(family.sums(frames, single[None])[0], 1.0)
