"""Committees: moments of the members, references of each, certificates, what they refuse."""

from dataclasses import replace

import pytest
import torch
from ase.calculators.lj import LennardJones

import bayesmol as bm
from bayesmol.errors import DataError
from bayesmol.posterior import Mixture
from bayesmol.potentials.committee import Committee
from bayesmol.potentials.foundation import Foundation
from bayesmol.potentials.foundation_rows import FORCE
from bayesmol.potentials.surface import Surface, surface
from bayesmol.testing import assert_calibrated


class Springs:
    """A foundation that pulls atoms towards the centre of their structure, with its own zero of energy."""

    def __init__(self, stiffness, zero):
        self.stiffness, self.zero = stiffness, zero
        self.identity = {"kind": "test", "name": f"{stiffness}"}

    def surface(self, structures, *, virial=False):
        owner, counts = structures.structure_index, structures.counts[:, None]
        sums = torch.zeros(len(structures), 3).double().index_add(0, owner, structures.positions)
        apart = structures.positions - (sums / counts)[owner]
        energies = torch.zeros(len(structures)).double().index_add(0, owner, self.stiffness / 2 * apart.square().sum(1))
        return Surface(energies + self.zero * counts[:, 0], -self.stiffness * apart)


@pytest.fixture(scope="module")
def frames():
    data = bm.data.load("rmd17/ethanol")
    truth = Springs(1.0, 0.0).surface(data.structures)
    noise = torch.randn(data.forces.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    made = replace(data, energies=truth.energies + 0.01 * noise[: len(data), 0], forces=truth.forces + 0.02 * noise)
    return made.split(30, 160, 100)


@pytest.fixture(scope="module")
def committee(frames):
    return Foundation.committee([Springs(k, zero) for k, zero in ((0.9, 5.0), (1.0, -3.0), (1.15, 100.0))]).fit(
        frames[0]
    )


def test_moments_are_those_of_the_members(committee, frames):
    one = frames[2].structures[:3]
    found = committee.predict(one)
    forces = torch.stack([member.surface(one).forces for member in committee.committee.members])
    assert isinstance(found.forces, Mixture)
    torch.testing.assert_close(found.forces.mean, forces.mean(0))
    want = committee.widths[FORCE] * forces.var(0) + committee.floors[FORCE]
    torch.testing.assert_close(found.forces.variance, want)
    torch.testing.assert_close(surface(committee, one).energies, found.energy.mean)


def test_each_member_has_references_of_its_own(committee, frames):
    gap = committee.predict(frames[2].structures).energy.mean - frames[2].energies
    assert float(gap.abs().max()) < 3, "zeros of 5, −3 and 100 eV an atom are gone"


def test_the_covariance_is_that_of_the_members(committee, frames):
    one = frames[2].structures[:2]
    blocks = committee.predict(one, covariance=True).forces.epistemic.covariance
    for block, factor in zip(blocks, committee.force_factor(one), strict=True):
        torch.testing.assert_close(factor @ factor.T, block, rtol=1e-6, atol=1e-12)


def test_its_certificate_holds(committee, frames):
    certified = bm.certify(committee, frames[1])
    prediction = certified.predict(frames[2].structures)
    hits = int(prediction.energy.interval(0.9).contains(frames[2].energies).sum())
    assert_calibrated(hits, 100, 0.9, calibration=160)
    with pytest.raises(DataError, match="shared"):
        bm.certify(committee, frames[0])
    torch.testing.assert_close(
        committee.strangeness(frames[2]), committee.strangeness(frames[2], committee.predict(frames[2]))
    )


def test_unknown_elements_are_infinitely_strange(committee, frames):
    one = frames[2].structures[:1]
    other = replace(one, species=torch.where(one.species == 8, 9, one.species))
    assert bool(committee.strangeness(other).isinf().all())
    with pytest.raises(DataError, match="elements"):
        committee.predict(other)


def test_calculators_and_fitted_potentials_are_members(frames):
    found = Committee.of([LennardJones(), Springs(1.0, 0.0)])
    assert found.surface(frames[2].structures[:1]).forces.shape == (9, 3)
    with pytest.raises(DataError, match="two or more"):
        Foundation.committee([LennardJones()])
    with pytest.raises(DataError, match="five or more"):
        found.fit(frames[0][:3])
