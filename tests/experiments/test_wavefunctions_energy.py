"""Targets belong to a system and to the minutes that it has; devices are those of JAX."""

import pytest


@pytest.fixture
def module(study):
    return study("wavefunctions_energy")


def test_targets_need_their_minutes(module):
    assert "upper" not in module.expectations("LiH", 1.0)["energy_error_mha"]
    assert module.expectations("LiH", 3.0)["energy_error_mha"]["upper"] == 1.6
    assert module.expectations("LiH", 5.0)["correlation_fraction"]["lower"] == 0.985
    assert module.expectations("Unobtainium", 99.0) == {}
