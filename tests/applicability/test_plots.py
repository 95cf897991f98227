import io
import math

import pytest
import torch
from sklearn.metrics import roc_curve

from bayesmol.applicability.plots import _operating, error_against_score, p_values, receiver_operating, risk_curves
from bayesmol.applicability.rejection import risk_coverage
from bayesmol.errors import DataError, ShapeError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(figure):
    """The figure renders, and its only panel."""
    figure.savefig(io.BytesIO(), format="png", dpi=40)
    (panel,) = figure.axes
    return panel


def test_risk_curves_end_at_the_mean_error():
    scores, errors = normal(5001).exp(), normal(5001, seed=1).abs()
    panel = drawn(risk_curves({"a": risk_coverage(scores, errors), "b": risk_coverage(errors, errors)}, "eV"))
    labels = [text.get_text() for text in panel.get_legend().get_texts()]
    assert labels[:2] == ["random", "oracle"] and labels[3] == "b (100 % of the way)"
    assert panel.get_ylabel() == "mean error of rows kept (eV)"
    assert all(len(line.get_xdata()) <= 2000 for line in panel.lines if line.get_label() != "random")
    with pytest.raises(DataError):
        risk_curves({})


@pytest.mark.parametrize("logarithmic", [True, False])
def test_scatter_shows_the_threshold_and_known_rows(logarithmic):
    scores = (2 * normal(300)).exp() if logarithmic else normal(300)
    scores[0] = math.inf
    panel = drawn(error_against_score(scores, normal(300, seed=1), 1.5, outside=torch.arange(300) < 40))
    assert panel.get_xscale() == ("log" if logarithmic else "linear")
    assert any(list(line.get_xdata()) == [1.5, 1.5] for line in panel.lines)
    assert {line.get_label() for line in panel.lines} >= {"other rows", "known to be outside", "running median"}
    with pytest.raises(ShapeError):
        error_against_score(scores, normal(5), 1.0)


def test_histogram_of_p_values_is_a_density():
    panel = drawn(p_values({"even": torch.rand(1000, dtype=torch.float64), "low": torch.zeros(10)}, bins=4))
    heights = {step.get_label(): step.get_data().values for step in panel.patches if hasattr(step, "get_data")}
    assert heights["low"].tolist() == [4, 0, 0, 0] and heights["even"].sum() == pytest.approx(4)
    with pytest.raises(DataError):
        p_values({})


def test_operating_curve_is_that_of_sklearn():
    scores, outside = (2 * normal(200)).round(), torch.arange(200) % 3 == 0
    want = roc_curve(outside, scores, drop_intermediate=False)
    for found, true in zip(_operating(scores, outside), want[:2], strict=True):
        assert torch.allclose(found, torch.from_numpy(true))
    panel = drawn(receiver_operating({"a": scores, "b": -scores}, outside, level=0.1))
    assert len(panel.lines) == 4
    with pytest.raises(ShapeError):
        receiver_operating({"a": scores[:3]}, outside)
