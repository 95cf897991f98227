"""The error field against brute force and known scales; its standard errors against repetitions."""

import numpy as np
import pytest
import torch

from bayesmol.calibration.locality import ErrorField
from bayesmol.errors import DataError, ShapeError

MEAN = (2 / torch.pi) ** 0.5  # of the absolute value of a standard normal number
FIELD = ErrorField(trees=40)


def scale(features):
    return 0.2 + 2 * features[:, 0].square()


def toy(normal, source, rows):
    """Features in a cube, and absolute errors whose scale depends on the first of them."""
    features = 2 * torch.rand(rows, 3, generator=source, dtype=torch.float64) - 1
    return features, (scale(features) * normal(rows)).abs()


def test_mean_and_quantiles_are_those_of_the_leaves(normal, source):
    features, errors = toy(normal, source, 60)
    field = ErrorField(trees=8, leaf=3).fit(features, errors, seed=0)
    new = features[:5] + 0.01
    mean, median = field.mean(new), field.quantile(new, 0.5)
    for row in range(5):
        weights, means = np.zeros(60), []
        for tree, members in zip(field.trees, field.members, strict=True):
            inside = tree.apply(field.features[members]) == tree.apply(new[row : row + 1].numpy())[0]
            weights[members[inside]] += 1 / inside.sum() / 8
            means.append(field.residuals.numpy()[members[inside]].mean())
        assert float(mean.value[row]) == pytest.approx(weights @ field.residuals.numpy())
        reached = np.flatnonzero(weights.cumsum() >= 0.5 - 1e-9)[0]
        assert float(median[row]) == float(field.residuals[reached])
        bags = np.array(means).reshape(2, 4)
        spread = bags.mean(1).var(ddof=1)
        variance = max(spread - bags.var(1, ddof=1).mean() / 4, spread / 10)
        assert float(mean.standard_error[row]) == pytest.approx(variance**0.5)


def test_field_finds_the_scale(normal, source):
    field = ErrorField().fit(*toy(normal, source, 2000), seed=0)
    new, errors = toy(normal, source, 3000)
    mean = field.mean(new)
    ratio = mean.value / (MEAN * scale(new))
    assert 0.9 < float(ratio.mean()) < 1.1 and float(ratio.std()) < 0.25
    upper, median = field.quantile(new, 0.9), field.quantile(new, 0.5)
    assert bool((median <= upper).all())
    assert float((errors <= upper).double().mean()) == pytest.approx(0.9, abs=0.025)
    low = scale(new) < 0.5
    assert float((errors[low] <= upper[low]).double().mean()) == pytest.approx(0.9, abs=0.04)
    assert float((errors <= median).double().mean()) == pytest.approx(0.5, abs=0.04)


def test_standard_errors_cover_the_true_field(normal, source):
    new = 2 * torch.rand(200, 3, generator=source, dtype=torch.float64) - 1
    inside = []
    for seed in range(4):
        mean = ErrorField(trees=120).fit(*toy(normal, source, 600), seed=seed).mean(new)
        inside.append(((mean.value - MEAN * scale(new)).abs() <= 2 * mean.standard_error).double().mean())
        assert bool((mean.effective_sample_size > 1).all())
    # 0.954 for normal errors without bias; a leaf averages over a range of the scale
    assert float(torch.stack(inside).mean()) > 0.88


def test_rows_of_a_structure_are_no_independent_evidence(normal, source):
    features, errors = toy(normal, source, 200)
    new = features[:50]
    repeated = features.repeat_interleave(4, 0), errors.repeat_interleave(4)
    owner = torch.arange(200).repeat_interleave(4)
    honest = ErrorField(trees=80, leaf=20).fit(*repeated, groups=owner, seed=0).mean(new)
    careless = ErrorField(trees=80, leaf=20).fit(*repeated, seed=0).mean(new)
    single = ErrorField(trees=80, leaf=5).fit(features, errors, seed=0).mean(new)
    assert float(careless.standard_error.mean()) < 0.8 * float(honest.standard_error.mean())
    assert float(honest.standard_error.mean()) == pytest.approx(float(single.standard_error.mean()), rel=0.2)


def test_same_seed_same_field_and_order_does_not_matter(normal, source):
    features, errors = toy(normal, source, 100)
    groups = torch.arange(100) // 2
    field, again = (FIELD.fit(features, errors, groups=groups, seed=3) for _ in range(2))
    turned = FIELD.fit(features.flip(0), errors.flip(0), groups=groups.flip(0), seed=3)
    new, _ = toy(normal, source, 10)
    assert torch.equal(field.mean(new).value, again.mean(new).value)
    torch.testing.assert_close(field.mean(new).value, turned.mean(new).value)
    assert torch.equal(field.quantile(new, 0.9), turned.quantile(new, 0.9))


def test_bad_input(normal, source):
    features, errors = toy(normal, source, 80)
    for wrong in (errors[:-1], errors[:, None]):
        with pytest.raises(ShapeError, match="shapes"):
            FIELD.fit(features, wrong, seed=0)
    with pytest.raises(ShapeError, match="groups"):
        FIELD.fit(features, errors, groups=torch.arange(3), seed=0)
    with pytest.raises(DataError, match="at least 60 rows"):
        FIELD.fit(features[:50], errors[:50], seed=0)
    with pytest.raises(DataError, match="at least 10 structures"):
        FIELD.fit(features, errors, groups=torch.arange(80) // 20, seed=0)
    with pytest.raises(DataError, match="values ≥ 0"):
        FIELD.fit(features, -errors, seed=0)
    with pytest.raises(DataError, match="zeros"):
        FIELD.fit(features, 0 * errors, seed=0)
    with pytest.raises(DataError, match="multiple of 4"):
        ErrorField(trees=30)
    with pytest.raises(DataError, match="leaf"):
        ErrorField(leaf=0)
    field = FIELD.fit(features, errors, seed=0)
    with pytest.raises(ShapeError, match=r"\(rows, 3\)"):
        field.mean(features[:, :2])
    with pytest.raises(DataError, match="level"):
        field.quantile(features, 1.5)
