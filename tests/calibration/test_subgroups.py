"""A planted region is found, what it promises holds on held-out structures, and it reads as a sentence."""

import math

import pytest
import torch

from bayesmol.calibration.subgroups import Subgroup, SubgroupSearch
from bayesmol.errors import DataError, ShapeError

SIDE = 0.2**0.5


def planted(normal, source, rows, dimensions=5):
    """Descriptors in a cube, and errors five times as low in a box of a fifth of its volume."""
    values = torch.rand(rows, dimensions, generator=source, dtype=torch.float64)
    inside = ((values[:, :2] > 0.3) & (values[:, :2] <= 0.3 + SIDE)).all(1)
    errors = normal(rows).abs() * torch.where(inside, 0.2, 1.0)
    return {f"x{k}": values[:, k] for k in range(dimensions)}, errors, inside


def jaccard(one, other):
    return float((one & other).sum() / (one | other).sum())


def recovered(normal, source, repetitions, rows):
    """Jaccard index, and held-out error reduction over that where the region was found, of each repetition."""
    found = []
    for seed in range(repetitions):
        descriptors, errors, inside = planted(normal, source, rows)
        result = SubgroupSearch().fit(descriptors, errors, seed=seed)
        ratio = (1 - float(result.relative_error.value)) / (1 - result.training_relative_error)
        found.append((jaccard(result.subgroup.contains(descriptors), inside), ratio))
    return torch.tensor(found, dtype=torch.float64)


def test_planted_box_is_recovered(normal, source):
    found = recovered(normal, source, 10, 1500)
    assert int((found[:, 0] >= 0.8).sum()) >= 9
    assert bool(((found[:, 1] - 1).abs() < 0.15).all())


@pytest.mark.slow
def test_planted_box_is_recovered_in_many_runs(normal, source):
    for rows in (1000, 2000):
        found = recovered(normal, source, 100, rows)
        hits, close = int((found[:, 0] >= 0.8).sum()), int(((found[:, 1] - 1).abs() < 0.15).sum())
        print(
            f"{rows} rows: Jaccard ≥ 0.8 in {hits}, reduction within 15 % in {close} of 100, {found.mean(0).tolist()}"
        )
        assert hits >= 90 and abs(float(found[:, 1].mean()) - 1) < 0.15


def test_what_is_reported(normal, source):
    descriptors, errors, inside = planted(normal, source, 3000)
    result = SubgroupSearch().fit(descriptors, errors, units={"x0": "Å"}, seed=0)
    assert set(result.subgroup.bounds) == {"x0", "x1"} and result.subgroup.conditions == 4
    assert 0.15 < float(result.coverage.value) < 0.25
    ratio = float(errors[inside].mean() / errors.mean())
    assert float(result.relative_error.value) == pytest.approx(ratio, abs=0.05)
    low, high = float(result.reduction.lower), float(result.reduction.upper)
    assert low < 1 - float(result.relative_error.value) < high and high - low < 0.2
    assert "held-out" in result.reduction.guarantee and result.coverage.effective_sample_size == 1500
    text = str(result)
    assert text.startswith("0.3 < x0 ≤ 0.7") and " Å and " in text and "% of held-out rows, error 0.2" in text
    assert [region.conditions for region in result.simpler] == [1, 2, 3]
    again = SubgroupSearch().fit(descriptors, errors, units={"x0": "Å"}, seed=0)
    assert str(again) == text


def test_interval_covers_no_reduction_where_there_is_none(normal, source):
    covered = 0
    for seed in range(20):
        descriptors, _, _ = planted(normal, source, 200, dimensions=2)
        result = SubgroupSearch(conditions=2, width=3).fit(descriptors, normal(200).abs(), seed=seed)
        covered += float(result.reduction.lower) <= 0 <= float(result.reduction.upper)
        assert result.training_relative_error < 1
    assert covered >= 15


def test_structures_stay_together(normal, source):
    descriptors, errors, _ = planted(normal, source, 600)
    owner = torch.arange(600) // 10
    result = SubgroupSearch().fit(descriptors, errors, groups=owner, seed=0)
    assert float(result.coverage.effective_sample_size) == 30
    repeated = {name: values.repeat_interleave(10) for name, values in descriptors.items()}
    one, many = (
        SubgroupSearch(width=3).fit(*data, seed=0)
        for data in ((descriptors, errors), (repeated, errors.repeat_interleave(10)))
    )
    grouped = SubgroupSearch(width=3).fit(
        repeated, errors.repeat_interleave(10), groups=torch.arange(600).repeat_interleave(10), seed=0
    )
    assert float(grouped.relative_error.standard_error) == pytest.approx(
        float(one.relative_error.standard_error), rel=0.3
    )
    assert float(many.relative_error.standard_error) < 0.5 * float(grouped.relative_error.standard_error)


def test_subgroup_reads_as_a_sentence():
    bounds = {"energy": (-math.inf, 0.3), "C–O distance": (1.2, math.inf), "angle": (10.0, 20.5)}
    subgroup = Subgroup(bounds, {"energy": "eV", "C–O distance": "Å"})
    assert str(subgroup) == "energy ≤ 0.3 eV and C–O distance > 1.2 Å and 10 < angle ≤ 20.5"
    assert subgroup.conditions == 4 and str(Subgroup({})) == "all"
    values = torch.tensor([0.0, 0.3, 0.31], dtype=torch.float64)
    assert Subgroup({"energy": (-math.inf, 0.3)}).contains({"energy": values}).tolist() == [True, True, False]
    with pytest.raises(DataError, match="angle"):
        subgroup.contains({"energy": values, "C–O distance": values})


def test_bad_input(normal):
    errors, values = normal(40).abs(), normal(40)
    with pytest.raises(ShapeError, match="errors"):
        SubgroupSearch().fit({"x": values[:30]}, errors, seed=0)
    with pytest.raises(ShapeError, match="errors"):
        SubgroupSearch().fit({}, errors, seed=0)
    with pytest.raises(DataError, match="finite"):
        SubgroupSearch().fit({"x": values / 0}, errors, seed=0)
    with pytest.raises(DataError, match="≥ 0"):
        SubgroupSearch().fit({"x": values}, -errors, seed=0)
    with pytest.raises(DataError, match="at least 20 structures"):
        SubgroupSearch().fit({"x": values}, errors, groups=torch.arange(40) // 4, seed=0)
    with pytest.raises(ShapeError, match="groups"):
        SubgroupSearch().fit({"x": values}, errors, groups=torch.arange(4), seed=0)
    with pytest.raises(DataError, match="conditions"):
        SubgroupSearch(conditions=0)
    with pytest.raises(DataError, match="share"):
        SubgroupSearch(share=0.0)
