"""Energies of a molecule: derivative, invariance, chunks, types, files, and what is refused."""

from dataclasses import replace

import pytest
import torch

from bayesmol.errors import DataError, FormatError, ShapeError
from bayesmol.flows import force_field_tables
from bayesmol.flows.force_field import ForceField
from bayesmol.flows.molecule import bundled
from bayesmol.units import convert

KJ = convert(1.0, "eV", "kJ/mol")


@pytest.fixture(params=["obc1", "obc2", None])
def field(request):
    found = bundled(f"alanine-dipeptide/{request.param or 'obc1'}")
    return found if request.param else found.in_vacuum()


@pytest.fixture
def dipeptide():
    return bundled("alanine-dipeptide/obc1")


@pytest.fixture
def moved(normal):
    """Rows near the geometry that ships."""
    geometry = bundled("alanine-dipeptide/obc1").positions.flatten()
    return lambda size, scale=0.05: geometry + scale * normal(size, 66)


def test_the_gradient_is_the_derivative(field, moved):
    assert torch.autograd.gradcheck(field.energy, moved(4).requires_grad_(), fast_mode=True)


def test_the_gradient_is_the_same_with_and_without_autograd(field, moved):
    x = moved(5).requires_grad_()
    energy, gradient = field.energy_and_gradient(x)
    weights = torch.arange(5.0, dtype=torch.float64)
    (found,) = torch.autograd.grad((weights * field.energy(x)).sum(), x)
    torch.testing.assert_close(found, weights[:, None] * gradient, rtol=0, atol=0)
    torch.testing.assert_close(energy, field.energy(x.detach()), rtol=0, atol=0)
    assert not energy.requires_grad and not gradient.requires_grad


def test_it_can_be_differentiated_once(dipeptide, moved):
    x = moved(1).requires_grad_()
    (gradient,) = torch.autograd.grad(dipeptide.energy(x).sum(), x, create_graph=True)
    with pytest.raises(DataError, match="second derivative"):
        torch.autograd.grad(gradient.square().sum() + x.sum(), x)


def test_motion_of_the_whole_leaves_the_energy(field, moved, normal):
    x = moved(3)
    turn, _ = torch.linalg.qr(normal(3, 3))  # a reflection too, as the phases are 0 and π
    energy, gradient = field.energy_and_gradient(x)
    other, turned = field.energy_and_gradient((x.view(3, 22, 3) @ turn + normal(3)).flatten(1))
    torch.testing.assert_close(other, energy, rtol=0, atol=1e-9)
    torch.testing.assert_close(turned.view(3, 22, 3), gradient.view(3, 22, 3) @ turn, rtol=0, atol=1e-9)
    torch.testing.assert_close(gradient.view(3, 22, 3).sum(1), torch.zeros_like(turned[:, :3]), rtol=0, atol=1e-9)


def test_chunks_are_the_whole(dipeptide, moved, monkeypatch):
    x = moved(11)
    whole = dipeptide.energy_and_gradient(x)
    monkeypatch.setattr(force_field_tables, "_CHUNK", 3 * 231)
    parts = replace(dipeptide).energy_and_gradient(x)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_single_precision_is_enough(field, moved):
    x = moved(200)
    energy, gradient = field.energy_and_gradient(x)
    single, slope = field.energy_and_gradient(x.float())
    assert single.dtype == slope.dtype == torch.float32
    assert float((single - energy).abs().max()) * KJ <= 2e-3
    assert float((slope - gradient).abs().max()) <= 1e-4  # eV/Å; positions themselves are rounded at 5e-7 Å


def test_no_rows_have_no_energies(field):
    assert field.energy(torch.zeros(0, 66)).shape == (0,)


def test_it_computes_where_the_rows_are(field):
    """No table stays behind on the processor when the rows are on another device."""
    energy, gradient = field.energy_and_gradient(torch.empty(7, 66, device="meta"))
    assert energy.device.type == gradient.device.type == "meta" and gradient.shape == (7, 66)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_overlapping_atoms_are_never_nan(field, moved, normal, dtype):
    on_top = moved(3)
    on_top[:, :3] = on_top[:, 30:33]
    wild = [torch.zeros(1, 66), on_top, 3 * normal(500, 66), 1e-4 * normal(20, 66), 1e5 * normal(20, 66)]
    line = torch.zeros(1, 22, 3)
    line[..., 0] = torch.arange(22.0)
    x = torch.cat([*(w.double() for w in wild), line.double().flatten(1)]).to(dtype)
    energy, gradient = field.energy_and_gradient(x)
    assert not energy.isnan().any() and bool((energy > -100).all())
    assert not gradient.isnan().any()
    assert float(energy[0]) > 1e6


def test_nan_stays_nan(dipeptide):
    assert dipeptide.energy(torch.full((1, 66), float("nan"))).isnan().all()


def test_a_file_gives_the_same_field(field, moved, tmp_path):
    field.write(tmp_path / "field.npz")
    other = ForceField.read(tmp_path / "field.npz")
    x = moved(3)
    assert torch.equal(other.energy(x), field.energy(x))
    assert torch.equal(other.species, field.species) and torch.equal(other.positions, field.positions)
    replace(field, positions=None).write(tmp_path / "field.npz")
    assert ForceField.read(tmp_path / "field.npz").positions is None


def test_a_wrong_file_is_refused(dipeptide, tmp_path):
    path = tmp_path / "field.npz"
    with pytest.raises(FileNotFoundError):
        ForceField.read(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError):
        ForceField.read(path)
    import numpy as np

    np.savez(path, format=np.array(1), coulomb=np.array(14.4))
    with pytest.raises(FormatError, match="parameters"):
        ForceField.read(path)
    np.savez(path, format=np.array(99))
    with pytest.raises(FormatError, match="upgrade"):
        ForceField.read(path)


def test_wrong_rows_are_refused(dipeptide):
    with pytest.raises(ShapeError, match="66"):
        dipeptide.energy(torch.zeros(3, 65))
    with pytest.raises(DataError, match="float32 or float64"):
        dipeptide.energy(torch.zeros(3, 66, dtype=torch.float16))


@pytest.mark.parametrize(
    "change",
    [
        {"charges": torch.zeros(21)},
        {"bond_lengths": torch.zeros(3)},
        {"bonds": torch.full((21, 2), 22)},
        {"sigmas": torch.full((22,), float("nan"))},
        {"positions": torch.zeros(21, 3)},
        {"periodicities": torch.full((45,), -1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_wrong_parameters_are_refused(dipeptide, change):
    if "periodicities" in change:
        change = {"periodicities": torch.full_like(dipeptide.periodicities, -1)}
    with pytest.raises(DataError, match=next(iter(change))):
        replace(dipeptide, **change)


def test_a_solvent_of_another_molecule_is_refused(dipeptide):
    solvent = dipeptide.solvent
    short = replace(solvent, charges=solvent.charges[1:], radii=solvent.radii[1:], scales=solvent.scales[1:])
    with pytest.raises(ShapeError, match="solvent"):
        replace(dipeptide, solvent=short)
