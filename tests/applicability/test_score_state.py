import math

import pytest
import torch

from bayesmol.applicability.score_state import checked_array, checked_number, score_from_state, score_state
from bayesmol.applicability.scores import FITTED, SPECIFICATIONS, identity
from bayesmol.errors import FormatError


@pytest.fixture
def rows(normal):
    return normal(60, 3)


@pytest.mark.parametrize("name", SPECIFICATIONS)
def test_named_scores_survive(name, rows):
    score = SPECIFICATIONS[name].fit(rows)
    found, arrays = score_state(score)
    assert found == name and all(isinstance(value, torch.Tensor) for value in arrays.values())
    assert torch.equal(score_from_state(found, arrays)(rows), score(rows))
    for key in arrays:
        with pytest.raises(FormatError, match="arrays of score"):
            score_from_state(name, {other: value for other, value in arrays.items() if other != key})
        if arrays[key].is_floating_point():
            with pytest.raises(FormatError, match="finite"):
                score_from_state(name, arrays | {key: arrays[key] * math.nan})
    with pytest.raises(FormatError, match="arrays of score"):
        score_from_state(name, arrays | {"other": rows})


def test_identity_and_functions(rows):
    assert score_from_state(*score_state(identity)) is identity
    length = lambda features: features.norm(dim=1)  # noqa: E731
    assert score_state(length) == ("function", {})
    assert score_from_state("function", {}, length) is length
    with pytest.raises(FormatError, match="give it as score="):
        score_from_state("function", {})
    for wrong in ("nonsense", None, 3, ["leverage"]):
        with pytest.raises(FormatError, match=next(iter(FITTED))):
            score_from_state(wrong, {})


def test_checked_parts():
    arrays, header = {"a": torch.ones(3), "b": torch.tensor([math.inf])}, {"x": 0.5, "y": True, "z": "0.5"}
    assert checked_array(arrays, "a") is arrays["a"] and checked_number(header, "x", 0, 1) == 0.5
    for key, axes in (("a", 2), ("b", 1), ("c", 1)):
        with pytest.raises(FormatError):
            checked_array(arrays, key, axes)
    for key in ("y", "z", "none"):
        with pytest.raises(FormatError):
            checked_number(header, key, 0, 2)
    with pytest.raises(FormatError):
        checked_number(header, "x", 0.5, 1)
