"""Trees come back in their form, and in no other."""

import jax.numpy as jnp
import numpy as np
import pytest

from bayesmol.errors import FormatError
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.trees import leaves, restored


def test_trees_come_back_in_their_form():
    with double():
        tree = {"b": (jnp.arange(3.0), ()), "a": jnp.asarray(2.0)}
        arrays = leaves("now", tree)
        found = restored("now", tree, arrays)
    assert found.keys() == tree.keys() and found["b"][1] == ()
    np.testing.assert_array_equal(found["b"][0], [0.0, 1.0, 2.0])
    assert float(found["a"]) == 2.0


@pytest.mark.parametrize("change", [lambda a: {}, lambda a: {"now.0": np.zeros(4)}, lambda a: {"now.0": np.arange(3)}])
def test_trees_of_another_form_are_refused(change):
    with double(), pytest.raises(FormatError, match="now"):
        restored("now", {"a": jnp.zeros(3)}, change(None))
