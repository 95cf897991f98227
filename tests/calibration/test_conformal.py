"""Conformal specification: what each setting covers, in exact bands; MAPIE as an oracle; bad input."""

import math

import numpy as np
import pytest
import torch
from mapie.conformity_scores import StdConformityScore
from mapie.regression import ConformalizedQuantileRegressor, SplitConformalRegressor

from bayesmol.calibration import Conformal, ConformalRule, coverage_band
from bayesmol.calibration.conformal import QuantileRule, mapie_estimator
from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Draws, Gaussian
from bayesmol.testing import assert_calibrated


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def posterior_of(mean, stddev=1.0, unit="eV"):
    return Gaussian(mean, torch.as_tensor(stddev, dtype=torch.float64).square().expand_as(mean), unit=unit)


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.float64)


def structures_of_two_kinds(count, source):
    """Residuals of dimers and of 30-atom clusters; their size is common to a structure and larger in dimers."""
    small = torch.rand(count, generator=source) < 0.5
    atoms = torch.where(small, 2, 30)
    size = torch.where(small, 3.0, 1.0) * (0.5 * torch.randn(count, generator=source)).exp()
    scale = size.double().repeat_interleave(atoms).unsqueeze(1)
    groups = torch.arange(count).repeat_interleave(atoms)
    return scale * torch.randn(int(atoms.sum()), 3, generator=source, dtype=torch.float64), groups


def columns(index=0):
    """MAPIE's view of a model that predicts a column of the features, with the next one as standard deviation."""

    def predict(features):
        mean, stddev = torch.from_numpy(features[:, index : index + 2]).T
        return Gaussian(mean, stddev.square(), unit="eV")

    return mapie_estimator(predict)


@pytest.mark.parametrize("level", [0.5, 0.57, 0.8, 0.9, 0.99])
@pytest.mark.parametrize("count", [100, 137])
def test_absolute_intervals_are_those_of_mapie(count, level):
    mean, truth = draw(count, seed=1), draw(count, seed=2)
    peer = SplitConformalRegressor(columns(), confidence_level=level, conformity_score="absolute", prefit=True)
    features = torch.stack([mean, torch.ones_like(mean)], 1).numpy()
    _, want = peer.conformalize(features, truth.numpy()).predict_interval(features[:20])
    posterior = posterior_of(mean)
    got = Conformal("absolute").fit(posterior, truth).interval(posterior[:20], level)
    np.testing.assert_allclose(got.lower, want[:, 0, 0], atol=1e-10)
    np.testing.assert_allclose(got.upper, want[:, 1, 0], atol=1e-10)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_normalised_intervals_are_those_of_mapie(level):
    mean, truth, stddev = draw(99, seed=1), draw(99, seed=2), draw(99, seed=3).exp()
    features = torch.stack([mean, stddev], 1).numpy()
    score = StdConformityScore()
    peer = SplitConformalRegressor(columns(), confidence_level=level, conformity_score=score, prefit=True)
    _, want = peer.conformalize(features, truth.numpy()).predict_interval(features)
    got = Conformal().fit(posterior_of(mean, stddev), truth).interval(posterior_of(mean, stddev), level)
    np.testing.assert_allclose(got.lower, want[:, 0, 0], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(got.upper, want[:, 1, 0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_quantile_intervals_are_those_of_mapie(level, spread):
    mean, truth, stddev = draw(99, seed=1), draw(99, seed=2), spread * (0.3 * draw(99, seed=3)).exp()
    posterior = posterior_of(mean, stddev)
    ends = [posterior.quantile((1 - level) / 2), posterior.quantile((1 + level) / 2)]
    features = torch.stack([*ends, mean, stddev], 1).numpy()
    peers = [columns(0), columns(1), columns(2)]
    peer = ConformalizedQuantileRegressor(peers, confidence_level=level, prefit=True)
    peer.conformalize(features, truth.numpy())
    _, want = peer.predict_interval(features, symmetric_correction=True)
    rule = Conformal("quantile").fit(posterior, truth)
    got = rule.interval(posterior, level)
    crossed = want[:, 0, 0] > want[:, 1, 0]
    np.testing.assert_allclose(got.lower[~crossed], want[~crossed, 0, 0], atol=1e-10)
    np.testing.assert_allclose(got.upper[~crossed], want[~crossed, 1, 0], atol=1e-10)
    assert bool((got.width[crossed] == 0).all())


def test_quantile_rules_know_every_level_and_can_be_frozen_at_one():
    truth = draw(99, seed=0)
    posterior = Draws(draw(1, 200, 99, seed=1).exp(), unit="eV")
    rule = Conformal("quantile").fit(posterior, truth)
    assert isinstance(rule, QuantileRule)
    frozen = rule.at(0.8)
    assert isinstance(frozen, ConformalRule)
    again = ConformalRule.from_state(*frozen.state())
    for maker in (rule, frozen, again):
        assert torch.equal(maker.interval(posterior, 0.8).upper, rule.interval(posterior, 0.8).upper)
        assert maker.guarantee(0.8) == rule.guarantee(0.8)
    ruled = posterior.with_rule(rule)
    assert ruled.interval(0.5).covered(truth) < ruled.interval(0.9).covered(truth)
    with pytest.raises(DataError, match="quantile scores"):
        frozen.interval(posterior, 0.9)


SPECIFICATIONS = {
    "normalised": Conformal(),
    "absolute": Conformal("absolute"),
    "quantile": Conformal("quantile"),
    "automatic floor": Conformal(floor="auto"),
    "simultaneous": Conformal(unit="structure", simultaneous=True),
}


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_coverage_lies_in_the_exact_band(name):
    # Standard deviations that are wrong everywhere, some of them tiny: conformal does not care.
    spec, missed = SPECIFICATIONS[name], 0
    low, high = coverage_band(60, 1000, 0.8, confidence=0.99)
    for seed in range(150):
        residual, stddev = draw(1060, seed=seed) ** 3, (2 * draw(1060, seed=1000 + seed)).exp()
        posterior = posterior_of(zeros(1060), stddev)
        rule = spec.fit(posterior[:60], residual[:60])
        missed += not low <= rule.interval(posterior[60:], 0.8).covered(residual[60:]) <= high
    # 150 bands of 99 %: more than 6 misses happen once in a thousand sets
    assert missed <= 6


def test_each_bin_of_the_standard_deviation_is_covered_in_its_exact_band():
    # Residuals that do not follow the standard deviation at all: pooled, the first bin would hold every label.
    outside = torch.zeros(4)
    for seed in range(100):
        stddev = (draw(1079, seed=seed)).exp()
        residual = draw(1079, seed=500 + seed)
        posterior = posterior_of(zeros(1079), stddev)
        rule = Conformal(bins=4).fit(posterior[:79], residual[:79])
        # 80 = 79 + 1 entries in 4 bins of 20; the three that are the edges are left out.
        assert [sample.count for sample in rule.samples] == [19, 19, 19, 19]
        inside = rule.interval(posterior[79:], 0.8).contains(residual[79:])
        place = torch.searchsorted(rule.edges, stddev[79:], right=True)
        for b in range(4):
            hits, trials = int(inside[place == b].sum()), int((place == b).sum())
            low, high = coverage_band(19, trials, 0.8, confidence=0.99)
            outside[b] += not low <= hits / trials <= high
    # 100 bands of 99 %: more than 5 misses happen once in two thousand sets
    assert bool((outside <= 5).all())


def test_bins_repair_the_worst_bin():
    stddev, test = (draw(2000, seed=0)).exp(), (draw(2000, seed=1)).exp()
    residual, new = stddev**2 * draw(2000, seed=2), test**2 * draw(2000, seed=3)
    top = test > test.quantile(0.9)
    found = {}
    for bins in (None, 10):
        rule = Conformal(bins=bins).fit(posterior_of(zeros(2000), stddev), residual)
        found[bins] = rule.interval(posterior_of(zeros(2000), test), 0.9).contains(new)[top].double().mean()
        assert torch.equal(
            posterior_of(zeros(2000), test).with_rule(rule)[5:9].interval(0.9).upper,
            rule.interval(posterior_of(zeros(2000), test), 0.9).upper[5:9],
        )
    assert found[None] < 0.7 and found[10] > 0.85


def test_categories_have_their_own_radii():
    truth = draw(120, seed=0)
    categories = torch.tensor([6, 1, 8]).repeat(40)
    truth = truth * torch.tensor([1.0, 10.0, 0.1], dtype=torch.float64).repeat(40)
    posterior = posterior_of(zeros(120))
    rule = Conformal("absolute").fit(posterior, truth, categories=categories)
    assert rule.categories.tolist() == [1, 6, 8] and rule.count == 40
    new = torch.tensor([8, 6, 1, 1, 7])
    interval = rule.interval(posterior[:5], 0.9, categories=new)
    for category, upper in zip(new.tolist(), interval.upper.tolist(), strict=True):
        alone = truth[categories == category].abs().sort().values
        assert upper == (float(alone[36]) if len(alone) else math.inf)  # ⌈41 · 0.9⌉ = 37
    assert "each category" in interval.guarantee
    with pytest.raises(DataError, match="categories"):
        posterior.with_rule(rule).interval(0.9)
    with pytest.raises(ShapeError, match="categories"):
        rule.interval(posterior[:5], 0.9, categories=new[:4])


def test_a_category_with_too_few_labels_is_infinite_and_said_so():
    truth = draw(48, seed=0)
    categories = (torch.arange(48) >= 40).long()
    rule = Conformal().fit(posterior_of(zeros(48)), truth, categories=categories)
    interval = rule.interval(posterior_of(zeros(48)), 0.9, categories=categories)
    assert torch.equal(interval.width.isinf(), categories == 1)
    assert "infinite in 1 (n = 8)" in interval.guarantee and "n = 40" in interval.guarantee
    assert bool(rule.interval(posterior_of(zeros(48)), 0.8, categories=categories).width.isfinite().all())


def test_species_of_structures():
    """A random hydrogen of a new structure is covered, though the oxygens have larger errors."""
    source, hits = torch.Generator().manual_seed(0), {1: [], 8: []}
    species = torch.tensor([8, 1, 1])
    for _ in range(300):
        size = torch.rand(31, 1, 1, generator=source, dtype=torch.float64) + 0.5
        forces = size * torch.randn(31, 3, 3, generator=source, dtype=torch.float64)
        forces[:, 0] *= 5
        truth, groups = forces[:30].flatten(0, 1), torch.arange(30).repeat_interleave(3)
        posterior = posterior_of(torch.zeros_like(truth), unit="eV/Å")
        rule = Conformal(unit="structure").fit(posterior, truth, groups=groups, categories=species.repeat(30))
        inside = rule.interval(posterior[:3], 0.8, categories=species).contains(forces[30])
        hits[8].append(bool(inside[0, 0]))
        hits[1].append(bool(inside[1, 0]))
    for values in hits.values():
        # between level and level + 2/(G + 1)
        assert 0.8 - 3 * (0.16 / 300) ** 0.5 <= sum(values) / 300 <= 0.8 + 2 / 31 + 3 * (0.16 / 300) ** 0.5


def test_structures_are_covered_where_pooled_components_fail():
    # The level is an average over calibration sets and new structures: one new structure for each set of 20.
    level, repetitions, source = 0.9, 400, torch.Generator().manual_seed(0)
    specifications = {
        "component": Conformal(unit="structure"),
        "structure": Conformal(unit="structure", simultaneous=True),
        "pooled": Conformal(),
    }
    covered = {(name, what): [] for name in specifications for what in ("one", "all")}
    for _ in range(repetitions):
        truth, groups = structures_of_two_kinds(20, source)
        new, _ = structures_of_two_kinds(1, source)
        for name, spec in specifications.items():
            rule = spec.fit(posterior_of(torch.zeros_like(truth)), truth, groups=groups)
            inside = rule.interval(posterior_of(torch.zeros_like(new)), level).contains(new)
            covered[name, "one"].append(float(inside.double().mean()))
            covered[name, "all"].append(float(inside.all()))
    values = torch.tensor(list(covered.values()), dtype=torch.float64)
    found = dict(zip(covered, values.mean(1).tolist(), strict=True))
    error = dict(zip(covered, (values.std(1) / repetitions**0.5).tolist(), strict=True))
    assert found["component", "one"] >= level - 3 * error["component", "one"]
    assert_calibrated(int(sum(covered["structure", "all"])), repetitions, 19 / 21)  # ⌈21 · 0.9⌉/21
    assert found["pooled", "one"] < 0.85 and found["pooled", "all"] < 0.5


def test_pooled_entries_of_structures_claim_no_bound():
    truth, groups = structures_of_two_kinds(30, torch.Generator().manual_seed(0))
    sentence = Conformal().fit(posterior_of(torch.zeros_like(truth)), truth, groups=groups).guarantee(0.9)
    assert "without a bound for a new structure" in sentence and "unit='structure'" in sentence
    assert "≥ 0.9" not in sentence
    # several components a row are pooled too
    assert "without a bound" in Conformal().fit(posterior_of(zeros(40, 3)), draw(40, 3, seed=0)).guarantee(0.9)


def test_labelled_structures_bring_their_groups():
    atoms = torch.tensor([1, 3, 2, 4] * 5)
    total, count = int(atoms.sum()), len(atoms)
    pointer = torch.cat([torch.zeros(1, dtype=torch.long), atoms.cumsum(0)])
    species = torch.ones(total, dtype=torch.long)
    cell, pbc = zeros(count, 3, 3), torch.zeros(count, 3, dtype=torch.bool)
    structures = Structures(draw(total, 3, seed=0), species, pointer, cell, pbc)
    has = torch.arange(count) % 5 != 0
    forces = draw(total, 3, seed=1) * has.repeat_interleave(atoms)[:, None]
    labelled = Labelled(structures, energies=draw(count, seed=2), forces=forces, has_forces=has)
    posterior = posterior_of(zeros(total, 3), unit="eV/Å")
    rule = Conformal(unit="structure").fit(posterior, labelled)
    rows = has.repeat_interleave(atoms)
    by_hand = Conformal(unit="structure").fit(posterior[rows], forces[rows], groups=structures.structure_index[rows])
    assert rule.count == int(has.sum()) and torch.equal(rule.radii(0.8), by_hand.radii(0.8))
    energy = Conformal().fit(posterior_of(zeros(count)), labelled)
    assert energy.count == count and "a new label" in energy.guarantee(0.9)


def test_tiny_standard_deviations_do_not_widen_everything():
    """With an automatic floor the mean width stays below three times that of absolute scores."""
    truth, stddev = draw(100, seed=0), torch.ones(100, dtype=torch.float64)
    stddev[::5] = 1e-6
    posterior = Gaussian(torch.zeros_like(truth), stddev.square(), unit="eV")

    def width(**setting):
        return float(Conformal(**setting).fit(posterior, truth).interval(posterior, 0.9).width.mean())

    assert width() > 1000 * width(score="absolute")
    assert width(floor="auto") < 3 * width(score="absolute")
    assert width(floor=0.5) < 3 * width(score="absolute")
    exact = Gaussian(torch.zeros_like(truth), torch.zeros_like(truth), unit="eV")
    for floor in (0.0, "auto"):
        with pytest.raises(DataError, match="give a floor"):
            Conformal(floor=floor).fit(exact, truth)
    assert Conformal(floor=1.0).fit(exact, truth).interval(exact, 0.5).width[0] < 2


def test_leave_one_out_does_not_claim_a_bound():
    truth = draw(50, seed=0)
    posterior = posterior_of(torch.zeros_like(truth))
    rule = Conformal(source="leave-one-out").fit(posterior, truth)
    assert torch.equal(rule.radii(0.9), Conformal().fit(posterior, truth).radii(0.9))
    sentence = rule.guarantee(0.9)
    assert "jackknife" in sentence and "no distribution-free bound" in sentence and "≥ 0.9" not in sentence


def test_settings_taken_from_the_structures_are_remarked():
    truth, groups = structures_of_two_kinds(30, torch.Generator().manual_seed(0))
    posterior = posterior_of(torch.zeros_like(truth), draw(*truth.shape, seed=0).exp())
    for setting in ({"floor": "auto"}, {"bins": 2}):
        rule = Conformal(unit="structure", **setting).fit(posterior, truth, groups=groups)
        assert "order 1/n" in rule.guarantee(0.9)
        assert ConformalRule.from_state(*rule.state()).guarantee(0.9) == rule.guarantee(0.9)
    assert "order 1/n" not in Conformal(unit="structure").fit(posterior, truth, groups=groups).guarantee(0.9)


def test_estimators_for_mapie_are_prefit():
    assert columns().predict(np.ones((3, 2))).shape == (3,)
    with pytest.raises(DataError, match="prefit"):
        columns().fit(np.ones((3, 2)), np.ones(3))


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"score": "normalized"}, "score"),
        ({"unit": "atom"}, "unit"),
        ({"source": "test"}, "source"),
        ({"simultaneous": True}, "unit='structure'"),
        ({"floor": -1.0}, "floor"),
        ({"floor": math.nan}, "floor"),
        ({"floor": "automatic"}, "floor"),
        ({"floor": 1.0, "score": "absolute"}, "floor"),
        ({"bins": 1}, "bins"),
    ],
)
def test_bad_specifications(setting, match):
    with pytest.raises(DataError, match=match):
        Conformal(**setting)


def test_bad_data():
    truth = draw(12, 3, seed=0)
    posterior = posterior_of(torch.zeros_like(truth))
    with pytest.raises(ShapeError, match="truth"):
        Conformal().fit(posterior, truth[:5])
    with pytest.raises(ShapeError, match="groups"):
        Conformal().fit(posterior, truth, groups=torch.arange(5))
    with pytest.raises(DataError, match="finite labels"):
        Conformal().fit(posterior, truth * math.nan)
    with pytest.raises(ShapeError, match="categories"):
        Conformal().fit(posterior, truth, categories=torch.arange(3))
    with pytest.raises(DataError, match="bins"):
        Conformal(bins=2).fit(posterior, truth, categories=torch.arange(12))
    with pytest.raises(DataError, match="bins"):
        Conformal(bins=30).fit(posterior, truth)
    rule = Conformal(unit="structure").fit(posterior, truth)
    with pytest.raises(DataError, match="level"):
        rule.interval(posterior, 90)
    with pytest.raises(DataError, match="categories"):
        rule.interval(posterior, 0.5, categories=torch.arange(12))
