"""Regions of vectors: they turn with the frame, cover in exact bands, and are smaller than boxes."""

import math

import pytest
import torch

from bayesmol.calibration import coverage_band
from bayesmol.calibration.vectors import ConformalRegion, Region
from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Gaussian
from bayesmol.testing import assert_calibrated

SHAPES = ["ball", "ellipsoid"]


def rotation(source):
    matrix, _ = torch.linalg.qr(torch.randn(3, 3, generator=source, dtype=torch.float64))
    return matrix * torch.linalg.det(matrix).sign()


def correlated(atoms, source, spread=1.0):
    """Residuals with a covariance of their own for each atom, and that covariance."""
    shear = torch.eye(3, dtype=torch.float64) + spread * torch.randn(atoms, 3, 3, generator=source, dtype=torch.float64)
    residual = (shear @ torch.randn(atoms, 3, 1, generator=source, dtype=torch.float64)).squeeze(2)
    return residual, shear @ shear.mT


def posterior_of(mean, covariance, *, tiles=None):
    """Gaussian forces whose covariance is full, or in tiles of so many atoms; between atoms a little correlated."""
    blocks, start = [], 0
    for atoms in [len(mean)] if tiles is None else tiles:
        block = torch.block_diag(*covariance[start : start + atoms])
        if atoms > 1:
            block[:3, -3:] += 0.01
            block[-3:, :3] += 0.01
        blocks.append(block)
        start += atoms
    variance = covariance.diagonal(dim1=1, dim2=2).contiguous()
    return Gaussian(mean, variance, unit="eV/Å", covariance=blocks[0] if tiles is None else tuple(blocks))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("simultaneous", [False, True])
def test_regions_turn_with_the_frame(shape, simultaneous, source, normal):
    residual, covariance = correlated(40, source)
    mean, groups = normal(40, 3), torch.arange(20).repeat_interleave(2)
    spec, turn = ConformalRegion(shape, simultaneous), rotation(source)
    here, there = posterior_of(mean, covariance), posterior_of(mean @ turn.mT, turn @ covariance @ turn.mT)
    rule = spec.fit(here, mean + residual, groups=groups)
    turned = spec.fit(there, (mean + residual) @ turn.mT, groups=groups)
    region, image = rule.region(here, 0.8), turned.region(there, 0.8)
    torch.testing.assert_close(image.centre, region.centre @ turn.mT)
    torch.testing.assert_close(image.volume, region.volume)
    for scale in (0.5, 1.0, 1.5):
        probe = mean + scale * residual.flip(0)
        assert torch.equal(region.contains(probe), image.contains(probe @ turn.mT))
    # unlike boxes
    box = residual.abs().amax(1).sort().values
    assert not torch.allclose(box, (residual @ turn.mT).abs().amax(1).sort().values)


def test_definitions(source, normal):
    residual, covariance = correlated(30, source)
    mean = normal(30, 3)
    posterior, truth = posterior_of(mean, covariance), mean + residual
    scale = (covariance.diagonal(dim1=1, dim2=2).sum(1) / 3).sqrt()
    ball = ConformalRegion("ball").fit(posterior, truth)
    torch.testing.assert_close(ball.sample.scores, (residual.norm(dim=1) / scale).sort().values)
    ellipsoid = ConformalRegion("ellipsoid").fit(posterior, truth)
    squares = torch.einsum("ni,nij,nj->n", residual, torch.linalg.inv(covariance), residual)
    torch.testing.assert_close(ellipsoid.sample.scores, squares.sqrt().sort().values)
    region = ball.region(posterior, 0.8)
    radius = (residual.norm(dim=1) / scale).sort().values[24] * scale  # ⌈31 · 0.8⌉ = 25
    torch.testing.assert_close(region.volume, 4 / 3 * math.pi * radius**3)
    region = ellipsoid.region(posterior, 0.8)
    factor = squares.sqrt().sort().values[24]
    torch.testing.assert_close(region.volume, 4 / 3 * math.pi * factor**3 * torch.linalg.det(covariance).sqrt())
    assert int(region.contains(truth).sum()) == 25


def test_covariances_full_or_in_tiles(source, normal):
    residual, covariance = correlated(9, source)
    full, tiles = (posterior_of(residual * 0, covariance, tiles=t) for t in (None, [2, 4, 3]))
    one, other = (ConformalRegion("ellipsoid").fit(p, residual).region(p, 0.5) for p in (full, tiles))
    torch.testing.assert_close(one.root, other.root)
    torch.testing.assert_close(one.root @ one.root.mT, covariance)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("simultaneous", [False, True])
def test_coverage_lies_in_the_exact_band(shape, simultaneous, source):
    """One atom, or all three of a structure; covariances that are wrong by a factor that differs between atoms."""
    atoms, missed = 3 if simultaneous else 1, 0
    low, high = coverage_band(29, 40, 0.8, confidence=0.99)

    def forces(structures):
        residual, covariance = correlated(structures * atoms, source)
        wrong = covariance * torch.rand(structures * atoms, 1, 1, generator=source, dtype=torch.float64)
        return posterior_of(torch.zeros_like(residual), wrong), residual

    groups = torch.arange(29).repeat_interleave(atoms)
    for _ in range(100):
        (known, truth), (ahead, new) = forces(29), forces(40)
        rule = ConformalRegion(shape, simultaneous).fit(known, truth, groups=groups)
        inside = rule.region(ahead, 0.8).contains(new).reshape(40, atoms).all(1)
        missed += not low <= float(inside.double().mean()) <= high
    # 100 bands of 99 %: more than 5 misses happen once in two thousand sets
    assert missed <= 5


@pytest.mark.parametrize(("correlation", "largest"), [(0.0, 1.05), (0.6, 0.75), (0.9, 0.35)])
def test_volumes_for_correlated_residuals(correlation, largest, source):
    """Residuals along an axis of each atom, which points anywhere: a ball is smaller than a box, an ellipsoid more."""
    shared = torch.full((3, 3), correlation, dtype=torch.float64) + (1 - correlation) * torch.eye(3).double()
    frames, _ = torch.linalg.qr(torch.randn(1500, 3, 3, generator=source, dtype=torch.float64))
    root = frames @ torch.linalg.cholesky(shared)
    residual = (root @ torch.randn(1500, 3, 1, generator=source, dtype=torch.float64)).squeeze(2)
    posterior = posterior_of(torch.zeros_like(residual), root @ root.mT, tiles=[100] * 15)
    ball, ellipsoid = (
        ConformalRegion(shape).fit(posterior, residual).region(posterior, 0.9).volume.mean() for shape in SHAPES
    )
    box = (2 * residual.abs().amax(1).sort().values[math.ceil(0.9 * 1501) - 1]) ** 3
    assert float(ball) < 0.95 * float(box)
    assert float(ellipsoid) < largest * float(ball)


def molecules(count, source, atoms=30):
    """Forces of molecules whose errors have a size of their own."""
    size = (0.5 * torch.randn(count, 1, 1, generator=source, dtype=torch.float64)).exp()
    residual = size * torch.randn(count, atoms, 3, generator=source, dtype=torch.float64)
    return residual.flatten(0, 1), torch.arange(count).repeat_interleave(atoms)


def test_all_atoms_are_covered_only_when_asked(source):
    hits = {"pooled": 0, "together": 0}
    for _ in range(200):
        truth, groups = molecules(40, source)
        new, _ = molecules(1, source)
        known, ahead = (Gaussian(x * 0, torch.ones_like(x), unit="eV/Å") for x in (truth, new))
        rules = {
            "pooled": ConformalRegion().fit(known, truth),
            "together": ConformalRegion(simultaneous=True).fit(known, truth, groups=groups),
        }
        for name, rule in rules.items():
            hits[name] += bool(rule.region(ahead, 0.9).contains(new).all())
    assert_calibrated(hits["together"], 200, 37 / 41)  # ⌈41 · 0.9⌉ of 41
    assert hits["pooled"] < 0.7 * 200


def test_a_random_atom_of_a_new_structure_is_covered(source):
    hits = 0
    for _ in range(400):
        truth, groups = molecules(20, source, atoms=4)
        new, _ = molecules(1, source, atoms=4)
        known, ahead = (Gaussian(x * 0, torch.ones_like(x), unit="eV/Å") for x in (truth, new))
        rule = ConformalRegion().fit(known, truth, groups=groups)
        hits += bool(rule.region(ahead, 0.8).contains(new)[0])
    error = (0.16 / 400) ** 0.5
    # between level and level + 2/(G + 1)
    assert 0.8 - 3 * error <= hits / 400 <= 0.8 + 2 / 21 + 3 * error


def test_guarantees(source):
    truth, groups = molecules(8, source, atoms=2)
    posterior = Gaussian(truth * 0, torch.ones_like(truth), unit="eV/Å")
    for simultaneous, words in ((False, "vector of a random atom"), (True, "all vectors of a new structure together")):
        rule = ConformalRegion(simultaneous=simultaneous).fit(posterior, truth, groups=groups)
        assert words in rule.guarantee(0.8) and "n = 8" in rule.guarantee(0.8) and "≥ 0.8" in rule.guarantee(0.8)
        region = rule.region(posterior, 0.9)
        assert bool(region.volume.isinf().all()) and "needs n ≥ 9, got 8" in region.guarantee
        assert bool(region.contains(truth + 1e9).all()) and region.covered(truth) == 1.0
    left_out = ConformalRegion(source="leave-one-out").fit(posterior, truth, groups=groups)
    assert "no distribution-free bound" in left_out.guarantee(0.8)
    assert "16 balls at 80 % in eV/Å" in str(left_out.region(posterior, 0.8))


def test_labelled_structures_bring_their_groups(normal):
    structures = Structures(
        normal(20, 3),
        torch.ones(20, dtype=torch.long),
        torch.arange(0, 21, 2),
        torch.zeros(10, 3, 3).double(),
        torch.zeros(10, 3, dtype=torch.bool),
    )
    labelled = Labelled(structures, forces=normal(20, 3))
    posterior = Gaussian(normal(20, 3), torch.ones(20, 3).double(), unit="eV/Å")
    rule = ConformalRegion(simultaneous=True).fit(posterior, labelled)
    assert rule.sample.count == 10


def test_bad_input(source, normal):
    residual, covariance = correlated(6, source)
    bare = Gaussian(residual * 0, torch.ones_like(residual), unit="eV/Å")
    with pytest.raises(DataError, match="shape"):
        ConformalRegion("box")
    with pytest.raises(DataError, match="source"):
        ConformalRegion(source="test")
    with pytest.raises(DataError, match="covariance=True"):
        ConformalRegion("ellipsoid").fit(bare, residual)
    with pytest.raises(ShapeError, match=r"\(atoms, 3\)"):
        ConformalRegion().fit(Gaussian(normal(6), torch.ones(6).double(), unit="eV"), normal(6))
    for shape in SHAPES:
        singular = posterior_of(residual, covariance * 0, tiles=[1] * 6)
        with pytest.raises(DataError, match="positive variance"):
            ConformalRegion(shape).fit(singular, residual)
    region = ConformalRegion().fit(bare, residual).region(bare, 0.5)
    assert isinstance(region, Region)
    with pytest.raises(ShapeError, match="value"):
        region.contains(residual[:2])
    with pytest.raises(DataError, match="NaN"):
        region.contains(residual * math.nan)
    with pytest.raises(DataError, match="level"):
        ConformalRegion().fit(bare, residual).region(bare, 1.0)
