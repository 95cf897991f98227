"""A corrected foundation: laws of mechanics, intervals that hold, draws and updates, what it refuses."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import bayesmol as bm
from bayesmol.applicability import Domain
from bayesmol.data import Structures
from bayesmol.errors import DataError
from bayesmol.potentials.foundation import Foundation
from bayesmol.potentials.foundation_rows import ENERGY, FORCE, layer_rows
from bayesmol.potentials.guards import UNKNOWN_REFERENCE
from bayesmol.potentials.surface import surface
from bayesmol.testing import assert_calibrated, assert_invariant


class Pairs(nn.Module):
    """A small network of pair functions that stands for an existing potential."""

    def __init__(self, width=8):
        super().__init__()
        self.register_buffer("centres", torch.linspace(0.9, 3.5, 10, dtype=torch.float64))
        self.hidden, self.readout = nn.Linear(10, width).double(), nn.Linear(width, 1).double()
        source = torch.Generator().manual_seed(1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=source, dtype=torch.float64) / 2

    def forward(self, positions, species, pointer, cell):
        owner = torch.arange(len(pointer) - 1).repeat_interleave(pointer.diff())
        first, second = ((owner[:, None] == owner) & ~torch.eye(len(owner), dtype=torch.bool)).nonzero().T
        distance = (positions[first] - positions[second]).norm(dim=1)
        basis = torch.exp(-4 * (distance[:, None] - self.centres) ** 2) * species[second, None] ** 0.5
        density = basis.new_zeros(len(owner), 10).index_add(0, first, basis * species[first, None] ** 0.5)
        atomic = self.readout(torch.tanh(self.hidden(density / 10)))[:, 0]
        return atomic.new_zeros(len(pointer) - 1).index_add(0, owner, atomic)


@pytest.fixture(scope="module")
def frames():
    return bm.data.load("rmd17/ethanol").split(60, 160, 150)


@pytest.fixture(scope="module")
def foundation():
    return Foundation.from_torch(Pairs(), features="readout")


@pytest.fixture(scope="module")
def potential(foundation, frames):
    return foundation.with_last_layer(frames[0], rank=8)


def test_the_laws_of_mechanics_hold(potential, frames):
    one = frames[2].structures[:2]
    assert_invariant(lambda s: potential.predict(s).energy.mean, one, atol=1e-7)
    assert_invariant(lambda s: potential.predict(s).energy.variance, one, rtol=1e-6, atol=1e-7)
    prediction = potential.predict(one, covariance=True)
    assert prediction.energy.unit == "eV" and len(prediction.forces.covariance) == 2
    step = 1e-4 * torch.randn(one.positions.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = [potential.predict(replace(one, positions=one.positions + s * step)).energy.mean for s in (1, -1)]
    work = (prediction.forces.mean * step).sum(1).reshape(2, 9).sum(1)
    torch.testing.assert_close((ends[1] - ends[0]) / 2, work, rtol=1e-5, atol=1e-9)
    assert float(prediction.forces.mean.reshape(2, 9, 3).sum(1).abs().max()) < 1e-9


def test_the_mean_alone_is_that_of_the_prediction(potential, frames):
    one = frames[2].structures[:5]
    prediction, mean = potential.predict(one), surface(potential, one)
    torch.testing.assert_close(mean.energies, prediction.energy.mean, rtol=1e-10, atol=1e-7)
    torch.testing.assert_close(mean.forces, prediction.forces.mean, rtol=1e-8, atol=1e-9)


def test_it_is_better_than_its_foundation_and_its_intervals_hold(potential, frames):
    certified = bm.certify(potential, frames[1])
    prediction = certified.predict(frames[2].structures)
    before = (potential.foundation.surface(frames[2].structures).forces - frames[2].forces).abs().mean()
    assert (prediction.forces.mean - frames[2].forces).abs().mean() < 0.9 * before
    hits = int(prediction.energy.interval(0.9).contains(frames[2].energies).sum())
    assert_calibrated(hits, 150, 0.9, calibration=160)
    assert int((~prediction.inside).sum()) <= 15
    assert bm.certify(potential, domain=Domain(level=0.1)).force_rule is not None


def test_an_update_is_the_fit_of_all_labels(potential, frames):
    more = frames[1][:3]
    updated, data = potential.update(more), frames[0]
    both = bm.data.Labelled.concatenate([data, more])
    base, design, _ = potential._rows(both.structures)
    rows = layer_rows(both, base, design, potential.model.species, potential.model.references)
    white = potential.model.whitened(rows.design, rows.composition)
    noise = potential.model.levels[rows.kind] * rows.extent
    precision = torch.eye(white.shape[1]).double() + white.T @ (white / noise[:, None])
    mean = torch.linalg.solve(precision, white.T @ (rows.targets / noise))
    torch.testing.assert_close(white @ updated.posterior.mean, white @ mean, rtol=1e-5, atol=1e-6)
    assert bool(updated.trained(more).all()) and not bool(potential.trained(more).any())
    assert bool((updated.strangeness(more) <= potential.strangeness(more)).all())


def test_factors_and_draws_have_the_covariance_of_the_prediction(potential, frames):
    one = frames[2].structures[:2]
    blocks = potential.predict(one, covariance=True).forces.epistemic.covariance
    for block, factor in zip(blocks, potential.force_factor(one), strict=True):
        torch.testing.assert_close(factor @ factor.T, block, rtol=1e-6, atol=1e-12)
    narrow = potential.force_factor(one, rank=2)
    assert narrow[0].shape == (27, 2) and (narrow[0] @ narrow[0].T).trace() <= blocks[0].trace()
    draws = torch.stack([draw.predict(one).forces.mean.flatten() for draw in potential.draws(200, seed=0)])
    known = potential.predict(one).forces.epistemic.variance.flatten()
    assert 0.8 < float(draws.var(0).mean() / known.mean()) < 1.25
    with pytest.raises(DataError, match="rank"):
        potential.force_factor(one, rank=0)


def test_features_make_the_energy_variance(potential, frames):
    one = frames[2].structures[:4]
    variance = potential.model.widths[ENERGY] * potential.posterior.variance(potential.features(one))
    torch.testing.assert_close(potential.predict(one).energy.epistemic.variance, variance)
    torch.testing.assert_close(potential.strangeness(one), (variance / 9).sqrt())
    assert potential.noise_force == pytest.approx(float(potential.model.floors[FORCE]) ** 0.5)


def test_what_was_never_trained_is_infinitely_strange(potential, frames):
    one = frames[2].structures[:1]
    fluorine = replace(one, species=torch.where(one.species == 8, 9, one.species))
    squeezed = replace(one, positions=0.6 * one.positions)
    water = Structures(one.positions[:3] * 1.2, torch.tensor([8, 1, 1]), torch.tensor([0, 3]), one.cell, one.pbc)
    for strange in (fluorine, squeezed, water):
        assert bool(potential.strangeness(strange).isinf().all())
    assert bool(potential.strangeness([*fluorine.to_ase(), *one.to_ase()]).isfinite()[1])
    with pytest.raises(DataError, match="elements"):
        potential.predict(fluorine)
    assert float(potential.predict(water).energy.stddev) > 0.1 * UNKNOWN_REFERENCE


def test_the_calculator_tells_the_interval(potential, frames):
    atoms = frames[2].structures[0].to_ase()[0]
    atoms.calc = potential.calculator()
    assert atoms.get_forces().shape == (9, 3) and atoms.calc.uncertainty["forces_interval"].shape == (2, 9, 3)
