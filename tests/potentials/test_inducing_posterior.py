"""The fitted process through inducing structures against closed forms."""

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError, FormatError
from bayesmol.potentials.gradient_frames import CONSTANT
from bayesmol.potentials.gradient_gp import GradientGP
from bayesmol.potentials.inducing import streamed
from bayesmol.potentials.inducing_posterior import InducingGPPotential


@pytest.fixture(scope="module")
def frames():
    return bm.data.load("rmd17/ethanol/train")[:30]


@pytest.fixture(scope="module")
def scales(frames):
    return GradientGP(energy_noise=1e-3, force_noise=0.03).fit(frames[:6])


def test_white_features_reproduce_the_kernel(frames, scales):
    found = InducingGPPotential.prior(scales)
    rows = scales._frames.rows
    white = found.white(rows).flatten(0, 1)
    want = scales._prior(rows, rows)  # with the constant
    torch.testing.assert_close(white @ white.mT, want, rtol=0, atol=1e-9 * float(want.max()))
    assert float(found.white(rows)[0, 0, -1]) == CONSTANT
    rest = found.left_over(rows, found.white(rows))
    assert float(rest.abs().max()) < 1e-9 * scales.amplitude


def test_before_labels_it_is_the_prior(frames, scales):
    rows, _ = scales._encoded(frames[10:13].structures)
    mean, blocks = InducingGPPotential.prior(scales).conditional(rows)
    assert not mean.any()
    wanted = scales.amplitude * scales._kernel.blocks(rows, rows)
    torch.testing.assert_close(blocks, wanted, rtol=0, atol=1e-8 * float(wanted.max()))


def test_posterior_is_the_closed_form(frames):
    """Titsias' optimal distribution, by dense algebra."""
    scales = GradientGP(length_scale=0.5, energy_noise=0.05, force_noise=0.1).fit(frames[:6])  # well conditioned
    found, test = streamed(scales, frames), frames[:2].structures
    own, kernel = scales._frames.rows, found._kernel
    labels = found.frames(frames)
    targets, noise = labels.targets(*torch.tensor([0.05**2, 0.01], dtype=torch.float64))
    noise, y = torch.block_diag(*noise), targets.flatten()
    energy = torch.zeros(len(y), dtype=torch.float64)
    energy[:: targets.shape[1]] = CONSTANT
    prior = scales.amplitude * kernel(own, own).to_dense()
    cross = scales.amplitude * kernel(labels.rows, own).to_dense()
    inverse = torch.linalg.inv(prior)
    rows, _ = scales._encoded(test)
    star = scales.amplitude * kernel(rows, own).to_dense()
    some = torch.zeros(len(star), dtype=torch.float64)
    some[:: targets.shape[1]] = CONSTANT
    covariance = cross @ inverse @ cross.mT + torch.outer(energy, energy) + noise
    between = star @ inverse @ cross.mT + torch.outer(some, energy)
    mean = (between @ torch.linalg.solve(covariance, y)).view(2, -1)
    full = scales.amplitude * kernel(rows, rows).to_dense() + torch.outer(some, some)
    full = full - between @ torch.linalg.solve(covariance, between.mT)
    got_mean, got_blocks = found.conditional(rows)
    torch.testing.assert_close(got_mean, mean, rtol=0, atol=1e-4 * float(mean.abs().max()))
    size = targets.shape[1]
    for s in range(2):
        want = full[s * size : (s + 1) * size, s * size : (s + 1) * size]
        scale = float(want[1:, 1:].abs().max())
        torch.testing.assert_close(got_blocks[s][1:, 1:], want[1:, 1:], rtol=0, atol=1e-4 * scale)


def test_energies_are_relative_to_the_inducing_ones(frames, scales):
    found = streamed(scales, frames)
    want = frames.energies[10:20] - scales.training.energies.mean()
    torch.testing.assert_close(found.frames(frames[10:20]).energies, want)


def test_a_damaged_state_is_refused(frames, scales):
    header, arrays = streamed(scales, frames).state()
    with pytest.raises(FormatError, match="root"):
        InducingGPPotential.from_state(header, {k: v for k, v in arrays.items() if k != "inducing.root"})


def test_another_molecule_is_refused(frames, scales):
    from ase.build import molecule

    with pytest.raises(DataError, match="molecule"):
        streamed(scales, frames).predict(molecule("H2O"))
