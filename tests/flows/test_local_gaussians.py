"""Gaussians fitted to groups: normalised, the density of their draws, one for each group."""

import torch

from bayesmol.flows.local_gaussians import LocalGaussians, clusters


def test_groups_that_are_apart_are_told_apart(normal):
    rows = torch.cat([normal(40, 3), 20 + normal(20, 3)])
    groups = clusters(rows)
    assert sum(len(group) for group in groups) == 60
    assert all(len({bool(row[0] > 10) for row in group}) == 1 for group in groups)


def test_one_gaussian_of_many_rows_has_their_moments(normal, source):
    rows = normal(5000, 2) @ torch.tensor([[2.0, 0.0], [1.0, 0.5]], dtype=torch.float64)
    found = LocalGaussians.of([rows])
    covariance = found.factors[0] @ found.factors[0].mT
    wanted = torch.cov(rows.mT)
    torch.testing.assert_close(covariance, 1.5 * wanted + 0.1 * wanted.diagonal().diag(), rtol=0.01, atol=0.01)
    drawn = found.sample(20_000, source)
    torch.testing.assert_close(torch.cov(drawn.mT), covariance, rtol=0.05, atol=0.05)
    law = torch.distributions.MultivariateNormal(found.means[0], covariance)
    torch.testing.assert_close(found.log_prob(drawn), law.log_prob(drawn))


def test_few_rows_in_many_dimensions_still_have_a_density(normal):
    found = LocalGaussians.of(clusters(normal(3, 30)))
    assert bool(torch.isfinite(found.log_prob(normal(10, 30))).all())
