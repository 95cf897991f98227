"""From labels of a known curve to a warm molecule; the wavefunctions have tests of their own."""

import numpy as np
import pytest
import torch
from ase import Atoms

from bayesmol.data import Labelled, Structures
from bayesmol.report import Study
from bayesmol.units import convert


@pytest.fixture
def module(study, monkeypatch):
    found = study("scales_electrons")
    monkeypatch.setattr(found, "curve", labels)
    monkeypatch.setattr(found, "DRAWN", 2000)
    monkeypatch.setattr(found, "FLOW_MINUTES", 0.03)
    return found


def labels(molecule, distances, ansatz, *, seed, **options):
    """Morse curve with the constants of H2, in Ha and bohr, with noise of 0.1 mHa."""
    x = np.array(distances)
    energies = -1.174474 + 0.174474 * (1 - np.exp(-1.0280 * (x - 1.401))) ** 2
    noise = 1e-4 * np.random.default_rng(seed).standard_normal(len(x))
    places = convert(torch.tensor(distances, dtype=torch.float64), "bohr", "Å")
    structures = Structures.from_ase([Atoms("H2", [[0, 0, 0], [0, 0, float(r)]]) for r in places])
    errors = torch.full((len(x),), 1e-4, dtype=torch.float64)
    return Labelled(
        structures,
        energies=convert(torch.from_numpy(energies + noise), "Ha", "eV"),
        energy_errors=convert(errors, "Ha", "eV"),
    )


def test_the_chain_hands_on_distributions(module, tmp_path):
    run = Study("across_scales", "electrons")
    found = module.electrons(run, tmp_path / "h2", minutes=1, minutes_each=1, draws=400, repeats=1, seed=0)
    assert run.figures["bond_length_bohr"].value == pytest.approx(1.401, abs=0.01)
    assert run.figures["well_depth_hartree"].value == pytest.approx(0.174474, abs=1e-3)
    for name, one in module.TRUTH.items():
        assert 0 <= run.figures[f"{name}_share_of_label_noise"].value <= 1
        assert found[0].constants[name].unit == module.UNITS[name]
        assert one > 0
    # ⟨r⟩ − r_e of a stiff oscillator at 300 K: some hundredths of a per cent, and the volume r² moves it outwards.
    assert float(found[0].thermal.total.value) == pytest.approx(0.7414 * 1.003, abs=0.006)
    assert float(found[0].thermal.epistemic) > 0
    assert found[0].lengths.shape == (4000,)
    assert set(module.plots(found * 2)) == {"curve", "constants", "shares"}
