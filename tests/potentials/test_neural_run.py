import pytest
import torch

from bayesmol.potentials.network_equivariant import Equivariant
from bayesmol.potentials.neural_data import Batch
from bayesmol.potentials.neural_energy import NeuralEnergy, force_scale, references_of
from bayesmol.potentials.neural_run import Run
from bayesmol.potentials.training import Training


@pytest.fixture(scope="module")
def run(ethanol):
    data, judged = ethanol[0], ethanol[1][:5]
    source = torch.Generator().manual_seed(0)
    network = Equivariant(channels=4, width=5, radial=4).network((1, 6, 8), seed=source).double()
    energy = NeuralEnergy(network, references_of(network, data), force_scale(data), 1, source)
    parts = Batch.of(energy, data), Batch.of(energy, judged)
    return Run(energy, *parts, data, judged, Training(epochs=1), 0, lambda seed: energy)


def test_noise_is_that_of_the_validation_residuals(run):
    found = run.energy(run.validation.environment)
    energy = (found.energy[:, 0] - run.validation.energies).square().mean() / 9
    force = (found.forces[:, 0] - run.validation.forces.flatten()).square().mean()
    assert run.noise == pytest.approx((float(energy), float(force)))


def test_rows_times_the_last_layer_are_the_outputs(run):
    last = torch.cat([run.energy.head, run.energy.shift])[:, 0].detach()
    rows, labels, noise = next(run.rows())
    found = run.energy(run.data.environment)
    outputs = torch.cat([found.energy[:, 0], found.forces[:, 0]])
    torch.testing.assert_close(rows @ last, outputs)
    torch.testing.assert_close(labels, torch.cat([run.data.energies, run.data.forces.flatten()]))
    assert noise[:12].tolist() == pytest.approx([9 * run.noise[0]] * 12) and float(noise[-1]) == run.noise[1]


def test_normal_equations_are_sums_over_all_rows(run):
    rows, labels, noise = (torch.cat(parts) for parts in zip(*run.rows(), strict=True))
    gram, moment = run.normal_equations
    torch.testing.assert_close(gram, rows.T @ (rows / noise[:, None]))
    torch.testing.assert_close(moment, rows.T @ (labels / noise))
