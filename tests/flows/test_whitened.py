import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.whitened import whitening
from bayesmol.representation.internal import wrapped


@pytest.fixture
def sample(normal, source):
    """Two correlated numbers, an angle about π that is narrow, one that is a little wider, and a turning one."""
    z = normal(4000, 4)
    turning = (torch.rand(4000, 1, generator=source).double() - 0.5) * 5
    number = torch.stack([1 + 0.01 * z[:, 0], 2 + 0.3 * z[:, 0] + 0.1 * z[:, 1]], 1)
    angles = torch.stack([math.pi + 0.1 * z[:, 2] + 0.05 * z[:, 0], 0.25 * z[:, 3]], 1)
    return torch.cat([number, wrapped(angles), wrapped(turning + 3)], 1), torch.tensor([False, False, True, True, True])


def test_whitens(sample):
    rows, circular = sample
    map_ = whitening(rows, circular)
    assert map_.circular.tolist() == [False] * 4 + [True]
    assert map_.straightened.nonzero().flatten().tolist() == [2, 3]
    z, volume = map_(rows)
    assert z[:, :4].mean(0).abs().max() < 1e-10
    assert (torch.cov(z[:, :4].T) - torch.eye(4)).abs().max() < 0.06, "correlations are shrunk a little"
    assert z[:, 4].abs().max() < 2.6, "the gap is at ±π"
    again, back = map_.inverse(z)
    assert wrapped(again - rows).abs().max() < 1e-12
    torch.testing.assert_close(back, -volume)


def test_volume_is_that_of_autograd(sample):
    map_ = whitening(*sample)
    jacobian = torch.autograd.functional.jacobian(lambda q: map_(q[None])[0][0], sample[0][0])
    torch.testing.assert_close(map_(sample[0][:1])[1][0], torch.linalg.slogdet(jacobian).logabsdet)


def test_rotations_must_be_stiff_to_be_straight(sample):
    rows, circular = sample
    map_ = whitening(rows, circular, torch.ones_like(circular))
    assert map_.circular.tolist() == [False, False, False, True, True]


def test_no_density_beyond_a_turn(sample):
    map_ = whitening(*sample)
    z = torch.zeros(2, 5, dtype=torch.float64)
    z[1, 3] = 4 / 0.25
    volume = map_.inverse(z.requires_grad_())[1]
    assert volume.isinf().tolist() == [False, True]
    assert map_.inverse(z)[0].isfinite().all()
    assert torch.autograd.grad(map_.inverse(z)[0].sum(), z)[0].isfinite().all()


def test_few_rows_are_shrunk(sample):
    rows, circular = sample
    map_ = whitening(rows[:3], circular & False)
    assert torch.linalg.cond(map_.factor / map_.factor.norm(dim=1, keepdim=True)) < 1e3


def test_types(sample):
    rows, circular = sample
    map_ = whitening(rows, circular)
    assert map_(rows.float())[0].dtype == torch.float32
    assert (map_.inverse(map_(rows.float())[0])[0] - rows.float()).abs().max() < 1e-5


def test_bad_input(sample):
    rows, circular = sample
    for wrong in (rows[:1], rows * torch.nan):
        with pytest.raises(DataError, match="rows"):
            whitening(wrong, circular)
    with pytest.raises(DataError, match="vary"):
        whitening(rows[:1].repeat(5, 1), circular)
    with pytest.raises(ShapeError):
        whitening(rows, circular)(rows[:, :2])


def test_chance_correlations_of_basins_are_dropped_and_true_ones_kept(normal, source):
    # Four visits to each pair of basins: the signs of independent columns agree in the first half by chance.
    signs = 2.0 * torch.randint(2, (40, 6), generator=source).double() - 1
    apart = signs.repeat_interleave(50, 0) + 0.1 * normal(2000, 6)
    none = torch.zeros(6, dtype=torch.bool)
    factor = whitening(apart, none).factor
    assert torch.equal(factor, torch.diag(factor.diagonal()))
    mixed = normal(2000, 6) @ (torch.eye(6).double() + 0.5 * torch.ones(6, 6).double().tril(-1))
    assert float(whitening(mixed, none).factor.tril(-1).abs().max()) > 0.3
