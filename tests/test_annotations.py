"""The shapes in the annotations hold: the main path runs with each of them checked by jaxtyping and beartype."""

import subprocess
import sys

import pytest

CHECKED = """
from jaxtyping import install_import_hook
install_import_hook("bayesmol", "beartype.beartype")
import warnings, torch
warnings.simplefilter("ignore")
import bayesmol as bm
"""

POSTERIORS = """
from bayesmol.testing import check_posterior
P = bm.posterior
mean, variance = torch.randn(3, 2).double(), torch.rand(3, 2).double()
blocks = tuple(torch.diag(v) for v in variance)
check_posterior(P.Gaussian(mean, variance, unit="eV", covariance=blocks, epistemic_variance=variance / 2))
check_posterior(P.Mixture(mean, variance, unit="eV"))
draws = P.Draws(torch.randn(2, 100, 3).double(), torch.randn(2, 100).double(), unit="eV")
check_posterior(draws)
print(draws.expectation().interval(0.9), bm.units.convert(draws.variance, "eV", "meV", power=2))
"""

STORY = """
train, calibration, test = bm.data.load("rmd17/ethanol").split(6, 40, 4)
model = bm.potentials.BayesianACE().fit(train, seed=0)
certified = bm.certify(model, calibration, level=0.8, domain=bm.applicability.Domain(level=0.2))
prediction = certified.predict(test.structures)
print(prediction[1:].forces.interval(0.8).covered(test[1:].forces), prediction.inside)
print(bm.acquisition.select(model, calibration, size=2))
"""


@pytest.mark.slow
@pytest.mark.parametrize("story", [POSTERIORS, STORY], ids=["posteriors", "potential"])
def test_shapes_hold(story):
    result = subprocess.run([sys.executable, "-c", CHECKED + story], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_wrong_shape_is_seen():
    wrong = "bm.posterior.Interval(torch.zeros(2), torch.zeros(3), 0.9, 'eV', '')"
    result = subprocess.run([sys.executable, "-c", CHECKED + wrong], capture_output=True, text=True, check=False)
    assert "TypeCheckError" in result.stderr
