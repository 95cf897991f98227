"""Slopes and information of the projected fit are those of finite differences and of the full problem."""

import math
from dataclasses import replace

import pytest
import torch

from bayesmol.dynamics.exponentials import Exponentials, Starts, interpolated, projected, solved
from bayesmol.inference.random import generator

TIMES = torch.tensor([0.0, 0.4, 1.0, 1.3, 2.1, 2.2, 3.0, 3.9, 4.4, 5.0, 5.5, 6.2], dtype=torch.float64)


def problem(real, gaps):
    source = generator(1)
    data = torch.randn(12, 3, dtype=torch.float64 if real else torch.complex128, generator=source)
    mask = torch.rand(12, 3, generator=source) < 0.7 if gaps else torch.ones(12, 3, dtype=torch.bool)
    exponents = torch.tensor([-0.1 + 1.2j, -0.3 + 0j] if real else [-0.1 + 1.2j, 0.1 - 2j], dtype=torch.complex128)
    return Exponentials.of(exponents, real=real), torch.where(mask, data, torch.nan), mask


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("real", [False, True])
def test_projection(real, gaps):
    model, data, mask = problem(real, gaps)
    assert model.rank == (3 if real else 2) and len(model.parameters) == (3 if real else 4)
    found = projected(model, data, mask, TIMES)

    def loss(theta):
        return projected(replace(model, parameters=theta), data, mask, TIMES).loss

    eye = 1e-5 * torch.eye(len(model.parameters), dtype=torch.float64)
    slope = torch.tensor([(loss(model.parameters + e) - loss(model.parameters - e)) / 2e-5 for e in eye])
    torch.testing.assert_close(found.scores.sum(0), -slope.double() / 2, rtol=1e-6, atol=1e-7)
    powers = (model.exponents * TIMES[:, None]).exp()
    brute = 0.0
    for k in range(3):
        seen = mask[:, k]
        amplitudes = torch.linalg.lstsq(powers[seen], data[seen, k].to(powers)[:, None]).solution
        brute += float((powers[seen] @ amplitudes - data[seen, k, None]).abs().square().sum())
    assert found.loss == pytest.approx(brute, rel=1e-10)
    assert found.residual.is_complex() != real


@pytest.mark.parametrize("real", [False, True])
def test_information_is_the_schur_complement_of_the_full_one(real):
    model, data, mask = problem(real, False)
    powers = (model.exponents * TIMES[:, None]).exp() @ model.basis
    powers = powers.real if real else powers
    linear = torch.linalg.lstsq(powers, data).solution

    def field(theta, flat):
        basis = (model.at(theta) * TIMES[:, None]).exp() @ model.basis
        if real:
            return (basis.real @ flat.reshape(linear.shape)).flatten()
        amplitudes = torch.view_as_complex(flat.reshape(*linear.shape, 2))
        return torch.view_as_real(basis @ amplitudes).flatten()

    flat = linear.flatten() if real else torch.view_as_real(linear).flatten()
    one, other = torch.autograd.functional.jacobian(field, (model.parameters, flat))
    schur = one.T @ one - one.T @ other @ torch.linalg.solve(other.T @ other, other.T @ one)
    torch.testing.assert_close(projected(model, data, mask, TIMES).information, schur, rtol=1e-8, atol=1e-10)


def test_solved_reaches_the_truth_and_mean_squares_are_those_of_the_parts():
    model, _, mask = problem(True, False)
    turned = model.exponents
    parts = [4 * (turned[0] * TIMES).exp().real, 3 * (turned[2] * TIMES).exp().real]
    data = torch.stack([parts[0] + parts[1], parts[0], parts[1]], 1)
    start = replace(model, parameters=model.parameters + 0.1)
    found = solved(start, data, mask, TIMES)
    assert found.converged and found.loss < 1e-20
    want = torch.tensor([float(part.square().sum()) * 2 / 36 for part in parts], dtype=torch.float64)
    torch.testing.assert_close(found.mean_squares, want.sort(descending=True).values, rtol=1e-7, atol=0)
    torch.testing.assert_close(found.model.parameters, model.parameters, rtol=1e-7, atol=1e-9)


def test_more_columns_than_times_change_nothing():
    model, data, mask = problem(False, False)
    wide = data @ torch.linalg.qr(torch.randn(20, 3, dtype=data.dtype, generator=generator(2)))[0].mH
    narrow = solved(model, data, mask, TIMES)
    other = solved(model, wide, mask[:, :1].expand(12, 20), TIMES)
    assert other.loss == pytest.approx(narrow.loss, rel=1e-8)
    assert other.residual.shape == (12, 20)


def test_starts_come_in_conjugate_pairs():
    times = torch.arange(60, dtype=torch.float64)
    data = (torch.sin(0.7 * times) + 0.5 * (0.97**times))[:, None]
    start = Starts.of(data, torch.ones_like(data, dtype=torch.bool), times, None, None)
    models = start.models(3)
    assert start.limit == 3 and models and all(model.rank == 3 for model in models)
    best = models[0].exponents[models[0].listed]
    assert float(best.imag.max()) == pytest.approx(0.7, abs=1e-6)
    assert float(best.real.min()) == pytest.approx(math.log(0.97), abs=1e-6)


def test_interpolated():
    data = torch.tensor([[0.0, 1.0], [9.0, 2.0], [4.0, 9.0]])
    mask = torch.tensor([[True, True], [False, True], [True, False]])
    assert interpolated(data, mask).tolist() == [[0, 1], [2, 2], [4, 2]]
