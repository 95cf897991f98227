"""Orbitals and determinants of quantum chemistry, from PySCF, to start a wavefunction from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.optional import optional
from bayesmol.wavefunctions.active_space import Expansion, check_active_space, completed, valence_space
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.slater_fit import fitted
from bayesmol.wavefunctions.slater_orbitals import SlaterOrbitals

__all__ = ["Reference", "casscf", "hartree_fock", "multireference"]

_VIRTUALS = 8
_THRESHOLD = 0.01  # least |c| of a determinant, as in PauliNet
_CYCLES = 200
_WORST_OCCUPIED, _WORST_VIRTUAL = 0.1, 0.5  # rms of a fit; diffuse and d orbitals of empty shells are worse


@dataclass(frozen=True, eq=False)
class Reference:
    r"""A wavefunction :math:`\psi = \sum_p c_p \det[\phi_{u_p}(r_\uparrow)] \det[\phi_{d_p}(r_\downarrow)]`.

    Electrons with spin up come first, orbitals of a determinant in ascending order.

    Attributes
    ----------
    energy
        Of the calculation in its Gaussian basis, in Ha; the Slater orbitals are as good to about 1 mHa.
    orbitals
        Cusp-exact Slater orbitals: first those of the determinants, then empty ones.
    up, down
        Orbitals of each determinant.
    coefficients
        c, the largest first and positive.
    hartree_fock
        Hartree–Fock energy in the same basis, in Ha.
    rms
        Deviation of each Slater orbital from the Gaussian one, :math:`(\int (\tilde\phi - \phi)^2)^{1/2}`.
    method
        Name of the calculation, for example ``"CASSCF(2,4)/cc-pvtz"``.
    """

    molecule: Molecule
    energy: float
    orbitals: SlaterOrbitals
    up: Int[np.ndarray, "determinants up"]
    down: Int[np.ndarray, "determinants down"]
    coefficients: Float[np.ndarray, " determinants"]
    hartree_fock: float
    rms: Float[np.ndarray, " orbitals"]
    method: str


def hartree_fock(
    molecule: Molecule, basis: str = "cc-pvtz", *, unrestricted: bool = False, virtuals: int = _VIRTUALS
) -> Reference:
    """The Hartree–Fock determinant: RHF for singlets, ROHF for open shells.

    Restricted orbitals are the default because the determinant then has a definite total spin, and one set of orbitals
    serves both spins; the correlation that UHF would add comes back with the wavefunction built on it.

    Parameters
    ----------
    basis
        Name of a Gaussian basis.
    unrestricted
        UHF: the orbitals of down electrons follow those of up electrons.
    virtuals
        How many empty orbitals are kept beyond those in use.

    Raises
    ------
    ConvergenceError
        If the iteration does not converge, or not to a minimum; or if Slater functions do not fit the orbitals.
    DataError
        If there is no such basis for the elements, or an element is heavier than argon.

    References
    ----------
    Sun et al., J. Chem. Phys. 153, 024109 (2020) (PySCF).
    """
    field = _field(molecule, basis, unrestricted)
    coefficients = np.asarray(field.mo_coeff)
    up, down = np.arange(molecule.up)[None], np.arange(molecule.down)[None]
    if unrestricted:
        coefficients, down = np.concatenate(coefficients, -1), down + coefficients.shape[-1]
    expansion = Expansion(field.e_tot, coefficients, up, down, np.ones(1), f"{_name(field)}/{basis}")
    return _reference(molecule, field, expansion, virtuals)


def casscf(
    molecule: Molecule, electrons: int, orbitals: int, basis: str = "cc-pvtz", *, virtuals: int = _VIRTUALS
) -> Reference:
    """Determinants of a complete active space over its natural orbitals, those above 0.01 in size, largest first.

    The spin is that of the molecule, and so is that of the state: others are shifted upwards.

    Parameters
    ----------
    electrons, orbitals
        Size of the active space about the highest occupied Hartree–Fock orbitals.
    basis, virtuals
        As for :func:`hartree_fock`.

    Raises
    ------
    ConvergenceError
        If an iteration does not converge, or Slater functions do not fit the orbitals.
    DataError
        If the active space is impossible, or as for :func:`hartree_fock`.

    References
    ----------
    Sun et al., J. Chem. Phys. 153, 024109 (2020) (PySCF).
    """
    check_active_space(molecule, electrons, orbitals)
    field = _field(molecule, basis, unrestricted=False)
    return _reference(molecule, field, _active(molecule, field, electrons, orbitals, basis), virtuals)


def multireference(
    molecule: Molecule, determinants: int, basis: str = "cc-pvtz", *, virtuals: int = _VIRTUALS
) -> Reference:
    """The ``determinants`` largest of a small active space; then excitations with coefficient 0, to be learned.

    The active space is that of all valence orbitals, such as (2,4) for Be and (2,5) for LiH; where this is more than 8
    electrons or orbitals, the 6 about the gap, as for N2. A number that cuts through a set of equal coefficients
    breaks the symmetry of the molecule.

    Raises
    ------
    ConvergenceError, DataError
        As for :func:`hartree_fock`, and if there are not so many orbitals.
    """
    if determinants < 1:
        raise DataError(expected("determinants", "a positive number", determinants))
    field = _field(molecule, basis, unrestricted=False)
    electrons, orbitals = valence_space(molecule)
    if determinants == 1 or electrons < 2 or electrons + molecule.spin >= 2 * orbitals:
        occupied = np.arange(molecule.up)[None], np.arange(molecule.down)[None]
        method = f"{_name(field)}/{basis}"
        expansion = Expansion(field.e_tot, np.asarray(field.mo_coeff), *occupied, np.ones(1), method)
    else:
        expansion = _active(molecule, field, electrons, orbitals, basis)
    return _reference(molecule, field, expansion, virtuals, determinants)


def _active(molecule: Molecule, field: Any, electrons: int, orbitals: int, basis: str) -> Expansion:
    up, down = (electrons + molecule.spin) // 2, (electrons - molecule.spin) // 2
    if (core := molecule.down - down) + orbitals > (most := field.mol.nao):
        raise DataError(expected("orbitals", f"at most {most - core} in {basis}", orbitals, "use a larger basis"))
    solver = optional("pyscf.mcscf", "quantum").CASSCF(field, orbitals, (up, down))
    solver.natorb, solver.chkfile, solver.max_cycle_macro = True, None, _CYCLES
    solver.conv_tol = 1e-6  # in Ha; the determinants are a start
    half = molecule.spin / 2
    solver.fix_spin_(ss=half * (half + 1))
    solver.kernel()
    method = f"CASSCF({electrons},{orbitals})/{basis}"
    if not solver.converged:
        raise ConvergenceError(f"{method} of {molecule} did not converge; choose another active space")
    large = optional("pyscf.fci.addons", "quantum").large_ci(
        solver.ci, orbitals, (up, down), tol=_THRESHOLD, return_strs=False
    )
    large.sort(key=lambda one: (-abs(one[0]), *one[1], *one[2]))
    inner, sign = np.arange(core), np.sign(large[0][0])
    rows = [[np.concatenate([inner, np.sort(one[spin]) + core]) for one in large] for spin in (1, 2)]
    coefficients = sign * np.array([one[0] for one in large])
    first, second = (np.array(row, dtype=int).reshape(len(large), -1) for row in rows)
    return Expansion(float(solver.e_tot), np.asarray(solver.mo_coeff), first, second, coefficients, method)


def _field(molecule: Molecule, basis: str, unrestricted: bool) -> Any:
    """A converged and stable self-consistent field."""
    scf, atoms = (
        optional("pyscf.scf", "quantum"),
        list(zip(molecule.charges.tolist(), molecule.positions.tolist(), strict=True)),
    )
    options = {"charge": molecule.charge, "spin": molecule.spin, "unit": "Bohr", "verbose": 0}
    program = optional("pyscf.gto", "quantum")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it recommends another package when it does not know a basis
            system = program.M(atom=atoms, basis=basis, dump_input=False, parse_arg=False, **options)
    except (RuntimeError, KeyError) as error:  # PySCF's error of a basis is one of these, by version
        wanted = f"a Gaussian basis for {', '.join(sorted(set(molecule.symbols)))}"
        raise DataError(expected("basis", wanted, repr(basis), "for example 'cc-pvtz'")) from error
    kind = scf.UHF if unrestricted else scf.ROHF if molecule.spin else scf.RHF
    field = kind(system)
    field.conv_tol, field.max_cycle, field.chkfile = 1e-10, _CYCLES, None
    field.kernel()
    fixed = molecule.electrons == 1 or system.nao == molecule.up  # nothing to rotate, and PySCF would divide by zero
    for _ in range(0 if fixed else 5):
        if not field.converged:
            break
        better, _, stable, _ = field.stability(return_status=True)
        if stable:
            return field
        field.kernel(field.make_rdm1(better, field.mo_occ))
    if field.converged and fixed:
        return field
    what = "did not converge" if not field.converged else "converges to no minimum"
    raise ConvergenceError(f"{_name(field)}/{basis} of {molecule} {what}; check geometry, charge and spin")


def _reference(
    molecule: Molecule, field: Any, expansion: Expansion, virtuals: int, determinants: int | None = None
) -> Reference:
    """The expansion over Slater orbitals, of which the empty ones are kept that Slater functions can represent."""
    if virtuals < 0:
        raise DataError(expected("virtuals", "zero or a positive number", virtuals))
    grid = optional("pyscf.dft.gen_grid", "quantum").Grids(field.mol)
    grid.level = 1
    grid.build()
    values = field.mol.eval_gto("GTOval", grid.coords) @ expansion.orbitals
    orbitals, rms = fitted(molecule, grid.coords, grid.weights, values)
    empty = np.setdiff1d(np.flatnonzero(rms < _WORST_VIRTUAL), _used(expansion))
    if determinants is not None:
        expansion = completed(expansion, determinants, empty)
    used = _used(expansion)
    if (worst := rms[used].max()) > _WORST_VIRTUAL or rms[expansion.up[0]].max() > _WORST_OCCUPIED:
        raise ConvergenceError(f"Slater functions do not fit the orbitals of {molecule}: rms {worst:.2g}")
    kept = np.concatenate([used, np.setdiff1d(empty, used)[:virtuals]])
    orbitals = replace(orbitals, coefficients=np.asarray(orbitals.coefficients)[:, kept])
    up, down = (np.searchsorted(used, part) for part in (expansion.up, expansion.down))
    weights, mean_field = expansion.coefficients, float(field.e_tot)
    found = molecule, float(expansion.energy), orbitals
    return Reference(*found, up, down, weights, mean_field, rms[kept], expansion.method)


def _used(expansion: Expansion) -> np.ndarray:
    return np.union1d(expansion.up, expansion.down).astype(int)


def _name(field: Any) -> str:
    return type(field).__name__.replace("HF1e", "HF")
