"""Checks: the worst of them, and what is left of them in JSON."""

import json
import math

import pytest

from bayesmol.flows.trust_checks import ORDER as LIGHTS
from bayesmol.inference.checks import Check, worst
from bayesmol.wavefunctions.energy_verdict import ORDER as VERDICTS


def of(*levels):
    return [Check("name", 0.0, 1.0, level, "") for level in levels]


def test_the_worst_counts():
    assert worst(of("green", "red", "amber"), LIGHTS) == "red"
    assert worst(of("ok", "suspect"), VERDICTS) == "suspect"
    assert worst([], LIGHTS) == "green" and worst([], VERDICTS) == "ok"


def test_a_level_of_another_order_is_an_error():
    with pytest.raises(ValueError, match="not in tuple"):
        worst(of("ok", "red"), VERDICTS)


def test_numbers_that_are_not_finite_are_none_in_json():
    content = Check("tail", math.inf, 0.7, "red", "no mean").content()
    assert json.loads(json.dumps(content, allow_nan=False)) == {
        "name": "tail",
        "value": None,
        "limit": 0.7,
        "level": "red",
        "sentence": "no mean",
    }
