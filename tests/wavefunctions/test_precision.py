"""Sixty-four bits within, and nothing changed outside."""

import jax.numpy as jnp
import pytest

from bayesmol.wavefunctions.precision import double


def test_within_and_after():
    assert jnp.ones(1).dtype == jnp.float32
    with double():
        assert jnp.ones(1).dtype == jnp.float64
    assert jnp.ones(1).dtype == jnp.float32


def test_after_an_error():
    with pytest.raises(ValueError, match="inside"), double():
        raise ValueError("inside")
    assert jnp.ones(1).dtype == jnp.float32
