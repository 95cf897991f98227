"""Sixty-four bits and a device within, and nothing changed outside."""

import jax
import jax.numpy as jnp
import pytest

from bayesmol.errors import DataError
from bayesmol.wavefunctions.precision import double, placed


def test_within_and_after():
    assert jnp.ones(1).dtype == jnp.float32
    with double():
        assert jnp.ones(1).dtype == jnp.float64
    assert jnp.ones(1).dtype == jnp.float32


def test_after_an_error():
    with pytest.raises(ValueError, match="inside"), double():
        raise ValueError("inside")
    assert jnp.ones(1).dtype == jnp.float32


def test_devices():
    with placed("cpu"):
        assert jnp.zeros(1).devices() == {jax.devices("cpu")[0]}
    for wrong in ("tape", "cpu:999"):
        with pytest.raises(DataError, match="--device"), placed(wrong):
            pass
