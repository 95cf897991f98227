import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.equivariant import EquivariantField


@pytest.fixture(params=[(4, 2), (5, 3)], ids=["plane", "space"])
def field(request, source):
    """A field with weights that are not small."""
    particles, space = request.param
    found = EquivariantField(particles, space, radial=12, hidden=8, source=source).double()
    with torch.no_grad():
        for weight in found.parameters():
            weight.copy_(torch.randn(weight.shape, generator=source, dtype=torch.float64))
    return found


@pytest.fixture
def points(field, normal, source):
    return torch.rand(6, generator=source, dtype=torch.float64), 1.5 * normal(6, field.particles * field.space)


def _positions(rows, field):
    return rows.unflatten(1, (field.particles, field.space))


@pytest.mark.parametrize("sign", [1, -1])
def test_it_turns_and_mirrors_with_the_particles(field, points, normal, sign):
    t, x = points
    turn, _ = torch.linalg.qr(normal(field.space, field.space))
    turn = turn * torch.det(turn) if field.space == 3 else turn
    if sign < 0:
        turn = turn @ torch.diag(torch.tensor([-1.0] + [1.0] * (field.space - 1), dtype=torch.float64))
    turned = field(t, (_positions(x, field) @ turn).flatten(1))
    torch.testing.assert_close(turned, (_positions(field(t, x), field) @ turn).flatten(1), rtol=0, atol=1e-10)


def test_it_permutes_with_the_particles_and_knows_no_translation(field, points, source):
    t, x = points
    order = torch.randperm(field.particles, generator=source)
    moved = (_positions(x, field)[:, order] + 7.0).flatten(1)
    permuted = _positions(field(t, x), field)[:, order].flatten(1)
    torch.testing.assert_close(field(t, moved), permuted, rtol=0, atol=1e-10)


def test_its_mean_is_zero(field, points):
    assert float(_positions(field(*points).detach(), field).mean(1).abs().max()) < 1e-12
    assert float(field(*points).detach().abs().max()) > 0.1


def test_the_divergence_is_the_trace_of_the_jacobian(field, points):
    t, x = points
    velocity, divergence = field.with_divergence(t, x)
    torch.testing.assert_close(velocity, field(t, x), rtol=1e-12, atol=1e-12)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda t, x: field(t[None], x[None])[0], 1))(t, x)
    torch.testing.assert_close(divergence, jacobian.diagonal(dim1=1, dim2=2).sum(1), rtol=1e-10, atol=1e-10)


def test_the_divergence_agrees_with_random_probes(field, points, source):
    """The estimate of Hutchinson is unbiased: the exact trace lies within 3 standard errors of its mean."""
    t, x = points[0][:1].repeat(1500), points[1][:1].repeat(1500, 1)
    probe = torch.randint(0, 2, x.shape, generator=source).double() * 2 - 1
    _, along = torch.func.jvp(lambda x: field(t, x), (x,), (probe,))
    estimates = (along * probe).sum(1).detach()
    exact = field.with_divergence(t[:1], x[:1])[1].detach()
    assert abs(float(estimates.mean() - exact)) < 3 * float(estimates.std()) / math.sqrt(len(t))
    assert float(estimates.std()) > 0.01


def test_the_surroundings_of_a_pair_matter(field, points):
    """With forces between pairs alone, the pull of two particles on each other would not know a third."""
    t, x = points[0][:1], _positions(points[1][:1], field).clone()
    strengths = []
    for shift in (0.0, 1.0):
        x[:, -1] += shift
        _, _, gaussians = field._pairs(x.flatten(1))
        strengths.append(field._strength(t, gaussians)[0][:, :2])
    assert float((strengths[0] - strengths[1]).detach().abs().max()) > 1e-3


def test_everything_is_finite_where_particles_meet(field, points):
    t, x = points[0], torch.zeros_like(points[1]).requires_grad_()
    velocity, divergence = field.with_divergence(t, x)
    divergence.sum().backward()
    assert bool(torch.isfinite(velocity).all() & torch.isfinite(divergence).all() & torch.isfinite(x.grad).all())


def test_it_is_zero_at_first_and_follows_the_seed():
    fields = [EquivariantField(3, 2, source=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    t, x = torch.tensor([0.3]), torch.arange(6.0)[None]
    assert float(fields[0](t, x).detach().abs().max()) == 0
    assert torch.equal(fields[0].surroundings, fields[1].surroundings)
    assert not torch.equal(fields[0].surroundings, fields[2].surroundings)


@pytest.mark.parametrize(("particles", "space"), [(1, 3), (4, 1)])
def test_one_particle_or_one_dimension_is_refused(particles, space, source):
    with pytest.raises(DataError, match="at least two of each"):
        EquivariantField(particles, space, source=source)
