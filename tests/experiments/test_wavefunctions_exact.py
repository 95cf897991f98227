"""States in closed form have no variance, a determinant has its energy, and a network keeps cusps and exchange."""

import pytest

from bayesmol.report import Study


@pytest.fixture
def module(study, monkeypatch):
    found = study("wavefunctions_exact")
    monkeypatch.setattr(found, "WALKERS", 32)
    return found


def test_an_eigenstate_has_no_variance(module):
    study = Study("wavefunctions", "exact")
    module.exact(study, draws=50, only=("hookes_atom",), seed=0)
    assert study.figures["variance_hookes_atom"].value < 1e-10
    assert abs(study.figures["energy_error_mha_hookes_atom"].value) < 1e-6


def test_another_state_has(module):
    study = Study("wavefunctions", "exact")
    module.exact(study, draws=100, only=("screened_helium",), seed=0)
    figure = study.figures["energy_error_mha_screened_helium"]
    assert study.figures["variance_screened_helium"].value > 0.01
    assert abs(figure.value) < 5 * figure.standard_error


@pytest.mark.slow
def test_the_determinant_has_the_energy_of_hartree_fock(module):
    study = Study("wavefunctions", "exact")
    module.determinants(study, draws=400, error=None, only=("He",), seed=0)
    assert abs(study.figures["hartree_fock_z_He"].value) < 4


@pytest.mark.slow
def test_limits_of_a_network(module):
    study = Study("wavefunctions", "exact")
    module.limits(study, seed=0)
    assert study.figures["cusp_deviation"].value < 1e-3
    assert study.figures["exchange_deviation"].value < 1e-12
