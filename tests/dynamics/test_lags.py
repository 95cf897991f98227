import math

import pytest
import torch

from bayesmol.data.exact_chains import LinearProcess
from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.lags import implied_timescales
from bayesmol.dynamics.linear import TICA
from bayesmol.errors import ConvergenceError, DataError


@pytest.fixture(scope="module")
def data():
    run = LinearProcess.autoregressive(0.95, 0.7).simulate(5000, seed=1).parts[0]
    return Trajectories.of(run, time_step=2.0, unit="ps")


def test_timescales_of_a_markov_process_are_the_same_at_all_lags(data):
    found = implied_timescales(TICA(draws=1000), data, (1, 4, 8), 1, seed=0)
    assert found.lags == (2.0, 8.0, 16.0) and not found.refused
    for draws in found.timescales:
        assert draws.unit == "ps"
        assert bool(draws.interval(0.999).contains(torch.tensor([-2 / math.log(0.95)])))
    assert found.plot().axes


def test_lags_without_an_error_bar_are_named(data):
    found = implied_timescales(TICA(draws=50), data, (1, 400), 1, seed=0)
    assert found.lags == (2.0,)
    assert "at least" in found.refused[800.0]
    with pytest.raises(ConvergenceError, match="at least"):
        implied_timescales(TICA(draws=50), data, (400,), 1, seed=0)
    with pytest.raises(DataError, match="lags"):
        implied_timescales(TICA(), data, (), seed=0)
