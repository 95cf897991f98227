import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.bases import GaussianUniform
from bayesmol.flows.coordinates import Cartesian, Composed, MeanFree, Planar


def centred(x, space):
    x = x.unflatten(1, (-1, space))
    return (x - x.mean(1, keepdim=True)).flatten(1)


@pytest.mark.parametrize(("particles", "space"), [(2, 1), (4, 2), (13, 3)])
def test_mean_free_is_orthonormal(particles, space, normal):
    coordinates = MeanFree(particles, space)
    torch.testing.assert_close(coordinates.basis @ coordinates.basis.T, torch.eye(particles - 1).double())
    x = centred(normal(20, particles * space), space)
    y, volume = coordinates(x)
    assert y.shape == (20, (particles - 1) * space) and not volume.any() and not coordinates.circular.any()
    torch.testing.assert_close(coordinates.inverse(y)[0], x)
    torch.testing.assert_close(coordinates(x + 3)[0], y)
    torch.testing.assert_close(y.square().sum(1), x.square().sum(1))


def test_cartesian_is_the_identity(normal):
    x = normal(5, 3)
    for y, volume in (Cartesian(3)(x), Cartesian(3).inverse(x)):
        assert torch.equal(x, y) and not volume.any()


@pytest.mark.parametrize("particles", [2, 3, 4, 7])
def test_planar_round_trip_and_invariance(particles, normal):
    coordinates = Planar(particles, scale=1.7)
    assert len(coordinates.circular) == 2 * particles - 3
    x = normal(50, 2 * particles)
    y, volume = coordinates(x)
    again, back = coordinates.inverse(y)
    torch.testing.assert_close(coordinates(again)[0], y)
    torch.testing.assert_close(back, -volume)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    turned = (x.unflatten(1, (-1, 2)) @ turn + 5).flatten(1)
    torch.testing.assert_close(coordinates(turned)[0], y)
    first = coordinates.vectors(again)[0][:, :2]
    assert (first[:, 0] > 0).all() and first[:, 1].abs().max() < 1e-12, "the first vector lies along x"
    distances = [torch.pdist(q[0].unflatten(0, (-1, 2))) for q in (x, again)]
    torch.testing.assert_close(*distances)


def test_planar_volume_is_that_of_autograd(normal):
    particles = 4
    coordinates = Planar(particles, scale=0.8)
    y, volume = coordinates(normal(1, 2 * particles))
    jacobian = torch.autograd.functional.jacobian(lambda q: coordinates.inverse(q)[0][0], y)[:, 0]
    x = coordinates.inverse(y)[0].reshape(-1, 2)
    generator = torch.stack([-x[:, 1], x[:, 0]], 1).reshape(-1, 1)
    shifts = torch.eye(2).double().repeat(particles, 1) / math.sqrt(particles)
    want = torch.linalg.slogdet(torch.cat([jacobian, generator, shifts], 1)).logabsdet + math.log(2 * math.pi)
    assert float(-volume[0]) == pytest.approx(float(want), abs=1e-10)


def test_a_gaussian_cloud_is_the_base(normal):
    """Standard normal radii and uniform angles have the density of normal vectors, at any distance."""
    coordinates = Planar(4, scale=1.3)
    x = centred(normal(200, 8) * torch.logspace(-8, 1, 200).double()[:, None], 2)
    y, volume = coordinates(x)
    got = GaussianUniform(coordinates.circular).log_prob(y) + volume
    want = -x.square().sum(1) / (2 * 1.3**2) - 3 * math.log(2 * math.pi * 1.3**2)
    torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-7)


def test_gradients_and_types(normal):
    coordinates = Planar(3)
    y = coordinates(normal(3, 6))[0].requires_grad_()
    assert torch.autograd.gradcheck(coordinates.inverse, y)
    assert torch.autograd.gradcheck(coordinates, normal(3, 6).requires_grad_())
    assert [q.dtype for q in coordinates(normal(3, 6).float())] == [torch.float32] * 2
    y, _ = coordinates(normal(50, 6).float())
    assert (coordinates(coordinates.inverse(y)[0])[0] - y).abs().max() < 1e-5


def test_composed(normal):
    coordinates = Composed([MeanFree(4, 3), Cartesian(9)])
    assert coordinates.dimension == 12 and len(coordinates.circular) == 9
    x = centred(normal(4, 12), 3)
    torch.testing.assert_close(coordinates.inverse(coordinates(x)[0])[0], x)
    with pytest.raises(ShapeError, match="parts"):
        Composed([MeanFree(4, 3), Cartesian(12)])


def test_bad_input(normal):
    with pytest.raises(ShapeError, match="points, 8"):
        Planar(4)(normal(3, 6))
    with pytest.raises(ShapeError, match="points, 5"):
        Planar(4).inverse(normal(3, 6))
    with pytest.raises(DataError, match="NaN"):
        MeanFree(3, 2)(normal(3, 6) * torch.nan)
    with pytest.raises(DataError, match="scale"):
        Planar(4, scale=0.0)
    with pytest.raises(DataError, match="particles"):
        MeanFree(1, 3)
