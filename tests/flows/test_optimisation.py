"""Budget and rates."""

import pytest

from bayesmol.errors import DataError
from bayesmol.flows.optimisation import Optimisation


def test_rate_rises_and_falls():
    settings = Optimisation(rate=2.0, warmup=0.1)
    assert settings.rate_at(0.0) == 0 and settings.rate_at(1.0) == pytest.approx(0, abs=1e-12)
    assert settings.rate_at(0.5) == pytest.approx(1.0)
    assert Optimisation(rate=2.0, cosine=False, warmup=0.0).rate_at(0.99) == 2.0


def test_share_is_that_of_the_budget_that_ends_first():
    settings = Optimisation(steps=100, minutes=1.0)
    assert settings.share(10, 30.0) == 0.5 and settings.share(80, 30.0) == 0.8
    assert Optimisation(steps=100).share(10, 1e9) == 0.1
    assert Optimisation(steps=None, minutes=2.0).share(10**9, 60.0) == 0.5


@pytest.mark.parametrize(
    "wrong",
    [{"steps": None}, {"steps": 0}, {"minutes": -1.0}, {"patience": 0}, {"batch": 0}, {"warmup": 1.0}, {"decay": -1.0}],
)
def test_bad_settings(wrong):
    with pytest.raises(DataError):
        Optimisation(**wrong)
