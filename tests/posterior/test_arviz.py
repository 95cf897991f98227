import sys
import types

import arviz
import numpy as np
import pytest
import xarray

from bayesmol.errors import DependencyError
from bayesmol.posterior import Draws, Gaussian


def data_tree(groups):
    """What ``from_dict`` of ArviZ 1.x makes of groups of arrays."""
    return xarray.DataTree.from_dict(
        {
            group: xarray.Dataset({k: (("chain", "draw", *map(str, range(v.ndim - 2))), v) for k, v in arrays.items()})
            for group, arrays in groups.items()
        }
    )


@pytest.fixture(params=["installed", "1.0.0"])
def version(request, monkeypatch):
    """The installed ArviZ, and the interface of 1.x, which needs Python 3.12."""
    if request.param != "installed":
        later = types.SimpleNamespace(__version__=request.param, from_dict=data_tree)
        monkeypatch.setitem(sys.modules, "arviz", later)


@pytest.mark.usefixtures("version")
def test_draws_keep_chains_weights_and_unit(normal):
    draws = Draws(normal(4, 50, 3), normal(4, 50), unit="Ha")
    data = draws.to_arviz("energy")
    np.testing.assert_array_equal(data["posterior"]["energy"].values, draws.values.numpy())
    np.testing.assert_array_equal(data["sample_stats"]["log_weight"].values, draws.log_weights.numpy())
    assert data["posterior"]["energy"].attrs["units"] == "Ha"
    assert data["posterior"]["energy"].dims[:2] == ("chain", "draw")


def test_arviz_diagnostics_run(normal):
    data = Draws(normal(4, 500, 3), unit="Ha").to_arviz("energy")
    assert float(arviz.rhat(data)["energy"].max()) < 1.02


def test_a_gaussian_is_drawn(normal):
    gaussian = Gaussian(normal(3), normal(3).square(), unit="eV")
    values = gaussian.to_arviz(size=200, seed=1)["posterior"]["value"].values
    np.testing.assert_array_equal(values[0], gaussian.sample(200, seed=1).numpy())


def test_without_arviz_the_error_names_the_remedy(normal, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(DependencyError, match=r"arviz.*pip install bayesmol"):
        Draws(normal(1, 5), unit="eV").to_arviz()
