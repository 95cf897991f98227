"""Wavefunctions come back from files as they were."""

import jax
import numpy as np
import pytest
import torch

import bayesmol as bm
from bayesmol.errors import FormatError
from bayesmol.wavefunctions.fitted import FittedWavefunction


def test_it_comes_back_from_a_file(helium, helium_energy, tmp_path):
    bm.save(helium, tmp_path / "helium.bm")
    again = bm.load(tmp_path / "helium.bm")
    assert torch.equal(again.energy(100, seed=1).local, helium_energy.local)
    assert again.molecule == helium.molecule
    np.testing.assert_array_equal(again.history.energy, helium.history.energy)
    np.testing.assert_array_equal(again.trained.snapshots, helium.trained.snapshots)
    assert jax.tree.structure(again.parameters) == jax.tree.structure(helium.parameters)
    assert again.trial.reference.method == helium.trial.reference.method


def test_foreign_entries_are_refused(helium):
    header, arrays = helium.state()
    with pytest.raises(FormatError, match="ansatz"):
        FittedWavefunction.from_state({**header, "ansatz": {"kind": "Other"}}, arrays)
    with pytest.raises(FormatError, match="shapes"):
        FittedWavefunction.from_state({**header, "ansatz": {**header["ansatz"], "width": 5}}, arrays)
    with pytest.raises(FormatError, match="another version"):
        FittedWavefunction.from_state({**header, "lengths": [[0.5, 1.5, 4.0]] * 2}, arrays)
