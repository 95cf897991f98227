"""Draws kept as flows against the same matrices written out."""

import pytest
import torch

from bayesmol.dynamics import reversible_samples
from bayesmol.dynamics.reversible_samples import ReversibleSamples
from bayesmol.errors import DataError


@pytest.fixture
def samples(source):
    pairs = torch.tensor([[0, 0, 0, 1, 2, 2, 3], [0, 1, 3, 1, 2, 3, 3]])
    flows = torch.rand(2, 8, 7, generator=source, dtype=torch.float64) + 0.1
    return ReversibleSamples(4, pairs, flows, 1.0)


def test_matrices_are_the_flows_by_row(samples):
    batch = samples.transitions()
    for row, flows in enumerate(samples.flows.flatten(0, 1)):
        x = torch.zeros(4, 4, dtype=torch.float64)
        for (i, j), value in zip(samples.pairs.mT.tolist(), flows, strict=True):
            x[i, j] = x[j, i] = value
        torch.testing.assert_close(batch.transition[row], x / x.sum(1, keepdim=True), rtol=1e-14, atol=0)
        torch.testing.assert_close(batch.stationary[row], x.sum(1) / x.sum(), rtol=1e-14, atol=0)
    torch.testing.assert_close(samples.stationary.flatten(0, 1), batch.stationary, rtol=1e-13, atol=0)


def test_chunks_do_not_matter(samples, monkeypatch):
    whole = samples.evaluate(lambda p: p.transition[:, 0], "")
    monkeypatch.setattr(reversible_samples, "_MEMORY", 48)
    assert torch.equal(samples.evaluate(lambda p: p.transition[:, 0], "").values, whole.values)
    assert whole.values.shape == (2, 8, 4)


def test_eigenvalues_are_those_of_the_matrices(samples):
    values = torch.linalg.eigvals(samples.transitions().transition).real
    order = values.abs().argsort(dim=-1, descending=True)[:, 1:3]
    got = samples.eigenvalues(2).values.flatten(0, 1)
    torch.testing.assert_close(got, values.gather(1, order), rtol=1e-9, atol=1e-10)


def test_agreement_sees_chains_apart(samples):
    flows = samples.flows.clone()
    flows[1, :, 1:3] *= 0.01
    apart = ReversibleSamples(4, samples.pairs, flows, 1.0).agreement(1)
    assert float(apart.r_hat[0]) > 1.3
    assert float(apart.effective_sample_size[0]) < 8


def test_too_many_eigenvalues(samples):
    with pytest.raises(DataError, match="count"):
        samples.eigenvalues(4)
