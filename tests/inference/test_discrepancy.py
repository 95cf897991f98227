"""The parts of the variance against the joint Gaussian algebra, and what they say of right and of wrong models."""

import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.inference.discrepancy import ModelDiscrepancy
from bayesmol.testing import check_posterior


def line(x):
    return torch.cat([torch.ones_like(x), x], 1)


def labelled(function, normal, source, rows=200, span=4 * math.pi, noise=0.1):
    x = span * torch.rand(rows, 1, generator=source, dtype=torch.float64)
    return x, function(x[:, 0]) + noise * normal(rows)


def new(count=60, start=0.0, end=4 * math.pi):
    return torch.linspace(start, end, count, dtype=torch.float64).unsqueeze(1)


def test_parts_add_up_to_the_variance_of_the_joint_gaussian(normal, source):
    features = normal(40, 3)
    design = torch.cat([torch.ones(40, 1), features[:, :2]], 1).double()
    targets = design @ normal(3) + features[:, 2].sin() + 0.2 * normal(40)
    errors = 0.1 * torch.rand(40, generator=source, dtype=torch.float64)
    fitted = ModelDiscrepancy("eV").fit(design, 3 * targets, features, errors=errors)
    place = 2 * normal(10, 3)
    columns = torch.cat([torch.ones(10, 1), place[:, :2]], 1).double()
    parts = fitted.predict(columns, place)
    torch.testing.assert_close(
        parts.density + parts.discrepancy + parts.noise, parts.total.variance, rtol=1e-10, atol=0
    )
    # the joint covariance of weights and discrepancy, without any split
    prior, amplitude, length, noise = fitted.scales
    basis, spread, size = fitted.units

    def kernel(one, other, phi, psi):
        distance = torch.cdist(one / spread, other / spread).square()
        return prior**2 * (phi / basis) @ (psi / basis).T + amplitude**2 * torch.exp(-distance / (2 * length**2))

    own = kernel(features, features, design, design) + torch.diag(noise**2 + (errors / size) ** 2)
    cross = kernel(place, features, columns, design)
    variance = kernel(place, place, columns, columns).diagonal() - (cross * torch.linalg.solve(own, cross.T).T).sum(1)
    total = size**2 * (variance + noise**2)
    assert float(((parts.total.variance - total) / total).abs().max()) < 1e-10
    middle = 3 * targets.mean()
    mean = middle + cross @ torch.linalg.solve(own, 3 * targets - middle)
    torch.testing.assert_close(parts.total.mean, mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(parts.total.epistemic.variance, parts.density + parts.discrepancy)
    check_posterior(parts.total)
    assert parts.total.unit == "eV"


def test_a_line_through_a_sine_is_wrong_not_uncertain(normal, source):
    fitted = ModelDiscrepancy().fit(*of_line(labelled(torch.sin, normal, source, rows=250)))
    parts = fitted.predict(line(new()), new())
    assert float(parts.discrepancy.sum() / (parts.discrepancy + parts.density).sum()) > 0.8
    assert float(parts.share.min()) > 0.5
    assert fitted.noise == pytest.approx(0.1, rel=0.1) and fitted.amplitude > 0.5
    assert fitted.evidence_gain > 50
    error = (new()[:, 0].sin() - parts.total.mean) / parts.total.epistemic.stddev
    assert float(error.square().mean().sqrt()) < 2


def of_line(data):
    x, y = data
    return line(x), y, x


def test_a_line_through_a_line_is_uncertain_not_wrong(normal, source):
    gains, shares, noises = [], [], []
    for _ in range(4):
        data = labelled(lambda x: 0.3 * x - 1, normal, source, rows=80)
        fitted = ModelDiscrepancy().fit(*of_line(data))
        parts = fitted.predict(line(new()), new())
        gains.append(fitted.evidence_gain)
        shares.append(float(parts.discrepancy.mean() / (parts.discrepancy + parts.density).mean()))
        noises.append(fitted.noise)
        assert fitted.evidence_gain >= 0
    assert sorted(gains)[2] < 2 and sorted(shares)[2] < 0.01
    assert sum(noises) / 4 == pytest.approx(0.1, rel=0.1)


def test_far_from_data_the_discrepancy_is_its_prior_and_the_density_grows(normal, source):
    fitted = ModelDiscrepancy().fit(*of_line(labelled(lambda x: x + x.sin(), normal, source, rows=100)))
    places = new(3, 100.0, 300.0)
    parts = fitted.predict(line(places), places)
    torch.testing.assert_close(parts.discrepancy, torch.full_like(parts.discrepancy, fitted.amplitude**2))
    assert bool((parts.density.diff() > 0).all())
    torch.testing.assert_close(parts.noise, torch.full_like(parts.noise, fitted.noise**2))


def test_units_and_scales_of_the_features_do_not_matter(normal, source):
    x, y = labelled(lambda x: x + x.sin(), normal, source, rows=60)
    one = ModelDiscrepancy().fit(line(x), y, x).predict(line(new()), new())
    other = ModelDiscrepancy().fit(7 * line(x), 1000 * y, 5 * x).predict(7 * line(new()), 5 * new())
    torch.testing.assert_close(other.total.mean, 1000 * one.total.mean, rtol=1e-4, atol=1e-3)
    for name in ("density", "discrepancy", "noise"):
        torch.testing.assert_close(getattr(other, name), 1e6 * getattr(one, name), rtol=1e-3, atol=1e-2)


def test_a_large_constant_does_no_harm(normal, source):
    x, y = labelled(torch.sin, normal, source, rows=60)
    one, other = (ModelDiscrepancy().fit(line(x), y + shift, x) for shift in (0.0, -4000.0))
    assert other.noise == pytest.approx(one.noise, rel=1e-3)
    means = [fitted.predict(line(new()), new()).total.mean for fitted in (one, other)]
    torch.testing.assert_close(means[1] + 4000, means[0], rtol=0, atol=1e-3)


def test_residuals_with_known_errors_need_no_design(normal, source):
    x = 10 * torch.rand(150, 2, generator=source, dtype=torch.float64)
    known = 0.05 + 0.3 * torch.rand(150, generator=source, dtype=torch.float64)
    residuals = 0.5 * x[:, 0].sin() + known * normal(150)
    empty = torch.zeros(150, 0, dtype=torch.float64)
    fitted = ModelDiscrepancy("eV").fit(empty, residuals, x, errors=known)
    parts = fitted.predict(empty, x)
    assert float(parts.density.abs().max()) == 0 and float(parts.share.min()) == 1
    assert fitted.noise < 0.08, "the known errors are all of the noise"
    assert float((parts.total.mean - 0.5 * x[:, 0].sin()).square().mean().sqrt()) < 0.1
    nothing = ModelDiscrepancy("eV").fit(empty, known * normal(150), x, errors=known)
    assert nothing.evidence_gain < 3 < fitted.evidence_gain


def test_bad_input(normal):
    x, y = normal(20, 1), normal(20)
    spec = ModelDiscrepancy()
    with pytest.raises(ShapeError, match="rows"):
        spec.fit(line(x)[:10], y, x)
    with pytest.raises(ShapeError, match="rows"):
        spec.fit(line(x), y, x, errors=y[:5].abs())
    with pytest.raises(DataError, match="finite"):
        spec.fit(line(x), y / 0, x)
    with pytest.raises(DataError, match="≥ 0"):
        spec.fit(line(x), y, x, errors=-y.abs())
    with pytest.raises(DataError, match="vary"):
        spec.fit(line(x), torch.ones_like(y), x)
    with pytest.raises(DataError, match="vary"):
        spec.fit(line(x), y, torch.cat([x, torch.ones_like(x)], 1))
    with pytest.raises(ShapeError, match="design"):
        spec.fit(line(x), y, x).predict(x, x)
