import pytest
import torch

from bayesmol.dynamics.discrete_emissions import DiscreteEmissions, DiscreteFamily
from bayesmol.errors import DataError

FRAMES = torch.tensor([7, 2, 2, 5, 7, 7])


@pytest.fixture
def family():
    return DiscreteFamily.of(FRAMES, 2)


def gamma(models=1):
    return torch.rand(models, 6, 2, generator=torch.Generator().manual_seed(0)).double().softmax(-1)


def test_symbols_and_densities(family):
    assert family.symbols.tolist() == [2, 5, 7]
    assert family.shares.tolist() == pytest.approx([2 / 6, 1 / 6, 3 / 6])
    law = DiscreteEmissions(torch.tensor([[[0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]]).double())
    wanted = law.probabilities[0, :, [2, 0, 0, 1, 2, 2]].mT.log()
    assert torch.allclose(family.log_density(law, family.prepared(FRAMES))[0], wanted)


def test_blocks_sum_to_all(family):
    frames, block = family.prepared(FRAMES), torch.tensor([0, 0, 1, 1, 2, 2])
    sums = family.sums(frames, gamma())
    assert torch.allclose(family.block_sums(frames, gamma()[0], block, 3).sum(0), sums[0])
    assert torch.allclose(sums.sum(1)[0], torch.tensor([2.0, 1.0, 3.0]).double())


def test_coordinates_give_the_maximum(family):
    sums = family.sums(family.prepared(FRAMES), gamma())
    law = family.emissions(family.coordinates(sums))
    assert torch.allclose(law.probabilities, sums / sums.sum(-1, keepdim=True))
    assert float(family.log_prior(law, 2.0)) == pytest.approx(
        float((2 * family.shares * law.probabilities.log()).sum())
    )


def test_bad_input(family):
    with pytest.raises(DataError, match="different states"):
        DiscreteFamily.of(torch.tensor([3, 3, 3]), 2)
    with pytest.raises(DataError, match="occur"):
        family.prepared(torch.tensor([2, 3]))
