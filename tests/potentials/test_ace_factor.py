"""Joint covariance of forces as one factor: exact where the rank allows, never too much, and without chance."""

from dataclasses import replace

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.inference.conjugate import posterior_from_gram
from bayesmol.potentials.ace_factor import force_factor
from bayesmol.potentials.ace_rows import FORCE, all_rows

FRAMES = 5


@pytest.fixture(scope="module")
def frames(ethanol):
    return ethanol[2][:FRAMES].structures


@pytest.fixture(scope="module")
def covariance(potential, ethanol):
    """Of all forces, by the formula of the posterior for pairs of rows."""
    rows = all_rows(potential.model, ethanol[2][:FRAMES])
    return potential.posterior.covariance(rows.whitened(potential.model)[rows.kind == FORCE])


def joint(potential, frames, rank, seed=0):
    factors = force_factor(potential, frames, rank, seed)
    assert [len(factor) for factor in factors] == (3 * frames.counts).tolist()
    return torch.cat(factors)


def test_exact_once_the_rank_reaches_the_number_of_forces(potential, frames, covariance):
    forces = len(covariance)
    assert forces < len(potential.posterior.mean)
    factor = joint(potential, frames, forces)
    assert factor.shape == (forces, forces)
    scale = float(covariance.diagonal().max())
    torch.testing.assert_close(factor @ factor.T, covariance, rtol=0, atol=1e-9 * scale)
    assert torch.equal(joint(potential, frames, 10**6, seed=1), factor), "no more columns, and no chance"


def test_exact_once_the_rank_reaches_the_number_of_weights(potential, ethanol):
    weights = len(potential.posterior.mean)
    count = weights // 27 + 1
    frames = (ethanol[1].structures if count > 20 else ethanol[2].structures)[:count]
    assert 3 * len(frames.positions) > weights
    factor = joint(potential, frames, weights)
    assert factor.shape == (3 * len(frames.positions), weights)
    alone = joint(potential, frames[-1], 27)
    torch.testing.assert_close(factor[-27:] @ factor[-27:].T, alone @ alone.T, rtol=0, atol=1e-9 * float(alone.max()))


@pytest.mark.parametrize("rank", [10, 60, 134])
def test_never_more_than_the_covariance_and_nearly_the_best_of_its_rank(potential, frames, covariance, rank):
    factor = joint(potential, frames, rank)
    assert factor.shape == (len(covariance), rank)
    left = torch.linalg.eigvalsh(covariance - factor @ factor.T)
    sizes = torch.linalg.eigvalsh(covariance).flip(0)
    assert float(left.min()) > -1e-10 * float(sizes[0])
    best, captured = float(sizes[:rank].sum()), float(factor.square().sum())
    assert 0.85 * best < captured < best * (1 + 1e-10)


def test_the_seed_decides_and_matters_little(potential, frames):
    first, again, other = (joint(potential, frames, 40, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert float(first.square().sum()) == pytest.approx(float(other.square().sum()), rel=0.02)
    stream = torch.Generator().manual_seed(0)
    assert torch.equal(joint(potential, frames, 40, seed=stream), first)
    assert not torch.equal(joint(potential, frames, 40, seed=stream), first)


@pytest.mark.parametrize(("rank", "excess"), [(60, 0.35), (108, 0.02)])
def test_labels_explain_little_by_chance(potential, ethanol, frames, covariance, rank, excess):
    """Variance of four structures that the 27 labels of another take away; by joint draws as many it is far more."""
    known = 27
    noise = potential.noise_force**2 * torch.eye(known).double()

    def taken(matrix):
        across = matrix[:known, known:]
        return float((across.T @ torch.linalg.solve(matrix[:known, :known] + noise, across)).trace())

    rows = all_rows(potential.model, ethanol[2][:FRAMES])
    white = rows.whitened(potential.model)[rows.kind == FORCE]
    draws = white @ (potential.posterior.sample(rank, seed=0) - potential.posterior.mean).T / rank**0.5
    exact, factor = taken(covariance), joint(potential, frames, rank)
    assert -0.01 < taken(factor @ factor.T) / exact - 1 < excess
    assert taken(draws @ draws.T) / exact - 1 > known / rank


def test_updated_posteriors_and_gram_posteriors(potential, ethanol, frames):
    """Both forms of a posterior: a precision and what was taken away since."""
    updated = potential.update(ethanol[1][:2])
    rows = all_rows(potential.model, ethanol[2][:FRAMES])
    white = rows.whitened(potential.model)[rows.kind == FORCE]
    gram = replace(potential, posterior=posterior_from_gram(white.T @ white, white.T @ white[:, 0]))
    for model in (updated, gram, gram.update(ethanol[1][:2])):
        want = model.posterior.covariance(white)
        factor = joint(model, frames, len(want))
        torch.testing.assert_close(factor @ factor.T, want, rtol=0, atol=1e-9 * float(want.diagonal().max()))


def test_a_rank_is_at_least_one(potential, frames):
    with pytest.raises(DataError, match="rank: expected at least one column, got 0"):
        force_factor(potential, frames, 0, 0)
