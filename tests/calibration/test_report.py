import json

import pytest
import torch

from bayesmol.calibration import evaluate
from bayesmol.calibration.report import MEANINGS
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Draws, Gaussian, Laplace, Mixture, StudentT


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def claimed(*shape, seed=0):
    return Gaussian(normal(*shape, seed=seed), (0.4 * normal(*shape, seed=seed + 1)).exp().square(), unit="eV/Å")


def drawn(posterior, scale=1.0, seed=7):
    return posterior.mean + scale * posterior.stddev * normal(*posterior.shape, seed=seed)


def test_a_true_claim_lies_within_its_references():
    outside = total = 0
    for seed in range(6):
        posterior = claimed(400, seed=10 * seed)
        found = evaluate(posterior, drawn(posterior, seed=10 * seed + 5), seed=seed)
        outside += sum(not one.expected for one in found.statistics.values())
        total += len(found.statistics)
    assert 0 < outside < 0.15 * total


def test_a_wrong_scale_is_outside_and_named():
    posterior = claimed(1000)
    found = evaluate(posterior, drawn(posterior, 1.5), condition_on=("stddev", "mean"))
    for name in ("z_mean_square", "coverage_90", "miscalibration_area", "pit_distance", "crps", "nll"):
        assert not found[name].expected, name
    assert found["bias"].expected and not found.verdict().consistent
    assert "over-confident by a factor 1.5" in str(found) and "✗" in str(found)
    assert found["crps"].unit == "eV/Å" and found["z_mean_square"].unit == ""


def test_vectors_get_the_scores_of_vectors():
    posterior = claimed(200, 3)
    found = evaluate(posterior, drawn(posterior))
    assert {"vector_z_square", "energy_score", "variogram_score"} <= set(found.statistics)
    assert set(found.statistics) == set(MEANINGS)
    assert "600 entries" in str(found)


def test_dependence_within_structures_widens_intervals_and_references():
    owner = torch.arange(100).repeat_interleave(20)
    posterior = claimed(2000)
    truth = posterior.mean + posterior.stddev * normal(100, seed=3)[owner]
    alone, grouped = evaluate(posterior, truth), evaluate(posterior, truth, groups=owner)
    for name in ("z_mean_square", "coverage_90"):
        widths = [one[name].interval[1] - one[name].interval[0] for one in (alone, grouped)]
        bands = [one[name].reference[1] - one[name].reference[0] for one in (alone, grouped)]
        assert widths[1] > 3 * widths[0] and bands[1] > 3 * bands[0]
    assert "100 structures" in str(grouped)


def test_labels_with_errors_are_compared_with_the_widened_claim():
    posterior = claimed(2000)
    errors = torch.full((2000,), 2.0, dtype=torch.float64)
    truth = drawn(posterior) + errors * normal(2000, seed=9)
    assert not evaluate(posterior, truth).verdict().consistent
    found = evaluate(posterior, truth, errors=errors)
    assert found["z_mean_square"].expected
    same = evaluate(posterior, Gaussian(truth, errors.square(), unit="eV/Å"))
    assert same["z_mean_square"].value == found["z_mean_square"].value


def test_draws_are_judged_too():
    values = normal(1, 40, 300)
    found = evaluate(Draws(values, unit="eV"), normal(300, seed=3))
    assert found["coverage_90"].value == pytest.approx(0.9, abs=0.06)
    assert "nll" not in found.statistics and found.verdict().consistent


def test_conditions_by_mapping():
    posterior = claimed(600)
    kinds = torch.arange(600) % 3
    found = evaluate(posterior, drawn(posterior), conditions={"kind": kinds})
    assert found.local["kind"].parts.labels == ("0", "1", "2")
    assert "along kind" in str(found)


def test_the_same_seed_gives_the_same_report_and_json_holds_it():
    posterior = claimed(300)
    first, second = (evaluate(posterior, drawn(posterior), seed=4).to_dict() for _ in range(2))
    assert first == second
    again = json.loads(json.dumps(first))
    assert set(again) >= {"entries", "structures", "statistics", "local", "verdict", "unit"}
    assert again["statistics"]["crps"]["unit"] == "eV/Å"


def test_bad_input_is_named():
    posterior = claimed(100)
    truth = drawn(posterior)
    with pytest.raises(DataError, match="stddev, mean"):
        evaluate(posterior, truth, condition_on=("species",))
    with pytest.raises(DataError, match="names among"):
        evaluate(posterior, truth, condition_on="stddev")
    with pytest.raises(ShapeError, match="kind"):
        evaluate(posterior, truth, conditions={"kind": torch.zeros(7)})
    with pytest.raises(DataError, match="at least 8"):
        evaluate(posterior, truth, groups=torch.arange(100) % 3)
    with pytest.raises(DataError, match="crpps"):
        _ = evaluate(posterior, truth)["crpps"]


def test_other_peoples_predictions_are_taken_as_they_are():
    stddev = (0.4 * normal(400)).exp()
    truth = stddev * normal(400, seed=1)
    pair = evaluate(([0.0] * 400, stddev.numpy()), truth.numpy(), unit="kcal/mol")
    same = evaluate(Gaussian(torch.zeros_like(stddev), stddev.square(), unit="kcal/mol"), truth)
    assert pair["crps"] == same["crps"]
    model = evaluate(lambda inputs: (0 * inputs, inputs), truth, stddev)
    assert model["z_mean_square"].value == pytest.approx(same["z_mean_square"].value)


def test_quantiles_are_judged_by_what_they_say():
    levels = torch.tensor([0.025, 0.05, 0.25, 0.5, 0.75, 0.95, 0.975], dtype=torch.float64)
    stddev = (0.4 * normal(1000)).exp()
    values = {float(p): torch.special.ndtri(p) * stddev for p in levels}
    right = evaluate(values, stddev * normal(1000, seed=1))
    assert right["coverage_90"].value == pytest.approx(0.9, abs=0.03) and right.verdict().consistent
    assert "crps" not in right.statistics and "median" in right.local
    wrong = evaluate(values, 1.5 * stddev * normal(1000, seed=1))
    assert not wrong["coverage_50"].expected and not wrong.verdict().consistent


@pytest.mark.parametrize("law", ["student", "laplace", "mixture"])
def test_claims_of_other_shapes_are_judged_by_their_shape(law):
    location, scale = normal(800), (0.4 * normal(800, seed=1)).exp()
    posterior = {
        "student": StudentT(location, scale, 4.0, unit=""),
        "laplace": Laplace(location, scale, unit=""),
        "mixture": Mixture(location + scale * normal(2, 800, seed=3), (0.1 * scale).square().repeat(2, 1), unit=""),
    }[law]
    truth = posterior.sample(800, seed=7).diagonal().contiguous()  # members of a mixture are common to a joint draw
    assert evaluate(posterior, truth).verdict().consistent
    wrong = evaluate(Gaussian(posterior.mean, posterior.variance, unit=""), truth).verdict()
    assert any(f.aspect == "shape" and f.adjusted < 0.05 for f in wrong.findings)
