"""The table: every row belongs to a molecule and says its source; the derived figures by hand."""

import math

import pytest

from bayesmol.errors import DataError
from bayesmol.wavefunctions.exact_energies import EXACT_ENERGIES, ExactEnergy, exact_energy
from bayesmol.wavefunctions.named_molecules import NAMES


@pytest.mark.parametrize("name", EXACT_ENERGIES)
def test_each_row(name):
    row = exact_energy(name)
    assert name in NAMES and row.source and row.uncertainty >= 0
    assert (row.hartree_fock is None) == (row.hartree_fock_source == "")
    assert row.hartree_fock is None or row.hartree_fock >= row.energy
    assert row.error_mha(row.energy + 1e-3) == pytest.approx(1.0)


def test_correlation_energies_of_the_literature():
    """Known to a few mHa: 42 (He), 94 (Be), 390 (Ne), 41 (H2), 83 (LiH), 549 (N2)."""
    found = [1e3 * (row.hartree_fock - row.energy) for row in map(exact_energy, ("He", "Be", "Ne", "H2", "LiH", "N2"))]
    assert found == pytest.approx([42.04, 94.34, 390.5, 40.86, 83.18, 548.3], abs=0.05)


def test_fractions():
    row = ExactEnergy(-2.0, 0.0, "", -1.0, "")
    assert [row.correlation_fraction(energy) for energy in (-1.0, -1.75, -2.0)] == [0.0, 0.75, 1.0]
    assert math.isnan(exact_energy("H").correlation_fraction(-0.5))
    assert math.isnan(exact_energy("H2O").correlation_fraction(-76.4))
    with pytest.raises(DataError, match="name: expected one of H, He"):
        exact_energy("H4-rectangle")
