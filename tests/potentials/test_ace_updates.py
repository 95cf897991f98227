"""Updates stay cheap and exact, and the deviation of an energy has the slope that finite differences find."""

import pytest
import torch

from bayesmol.data import Structures
from bayesmol.inference.conjugate import LinearPosterior, posterior_from_gram, posterior_from_rows
from bayesmol.potentials.ace_updates import compact, deviation_gradient, updated_posterior

close = torch.testing.assert_close


def test_compact_is_the_same_distribution(normal):
    rows, targets, noise = normal(40, 12), normal(40), normal(40).square() + 0.1
    wide = posterior_from_rows(rows, targets, noise)
    small = compact(wide)
    assert wide.factor.shape == (12, 40) and small.factor.shape == (12, 0)
    gram, moment = rows.T @ (rows / noise[:, None]), rows.T @ (targets / noise)
    want, new = posterior_from_gram(gram, moment), normal(5, 12)
    for found in (small, compact(small.updated(new, normal(5), noise[:5]))):
        assert found.root is not None
    close(small.mean, want.mean, rtol=1e-9, atol=1e-9)
    close(small.covariance(new), want.covariance(new), rtol=1e-9, atol=1e-9)
    assert compact(want) is want


def test_what_rounding_hides_stays(normal):
    rows = normal(40, 12)
    factor = torch.linalg.qr(rows.T)[0] @ normal(12, 12)
    certain = LinearPosterior(normal(12), None, torch.cat([torch.eye(12).double(), 0 * factor], 1))
    assert compact(certain) is certain


def test_many_updates_equal_one(potential, ethanol):
    """Also where the labels outnumber the weights on the way."""
    new = ethanol[1][:30]
    weights = len(potential.posterior.mean)
    piecewise = potential
    for part in new.split(*[5] * 6):
        piecewise = piecewise.update(part)
        assert piecewise.posterior.factor.shape[1] <= weights + 5 * 28
    assert piecewise.posterior.root is not None
    want = updated_posterior(potential, new)
    close(piecewise.posterior.mean, want.mean, rtol=1e-5, atol=1e-6)
    first, second = (item.predict(ethanol[2][:5]).forces for item in (piecewise, potential.update(new)))
    close(first.mean, second.mean, rtol=1e-6, atol=1e-7)
    close(first.variance, second.variance, rtol=1e-6, atol=1e-9)


def test_gradient_of_the_deviation(potential, ethanol):
    structure, step = ethanol[2].structures[:1], 1e-4
    deviation, slope = deviation_gradient(potential, structure)
    close(deviation, potential.predict(structure).energy.epistemic.stddev)
    assert float(slope.sum(0).abs().max()) < 1e-9 * float(slope.abs().max()) + 1e-12
    for atom, axis in ((1, 2), (5, 0), (7, 1)):
        ends = []
        for sign in (1, -1):
            positions = structure.positions.clone()
            positions[atom, axis] += sign * step
            parts = (structure.species, structure.pointer, structure.cell, structure.pbc)
            ends.append(float(deviation_gradient(potential, Structures(positions, *parts))[0]))
        assert float(slope[atom, axis]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-7)


def test_features_make_the_energy_linear(potential, ethanol):
    rows = potential.features(ethanol[2][:4])
    close(
        potential.posterior.variance(rows) * potential.inflation[0],
        potential.predict(ethanol[2][:4]).energy.epistemic.variance,
    )


def test_calculator_is_of_the_potential(potential, ethanol):
    atoms = ethanol[2].structures[:1].to_ase()[0]
    atoms.calc = potential.calculator(level=0.8)
    want = potential.predict(ethanol[2][:1])
    assert atoms.get_potential_energy() == pytest.approx(float(want.energy.mean)) and atoms.calc.level == 0.8
