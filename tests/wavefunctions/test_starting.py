"""Where walkers start: at the nuclei by their charge, spins spread by chance."""

import numpy as np
import pytest

from bayesmol.errors import DataError
from bayesmol.testing import assert_calibrated
from bayesmol.wavefunctions.exact import ModelSystem, hydrogen
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.starting import start


def test_start_puts_electrons_at_nuclei_by_charge_and_spreads_spins():
    far = Molecule(np.array([3, 1, 8]), np.array([[0, 0, 0], [0, 0, 80.0], [0, 80.0, 0]]))
    r = np.asarray(start(far, 400, seed=0))
    assert r.shape == (400, 12, 3) and r.dtype == np.float64
    home = np.linalg.norm(r[:, :, None] - far.positions, axis=-1).argmin(-1)
    counts = (home[..., None] == np.arange(3)).sum(1)
    assert np.array_equal(counts, np.broadcast_to([3, 1, 8], counts.shape))
    ups = (home[:, :6, None] == np.arange(3)).sum(1)
    assert set(np.unique(ups[:, 0])) == {1, 2} and set(np.unique(ups[:, 2])) == {4}
    assert_calibrated(int((ups[:, 1] == 1).sum()), 400, 0.5)
    assert np.array_equal(r, start(far, 400, seed=0)) and not np.array_equal(r, start(far, 400, seed=1))


def test_start_of_ions_high_spins_and_traps():
    ion = Molecule(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 60.0]]), charge=1, spin=1)
    assert_calibrated(int((np.asarray(start(ion, 400, seed=0))[:, 0, 2] > 30).sum()), 400, 0.5)
    assert start(Molecule(np.array([7]), np.zeros((1, 3)), spin=3), 5, seed=0).shape == (5, 7, 3)
    trap = np.asarray(start(ModelSystem(frequency=0.5), 2000, seed=0))
    assert trap.std() == pytest.approx(1, abs=0.05)


def test_no_walkers_are_refused():
    with pytest.raises(DataError, match="walkers"):
        start(hydrogen().system, 0, seed=0)
