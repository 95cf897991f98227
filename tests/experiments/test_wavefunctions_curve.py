"""Constants of a diatomic from draws of its curve, and its full CI."""

import numpy as np
import pytest

from bayesmol.report import Study


@pytest.fixture
def module(study):
    return study("wavefunctions_curve")


def test_comparison_counts_what_lies_below(module):
    exact = np.linspace(-1.1, -1.0, len(module.DISTANCES))
    energies = exact + 1e-4
    energies[3] = exact[3] - 2e-3
    study = Study("wavefunctions", "curve")
    module.compare(study, energies, np.full(len(exact), 1e-4), exact)
    assert study.figures["largest_error_mha"].value == pytest.approx(2)
    assert study.figures["below_bound"].value == 1


@pytest.mark.slow
def test_full_ci_is_near_the_exact_energy(module):
    assert module.full_ci(1.4) == pytest.approx(-1.174476, abs=3e-4)
