"""The generalised Born solvent: ions, its plain formula differentiated by autograd, and bad input."""

from dataclasses import replace

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.force_field_solvent import Solvation, Solvent
from bayesmol.flows.force_field_terms import Geometry, Scratch, rows

OBC1, OBC2 = (0.8, 0.0, 2.909125), (1.0, 0.8, 4.85)


def solvent(atoms, constants=OBC2, **options):
    spread = torch.linspace(0, 1, atoms, dtype=torch.float64)
    return Solvent(0.5 - spread, 1.2 + 0.5 * spread, 0.85 - 0.13 * spread, *constants, 14.2, **options)


def evaluated(model, x):
    """Energy and gradient of positions (points, atoms, 3)."""
    pairs = torch.triu_indices(x.shape[1], x.shape[1], 1)
    place = x.detach().permute(2, 1, 0).reshape(-1, len(x))
    scratch = Scratch(place)
    geometry = Geometry.of(place, rows(pairs.T, x.shape[1]), scratch)
    energy, slope = place.new_zeros(len(x)), torch.zeros_like(geometry.squared)
    Solvation(model, pairs, place).add(geometry, energy, slope, scratch)
    gradient = torch.zeros_like(x.detach())
    pull = (slope * geometry.difference).permute(2, 1, 0)
    return energy, gradient.index_add(1, pairs[0], pull).index_add(1, pairs[1], -pull)


def formula(model, x):
    """The energy as the papers write it, over all ordered pairs."""
    r = (x[:, :, None] - x[:, None] + torch.eye(x.shape[1])[..., None]).norm(dim=-1)
    inner = model.radii - model.offset
    scaled = (inner * model.scales)[None, None, :]
    upper, lower = r + scaled, torch.maximum((r - scaled).abs(), inner[None, :, None])
    part = 1 / lower - 1 / upper + (r - scaled**2 / r) * (upper**-2 - lower**-2) / 4 + (lower / upper).log() / (2 * r)
    others = ~torch.eye(x.shape[1], dtype=torch.bool) & (upper > inner[None, :, None])
    psi = torch.where(others, part, 0).sum(2) / 2 * inner
    born = 1 / (1 / inner - torch.tanh(model.alpha * psi - model.beta * psi**2 + model.gamma * psi**3) / model.radii)
    product = born[:, :, None] * born[:, None]
    squared = torch.where(torch.eye(x.shape[1], dtype=torch.bool), 0, r**2)
    smeared = (squared + product * (-squared / (4 * product)).exp()).sqrt()
    charges = model.charges[:, None] * model.charges
    surface = model.tension * (model.radii + model.probe) ** 2 * (model.radii / born) ** 6
    return -model.strength / 2 * (charges / smeared).sum((1, 2)) + surface.sum(1)


@pytest.mark.parametrize("constants", [OBC1, OBC2])
@pytest.mark.parametrize("scale", [0.5, 1.5, 4.0])
def test_energy_and_gradient_are_those_of_the_formula(normal, constants, scale):
    model, x = solvent(5, constants, tension=0.003), (scale * normal(20, 5, 3)).requires_grad_()
    energy = formula(model, x)
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    found, slope = evaluated(model, x)
    torch.testing.assert_close(found, energy.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(slope, gradient, rtol=1e-8, atol=1e-9)


def test_far_ions_have_the_energy_of_born():
    """Each by its own radius, and their screened attraction."""
    model = solvent(2)
    energy, _ = evaluated(model, torch.tensor([[[0.0, 0, 0], [1e5, 0, 0]]], dtype=torch.float64))
    inner = model.radii - model.offset
    own = -model.strength / 2 * (model.charges.square() / inner).sum()
    pair = -model.strength * model.charges[0] * model.charges[1] / 1e5
    assert float(energy) == pytest.approx(float(own + pair), rel=1e-9)


def test_numbers_make_the_same_solvent():
    model = solvent(3, tension=0.1)
    again = Solvent(model.charges, model.radii, model.scales, **model.numbers())
    assert again.numbers() == model.numbers() and model.numbers()["tension"] == 0.1


def test_bad_input_is_refused():
    model = solvent(3)
    with pytest.raises(ShapeError, match="each atom"):
        replace(model, scales=model.scales[1:])
    with pytest.raises(DataError, match="offset"):
        replace(model, radii=torch.full_like(model.radii, 0.09))
