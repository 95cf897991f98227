"""The gate opens for a bound within the tolerance and a strangeness within what was labelled."""

import math

import pytest
import torch

import bayesmol as bm
from bayesmol.acquisition.gate import Gate
from bayesmol.potentials import GradientGP


@pytest.fixture(scope="module")
def data():
    return bm.data.load("rmd17/ethanol")[:12]


@pytest.fixture(scope="module")
def model(data):
    return GradientGP(length_scale=3.0, energy_noise=2e-3, force_noise=0.02).fit(data[:6])


def test_bound_by_hand(model, data):
    prediction = model.predict(data[6:])
    norms = prediction.forces.variance.view(6, 9, 3).sum(2).sqrt().amax(1)
    seen = Gate(1.5, float(norms.median()) * 1.5, math.inf).look(model, data[6:])
    torch.testing.assert_close(seen.deviation, norms)
    torch.testing.assert_close(seen.bound, 1.5 * norms)
    assert torch.equal(seen.trusted, norms <= norms.median()) and int(seen.trusted.sum()) == 3
    again = Gate(1.5, 0.1, math.inf).look(model, data[6:], prediction)
    assert torch.equal(again.deviation, seen.deviation)


def test_strangeness_closes_it(model, data):
    strange = model.strangeness(data[6:])
    seen = Gate(0.0, 1.0, float(strange.sort().values[2])).look(model, data[6:])
    assert int(seen.trusted.sum()) == 3 and bool((seen.bound == 0).all())


def test_an_unknown_factor_trusts_nothing(model, data):
    assert not bool(Gate(math.inf, 1e9, math.inf).look(model, data[:2]).trusted.any())
    assert bool(Gate(-math.inf, 1e-9, math.inf).look(model, data[:2]).trusted.all())
