"""Internal coordinates of forces: back and forth, and how atoms are reordered."""

import torch
from ase.build import molecule

from bayesmol.data import Labelled, Structures
from bayesmol.potentials.gradient_frames import Frames, encoded, prediction
from bayesmol.representation.distances import internal_basis, jacobian


def structures(normal, count=3):
    atoms = molecule("CH3OH")
    moved = [atoms.copy() for _ in range(count)]
    for frame in moved:
        frame.positions += 0.05 * normal(6, 3).numpy()
    return Structures.from_ase(moved)


def test_reordering_permutes_the_rows_back(normal, source):
    s = structures(normal)
    orders = torch.stack([torch.randperm(6, generator=source) for _ in range(3)])
    rows, basis = encoded(s, orders)
    positions = s.positions.view(3, 6, 3)
    canonical = positions.gather(1, orders[..., None].expand(-1, -1, 3))
    inner = internal_basis(jacobian(canonical)).unflatten(1, (6, 3))
    for k in range(3):
        torch.testing.assert_close(basis[k].unflatten(0, (6, 3))[orders[k]], inner[k])
    again, _ = encoded(
        Structures(canonical.reshape(-1, 3), s.species, s.pointer, s.cell, s.pbc), orders * 0 + torch.arange(6)
    )
    torch.testing.assert_close(rows, again)


def test_prediction_adds_noise_and_turns_back(normal):
    s = structures(normal)
    _, basis = encoded(s, torch.arange(6).repeat(3, 1))
    root = normal(3, 13, 13)
    blocks, mean = root @ root.mT, normal(3, 13)
    noise = torch.full((3,), 0.5).double(), torch.full((3, 18), 0.25).double()
    found = prediction(s, mean, blocks, basis, noise, energies=torch.diag(blocks[:, 0, 0]))
    torch.testing.assert_close(found.energy.mean, mean[:, 0])
    torch.testing.assert_close(found.energy.variance, blocks[:, 0, 0] + 0.5)
    for k in range(3):
        want = basis[k] @ blocks[k, 1:, 1:] @ basis[k].mT
        torch.testing.assert_close(found.forces.epistemic.covariance[k], want)
        torch.testing.assert_close(found[k].forces.variance.flatten(), want.diagonal() + 0.25)
        torch.testing.assert_close(basis[k].mT @ found[k].forces.mean.flatten(), mean[k, 1:])


def test_frames_hold_a_sufficient_statistic(normal):
    """Noise that differs between components: solving with internal forces equals solving with all of them."""
    s = structures(normal, 8)
    noisy = Labelled(s, forces=normal(48, 3), force_errors=0.1 + 0.3 * normal(48, 3).abs())
    frames = Frames.of(noisy, torch.arange(6).repeat(8, 1))
    targets, noise = frames.targets(torch.tensor(1e-6).double(), torch.tensor(1e-4).double())
    precision = 1 / (1e-4 + noisy.force_errors.view(8, -1).square())
    inner = frames.basis.mT @ (precision[..., None] * frames.basis)
    torch.testing.assert_close(torch.linalg.inv(noise[:, 1:, 1:]), inner, rtol=1e-8, atol=1e-8)
    pulled = torch.einsum("sij,si,si->sj", frames.basis, precision, noisy.forces.view(8, -1))
    torch.testing.assert_close(torch.einsum("sij,sj->si", inner, targets[:, 1:]), pulled, rtol=1e-8, atol=1e-8)
