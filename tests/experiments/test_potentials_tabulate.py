"""The study of tables runs, and its kernel form is the potential."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk

from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError
from bayesmol.potentials.pair_gp import PairGP
from bayesmol.report import Study


@pytest.fixture
def tabulate(study):
    return study("potentials_tabulate")


def crystals(count, seed):
    source = torch.Generator().manual_seed(seed)
    frames = [bulk("Ar", "fcc", a=3.9 + 0.1 * i, cubic=i % 2 == 0) for i in range(count)]
    structures = Structures.from_ase(frames)
    moved = structures.positions + 0.1 * torch.randn(structures.positions.shape, generator=source, dtype=torch.float64)
    structures = Structures(moved, structures.species, structures.pointer, structures.cell, structures.pbc)
    forces = 0.1 * torch.randn(moved.shape, generator=source, dtype=torch.float64)
    return Labelled(structures, torch.randn(count, generator=source, dtype=torch.float64), forces)


SPEC = PairGP(cutoffs=(4.5,), length_scales=(0.4,))


def test_figures(tabulate):
    study = Study("potentials", "tabulate")
    plots = tabulate.tabulate(study, crystals(5, 0), crystals(3, 1), specification=SPEC, repeats=2)
    found = {name: figure.value for name, figure in study.figures.items()}
    assert found["deviation_energy"] < 1e-4 and found["deviation_forces_stddev"] < 1e-4
    assert found["kernel_form_error"] < 1e-7, "the sum over training pairs is the same function"
    times = {name: found[f"predict_cpu_milliseconds_{name}"] for name in ("kernel", "table", "sparse")}
    assert found["ratio_to_kernel"] == pytest.approx(times["kernel"] / times["table"])
    assert found["atoms_timed"] == 4
    assert {"energy_mae", "force_mae", "force_coverage_90"} <= found.keys()
    assert len(plots["pair_functions"].axes) == 2


def test_the_kernel_form_is_the_potential(tabulate):
    data = crystals(5, 0)
    exact = SPEC.fit(data)
    test = crystals(2, 3).structures[0]
    energies, forces = tabulate.KernelForm.of(exact, data)(test)
    wanted = exact.surface(test)
    torch.testing.assert_close(energies, wanted.energies, rtol=0, atol=1e-7)
    torch.testing.assert_close(forces, wanted.forces, rtol=0, atol=1e-7)


def test_the_kernel_form_is_of_one_element(tabulate):
    frames = [Atoms("ArNe", [[0, 0, 0], [0, 0, d]]) for d in (2.5, 3.0, 3.5)]
    data = Labelled(Structures.from_ase(frames), torch.tensor([0.1, 0.0, 0.05]).double(), torch.zeros(6, 3).double())
    with pytest.raises(DataError, match="one element"):
        tabulate.KernelForm.of(SPEC.fit(data), data)
