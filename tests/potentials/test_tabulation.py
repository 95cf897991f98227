"""A tabulated potential is the potential: means, variances, covariances, and everything that is asked of it."""

from dataclasses import replace

import pytest
import torch
from ase import Atoms
from ase.build import bulk

import bayesmol as bm
from bayesmol.data import Labelled, Structures
from bayesmol.errors import ConvergenceError, DataError, FormatError
from bayesmol.potentials.pair_gp import PairGP
from bayesmol.potentials.tabulation import TabulatedPotential, tabulated

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def frames():
    return bm.data.load("rmd17/ethanol/train")[:20]


@pytest.fixture(scope="module")
def exact(frames):
    return PairGP(cutoffs=(3.0,), length_scales=(0.5,)).fit(frames[:10])


@pytest.fixture(scope="module")
def table(exact):
    return tabulated(exact, tolerance=TOLERANCE)


@pytest.fixture(scope="module")
def crystal():
    """A potential of rattled crystals with stresses."""
    frames = [bulk("Ar", "fcc", a=a, cubic=True) for a in (3.9, 4.1, 4.3, 4.2)]
    for seed, frame in enumerate(frames):
        frame.rattle(0.1, seed=seed)
    structures = Structures.from_ase(frames)
    energies = torch.tensor([0.1, 0.0, 0.05, 0.02], dtype=torch.float64)
    forces = 0.1 * torch.randn(16, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stresses = 0.01 * torch.eye(3, dtype=torch.float64).expand(4, 3, 3)
    labelled = Labelled(structures, energies, forces, stresses=stresses)
    return PairGP(cutoffs=(4.0,), length_scales=(0.5,)).fit(labelled), structures


def test_means_and_covariances_are_kept(exact, table, frames):
    assert table.deviation <= TOLERANCE
    wanted, got = (model.predict(frames[10:20], covariance=True) for model in (exact, table))
    for name in ("energy", "forces"):
        first, second = getattr(wanted, name), getattr(got, name)
        torch.testing.assert_close(second.mean, first.mean, rtol=0, atol=3 * TOLERANCE)
        torch.testing.assert_close(second.epistemic.stddev, first.epistemic.stddev, rtol=0, atol=3 * TOLERANCE)
        torch.testing.assert_close(second.aleatoric.variance, first.aleatoric.variance)
    for block, want in zip(got.forces.covariance, wanted.forces.covariance, strict=True):
        torch.testing.assert_close(block, want, rtol=0, atol=1e-5)


def test_stresses_are_kept(crystal):
    exact, structures = crystal
    wanted, got = (model.predict(structures) for model in (exact, tabulated(exact, tolerance=1e-7)))
    torch.testing.assert_close(got.stress.mean, wanted.stress.mean, rtol=0, atol=1e-7)
    torch.testing.assert_close(got.stress.stddev, wanted.stress.stddev, rtol=0, atol=1e-7)


def test_eigenfunctions_are_the_covariance_of_the_functions(exact, table):
    """Cov(f(r), f(r')) by the splines, of carbon with hydrogen, repulsion apart."""
    distances = torch.linspace(0.9, 2.9, 15, dtype=torch.float64)
    pairs = Structures.from_ase([Atoms("CH", [[0, 0, 0], [0, 0, d]]) for d in distances.tolist()])
    far = Structures.from_ase(Atoms("CH", [[0, 0, 0], [0, 0, 5.0]]))
    rows = table.table.energies(table.table.edges(pairs)) - table.table.energies(table.table.edges(far))
    found = exact.functions(distances, 1, 6)
    torch.testing.assert_close(rows[:, 0], found.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(rows[:, 1:] @ rows[:, 1:].mT, found.covariance, rtol=0, atol=1e-5)
    stacked = torch.cat([table.table.splines.flatten(0, 1), table.table.constants])[:, 1:]
    gram = stacked.mT @ stacked
    torch.testing.assert_close(gram, torch.diag(gram.diagonal()), rtol=0, atol=1e-9 * float(gram.max()))


def test_contract(table, crystal, frames):
    bm.testing.check_potential(table, frames[10:12])
    bm.testing.check_potential(tabulated(crystal[0]), crystal[1][:2])


def test_repulsion_is_in_it(exact, table):
    close = Atoms("CH", [[0, 0, 0], [0, 0, 0.3]])
    torch.testing.assert_close(table.predict(close).energy.mean, exact.predict(close).energy.mean, rtol=0, atol=1e-4)
    apart = Atoms("CH", [[0, 0, 0], [0, 0, 1.1]])
    assert float(table.predict(close).energy.mean - table.predict(apart).energy.mean) > 10


def test_surface_is_the_mean(table, crystal, frames):
    found, wanted = bm.potentials.surface.surface(table, frames[10:13]), table.predict(frames[10:13])
    torch.testing.assert_close(found.energies, wanted.energy.mean)
    torch.testing.assert_close(found.forces, wanted.forces.mean)
    model = tabulated(crystal[0])
    found, wanted = model.surface(crystal[1], virial=True), model.predict(crystal[1])
    torch.testing.assert_close(found.virials / crystal[1].cell.det()[:, None, None], wanted.stress.mean)


def test_strangeness_is_that_of_the_kernel(exact, table, frames):
    torch.testing.assert_close(table.strangeness(frames[10:14]), exact.strangeness(frames[10:14]), rtol=1e-4, atol=1e-7)
    close = replace(frames[10:11].structures, positions=0.5 * frames[10:11].structures.positions)
    assert torch.isinf(table.strangeness(close)).all()
    assert torch.isinf(table.strangeness(Atoms("N"))).all()


def test_what_was_learned_is_shared(exact, table, frames):
    assert table.noise_force == exact.noise_force and table.training is exact.training
    assert torch.equal(table.features(frames[:2]), exact.features(frames[:2]))
    assert bool(table.trained(frames[:10].structures).all())
    with pytest.raises(AttributeError, match="nonsense"):
        _ = table.nonsense


def test_update_and_draws(exact, table, frames):
    more, wanted = table.update(frames[10:]), exact.update(frames[10:])
    torch.testing.assert_close(
        more.predict(frames[:4]).energy.mean, wanted.predict(frames[:4]).energy.mean, rtol=0, atol=1e-4
    )
    draws = table.draws(2, seed=0)
    means = [draw.predict(frames[:2]).energy.mean for draw in draws]
    torch.testing.assert_close(means[1], exact.draws(2, seed=0)[1].predict(frames[:2]).energy.mean, rtol=0, atol=1e-4)
    assert not torch.allclose(*means)


def test_certify(table):
    calibration = bm.data.load("rmd17/ethanol/test")[:60]
    certified = bm.certify(table, calibration, level=0.8, domain=bm.applicability.Domain(level=0.2))
    assert certified.predict(calibration[:2]).inside.shape == (2,)
    assert certified.calculator().model is certified


def test_bad_input(exact, table, crystal):
    with pytest.raises(DataError, match="PairGP"):
        tabulated(table)
    with pytest.raises(DataError, match="tolerance"):
        tabulated(exact, tolerance=0.0)
    with pytest.raises(ConvergenceError, match="raise it"):
        tabulated(crystal[0], tolerance=1e-30)
    header, arrays = table.state()
    with pytest.raises(FormatError, match="table"):
        TabulatedPotential.from_state({"exact": header["exact"]}, arrays)
