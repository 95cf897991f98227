"""A small fitted Bayesian ACE, shared by the tests of its parts."""

import pytest

import bayesmol as bm
from bayesmol.potentials import BayesianACE, MixingSchedule


@pytest.fixture(scope="session")
def small():
    """Settings that fit in about a second."""
    return BayesianACE(channels=(8, 8, 4), mixing=MixingSchedule(steps=2, checks=1))


@pytest.fixture(scope="session")
def ethanol():
    """Training, calibration and test frames."""
    return bm.data.load("rmd17/ethanol").split(12, 40, 20)


@pytest.fixture(scope="session")
def potential(small, ethanol):
    """Posterior given the 12 training frames."""
    return small.fit(ethanol[0])
