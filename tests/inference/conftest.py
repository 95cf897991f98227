"""A linear model with normal noise, whose posterior every engine must find."""

from types import SimpleNamespace

import pytest
import torch

from bayesmol.inference.targets import NormalPrior, Target


def linear_model(source, rows=60, weights=5, noise=0.5, batch=None):
    """Data, target and closed form: precision, covariance and mean of the weights."""
    kind = {"generator": source, "dtype": torch.float64}
    turn = torch.eye(weights) + 0.2 * torch.randn(weights, weights, **kind)
    design = torch.randn(rows, weights, **kind) @ turn
    scale = 0.5 + torch.rand(weights, **kind)
    targets = design @ (scale * torch.randn(weights, **kind)) + noise * torch.randn(rows, **kind)
    precision = design.T @ design / noise**2 + torch.diag(scale**-2)
    covariance = torch.linalg.inv(precision)

    def log_likelihood(vector, rows):
        return -0.5 * ((targets[rows] - design[rows] @ vector) / noise).square().sum()

    return SimpleNamespace(
        design=design,
        targets=targets,
        noise=noise,
        scale=scale,
        precision=precision,
        covariance=covariance,
        mean=covariance @ design.T @ targets / noise**2,
        target=Target(log_likelihood, NormalPrior.centred(scale), rows, batch),
    )


@pytest.fixture
def linear(source):
    """Function that makes such a model."""
    return lambda **options: linear_model(source, **options)
