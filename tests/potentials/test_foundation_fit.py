"""Fit of a last layer: left-out predictions against brute force, scales against known ones."""

from dataclasses import replace

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError
from bayesmol.potentials.foundation import Foundation
from bayesmol.potentials.foundation_fit import left_out_rows, two_scales

CENTRES = torch.linspace(0.9, 3.5, 6, dtype=torch.float64)


def features(positions, species, pointer, cell):
    owner = torch.arange(len(pointer) - 1).repeat_interleave(pointer.diff())
    first, second = ((owner[:, None] == owner) & ~torch.eye(len(owner), dtype=torch.bool)).nonzero().T
    basis = torch.exp(-3 * ((positions[first] - positions[second]).norm(dim=1)[:, None] - CENTRES) ** 2)
    return basis.new_zeros(len(owner), 6).index_add(0, first, basis * species[second, None])


def energies(positions, species, pointer, cell):
    owner = torch.arange(len(pointer) - 1).repeat_interleave(pointer.diff())
    atomic = features(positions, species, pointer, cell)[:, 1] / 50
    return atomic.new_zeros(len(pointer) - 1).index_add(0, owner, atomic)


@pytest.fixture(scope="module")
def foundation():
    return Foundation.from_torch(energies, features=features)


def test_left_out_predictions_are_those_of_a_fit_without(normal):
    white, targets, noise = normal(30, 4), normal(30), 0.5 + normal(30).abs()
    group = torch.arange(6).repeat_interleave(torch.tensor([3, 7, 2, 8, 6, 4]))
    found, posterior = left_out_rows(white, targets, noise, group)

    def solved(keep):
        left = white[keep] / noise[keep, None]
        covariance = torch.linalg.inv(torch.eye(4).double() + left.T @ white[keep])
        return covariance @ left.T @ targets[keep], covariance

    torch.testing.assert_close(posterior.mean, solved(torch.ones(30, dtype=torch.bool))[0])
    for g in range(6):
        mean, covariance = solved(group != g)
        own = group == g
        torch.testing.assert_close(found.residual[own], targets[own] - white[own] @ mean)
        torch.testing.assert_close(found.variance[own], (white[own] @ covariance * white[own]).sum(1))


def test_both_scales_are_found(normal):
    variance, extent = normal(20000).square(), torch.ones(20000).double()
    width, noise = two_scales(normal(20000) * (4 * variance + 0.5).sqrt(), variance, extent)
    assert width == pytest.approx(4, rel=0.1) and noise == pytest.approx(0.5, rel=0.15)
    width, noise = two_scales(normal(20000) * 0.7, variance, extent)
    assert width == 1.0 and noise == pytest.approx(0.49, rel=0.1)


def test_a_correction_in_the_span_is_found_exactly(foundation):
    data = bm.data.load("rmd17/ethanol")[:40]
    weights = torch.tensor([0.1, -0.2, 0.05, 0.3, -0.1, 0.2]).double()
    base, design = foundation.layer(data.structures, torch.eye(6).double())
    made = replace(
        data,
        energies=1.1 * base.energies + design.energy @ weights + 7.0,
        forces=1.1 * base.forces + (design.forces @ weights).reshape(-1, 3),
    )
    model = foundation.with_last_layer(made[:30], rank=6)
    prediction = model.predict(made[30:].structures)
    torch.testing.assert_close(prediction.forces.mean, made[30:].forces, rtol=0, atol=2e-4)
    torch.testing.assert_close(prediction.energy.mean, made[30:].energies, rtol=0, atol=2e-3)
    assert model.noise_force < 1e-3


def test_left_out_predictions_of_the_model_cover(foundation):
    data = bm.data.load("rmd17/ethanol")[:40]
    model = foundation.with_last_layer(data, rank=6)
    found = model.leave_one_out()
    z = (data.forces - found.forces.mean) / found.forces.stddev
    assert 0.8 < float(z.square().mean()) < 1.2
    assert model.left_out_strangeness().shape == (40,)


def test_energies_alone_or_forces_alone_are_enough(foundation):
    data = bm.data.load("rmd17/ethanol")[:12]
    energies_only = replace(data, forces=None, has_forces=None)
    assert foundation.with_last_layer(energies_only, rank=2).predict(data.structures).forces.mean.isfinite().all()
    model = foundation.with_last_layer(replace(data, energies=None), rank=2)
    assert bool(model.predict(data.structures).energy.mean.isfinite().all())
    with pytest.raises(DataError, match="energies"):
        model.leave_one_out()


def test_too_few_labels_are_refused(foundation):
    with pytest.raises(DataError, match="five or more"):
        foundation.with_last_layer(bm.data.load("rmd17/ethanol")[:4])
