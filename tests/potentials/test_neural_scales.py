import torch

from bayesmol.potentials.neural_scales import _likeliest, fitted_scales


def test_planted_scales_are_found():
    source = torch.Generator().manual_seed(0)
    variance = torch.rand(40_000, generator=source, dtype=torch.float64).exp() - 0.9
    groups = torch.nn.functional.one_hot(torch.randint(2, (40_000,), generator=source)).double()
    truth = 2.5 * variance + groups @ torch.tensor([0.3, 1.2], dtype=torch.float64)
    residual = truth.sqrt() * torch.randn(40_000, generator=source, dtype=torch.float64)
    factor, noise = _likeliest(residual, variance, groups, 0.0)
    assert abs(factor - 2.5) < 0.3
    assert (noise - torch.tensor([0.3, 1.2])).abs().max() < 0.2


def test_given_noise_is_not_found_again():
    source = torch.Generator().manual_seed(1)
    residual = 2.0 * torch.randn(20_000, generator=source, dtype=torch.float64)
    ones = torch.ones(20_000, 1).double()
    _, noise = _likeliest(residual, torch.zeros(20_000).double(), ones, torch.full((20_000,), 3.0).double())
    assert abs(float(noise) - 1.0) < 0.15


def test_scales_do_not_depend_on_the_chunks(neural, ethanol):
    data = ethanol[1][:10]
    one, two = (fitted_scales(neural.members, data, size=size) for size in (3, 64))
    torch.testing.assert_close(one.force_noise, two.force_noise, rtol=1e-3, atol=1e-9)
    assert abs(one.energy_noise / two.energy_noise - 1) < 1e-3


def test_energies_alone_are_enough(neural, ethanol):
    from bayesmol.data import Labelled

    data = Labelled(ethanol[1].structures[:8], ethanol[1].energies[:8])
    found = fitted_scales(neural.members, data)
    assert found.energy_noise > 0 and found.force == 1.0
