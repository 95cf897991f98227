"""Which pairs interact and how, torsions joined, and molecules that lack terms."""

from dataclasses import replace

import pytest
import torch

from bayesmol.flows.force_field import ForceField
from bayesmol.flows.force_field_tables import Tables
from bayesmol.flows.molecule import bundled


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


def molecule(atoms, **terms):
    """Argon atoms without terms but those given."""
    none, index = numbers(), lambda width: torch.zeros(0, width, dtype=torch.long)
    content = {
        **{name: torch.zeros(atoms, dtype=torch.float64) for name in ("charges", "sigmas", "epsilons")},
        **{"bonds": index(2), "bond_lengths": none, "bond_constants": none},
        **{"angles": index(3), "angle_values": none, "angle_constants": none},
        **{"torsions": index(4), "periodicities": none.long(), "phases": none, "torsion_constants": none},
        **{"exceptions": index(2), "exception_charges": none, "exception_sigmas": none, "exception_epsilons": none},
    }
    species, masses = torch.full((atoms,), 18), torch.full((atoms,), 39.95, dtype=torch.float64)
    return ForceField(species, masses, **(content | terms), coulomb=14.4)


def test_pairs_follow_lorentz_and_berthelot_but_for_exceptions():
    field = molecule(
        3,
        charges=numbers(0.5, -1.0, 0.25),
        sigmas=numbers(1.0, 2.0, 3.0),
        epsilons=numbers(0.01, 0.04, 0.09),
        exceptions=torch.tensor([[1, 0], [1, 2]]),
        exception_charges=numbers(0.0, 0.1),
        exception_sigmas=numbers(1.0, 2.0),
        exception_epsilons=numbers(0.0, 0.02),
    )
    x = torch.tensor([[0.0, 0, 0, 3, 0, 0, 0, 4, 0]], dtype=torch.float64)
    pair = lambda q, s, e, r: 14.4 * q / r + 4 * e * ((s / r) ** 12 - (s / r) ** 6)  # noqa: E731
    want = pair(0.125, 2.0, 0.03, 4.0) + pair(0.1, 2.0, 0.02, 5.0)
    assert float(field.energy(x)) == pytest.approx(want, rel=1e-12)


def test_torsions_of_the_same_atoms_are_joined():
    quadruples = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2, 3], [0, 2, 1, 3]])
    field = molecule(
        4,
        torsions=quadruples,
        periodicities=torch.tensor([1, 2, 0, 3]),
        phases=numbers(0.3, 0.0, 0.5, 1.0),
        torsion_constants=numbers(1.0, 2.0, 4.0, 0.5),
    )
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = [
        replace(
            field,
            torsions=field.torsions[k : k + 1],
            periodicities=field.periodicities[k : k + 1],
            phases=field.phases[k : k + 1],
            torsion_constants=field.torsion_constants[k : k + 1],
        ).energy(x)
        for k in range(4)
    ]
    torch.testing.assert_close(field.energy(x), sum(parts))
    torch.testing.assert_close(parts[2], torch.full_like(parts[2], 4 * (1 + torch.tensor(0.5).double().cos().item())))


@pytest.mark.parametrize("atoms", [1, 2])
def test_a_molecule_may_lack_terms(atoms):
    energy, gradient = molecule(atoms).energy_and_gradient(torch.ones(3, 3 * atoms))
    assert not energy.any() and not gradient.any()


def test_without_gradient_there_is_none():
    field = bundled("alanine-dipeptide/obc1")
    x = field.positions.reshape(1, -1)
    tables = Tables(field, x)
    energy, gradient = tables.evaluate(x, gradient=False)
    assert gradient is None and torch.equal(energy, tables.evaluate(x, gradient=True)[0])
