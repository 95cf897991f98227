import numpy as np
import pytest
import torch

from bayesmol.dynamics.spectra import centred_whitening, general, matched, reversible, singular

EYE = torch.eye(4, dtype=torch.float64)


def pairs(count=400, seed=0):
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=source, dtype=torch.float64) @ torch.randn(3, 3, generator=source).double() + 2
    x = torch.cat([torch.ones(count, 1, dtype=torch.float64), x], 1)
    y = x * torch.tensor([1, 0.9, 0.5, 0.1]) + 0.1 * torch.randn(count, 4, generator=source, dtype=torch.float64)
    y[:, 0] = 1
    return (x.mT @ x / count, x.mT @ y / count, y.mT @ y / count), x, y


def test_whitened_functions_are_uncorrelated_and_begin_with_the_constant():
    (early, _, _), x, _ = pairs()
    columns = centred_whitening(early)
    assert torch.allclose(columns.mT @ early @ columns, EYE, atol=1e-10)
    assert torch.allclose(x @ columns[:, 0], torch.ones(len(x), dtype=torch.float64))


def test_dependent_and_constant_functions_are_left_out():
    _, x, _ = pairs()
    more = torch.cat([x, x[:, 1:2] * 3 - x[:, 2:3] + 5, torch.full_like(x[:, :1], 7.0)], 1)
    columns = centred_whitening(more.mT @ more / len(more))
    assert columns.shape == (6, 4)
    moments = columns.mT @ (more.mT @ more / len(more)) @ columns
    assert torch.allclose(moments, EYE, atol=1e-8)


def test_far_from_the_origin_nothing_is_lost():
    _, x, _ = pairs()
    away = x.clone()
    away[:, 1:] += 1e4
    columns = centred_whitening(away.mT @ away / len(x))
    assert columns.shape == (4, 4)


def test_two_states():
    a, b, weights = 0.1, 0.3, torch.tensor([0.75, 0.25], dtype=torch.float64)
    P = torch.tensor([[1 - a, a], [b, 1 - b]], dtype=torch.float64)
    functions = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)  # constant, and that of the second state
    early = functions.mT @ torch.diag(weights) @ functions
    cross = functions.mT @ torch.diag(weights) @ P @ functions
    for solve in (reversible, singular, general):
        values = solve(early, cross, early).values
        assert torch.allclose(values.real, torch.tensor([1, 1 - a - b], dtype=torch.float64), atol=1e-10)


def test_eigenvectors_solve_their_equations():
    (early, cross, late), _, _ = pairs()
    found = reversible(early, cross, late)
    sides = (cross + cross.mT) / 2 @ found.right, (early + late) / 2 @ found.right * found.values
    assert torch.allclose(*sides, atol=1e-10)
    assert bool((found.values.abs() <= 1 + 1e-12).all())
    general_ = general(early, cross, late)
    assert torch.allclose(cross.cdouble() @ general_.right, early.cdouble() @ general_.right * general_.values)
    operator = torch.linalg.solve(early, cross).cdouble()
    assert torch.allclose(general_.left.mT @ operator, general_.values[:, None] * general_.left.mT)


def test_singular_functions_are_orthonormal_and_ordered():
    (early, cross, late), _, _ = pairs()
    found = singular(early, cross, late)
    assert torch.allclose(found.right.mT @ early @ found.right, EYE, atol=1e-10)
    assert torch.allclose(found.left.mT @ late @ found.left, EYE, atol=1e-10)
    assert torch.allclose(found.right.mT @ cross @ found.left, torch.diag(found.values), atol=1e-10)
    assert float(found.values[0]) == pytest.approx(1)


def test_batches_are_the_same_one_by_one():
    parts = [pairs(seed=k)[0] for k in range(3)]
    batch = [torch.stack(part) for part in zip(*parts, strict=True)]
    for solve in (reversible, singular, general):
        together = solve(*batch).values
        for one, part in zip(together, parts, strict=True):
            assert torch.allclose(one, solve(*part).values)


def test_functions_are_matched_by_overlap_whatever_their_order_and_sign():
    (early, cross, late), _, _ = pairs()
    reference = reversible(early, cross, late).right
    order = [2, 0, 3, 1]
    mixed = reference[:, order] * torch.tensor([1, -1, -1, 1])
    places, signs = matched(mixed[None], reference, (early + late) / 2)
    assert torch.allclose(mixed[:, places[0]] * signs[0], reference)
    assert np.array_equal(places[0], np.argsort(order))
