"""The leave-one-structure-out score by its definition, its gradient, and what is learned by it."""

import pytest
import torch
from ase.build import molecule

from bayesmol.data import Labelled, Structures, load
from bayesmol.errors import ConvergenceError
from bayesmol.potentials.gradient_frames import CONSTANT, Frames
from bayesmol.potentials.gradient_gp import GradientGP
from bayesmol.potentials.gradient_kernel import GradientKernel
from bayesmol.potentials.gradient_learning import Scales, learned_scales, score


@pytest.fixture
def frames(normal):
    atoms = molecule("H2O")
    positions = torch.tensor(atoms.positions) + 0.06 * normal(6, 3, 3)
    numbers, free = torch.tensor(atoms.numbers).long().repeat(6), torch.zeros(6, 3, 3).double()
    structures = Structures(positions.reshape(-1, 3), numbers, 3 * torch.arange(7), free, free[:, 0].bool())
    mask = torch.tensor([True, True, True, False, True, True])
    forces = normal(18, 3) * mask.repeat_interleave(3)[:, None]
    data = Labelled(structures, energies=normal(6), forces=forces, has_forces=mask)
    return Frames.of(data, torch.arange(3).repeat(6, 1))


@pytest.fixture
def kernel():
    kernel = GradientKernel(torch.tensor([[0, 1, 2], [1, 0, 2]]), torch.tensor([0, 0, 1]))
    kernel.lengthscale = torch.tensor([0.7, 1.1]).double()
    return kernel.requires_grad_(False)


def scales(amplitude=2.0, energy=0.01, force=0.04):
    return Scales(*torch.tensor([amplitude, energy, force], dtype=torch.float64))


def test_the_score_is_that_of_refits(frames, kernel):
    prior = kernel(frames.rows, frames.rows).to_dense()
    targets, noise = frames.targets(torch.tensor(0.01).double(), torch.tensor(0.04).double())
    covariance = 2.0 * prior + torch.block_diag(*noise)
    energy = (torch.arange(24) % 4 == 0).double()
    covariance = covariance + CONSTANT**2 * torch.outer(energy, energy)
    seen, owner = frames.observed.flatten(), torch.arange(6).repeat_interleave(4)
    total = 0.0
    for b in range(6):
        held, rest = seen & (owner == b), seen & (owner != b)
        gain = torch.linalg.solve(covariance[rest][:, rest], covariance[rest][:, held]).mT
        mean = gain @ targets.flatten()[rest]
        spread = covariance[held][:, held] - gain @ covariance[rest][:, held]
        law = torch.distributions.MultivariateNormal(mean, (spread + spread.mT) / 2)
        total = total - law.log_prob(targets.flatten()[held])
    found, _ = score(prior, frames, scales())
    torch.testing.assert_close(found, total / seen.sum(), rtol=1e-6, atol=0)


def test_the_gradient_of_the_score(frames, kernel):
    prior = kernel(frames.rows, frames.rows).to_dense()

    def value(logarithms, change):
        moved = prior + change * torch.outer(prior[0], prior[0])
        return score(moved, frames, Scales(*logarithms.exp()))[0]

    arguments = torch.tensor([0.7, -4.0, -3.0]).double().requires_grad_(), torch.tensor(0.1).double().requires_grad_()
    assert torch.autograd.gradcheck(value, arguments, eps=1e-4, rtol=1e-4)


def test_the_closed_form_amplitude_makes_normalised_residuals_one(frames, kernel):
    prior = kernel(frames.rows, frames.rows).to_dense()
    squares = score(prior, frames, scales())[1]
    again = score(prior, frames, scales(*(squares * v for v in (2.0, 0.01, 0.04))))[1]
    assert float(again) == pytest.approx(1.0, rel=1e-3), "up to the constant of the energy, which does not scale"


def test_learning_improves_the_score_and_reaches_a_minimum(frames, kernel):
    options = {"energy_noise": None, "force_noise": None, "length_scales": True}
    before = learned_scales(kernel, frames, **options, iterations=0)
    start = score(kernel(frames.rows, frames.rows).to_dense(), frames, before)[0].detach()
    after = learned_scales(kernel, frames, **options, iterations=60)
    prior = kernel(frames.rows, frames.rows).to_dense().detach()
    best = score(prior, frames, after)[0]
    assert float(best) < float(start)
    for factor in (0.7, 1.4):
        assert float(
            score(prior, frames, Scales(factor * after.amplitude, after.energy_noise, after.force_noise))[0]
        ) > float(best)


def test_given_noise_is_kept(frames, kernel):
    found = learned_scales(kernel, frames, energy_noise=0.3, force_noise=0.2, length_scales=False)
    assert float(found.energy_noise.sqrt()) == pytest.approx(0.3) and float(found.force_noise.sqrt()) == pytest.approx(
        0.2
    )


def test_duplicated_structures_without_noise_are_refused(frames, kernel):
    twice = frames[torch.tensor([0, 0, 1, 1])]
    with pytest.raises(ConvergenceError, match="positive definite"):
        learned_scales(kernel, twice, energy_noise=1e-200, force_noise=1e-200, length_scales=False)


def test_noise_of_the_labels_is_found(normal):
    """White noise of 0.15 eV/Å on real forces, all of it internal, is learned within 20 %."""
    data = load("rmd17/ethanol")[:60]
    noisy = Labelled(data.structures, energies=data.energies, forces=data.forces + 0.15 * normal(540, 3))
    model = GradientGP(learning_rows=1200).fit(noisy)
    assert model.noise_force == pytest.approx(0.15, rel=0.2)


@pytest.mark.slow
def test_accuracy_and_calibration_on_ethanol():
    """First 100 training frames, all 1000 test frames; sGDML (sig 10) has 55.1 meV/Å on these."""
    data = load("rmd17/ethanol")
    train, _, test = data.split(100, 150, 1000)
    for spec, largest in ((GradientGP(), 55.6e-3), (GradientGP(length_scale="learned"), 40e-3)):
        found = spec.fit(train).predict(test)
        assert float((found.forces.mean - test.forces).abs().mean()) < largest
        assert 0.87 < found.forces.interval(0.9).covered(test.forces) < 0.93
        # One scale serves both; errors of energies along a trajectory have heavier tails, so certify them.
        assert 0.75 < found.energy.interval(0.9).covered(test.energies) < 0.95
