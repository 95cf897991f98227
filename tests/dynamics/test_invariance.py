"""Exchange of equivalent atoms: invariant features do not move, raw ones fall into copies (requirement S08)."""

import math

import pytest
import torch

from bayesmol.dynamics.invariance import (
    exchanged,
    invariance,
    procrustes_change,
    sorted_distances,
    spurious_clusters,
    symmetrised_torsions,
)
from bayesmol.errors import DataError, ShapeError

METHYL = [[2, 3, 4]]


@pytest.fixture
def methyl(normal):
    """A methyl group that keeps its staggered place beside a rigid frame: atoms C, C, H, H, H, O; 300 frames."""
    angles = torch.tensor([0.0, 2 * math.pi / 3, 4 * math.pi / 3], dtype=torch.float64) + 0.3
    hydrogens = torch.stack([1.03 * angles.cos(), 1.03 * angles.sin(), torch.full((3,), -0.36).double()], 1)
    others = torch.tensor([[0, 0, 0], [0, 0, 1.53], [1.3, 0.2, 2.0]], dtype=torch.float64)
    mean = torch.cat([others[:2], hydrogens, others[2:]])
    return mean + 0.03 * normal(300, 6, 3)


def principal(x):
    """Two principal components."""
    centred = x - x.mean(0)
    return centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:2].T


def test_invariant_embedding_does_not_move(methyl):
    found = invariance(lambda x: sorted_distances(x, METHYL), principal, methyl, METHYL, clusters=6, seed=0)
    assert found.change < 1e-8 and found.spurious == 0 and found.stability == 1.0


def test_raw_embedding_falls_into_copies(methyl):
    """All frames are one conformation, yet the raw features have well separated clusters of permuted names."""
    from sklearn.metrics import silhouette_score

    other = exchanged(methyl, METHYL, seed=1)
    found = invariance(sorted_distances, principal, other, METHYL, clusters=6, seed=0)
    assert found.change > 0.1 and found.spurious >= 2 and found.stability < 0.5
    embedded = principal(sorted_distances(other))
    from bayesmol.dynamics.clustering import KMeans

    labels = KMeans(6).fit(embedded, seed=0).assign(embedded)
    assert silhouette_score(embedded.numpy(), labels.numpy()) > 0.6, "the copies are real clusters"
    plain = principal(sorted_distances(other, METHYL))
    labels = KMeans(6).fit(plain, seed=0).assign(plain)
    assert silhouette_score(plain.numpy(), labels.numpy()) < 0.5, "and gone in the invariant features"


def test_torsions_of_a_methyl_group(normal):
    angles = torch.cat([normal(200, 1), 0.1 * normal(200, 3) + torch.tensor([0.0, 2.1, 4.2]).double()], 1)
    mixed = angles.clone()
    order = torch.rand(200, 3, generator=torch.Generator().manual_seed(3)).argsort(1) + 1
    mixed[:, 1:] = angles.gather(1, order)
    one, two = symmetrised_torsions(angles, [[1, 2, 3]]), symmetrised_torsions(mixed, [[1, 2, 3]])
    assert one.shape == (200, 8)
    torch.testing.assert_close(one, two, rtol=0, atol=1e-13)
    assert procrustes_change(principal(one), principal(two)) < 1e-8
    assert procrustes_change(symmetrised_torsions(angles), symmetrised_torsions(mixed)) > 0.1
    torch.testing.assert_close(
        symmetrised_torsions(angles[:, :1]), torch.cat([angles[:, :1].cos(), angles[:, :1].sin()], 1)
    )


def test_power_sums_tell_different_angles_apart():
    """The sums of the first multiple alone agree here (both vanish); those of all multiples do not."""
    third = 2 * math.pi / 3
    angles = torch.tensor([[0.0, third, 2 * third], [0.5, 0.5 + third, 0.5 + 2 * third]], dtype=torch.float64)
    features = symmetrised_torsions(angles, [[0, 1, 2]])
    torch.testing.assert_close(features[0, [0, 3]], features[1, [0, 3]], rtol=0, atol=1e-14)
    assert float((features[0] - features[1]).abs().max()) > 1


def test_sorted_distances_by_hand():
    x = torch.tensor([[[0.0, 0, 0], [3.0, 0, 0], [1.0, 0, 0]]], dtype=torch.float64)
    assert sorted_distances(x).tolist() == [[3.0, 1.0, 2.0]]
    assert sorted_distances(x, [[1, 2]]).tolist() == [[1.0, 3.0, 2.0]]


def test_two_groups_of_atoms(normal):
    x, sets = normal(20, 7, 3), [[0, 1, 2], [3, 4]]
    y = exchanged(x, sets, seed=0)
    assert not torch.equal(x, y) and torch.equal(x[:, 5:], y[:, 5:])
    torch.testing.assert_close(sorted_distances(x, sets), sorted_distances(y, sets), rtol=0, atol=1e-14)
    assert torch.equal(exchanged(x, sets, seed=0), y), "same seed, same frames"


def test_procrustes_does_not_feel_rotation_and_shift(normal):
    y = normal(30, 3)
    turned = y @ torch.linalg.qr(normal(3, 3)).Q + 5.0
    assert procrustes_change(y, turned) < 1e-14
    assert procrustes_change(y, 2 * turned) == pytest.approx(1.0)


def test_spurious_clusters_by_hand():
    before, after = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([1, 0, 0, 1, 2, 2])
    assert spurious_clusters(before, after) == 1  # 0 and 1 are copies, 2 is itself
    assert spurious_clusters(before, before) == 0


def test_bad_input(normal):
    x = normal(4, 3, 3)
    for sets in ([[0]], [[0, 1], [1, 2]], [[0, 0]], [[0, 3]]):
        with pytest.raises(DataError, match="equivalent"):
            sorted_distances(x, sets)
    with pytest.raises(ShapeError):
        sorted_distances(normal(4, 9))
    with pytest.raises(DataError, match="finite"):
        exchanged(x * float("nan"), [[0, 1]], seed=0)
    with pytest.raises(ShapeError):
        procrustes_change(normal(4, 2), normal(4, 3))
    with pytest.raises(DataError, match="one point"):
        procrustes_change(torch.ones(3, 2).double(), normal(3, 2))
    with pytest.raises(ShapeError):
        spurious_clusters(torch.tensor([0, 1]), torch.tensor([0]))
    with pytest.raises(ShapeError):
        symmetrised_torsions(normal(3))
