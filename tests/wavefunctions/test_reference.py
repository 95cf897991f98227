"""PySCF's wavefunctions: energies known from it, signs by rotation of the orbitals, orbitals against Gaussians."""

import sys

import jax
import numpy as np
import pytest
from pyscf import ao2mo, gto, lib, scf
from pyscf.dft import gen_grid
from pyscf.fci import addons, cistring, direct_spin1

from bayesmol.errors import ConvergenceError, DataError, DependencyError
from bayesmol.wavefunctions import reference
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.precision import double

H4 = Molecule.named("H4-rectangle")


def evaluated(orbitals, points):
    with double():
        return np.asarray(jax.jit(jax.vmap(orbitals))(points))


def gaussians(molecule, basis="cc-pvtz"):
    atoms = list(zip(molecule.charges.tolist(), molecule.positions.tolist(), strict=True))
    return gto.M(atom=atoms, unit="Bohr", basis=basis, charge=molecule.charge, spin=molecule.spin, verbose=0)


@pytest.fixture(scope="module")
def lithium_hydride():
    return reference.hartree_fock(Molecule.named("LiH"), virtuals=2)


@pytest.fixture(scope="module")
def beryllium():
    return reference.multireference(Molecule.named("Be"), 4, virtuals=3)


def test_orbitals_of_hartree_fock(lithium_hydride):
    """Energy of the research literature, orthonormal orbitals, as PySCF's away from nuclei, one-electron energies."""
    found = lithium_hydride
    assert found.energy == found.hartree_fock == pytest.approx(-7.986634, abs=1e-6)
    assert (found.up.tolist(), found.down.tolist(), found.coefficients.tolist()) == ([[0, 1]], [[0, 1]], [1.0])
    system = gaussians(found.molecule)
    field = scf.RHF(system).run(conv_tol=1e-10)
    grid = gen_grid.Grids(system)
    grid.level = 1
    grid.build()
    values, wanted = evaluated(found.orbitals, grid.coords)[:, :2], system.eval_gto("GTOval", grid.coords)
    wanted = wanted @ field.mo_coeff[:, :2]
    np.testing.assert_allclose(values.T @ (grid.weights[:, None] * values), np.eye(2), atol=1e-3)
    sign = np.sign(np.sum(grid.weights[:, None] * values * wanted, 0))
    away = np.linalg.norm(grid.coords[:, None] - found.molecule.positions, axis=-1)
    assert np.abs(values * sign - wanted)[(away > 0.5).all(1)].max() < 3e-3
    deviation = np.sqrt(grid.weights @ (values * sign - wanted) ** 2)
    np.testing.assert_allclose(deviation, found.rms[:2], rtol=1e-3)
    with double():
        slopes = np.asarray(jax.jit(jax.vmap(jax.jacfwd(found.orbitals)))(grid.coords))[:, :2]
    kinetic = np.sum(slopes**2, -1) / 2
    attraction = -np.sum(found.molecule.charges / away, -1)[:, None] * values**2
    energy = 2 * np.sum(grid.weights @ (kinetic + attraction))
    assert energy == pytest.approx(np.sum(field.make_rdm1() * field.get_hcore()), abs=2e-3)


def test_cusps(lithium_hydride):
    for charge, place in zip([3, 1], lithium_hydride.molecule.positions, strict=True):
        unit = np.random.default_rng(1).normal(size=(5, 3))
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        ends = evaluated(
            lithium_hydride.orbitals, np.concatenate([place + s * unit for s in (1e-5, -1e-5, 2e-5, -2e-5)])
        )
        value = evaluated(lithium_hydride.orbitals, place[None])[0]
        near, far = ends.reshape(2, 2, 5, -1).mean(1)
        np.testing.assert_allclose((4 * near - far - 3 * value) / 2e-5, np.tile(-charge * value, (5, 1)), atol=1e-6)


def test_hartree_fock_energy_of_the_fit(beryllium):
    """Total energy of 1s² 2s² by radial quadrature: between the numerical limit and some mHa above."""
    found = reference.hartree_fock(Molecule.named("Be"), virtuals=0)
    node, weight = np.polynomial.legendre.leggauss(300)
    r, dr = 30 * ((node + 1) / 2) ** 3, weight * 45 * ((node + 1) / 2) ** 2
    line = r[:, None] * [0.0, 0.0, 1.0]
    with double():
        slope = np.asarray(jax.jit(jax.vmap(jax.jacfwd(found.orbitals)))(line))[:, :, 2]
    values, measure = evaluated(found.orbitals, line), 4 * np.pi * r**2 * dr
    triangle = np.linalg.inv(np.linalg.cholesky(values.T @ (measure[:, None] * values))).T
    values, slope = values @ triangle, slope @ triangle
    core = np.einsum("g,gi->i", measure, slope**2 / 2 - 4 / r[:, None] * values**2)
    density = np.einsum("gi,gj->gij", values, values)
    coulomb = np.einsum("g,gij,gh,h,hkl->ijkl", measure, density, 1 / np.maximum(r[:, None], r), measure, density)
    repulsion = 2 * np.einsum("iijj", coulomb) - np.einsum("ijij", coulomb)
    energy = 2 * core.sum() + repulsion
    assert -14.573024 < energy < found.energy + 1e-3
    assert beryllium.hartree_fock == pytest.approx(found.energy, abs=1e-8)


def test_determinants_of_beryllium(beryllium):
    """1s²2s² and the three 1s²2p², whose coefficients are equal by symmetry and of the other sign."""
    assert beryllium.energy == pytest.approx(-14.616438, abs=1e-5)
    assert beryllium.method == "CASSCF(2,4)/cc-pvtz"
    assert beryllium.up.tolist() == beryllium.down.tolist() == [[0, 1], [0, 2], [0, 3], [0, 4]]
    np.testing.assert_allclose(beryllium.coefficients, [0.950, -0.180, -0.180, -0.180], atol=2e-3)
    assert beryllium.orbitals.coefficients.shape[1] == len(beryllium.rms) == 8
    assert beryllium.rms[:5].max() < 0.02


def full(expansion, orbitals):
    """The expansion as PySCF's matrix of coefficients over all ``orbitals``."""
    spins = [np.array([sum(1 << int(k) for k in row) for row in part]) for part in (expansion.up, expansion.down)]
    electrons = expansion.up.shape[1], expansion.down.shape[1]
    matrix = np.zeros([cistring.num_strings(orbitals, count) for count in electrons])
    rows = [cistring.strs2addr(orbitals, count, part) for count, part in zip(electrons, spins, strict=True)]
    matrix[rows[0], rows[1]] = expansion.coefficients
    return matrix, electrons


def psi(up, down, coefficients, values):
    """Sum of products of determinants for one configuration, orbitals in rows of electrons."""
    first, second = values[: up.shape[1]], values[up.shape[1] :]
    pairs = zip(coefficients, up, down, strict=True)
    return sum(c * np.linalg.det(first[:, u]) * np.linalg.det(second[:, d]) for c, u, d in pairs)


@pytest.mark.parametrize(
    ("molecule", "active"),
    [(H4, (4, 4)), (Molecule(H4.charges, H4.positions, spin=2), (4, 4)), (Molecule.named("LiH"), (2, 3))],
    ids=["singlet", "triplet", "with core"],
)
def test_signs_and_energy(monkeypatch, molecule, active):
    """ψ is the same function after a rotation of the orbitals, and its energy that of CASSCF: no sign is wrong."""
    monkeypatch.setattr(reference, "_THRESHOLD", 1e-12)
    field = reference._field(molecule, "sto-3g", unrestricted=False)
    expansion = reference._active(molecule, field, *active, "sto-3g")
    count = 1 + max(expansion.up.max(), expansion.down.max())
    orbitals, (matrix, electrons) = expansion.orbitals[:, :count], full(expansion, 1 + expansion.up.max())
    core = orbitals.T @ field.get_hcore() @ orbitals
    repulsion = ao2mo.kernel(field.mol, orbitals)
    energy = direct_spin1.energy(core, repulsion, matrix, count, electrons)
    assert energy + molecule.nuclear_repulsion == pytest.approx(expansion.energy, abs=1e-7)
    source = np.random.default_rng(3)
    rotation = np.linalg.qr(source.normal(size=(count, count)))[0]
    turned = addons.transform_ci(matrix, electrons, rotation)
    strings = [cistring.gen_occslst(range(count), n) for n in electrons]
    up, down = (part.ravel() for part in np.indices(turned.shape))
    for _ in range(3):
        values = field.mol.eval_gto("GTOval", source.normal(size=(molecule.electrons, 3)) * 1.5) @ orbitals
        ours = psi(expansion.up, expansion.down, expansion.coefficients, values)
        theirs = psi(strings[0][up], strings[1][down], turned.ravel(), values @ rotation)
        assert ours == pytest.approx(theirs, rel=1e-8)


def test_determinants_to_be_learned():
    lithium = reference.multireference(Molecule.named("Li"), 3, virtuals=0)
    assert lithium.coefficients.tolist() == [1.0, 0.0, 0.0]
    assert lithium.down.tolist() == [[0], [2], [3]]
    assert lithium.up.tolist() == [[0, 1], [1, 2], [1, 3]]  # the unpaired electron stays
    hydrogen = reference.multireference(Molecule.named("H"), 2)
    assert hydrogen.up.tolist() == [[0], [1]] and hydrogen.down.shape == (2, 0)
    assert hydrogen.energy == pytest.approx(-0.499810, abs=1e-6)
    with pytest.raises(DataError, match="determinants: expected at most"):
        reference.multireference(Molecule.named("H"), 50)
    with pytest.raises(DataError, match="determinants: expected a positive number"):
        reference.multireference(Molecule.named("H"), 0)


def test_unrestricted_orbitals():
    lithium = reference.hartree_fock(Molecule.named("Li"), unrestricted=True, virtuals=1)
    assert lithium.method == "UHF/cc-pvtz" and lithium.energy == pytest.approx(-7.432702, abs=1e-6)
    assert lithium.energy < reference.hartree_fock(Molecule.named("Li"), virtuals=0).energy
    assert (lithium.up.tolist(), lithium.down.tolist()) == ([[0, 1]], [[2]])
    points = np.array([[0.1, 0.2, 0.3], [1.0, 0.0, 0.5]])
    first, _, third = evaluated(lithium.orbitals, points)[:, :3].T
    assert np.all(first != third) and np.allclose(np.abs(first), np.abs(third), rtol=0.05)


def test_what_goes_wrong_is_said(monkeypatch):
    with pytest.raises(DataError, match="basis: expected a Gaussian basis for He, got 'nonsense'"):
        reference.hartree_fock(Molecule.named("He"), "nonsense")
    with pytest.raises(DataError, match="orbitals: expected at most 1 in sto-3g"):
        reference.casscf(Molecule.named("He"), 2, 5, "sto-3g")
    with pytest.raises(DataError, match="virtuals: expected zero or a positive number"):
        reference.hartree_fock(Molecule.named("He"), "sto-3g", virtuals=-1)
    monkeypatch.setattr(reference, "_CYCLES", 1)
    with pytest.raises(ConvergenceError, match="RHF/cc-pvdz of LiH did not converge"):
        reference.hartree_fock(Molecule.named("LiH"), "cc-pvdz")
    monkeypatch.setitem(sys.modules, "pyscf.scf", None)
    with pytest.raises(DependencyError, match="quantum"):
        reference.hartree_fock(Molecule.named("He"))


def test_silent_and_tidy(capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lib.param, "TMPDIR", str(tmp_path))
    reference.casscf(Molecule.named("H2"), 2, 2, "sto-3g", virtuals=0)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
