"""Targets belong to a system and to the minutes that it has; devices are those of JAX."""

import jax
import pytest

from bayesmol.errors import DataError


@pytest.fixture
def module(study):
    return study("wavefunctions_energy")


def test_targets_need_their_minutes(module):
    assert "upper" not in module.expectations("LiH", 1.0)["energy_error_mha"]
    assert module.expectations("LiH", 3.0)["energy_error_mha"]["upper"] == 1.6
    assert module.expectations("LiH", 5.0)["correlation_fraction"]["lower"] == 0.985
    assert module.expectations("Unobtainium", 99.0) == {}


def test_devices(module):
    with module.placed("cpu"):
        assert jax.numpy.zeros(1).devices() == {jax.devices("cpu")[0]}
    for wrong in ("tape", "cpu:999"):
        with pytest.raises(DataError, match="--device"), module.placed(wrong):
            pass
