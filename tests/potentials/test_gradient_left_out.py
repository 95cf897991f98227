"""Left-out predictions equal those of the potential that never saw the structure."""

from dataclasses import replace

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import ApplicabilityError
from bayesmol.potentials.gradient_gp import GradientGP
from bayesmol.potentials.gradient_left_out import left_out


def test_left_out_is_the_refit():
    data = bm.data.load("rmd17/ethanol")[:5]
    data = replace(data, energies=None)  # the mean of the training energies would differ
    spec = GradientGP(length_scale=3.0, energy_noise=2e-3, force_noise=0.02)
    model = spec.fit(data)
    found = left_out(model)
    rest = torch.tensor([0, 1, 3, 4])
    other = replace(model, training=data[rest], order=model.order[rest])
    want = other.predict(data[2:3])
    torch.testing.assert_close(found.forces.mean[18:27], want.forces.mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.forces.variance[18:27], want.forces.variance, rtol=1e-6, atol=1e-9)


def test_too_many_rows():
    data = bm.data.load("rmd17/ethanol")[:3]
    model = GradientGP(length_scale=3.0, energy_noise=2e-3, force_noise=0.02, exact_rows=20).fit(data)
    with pytest.raises(ApplicabilityError, match="at most exact_rows = 20"):
        left_out(model)
