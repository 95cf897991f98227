import torch

from bayesmol.data import Labelled, Structures
from bayesmol.potentials.network_equivariant import Equivariant
from bayesmol.potentials.neural_data import Batch
from bayesmol.potentials.neural_energy import NeuralEnergy, references_of


def energy_of(data, species=(1, 6, 8)):
    network = Equivariant(channels=4, width=4).network(species, seed=0).double()
    return NeuralEnergy(network, references_of(network, data), 1.0, 1, torch.Generator().manual_seed(0))


def crystal():
    base = torch.tensor([[0.0, 0, 0], [1.9, 1.9, 1.9]], dtype=torch.float64)
    positions = torch.cat([base, base + 0.1 * torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).double()])
    cell = 3.8 * torch.eye(3, dtype=torch.float64).expand(2, 3, 3).contiguous()
    structures = Structures(
        positions, torch.tensor([6, 8, 6, 8]), torch.tensor([0, 2, 4]), cell, torch.ones(2, 3).bool()
    )
    stress = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return Labelled(structures, torch.tensor([1.0, 2.0]).double(), stresses=stress + stress.mT)


def test_a_batch_is_what_its_structures_alone_are(ethanol):
    data = ethanol[0]
    energy = energy_of(data)
    chosen = torch.tensor([5, 0, 7, 7])
    one, two = Batch.of(energy, data)[chosen], Batch.of(energy, data[chosen])
    first, second = energy(one.environment), energy(two.environment)
    torch.testing.assert_close(first.energy, second.energy)
    torch.testing.assert_close(first.forces, second.forces)
    for name in ("energies", "forces", "counts", "has_forces"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name))


def test_labels_are_above_the_baseline(ethanol):
    data = ethanol[0]
    energy = energy_of(data)
    batch, base = Batch.of(energy, data), energy.baseline(data.structures)
    torch.testing.assert_close(batch.energies, data.energies - base[0])
    torch.testing.assert_close(batch.forces, data.forces - base[1])


def test_virials_of_stresses_and_no_forces():
    data = crystal()
    energy = energy_of(data, (6, 8))
    batch = Batch.of(energy, data)
    base = energy.baseline(data.structures)
    torch.testing.assert_close(batch.virials, data.stresses * 3.8**3 - base[2])
    assert bool((batch.has_virials == 1).all()) and bool((batch.has_forces == 0).all())
    assert bool((batch.forces == 0).all())


def test_missing_labels_are_masked(ethanol):
    data = ethanol[0]
    mixed = Labelled.concatenate([data[:2], Labelled(data.structures[2:4], data.energies[2:4])])
    batch = Batch.of(energy_of(data), mixed)
    assert batch.has_forces.tolist() == [1, 1, 0, 0]
    assert bool((batch.forces[18:] == 0).all())
