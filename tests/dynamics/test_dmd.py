"""Planted modes are found exactly without noise, and without bias with it where that is promised."""

import math

import pytest
import torch

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.dmd import ExactDMD, ForwardBackwardDMD, TotalLeastSquaresDMD, delayed, threshold_rank
from bayesmol.errors import DataError
from bayesmol.inference.random import generator

KINDS = (ExactDMD, TotalLeastSquaresDMD, ForwardBackwardDMD)
PLANTED = torch.polar(torch.tensor([0.99, 0.95]).double(), torch.tensor([0.3, 1.1]).double())
TRUTH = torch.cat([PLANTED, PLANTED.conj()])


def planted(time=120, space=20, seed=0):
    """Real snapshots of two damped oscillations."""
    modes = torch.randn(2, space, dtype=torch.complex128, generator=generator(seed))
    return 2 * ((PLANTED[None] ** torch.arange(time)[:, None]) @ modes).real


def distance(found, truth):
    """Largest distance of a true eigenvalue from the nearest one found."""
    return float((found[..., None, :] - truth[:, None]).abs().amin(-1).max())


@pytest.mark.parametrize("kind", KINDS)
def test_planted_modes_without_noise(kind):
    data = planted()
    found = kind(rank=4).fit(data)
    torch.testing.assert_close(found.forecast(torch.arange(120.0, dtype=torch.float64)).real, data, atol=1e-9, rtol=0)
    assert distance(found.eigenvalues, TRUTH) < 1e-10


@pytest.mark.parametrize("kind", KINDS)
def test_delays_find_modes_of_one_sensor(kind):
    data = planted(space=1)
    found = kind(rank=4, delays=8).fit(Trajectories.of(data, time_step=0.5, unit="ps"))
    assert distance(found.eigenvalues, TRUTH) < 1e-9
    assert found.unit == "ps"
    torch.testing.assert_close(found.frequencies.abs().max(), torch.tensor(1.1 / math.pi, dtype=torch.float64))
    torch.testing.assert_close(found.growth_rates.max(), torch.tensor(2 * math.log(0.99), dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_batch_and_weights(kind):
    data = torch.stack([planted(seed=1), planted(seed=2)])
    together = kind(rank=4).fit(data)
    for k in range(2):
        assert distance(together.eigenvalues[k], kind(rank=4).fit(data[k]).eigenvalues) < 1e-10
    noisy = data[0] + 0.1 * torch.randn(120, 20, dtype=torch.float64, generator=generator(3))
    plain = kind(rank=4).fit(noisy).eigenvalues
    weighed = kind(rank=4).fit(noisy, weights=torch.stack([torch.ones(119), 3 * torch.ones(119)]).double()).eigenvalues
    assert distance(weighed[0], plain) < 1e-9 and distance(weighed[1], plain) < 1e-9


def rotations(repeats, seed):
    """A rotation seen by four sensors, noise of a tenth of the deviation of the signal."""
    source = generator(seed)
    modes = torch.randn(1, 4, dtype=torch.complex128, generator=generator(5))
    clean = 2 * (torch.exp(0.3j * torch.arange(400))[:, None].to(torch.complex128) @ modes).real
    noise = torch.randn(repeats, *clean.shape, dtype=torch.float64, generator=source)
    return clean + 0.1 * clean.std() * noise


def test_noise_biases_only_plain_dmd():
    data, truth = rotations(200, 0), 1.0
    for kind, unbiased in zip(KINDS, (False, True, True), strict=True):
        moduli = kind(rank=2).fit(data).eigenvalues.abs().mean(-1)
        scores = (moduli.mean() - truth) / (moduli.std() / math.sqrt(len(moduli)))
        assert (abs(float(scores)) < 2.5) == unbiased, (kind, float(scores))
        if not unbiased:
            assert scores < -20


def test_rank_by_threshold():
    data = planted(space=40)
    noise = torch.randn(120, 40, dtype=torch.float64, generator=generator(1))
    assert threshold_rank(data) == 4
    assert threshold_rank(data + 0.1 * noise) == 4
    assert threshold_rank(noise) == 1
    assert len(ExactDMD().fit(data + 0.1 * noise).eigenvalues) == 4


def test_complex_snapshots():
    modes = torch.randn(2, 9, dtype=torch.complex128, generator=generator(0))
    values = torch.tensor([0.9 + 0.3j, 0.2 - 0.8j], dtype=torch.complex128)
    data = (values[None] ** torch.arange(30)[:, None]) @ modes
    for kind in KINDS:
        found = kind(rank=2).fit(data)
        assert distance(found.eigenvalues, values) < 1e-10
        torch.testing.assert_close(found.forecast(torch.arange(30.0, dtype=torch.float64)), data, atol=1e-10, rtol=0)


def test_delayed_stacks_the_oldest_first():
    data = torch.arange(8.0).reshape(4, 2)
    assert delayed(data, 2).tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]


@pytest.mark.parametrize(
    ("spec", "data", "word"),
    [
        (lambda: ExactDMD(rank=0), planted(), "rank"),
        (lambda: ExactDMD(delays=0), planted(), "delays"),
        (lambda: ExactDMD(rank=30), planted(), "rank"),
        (lambda: ExactDMD(), torch.zeros(5), "snapshots"),
        (lambda: ExactDMD(), planted() * torch.nan, "finite"),
        (lambda: ExactDMD(delays=120), planted(), "snapshots"),
        (lambda: ExactDMD(), Trajectories.of([planted(), planted()]), "fit each"),
    ],
)
def test_bad_input(spec, data, word):
    with pytest.raises(DataError, match=word):
        spec().fit(data)


def test_bad_weights():
    with pytest.raises(DataError, match="weights"):
        ExactDMD(rank=4).fit(planted(), weights=torch.ones(120, dtype=torch.float64))
