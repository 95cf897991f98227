"""Published Monte-Carlo energies are those that ship."""

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError


def test_published_energies_are_those_that_ship(study, tmp_path):
    shipped = bm.data.load("qmc/graphene")
    path = tmp_path / "qmc.csv"
    path.write_text("disregistry,d,energy,energy_err\n0.0,3.0,-154.5,0.001\n0.66667,3.5,-154.25,0.002\n")
    found = study("potentials_peers").monte_carlo(str(path))
    torch.testing.assert_close(found.energies, torch.tensor([-618.0, -617.0]).double())
    torch.testing.assert_close(found.energy_errors, torch.tensor([0.004, 0.008]).double())
    torch.testing.assert_close(found.structures.cell[0], shipped.structures.cell[0])
    assert torch.equal(found.structures.pbc, shipped.structures.pbc[:2])


def test_energies_without_errors_are_refused(study):
    with pytest.raises(DataError, match="standard errors"):
        study("potentials_peers").monte_carlo("rmd17/ethanol")
