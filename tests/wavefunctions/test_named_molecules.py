"""The list of names agrees with the functions behind it."""

import numpy as np
import pytest

from bayesmol.wavefunctions.named_molecules import NAMES, nuclei, unpaired


@pytest.mark.parametrize("name", NAMES)
def test_each_name_has_nuclei(name):
    charges, positions = nuclei(name)
    assert positions.shape == (len(charges), 3) and np.isfinite(positions).all()
    assert (charges.sum() - unpaired(name)) % 2 == 0


def test_hunds_rule():
    assert [unpaired(name) for name in NAMES[:10]] == [1, 0, 1, 0, 1, 2, 3, 2, 1, 0]
