"""Skill of fields on left-out structures: found where it is, absent where it is not, with exact p-values."""

import pytest
import torch

from bayesmol.calibration.conditional import Skill, _p_value, _shuffles, conditional_calibration, locality
from bayesmol.calibration.locality import ErrorField
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Gaussian
from bayesmol.report import proportion

FIELD = ErrorField(trees=40)


def toy(normal, source, rows):
    features = 2 * torch.rand(rows, 3, generator=source, dtype=torch.float64) - 1
    deviation = 0.2 + 2 * features[:, 0].square()
    return features, deviation, deviation * normal(rows)


def test_locality_is_found_and_its_gain_is_right(normal, source):
    features, deviation, labels = toy(normal, source, 1500)
    found = locality(features, labels.abs(), field=ErrorField(trees=80), seed=0, permutations=99)
    mean = (2 / torch.pi) ** 0.5 * deviation
    constant = labels.abs().mean()
    oracle = ((constant / mean).log() + labels.abs() * (1 / constant - 1 / mean)).mean()
    assert found.p_value == 0.01
    assert 0.8 * float(oracle) < float(found.gain.value) < float(oracle) + 2 * float(found.gain.standard_error)
    ceiling = 1 - (labels.abs() - mean).square().mean() / labels.abs().var()
    assert 0.8 * float(ceiling) < float(found.r2.value) < float(ceiling) + 0.02
    assert float(found.gain.standard_error) > 0 and found.gain.unit == "nat" and "p = 0.01" in str(found)


def test_no_locality_no_skill(normal, source):
    features, _, _ = toy(normal, source, 400)
    found = locality(features, normal(400).abs(), field=FIELD, seed=0, permutations=99)
    assert found.p_value > 0.05 and float(found.gain.value) < 0.01


def test_a_true_uncertainty_passes_and_a_constant_one_fails(normal, source):
    features, deviation, labels = toy(normal, source, 800)
    zero = torch.zeros_like(labels)
    true = conditional_calibration(Gaussian(zero, deviation.square(), unit="eV"), labels, features, field=FIELD, seed=0)
    level = labels.square().mean().expand(800).clone()
    constant = conditional_calibration(Gaussian(zero, level, unit="eV"), labels, features, field=FIELD, seed=0)
    assert true.p_value > 0.05 > 0.01 >= constant.p_value
    ideal = (0.5 * (level / deviation.square()).log()).mean()
    assert 0.75 * float(ideal) < float(constant.gain.value) < 1.1 * float(ideal)


def test_components_and_structures(normal, source):
    features, deviation, _ = toy(normal, source, 300)
    labels = deviation[:, None] * normal(300, 3)
    posterior = Gaussian(torch.zeros_like(labels), deviation.square()[:, None].expand(300, 3), unit="eV/Å")
    found = conditional_calibration(
        posterior, labels, features, groups=torch.arange(300) // 5, field=FIELD, permutations=99, seed=0
    )
    assert isinstance(found, Skill) and found.p_value > 0.01 and float(found.r2.effective_sample_size) == 60


def clustered(normal, rows=240, size=12):
    """Errors with a scale and features of their structure, independent of each other."""
    owner = torch.arange(rows) // size
    features = normal(rows // size, 2)[owner] + 0.3 * normal(rows, 2)
    return features, ((0.7 * normal(rows // size)).exp()[owner] * normal(rows)).abs(), owner


def test_p_values_are_exact_where_rows_as_units_deceive(normal):
    spec, alarms = ErrorField(trees=8), {"structures": 0, "rows": 0}
    for seed in range(60):
        features, errors, owner = clustered(normal)
        for name, units in {"structures": owner, "rows": torch.arange(240)}.items():
            source = torch.Generator().manual_seed(seed)
            alarms[name] += _p_value(spec, features, errors, units, 19, source) <= 0.1
    # 10 % of 60: at most 13 in 99.8 % of all studies
    assert alarms["structures"] <= 13 and alarms["rows"] > 15


@pytest.mark.slow
def test_false_alarm_rate(normal):
    spec, hits = ErrorField(trees=8), 0
    for seed in range(1000):
        features, errors, owner = clustered(normal)
        hits += _p_value(spec, features, errors, owner, 99, torch.Generator().manual_seed(seed)) <= 0.05
    rate = proportion(hits, 1000)
    print("false alarms at 5 %:", rate)
    assert abs(float(rate.value) - 0.05) < 3 * 0.0069


def test_shuffles_keep_structures_together(source):
    owner = torch.tensor([0, 0, 1, 2, 2, 3, 4, 4, 4])
    sizes = owner.bincount()
    seen = set()
    for shuffle in _shuffles(owner, sizes, 200, source):
        assert sorted(shuffle.tolist()) == list(range(9))
        from_ = owner[shuffle]
        assert all(len(set(from_[owner == k].tolist())) == 1 for k in range(5))
        assert torch.equal(sizes[from_], sizes[owner])
        seen.add(tuple(shuffle.tolist()))
    # (2 structures of 2 rows) 2!·2!·2! × (2 of 1 row) 2! × (1 of 3 rows) 3! = 96 permutations
    assert 70 < len(seen) <= 96


def test_bad_input(normal, source):
    features, _, labels = toy(normal, source, 100)
    with pytest.raises(DataError, match="at least 20 structures"):
        locality(features, labels.abs(), groups=torch.arange(100) // 10, seed=0)
    with pytest.raises(ShapeError, match="shapes"):
        locality(features[:50], labels.abs(), seed=0)
    zero = Gaussian(torch.zeros_like(labels), torch.zeros_like(labels), unit="eV")
    with pytest.raises(DataError, match="positive variances"):
        conditional_calibration(zero, labels, features, seed=0)
