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


@pytest.fixture(scope="session")
def tiny():
    """An equivariant network that trains in a second or two."""
    from bayesmol.potentials.network_equivariant import Equivariant
    from bayesmol.potentials.neural import NeuralPotential
    from bayesmol.potentials.training import Training

    architecture = Equivariant(channels=4, width=6, radial=8)
    return NeuralPotential(architecture, "frozen-features", Training(epochs=3, batch=4, checks=3))


@pytest.fixture(scope="session")
def neural(tiny, ethanol):
    """Its posterior given the 12 training frames, in float64."""
    import dataclasses

    import torch

    return dataclasses.replace(tiny, dtype=torch.float64).fit(ethanol[0], ethanol[1][:6], seed=0)


@pytest.fixture(scope="session")
def apart():
    """Training, calibration and test frames, 30, 100 and 100."""
    return bm.data.load("rmd17/ethanol").split(30, 100, 100)


@pytest.fixture
def assert_covered(apart, source):
    """Asserts that a certified model covers energies, and one random force component of each structure, as it says."""
    import torch

    def check(model):
        _, calibration, test = apart
        certified = bm.certify(model, calibration, domain=bm.applicability.Domain(level=0.1))
        prediction, size = certified.predict(test), len(test)
        drawn = torch.randint(27, (size, 1), generator=source)
        for level in (0.5, 0.8, 0.9):
            energy = prediction.energy.interval(level).contains(test.energies)
            force = prediction.forces.interval(level).contains(test.forces).reshape(size, -1).gather(1, drawn)
            for hits in (energy, force):
                bm.testing.assert_calibrated(
                    int(hits.sum()), size, level, confidence=0.999, calibration=len(calibration)
                )
        assert int(prediction.inside.sum()) > 0.8 * size

    return check
