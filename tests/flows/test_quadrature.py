import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.quadrature import line, plane, slope, square


def harmonic(x):
    return x.square() / 2


def test_line_gives_each_half_of_a_gaussian():
    logs, means = line(harmonic, (-12.0, 0.0, 12.0), 1.3)
    want = 0.5 * math.log(2 * math.pi * 1.3) - math.log(2)
    torch.testing.assert_close(logs, torch.full_like(logs, want), rtol=0, atol=1e-12)
    torch.testing.assert_close(means, torch.full_like(means, 0.5), rtol=0, atol=1e-12)


def test_line_of_unequal_intervals_agrees_with_the_normal_distribution():
    logs, _ = line(harmonic, (-10.0, 1.0, 10.0), 1.0)
    assert float(logs.softmax(0)[0]) == pytest.approx(float(torch.special.ndtr(torch.tensor(1.0).double())), abs=1e-12)


def test_plane_of_a_gaussian():
    states = lambda x: (x[:, 0] + x[:, 1] > 0).long()  # noqa: E731
    found = plane(lambda x: harmonic(x).sum(1), ((-9.0, 9.0), (-9.0, 9.0)), 0.7, states, 2, points=400)
    assert found.log_partition == pytest.approx(math.log(2 * math.pi * 0.7), abs=1e-12)
    assert found.mean_energy == pytest.approx(1.0, abs=1e-12)
    assert found.populations == pytest.approx((0.5, 0.5), abs=0.02)


def test_slope_of_a_power():
    assert slope(lambda t: 3.5 * math.log(t), 2.0) == pytest.approx(3.5, abs=1e-10)


def test_four_particles_against_the_ensemble_of_ginibre():
    r"""Of :math:`\int \prod_{i<j} |z_i - z_j|^2 e^{-\sum |z|^2} = \pi^N \prod_j j!` the centre takes one factor π."""
    want = 3 * math.log(math.pi) + math.log(1 * 2 * 6 * 24)
    for spacing in (0.2, 0.15):
        assert square(lambda d: d.square() / 4 - 2 * d.log(), 9.0, spacing) == pytest.approx(want, abs=5e-6)


def test_particles_that_meet_are_refused():
    with pytest.raises(DataError, match="do not meet"):
        square(harmonic, 5.0, 0.5)
