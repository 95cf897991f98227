"""Generalised Born solvents are read from both kinds of force, and others are refused."""

import openmm
import openmm.app.internal.customgbforces as models
import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.force_field_openmm_solvent import custom_solvent, kj, nm, own_solvent, plain

COULOMB = 138.935485


def custom(kind, **options):
    force = kind(78.5, 1.0, "ACE", **options)
    for radius, scale in ((0.12, 0.85), (0.17, 0.72)):
        force.addParticle([0.3, radius, scale])
    force.finalize()
    return force


def test_obc2_is_the_same_in_both_forces():
    own = openmm.GBSAOBCForce()
    for radius, scale in ((0.12, 0.85), (0.17, 0.72)):
        own.addParticle(0.3, radius, scale)
    own.setSolventDielectric(78.5)
    first, second = own_solvent(own, COULOMB), custom_solvent(custom(models.GBSAOBC2Force))
    torch.testing.assert_close(first.radii, second.radii)
    torch.testing.assert_close(first.scales, second.scales)
    assert first.numbers() == pytest.approx(second.numbers(), rel=1e-7)
    assert first.radii.tolist() == pytest.approx([1.2, 1.7])


def test_obc1_has_its_constants():
    found = custom_solvent(custom(models.GBSAOBC1Force))
    assert (found.alpha, found.beta, found.gamma) == (0.8, 0.0, 2.909125)
    assert found.probe == pytest.approx(1.4) and found.offset == pytest.approx(0.09)
    assert found.strength == pytest.approx(14.3996 * (1 - 1 / 78.5), rel=1e-5)


def test_without_surface_term_there_is_no_tension():
    force = models.GBSAOBC1Force(78.5, 1.0, None)
    force.addParticle([0.3, 0.12, 0.85])
    force.finalize()
    assert custom_solvent(force).tension == 0


@pytest.mark.parametrize(
    "force",
    [
        lambda: custom(models.GBSAOBC1Force, kappa=1.0),
        lambda: custom(models.GBSAOBC1Force, cutoff=1.0),
        lambda: custom(models.GBSAHCTForce),
        openmm.CustomGBForce,
    ],
    ids=["salt", "cutoff", "HCT", "empty"],
)
def test_another_model_is_refused(force):
    with pytest.raises(DataError, match="OBC1 or OBC2"):
        custom_solvent(force())


def test_a_cutoff_is_refused():
    force = openmm.GBSAOBCForce()
    force.setNonbondedMethod(force.CutoffNonPeriodic)
    with pytest.raises(DataError, match="NoCutoff"):
        own_solvent(force, COULOMB)


def test_units():
    assert nm() == 10 and 1 / kj() == pytest.approx(96.485, rel=1e-5)
    force = openmm.HarmonicBondForce()
    force.addBond(0, 1, 0.1, 7.0)
    assert plain(1, force.getBondParameters) == [[0, 1, 0.1, 7.0]]
