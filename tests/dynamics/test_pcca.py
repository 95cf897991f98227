"""PCCA+: block chains, memberships, crispness against deeptime's optimiser, draws that keep their names."""

import pytest
import torch

from bayesmol.dynamics.elimination import stationary_distribution
from bayesmol.dynamics.pcca import pcca
from bayesmol.errors import DataError, ShapeError


def chain(*shape, seed=0):
    """Random stochastic matrices of the leading shape; irreversible."""
    raw = torch.rand(*shape, shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3
    return raw / raw.sum(-1, keepdim=True)


BLOCKS = [[0, 1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11]]


def metastable(*draws, hop=0.01, seed=0, reversible=True):
    """Chains of twelve states with three blocks that are left with a probability of ``hop``."""
    fast = chain(*draws, 12, seed=seed) if draws else chain(12, seed=seed)
    mask = torch.zeros(12, 12, dtype=torch.float64)
    for block in BLOCKS:
        mask[torch.tensor(block)[:, None], torch.tensor(block)] = 1.0
    inside = (fast + 0.05) * mask
    P = (1 - hop) * inside / inside.sum(-1, keepdim=True) + hop * fast
    if not reversible:
        return P
    pi = stationary_distribution(P)
    return (P + P.mT * pi[..., None, :] / pi[..., :, None]) / 2


def test_blocks_are_found():
    P = metastable()
    found = pcca(P, 3)
    chi = found.memberships
    assert chi.shape == (12, 3) and bool((chi >= 0).all())
    torch.testing.assert_close(chi.sum(1), torch.ones(12, dtype=torch.float64), rtol=1e-12, atol=0)
    assert sorted(found.sets()) == sorted(BLOCKS)
    assert bool((found.populations.diff() <= 0).all()), "by falling population"
    assert float(found.populations.sum()) == pytest.approx(1.0) and 0.9 < float(found.crispness) <= 1.0
    assert bool((found.assignment.probability > 0.8).all()) and bool((found.assignment.agreement == 1).all())


def test_memberships_span_the_slow_subspace():
    """P χ is again a combination of the memberships."""
    for reversible in (True, False):
        P = metastable(reversible=reversible, hop=0.1)
        chi = pcca(P, 3).memberships
        image = P @ chi
        fitted = chi @ torch.linalg.lstsq(chi, image).solution
        torch.testing.assert_close(fitted, image, rtol=0, atol=1e-8)


def test_two_macrostates_in_closed_form():
    """With one slow function the memberships run linearly from its least to its largest value."""
    P = metastable(hop=0.05)
    pi = stationary_distribution(P)
    root = pi.sqrt()
    slow = torch.linalg.eigh(root[:, None] * P / root).eigenvectors[:, -2] / root
    linear = (slow - slow.min()) / (slow.max() - slow.min())
    chi = pcca(P, 2).memberships
    error = min(float((chi[:, k] - linear).abs().max()) for k in (0, 1))
    assert error < 1e-9


@pytest.mark.parametrize("hop", [0.01, 0.1, 0.4])
def test_crisper_than_deeptime(hop):
    """The same functional, maximised: never less crisp than the downhill simplex."""
    deeptime = pytest.importorskip("deeptime")
    P = metastable(hop=hop)
    pi = stationary_distribution(P)
    theirs = torch.as_tensor(deeptime.markov.pcca(P.numpy(), 3).memberships)
    crispness = float(((pi @ theirs.square()) / (pi @ theirs)).mean())
    ours = pcca(P, 3)
    assert float(ours.crispness) >= crispness - 1e-7
    if hop < 0.05:
        overlap = ours.memberships.T @ theirs
        torch.testing.assert_close(ours.memberships, theirs[:, overlap.argmax(1)], rtol=0, atol=0.02)


def test_draws_keep_the_names_of_the_estimate(normal):
    P = metastable()
    reference = pcca(P, 3).memberships
    noise = torch.stack([metastable(hop=0.01 + 0.002 * k, seed=k) for k in range(6)])
    order = [2, 0, 1]
    for names in (reference, reference[:, order]):
        found = pcca(noise, 3, reference=names)
        assert found.memberships.shape == (6, 12, 3) and found.crispness.shape == (6,)
        assert bool((found.memberships.argmax(-1) == names.argmax(-1)).all())
        assert bool((found.assignment.agreement == 1).all())
    torch.testing.assert_close(pcca(P[None], 3, reference=reference).memberships[0], reference, rtol=0, atol=1e-8)


def test_disagreement_of_draws_is_told():
    """A state that hops between blocks from draw to draw is assigned with a probability near one half."""
    P = metastable()
    other = P.clone()
    swap = list(range(12))
    swap[4], swap[5] = 5, 4
    draws = torch.stack([P, other[swap][:, swap]])
    found = pcca(draws, 3, reference=pcca(P, 3).memberships).assignment
    assert bool((found.agreement[[4, 5]] == 0.5).all()) and bool((found.probability[[4, 5]] < 0.7).all())
    assert bool((found.agreement[[0, 1, 2, 3, 6, 7]] == 1).all())


def test_as_many_macrostates_as_states():
    P = metastable()[:3, :3]
    P = P / P.sum(1, keepdim=True)
    pi = stationary_distribution(P)
    found = pcca((P + P.T * pi / pi[:, None]) / 2, 3)
    torch.testing.assert_close(found.crispness, torch.ones((), dtype=torch.float64), rtol=1e-8, atol=0)


def test_bad_input():
    P = metastable()
    for count in (1, 13, True):
        with pytest.raises(DataError, match="macrostates"):
            pcca(P, count)
    with pytest.raises(ShapeError, match="reference"):
        pcca(P, 3, reference=torch.ones(12, 2))
    with pytest.raises(DataError, match="irreducible"):
        pcca(torch.eye(4, dtype=torch.float64), 2)
    cycle = 0.9 * torch.eye(3, dtype=torch.float64).roll(1, 1) + 0.1 / 3
    with pytest.raises(DataError, match="complex"):
        pcca(cycle, 2)
