import numpy as np
import pytest
import scoringrules
import torch

from bayesmol.calibration.claim import Claim
from bayesmol.calibration.statistics import clustered_error
from bayesmol.calibration.vector_scores import VECTOR_STATISTICS, energy_scores, mahalanobis, variogram_scores
from bayesmol.posterior import Gaussian


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariances(count, seed=0):
    factor = normal(count, 3, 3, seed=seed)
    return factor @ factor.mT + 0.1 * torch.eye(3, dtype=torch.float64)


def gaussian(blocks, mean=None):
    """Forces of structures of one atom each, with the covariance of their components."""
    variance = blocks.diagonal(dim1=1, dim2=2)
    mean = torch.zeros_like(variance) if mean is None else mean
    return Gaussian(mean, variance, unit="eV/Å", covariance=tuple(blocks))


def rotation(seed):
    return torch.linalg.qr(normal(3, 3, seed=seed))[0]


def test_variogram_score_agrees_with_scoringrules():
    members, truth = normal(30, 7, 3), normal(7, 3, seed=1)
    ours = variogram_scores(members, truth)
    theirs = scoringrules.vs_ensemble(truth.numpy(), members.permute(1, 0, 2).numpy(), p=0.5)
    assert torch.allclose(2 * ours, torch.from_numpy(np.asarray(theirs))), "scoringrules counts each pair twice"


def test_energy_score_has_the_expectation_of_the_unbiased_one():
    members, truth = normal(4000, 5, 3), normal(5, 3, seed=1)
    theirs = scoringrules.es_ensemble(truth.numpy(), members.permute(1, 0, 2)[:, :1000].numpy(), estimator="fair")
    assert torch.allclose(energy_scores(members, truth), torch.from_numpy(np.asarray(theirs)), atol=0.06)


def test_energy_score_of_one_component_is_the_crps():
    members, truth = normal(20_000, 4, 1), normal(4, 1, seed=1)
    wanted = scoringrules.crps_normal(truth[:, 0].numpy(), 0.0, 1.0)
    assert torch.allclose(energy_scores(members, truth), torch.from_numpy(wanted), atol=0.03)


@pytest.mark.parametrize("turned", [1, 2])
def test_length_and_energy_score_do_not_change_under_rotation(turned):
    turn, blocks, values = rotation(turned), covariances(40), normal(40, 3, seed=5)
    first = Claim(gaussian(blocks)).scores(values)
    second = Claim(gaussian(turn @ blocks @ turn.mT)).scores(values @ turn.mT)
    assert torch.allclose(mahalanobis(first), mahalanobis(second))
    isotropic = Gaussian(torch.zeros(40, 3, dtype=torch.float64), torch.ones(40, 3, dtype=torch.float64), unit="eV/Å")
    lengths = [mahalanobis(Claim(isotropic).scores(v)) for v in (values, values @ turn.mT)]
    assert torch.allclose(*lengths)
    members = normal(20, 40, 3, seed=8)
    assert torch.allclose(energy_scores(members, values), energy_scores(members @ turn.mT, values @ turn.mT))


def test_mahalanobis_length_is_that_of_the_blocks_and_has_mean_one():
    blocks = covariances(5000)
    posterior = gaussian(blocks)
    values = posterior.sample(1, seed=3)[0]
    found = mahalanobis(Claim(posterior).scores(values))
    one = values[7] @ torch.linalg.inv(blocks[7]) @ values[7] / 3
    assert float(found[7]) == pytest.approx(float(one))
    assert float(found.mean()) == pytest.approx(1.0, abs=0.04)
    plain = Gaussian(posterior.mean, posterior.variance, unit="eV/Å")
    assert float(mahalanobis(Claim(plain).scores(values)).mean()) == pytest.approx(1.0, abs=0.1)


def test_blocks_of_several_atoms_give_the_block_of_each():
    factor = normal(6, 6)
    block = factor @ factor.mT + torch.eye(6, dtype=torch.float64)
    posterior = Gaussian(
        torch.zeros(2, 3, dtype=torch.float64), block.diagonal().reshape(2, 3), unit="eV/Å", covariance=(block,)
    )
    values = normal(2, 3, seed=2)
    found = mahalanobis(Claim(posterior).scores(values))
    wanted = [
        float(values[k] @ torch.linalg.solve(block[3 * k : 3 * k + 3, 3 * k : 3 * k + 3], values[k])) / 3
        for k in range(2)
    ]
    assert found.tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("name", VECTOR_STATISTICS)
def test_a_row_is_one_unit_of_its_standard_error(name):
    posterior = gaussian(covariances(400))
    found = VECTOR_STATISTICS[name].function(Claim(posterior).scores(posterior.sample(1, seed=0)[0]))
    entries, rows = torch.arange(1200), torch.arange(400).repeat_interleave(3)
    assert clustered_error(found.influence, rows) == pytest.approx(clustered_error(found.influence, entries), rel=0.01)


def test_the_variogram_score_sees_a_wrong_correlation():
    block = torch.tensor([[1.0, 0.95, 0.0], [0.95, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64).expand(4000, 3, 3)
    true = gaussian(block)
    values = true.sample(1, seed=1)[0]
    independent = Gaussian(true.mean, true.variance, unit="eV/Å")
    right, wrong = (VECTOR_STATISTICS["variogram_score"].function(Claim(p).scores(values)) for p in (true, independent))
    error = clustered_error(right.influence, torch.arange(4000).repeat_interleave(3))
    assert wrong.value > right.value + 5 * error
