from dataclasses import replace

import pytest
import torch

from bayesmol.data import Labelled
from bayesmol.potentials.network_equivariant import Equivariant
from bayesmol.potentials.neural_energy import NeuralEnergy, force_scale, references_of


@pytest.fixture(scope="module")
def energy(ethanol):
    network = Equivariant(channels=4, width=4).network((1, 6, 8), seed=0).double()
    return NeuralEnergy(network, references_of(network, ethanol[0]), 2.0, 3, torch.Generator().manual_seed(0))


def test_forces_are_minus_the_gradient_of_the_energy(energy, ethanol):
    structures = ethanol[0].structures[:1]
    found = energy(energy.network.environments(structures))
    step = 1e-4
    for atom, axis in ((0, 0), (4, 2)):
        ends = []
        for sign in (1, -1):
            positions = structures.positions.clone()
            positions[atom, axis] += sign * step
            moved = replace(structures, positions=positions)
            ends.append(energy(energy.network.environments(moved), forces=False).energy[0])
        slope = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(found.forces.reshape(9, 3, 3)[atom, axis], -slope, atol=1e-6, rtol=1e-5)


def test_shift_and_scale(energy, ethanol):
    structures = ethanol[0].structures[:2]
    environment = energy.network.environments(structures)
    before = energy(environment, forces=False).energy
    with torch.no_grad():
        energy.shift[1] += 0.5
    after = energy(environment, forces=False).energy
    torch.testing.assert_close(after - before, torch.full_like(before, 2.0 * 2 * 0.5))
    with torch.no_grad():
        energy.shift[1] -= 0.5


def test_references_and_scale(energy, ethanol):
    data = ethanol[0]
    references = references_of(energy.network, data)
    composition = energy.network.composition(data.structures)
    torch.testing.assert_close((composition @ references).mean(), data.energies.mean())
    assert references_of(energy.network, replace(data, energies=None)).tolist() == [0, 0, 0]
    torch.testing.assert_close(force_scale(data), float(data.forces.square().mean().sqrt()))
    flat = Labelled(data.structures, data.energies)
    assert force_scale(flat) == pytest.approx(float((data.energies / 9).std(correction=0)))
