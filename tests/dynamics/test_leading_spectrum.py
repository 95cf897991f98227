import pytest
import torch

from bayesmol.dynamics.leading_spectrum import leading_eigenvalues, leading_spectrum
from bayesmol.dynamics.reversible import nonreversible_estimate, reversible_estimate
from bayesmol.errors import DataError


def walk(states, draws, spread=0.1):
    """Estimates of a random walk on a line with weighted counts, as a bootstrap makes them."""
    source = torch.Generator().manual_seed(0)
    place = torch.arange(states, dtype=torch.float64)
    near = torch.exp(-(place[:, None] - place).square() / 8) * 100
    noise = (spread * torch.randn(draws, states, states, generator=source, dtype=torch.float64)).exp()
    return reversible_estimate(near * noise)


@pytest.mark.parametrize("states", [6, 60])
def test_it_agrees_with_the_full_decomposition(states):
    batch = walk(states, 20)
    found = leading_spectrum(batch.transition, batch.stationary, 4)
    root = batch.stationary.sqrt()
    symmetric = root[:, :, None] * batch.transition / root[:, None, :]
    wanted = torch.linalg.eigvalsh((symmetric + symmetric.mT) / 2)
    wanted = wanted.gather(1, wanted.abs().argsort(1, descending=True))[:, :4]
    torch.testing.assert_close(found.values, wanted, rtol=0, atol=1e-9)
    torch.testing.assert_close(leading_eigenvalues(batch, 4), wanted, rtol=0, atol=1e-9)
    torch.testing.assert_close(batch.transition @ found.right, found.right * found.values[:, None], atol=1e-4, rtol=0)
    norms = torch.einsum("dsk,dsl->dkl", found.left, found.right)
    torch.testing.assert_close(norms, torch.eye(4).double().expand(20, 4, 4), atol=1e-6, rtol=0)


def test_a_periodic_chain_keeps_both_eigenvalues_of_size_one():
    found = leading_spectrum(torch.tensor([[0.0, 1], [1, 0]]).double(), torch.tensor([0.5, 0.5]).double(), 2)
    assert found.values.tolist() == pytest.approx([1, -1])


def test_circular_motion_has_complex_eigenvalues():
    turn = torch.tensor([[0.1, 0.9, 0.0], [0.0, 0.1, 0.9], [0.9, 0.0, 0.1]]).double()
    values = leading_eigenvalues(nonreversible_estimate(turn * 100), 3)
    assert values.is_complex() and float(values[1].imag.abs()) > 0.7


def test_too_many_are_asked_for():
    batch = walk(6, 2)
    with pytest.raises(DataError, match="count"):
        leading_spectrum(batch.transition, batch.stationary, 7)
