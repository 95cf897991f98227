"""Gaussian linear models: closed forms against text-book formulas, refits and finite differences."""

import math

import pytest
import torch
from scipy import stats

from bayesmol.errors import ConvergenceError, ShapeError
from bayesmol.inference.conjugate import (
    cholesky,
    condensed,
    evidence_gradient,
    group_members,
    leave_one_out_gradient,
    left_out_from_covariance,
    log_evidence,
    posterior_from_gram,
    posterior_from_rows,
)

CLOSE = {"rtol": 1e-8, "atol": 1e-8}


def data(normal, rows=12, weights=7):
    design, noise = normal(rows, weights), 0.1 + normal(rows).square()
    return design, design @ normal(weights) + noise.sqrt() * normal(rows), noise


def textbook(design, targets, noise):
    """Mean and covariance of the weights by dense inverses (Bishop 2006, equations 3.50, 3.51)."""
    covariance = torch.linalg.inv(torch.eye(design.shape[1]).double() + design.mT @ (design / noise[:, None]))
    return covariance @ design.mT @ (targets / noise), covariance


def from_gram(design, targets, noise):
    return posterior_from_gram(design.mT @ (design / noise[:, None]), design.mT @ (targets / noise))


def check(posterior, mean, covariance, normal):
    rows, others = normal(5, len(mean)), normal(3, len(mean))
    torch.testing.assert_close(posterior.mean, mean, **CLOSE)
    torch.testing.assert_close(posterior.covariance(rows), rows @ covariance @ rows.mT, **CLOSE)
    torch.testing.assert_close(posterior.covariance(rows, others), rows @ covariance @ others.mT, **CLOSE)
    torch.testing.assert_close(posterior.variance(rows), (rows @ covariance @ rows.mT).diagonal(), **CLOSE)


@pytest.mark.parametrize("make", [posterior_from_rows, from_gram])
@pytest.mark.parametrize(("rows", "weights"), [(12, 7), (4, 9), (1, 1)])
def test_posterior_is_the_textbook_one(normal, make, rows, weights):
    known = data(normal, rows, weights)
    check(make(*known), *textbook(*known), normal)


def test_condensed_rows_say_the_same(normal):
    """Rows in three groups; in each, a combination of rows that says nothing about the weights is dropped."""
    design, targets, noise = data(normal, 12)
    design[6:9] = design[:3] - 2 * design[3:6]
    groups = torch.arange(12) % 3
    rows, goals, ones = condensed(design, targets, noise, groups)
    assert len(rows) == 9 and bool((ones == 1).all())
    check(posterior_from_rows(rows, goals, ones), *textbook(design, targets, noise), normal)


@pytest.mark.parametrize("make", [posterior_from_rows, from_gram])
def test_updated_is_the_refit(normal, make):
    design, targets, noise = data(normal, 16)
    posterior = make(design[:9], targets[:9], noise[:9])
    for part in (slice(9, 10), slice(10, 16)):
        posterior = posterior.updated(design[part], targets[part], noise[part])
    check(posterior, *textbook(design, targets, noise), normal)


def test_variance_is_never_negative(normal):
    design, targets, _ = data(normal, 9, 4)
    posterior = posterior_from_rows(design, targets, torch.full((9,), 1e-13).double())
    assert bool((posterior.variance(design) >= 0).all())


@pytest.mark.parametrize("make", [posterior_from_rows, from_gram])
@pytest.mark.parametrize("update", [False, True])
def test_draws_have_the_covariance(normal, make, update):
    design, targets, noise = data(normal, 12, 5)
    posterior = make(design[:8], targets[:8], noise[:8]) if update else make(design, targets, noise)
    if update:
        posterior = posterior.updated(design[8:], targets[8:], noise[8:])
    mean, covariance = textbook(design, targets, noise)
    size = 100_000
    draws = posterior.sample(size, seed=3)
    assert draws.shape == (size, 5) and torch.equal(draws[:3], posterior.sample(size, seed=3)[:3])
    variance = covariance.diagonal()
    assert bool(((draws.mean(0) - mean).abs() < 5 * (variance / size).sqrt()).all())
    error = ((torch.outer(variance, variance) + covariance.square()) / size).sqrt()
    assert bool(((draws.mT.cov() - covariance).abs() < 5 * error).all())


@pytest.mark.parametrize("make", [posterior_from_rows, from_gram])
@pytest.mark.parametrize("update", [False, True])
def test_spread_is_a_root_of_the_covariance(normal, make, update):
    design, targets, noise = data(normal, 12, 5)
    posterior = make(design[:8], targets[:8], noise[:8]) if update else make(design, targets, noise)
    if update:
        posterior = posterior.updated(design[8:], targets[8:], noise[8:])
    root = posterior.spread(torch.eye(5).double())
    torch.testing.assert_close(root @ root.mT, textbook(design, targets, noise)[1], **CLOSE)
    torch.testing.assert_close(posterior.spread_transposed(torch.eye(5).double()), root.mT, **CLOSE)
    columns = normal(5, 3)
    torch.testing.assert_close(posterior.spread(columns), root @ columns, **CLOSE)
    torch.testing.assert_close(posterior.spread_transposed(columns), root.mT @ columns, **CLOSE)


def test_spread_without_labels_and_with_labels_without_noise(normal):
    columns = normal(3, 2)
    prior = posterior_from_rows(normal(0, 3), normal(0), normal(0))
    torch.testing.assert_close(prior.spread(columns), columns)
    rows = normal(2, 3)
    known = posterior_from_rows(rows, normal(2), torch.full((2,), 1e-14).double())
    torch.testing.assert_close(rows @ known.spread(columns), torch.zeros(2, 2).double(), rtol=0, atol=1e-6)
    across = torch.linalg.cross(rows[0], rows[1])
    torch.testing.assert_close(across @ known.spread(torch.eye(3).double()), across)


def test_draws_of_the_prior(normal):
    prior = posterior_from_rows(normal(0, 3), normal(0), normal(0))
    draws = prior.sample(50_000, seed=0)
    torch.testing.assert_close(draws.mT.cov(), torch.eye(3).double(), rtol=0, atol=5 * math.sqrt(2 / 50_000))
    torch.testing.assert_close(prior.variance(torch.eye(3).double()), torch.ones(3).double())


def ragged(normal):
    """Labels in interleaved groups of unequal size, one group number unused, and their covariance."""
    groups = torch.tensor([0, 1, 1, 3, 0, 4, 3, 1, 4, 5, 0, 5])
    design, targets, noise = data(normal, len(groups), 6)
    return design, targets, noise, groups


def test_group_members():
    groups = torch.tensor([2, 0, 2, 4, 0, 5, 5, 5])
    found = {
        int(n): set(r.tolist()) for numbers, rows in group_members(groups) for n, r in zip(numbers, rows, strict=True)
    }
    assert found == {0: {1, 4}, 2: {0, 2}, 4: {3}, 5: {5, 6, 7}}
    assert len({rows.shape[1] for _, rows in group_members(groups)}) == len(group_members(groups))


def refit(design, targets, noise, groups):
    """Residual, variance and joint score of each group from a fit to all others."""
    residual, variance, score = torch.zeros_like(targets), torch.ones_like(targets), torch.zeros(6).double()
    for group in groups.unique():
        inside = groups == group
        mean, covariance = textbook(design[~inside], targets[~inside], noise[~inside])
        joint = design[inside] @ covariance @ design[inside].mT + torch.diag(noise[inside])
        residual[inside], variance[inside] = targets[inside] - design[inside] @ mean, joint.diagonal()
        law = stats.multivariate_normal(cov=joint.numpy())
        score[group] = -float(law.logpdf(residual[inside].numpy()))
    return residual, variance, score


def test_left_out_is_the_refit(normal):
    design, targets, noise, groups = ragged(normal)
    found = left_out_from_covariance(design @ design.mT + torch.diag(noise), targets, group_members(groups), 6)
    for got, want in zip(
        (found.residual, found.variance, found.score), refit(design, targets, noise, groups), strict=True
    ):
        torch.testing.assert_close(got, want, **CLOSE)
    assert bool(found.judged.all()) and float(found.score[2]) == 0


def test_left_out_of_some_groups(normal):
    """Groups that are not listed take part in the fit and are not judged."""
    design, targets, noise, groups = ragged(normal)
    members = [(numbers, rows) for numbers, rows in group_members(groups) if rows.shape[1] == 2]
    found = left_out_from_covariance(design @ design.mT + torch.diag(noise), targets, members, 6)
    residual, variance, score = refit(design, targets, noise, groups)
    inside = torch.isin(groups, torch.tensor([3, 4, 5]))
    assert torch.equal(found.judged, inside)
    torch.testing.assert_close(found.residual[inside], residual[inside], **CLOSE)
    torch.testing.assert_close(found.variance[inside], variance[inside], **CLOSE)
    torch.testing.assert_close(found.score[3:], score[3:], **CLOSE)


@pytest.mark.parametrize("some", [False, True])
def test_gradient_of_the_left_out_score(normal, some):
    design, targets, noise, groups = ragged(normal)
    covariance = design @ design.mT + torch.diag(noise)
    members = [part for part in group_members(groups) if not some or part[1].shape[1] == 2]
    score, gradient = leave_one_out_gradient(covariance, targets, members)
    assert score == pytest.approx(
        float(left_out_from_covariance(covariance, targets, members, 6).score.sum()), rel=1e-9
    )
    direction = normal(12, 12)
    direction = direction + direction.mT
    step = 1e-5 * float(noise.min())

    def at(h):
        return leave_one_out_gradient(covariance + h * direction, targets, members)[0]

    slope = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-6)
    torch.testing.assert_close(gradient, gradient.mT, **CLOSE)


def test_gradient_of_the_left_out_score_by_autograd(normal):
    design, targets, noise, groups = ragged(normal)
    covariance = (design @ design.mT + torch.diag(noise)).requires_grad_()
    total = covariance.new_zeros(())
    for group in groups.unique():
        inside, outside = (groups == group).nonzero()[:, 0], (groups != group).nonzero()[:, 0]
        cross = covariance[inside][:, outside] @ torch.linalg.inv(covariance[outside][:, outside])
        joint = covariance[inside][:, inside] - cross @ covariance[outside][:, inside]
        total = total - torch.distributions.MultivariateNormal(
            cross @ targets[outside], (joint + joint.mT) / 2
        ).log_prob(targets[inside])
    (want,) = torch.autograd.grad(total, covariance)
    score, gradient = leave_one_out_gradient(covariance.detach(), targets, group_members(groups))
    assert score == pytest.approx(total.item(), rel=1e-8)
    torch.testing.assert_close(gradient, (want + want.mT) / 2, rtol=1e-6, atol=1e-6)


def test_log_evidence_and_its_gradient(normal):
    design, targets, noise = data(normal, 6, 4)
    covariance = design @ design.mT + torch.diag(noise)
    want = stats.multivariate_normal(cov=covariance.numpy()).logpdf(targets.numpy())
    assert float(log_evidence(covariance, targets)) == pytest.approx(want, rel=1e-10)
    scale = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_evidence(scale * covariance, targets), scale)
    white = float(targets @ torch.linalg.solve(covariance, targets))
    assert float(slope) == pytest.approx(0.5 * white / 1.3**2 - 3 / 1.3, rel=1e-10)
    with pytest.raises(ShapeError, match="covariance"):
        log_evidence(covariance[:5], targets)


def test_singular_matrices_are_refused(normal):
    root = normal(4, 4)
    torch.testing.assert_close(cholesky(root @ root.mT).square().sum(1), (root @ root.mT).diagonal())
    with pytest.raises(ConvergenceError, match="labels"):
        cholesky(torch.zeros(3, 3).double(), "labels")
    rows = torch.ones(2, 3).double()
    with pytest.raises(ConvergenceError, match="increase the noise"):
        posterior_from_rows(rows, torch.ones(2).double(), torch.zeros(2).double())
    with pytest.raises(ConvergenceError, match="covariance of the labels"):
        log_evidence(rows.mT @ rows, torch.ones(3).double())


def test_gradient_of_the_evidence_is_that_of_autograd(normal):
    half, targets = normal(6, 8), normal(6)
    covariance = (half @ half.mT + torch.eye(6).double()).requires_grad_()
    (found,) = torch.autograd.grad(-log_evidence(covariance, targets), covariance)
    torch.testing.assert_close(evidence_gradient(covariance.detach(), targets), (found + found.mT) / 2, **CLOSE)
