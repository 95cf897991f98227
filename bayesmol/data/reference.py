"""Labels by tight binding, quantum chemistry or a force field; only this file imports tblite, PySCF and OpenMM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bayesmol.data.labelled import Source
from bayesmol.data.labelling import Frame, Labels, Reference, Result, program_version
from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.optional import optional
from bayesmol.units import convert

__all__ = ["Labels", "OpenMM", "PySCF", "Reference", "TBLite"]

_XTB = {
    "GFN2-xTB": ("Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019)", "10.1021/acs.jctc.8b01176"),
    "GFN1-xTB": ("Grimme, Bannwarth, Shushkov, J. Chem. Theory Comput. 13, 1989 (2017)", "10.1021/acs.jctc.7b00118"),
}
_WAVEFUNCTIONS = ("HF", "MP2", "CCSD", "CCSD(T)")


@dataclass(frozen=True)
class TBLite(Reference):
    """Extended tight binding for molecules and crystals: some milliseconds for a small molecule.

    Each structure starts from the same guess, never from the wavefunction of the one before: that would save a third
    of the time, but a label would depend on its history (by some 1e-5 eV/Å) and could not be reproduced.

    Attributes
    ----------
    method
        ``"GFN2-xTB"`` or ``"GFN1-xTB"``.
    charge
        Of each structure, in elementary charges.
    multiplicity
        2 S + 1: one more than the number of unpaired electrons.
    accuracy
        Factor of the program's thresholds of convergence, 1 being its default; smaller is stricter.

    References
    ----------
    Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019); Grimme, Bannwarth, Shushkov, J. Chem. Theory
    Comput. 13, 1989 (2017).
    """

    method: str = "GFN2-xTB"
    charge: int = 0
    multiplicity: int = 1
    accuracy: float = 0.1

    library: ClassVar[str] = "tblite"
    together: ClassVar[int] = 16

    def __post_init__(self) -> None:
        _check(self, self.method in _XTB, "method", f"one of {list(_XTB)}")
        _check(self, self.multiplicity >= 1, "multiplicity", "2 S + 1, at least 1")
        _check(self, self.accuracy > 0, "accuracy", "a positive number")

    @property
    def source(self) -> Source:
        """What to cite for the labels."""
        return _source(f"{self.method} by tblite {program_version('tblite')}", *_XTB[self.method])

    def calculation(self) -> Callable[[Frame], Result]:
        """A function that labels one structure."""
        program = optional("tblite.interface", "reference")
        threads = optional("threadpoolctl", "reference").ThreadpoolController()

        def calculate(frame: Frame) -> Result:
            cell = {"lattice": convert(frame.cell, "Å", "bohr"), "periodic": frame.pbc} if frame.pbc.any() else {}
            place, state = convert(frame.positions, "Å", "bohr"), (float(self.charge), self.multiplicity - 1)
            job = program.Calculator(self.method, frame.numbers, place, *state, **cell)
            job.set("verbosity", 0)
            job.set("accuracy", self.accuracy)
            with threads.limit(limits=1):  # several would round sums in the order in which they happen to finish
                found = job.singlepoint()
            forces = -convert(found.get("gradient"), "Ha/bohr", "eV/Å")
            virial = convert(found.get("virial"), "Ha", "eV")
            stress = virial / abs(np.linalg.det(frame.cell)) if frame.pbc.all() else None
            return Result(convert(float(found.get("energy")), "Ha", "eV"), forces, stress)

        return calculate


@dataclass(frozen=True)
class PySCF(Reference):
    """Quantum chemistry of molecules in a Gaussian basis; spin-unrestricted unless the multiplicity is 1.

    All electrons are correlated. A broken bond of a singlet is described no better than by the restricted method.

    Attributes
    ----------
    method
        ``"HF"``, ``"MP2"``, ``"CCSD"``, ``"CCSD(T)"``, else the name of a density functional such as ``"PBE0"``.
    basis
        Name of the basis.
    charge, multiplicity
        Of each structure, in elementary charges; 2 S + 1.
    forces
        Whether to calculate them; they cost several times the energy for coupled clusters, and there are none for
        CCSD(T) of open shells (the program's differ from finite differences of its energies).

    References
    ----------
    Sun et al., J. Chem. Phys. 153, 024109 (2020).
    """

    method: str = "PBE0"
    basis: str = "def2-svp"
    charge: int = 0
    multiplicity: int = 1
    forces: bool = True

    library: ClassVar[str] = "pyscf"

    def __post_init__(self) -> None:
        _check(self, self.multiplicity >= 1, "multiplicity", "2 S + 1, at least 1")
        if self.forces and self.method == "CCSD(T)":
            _check(self, self.multiplicity == 1, "multiplicity", "1 for forces by CCSD(T) (else forces=False)")

    @property
    def source(self) -> Source:
        """What to cite for the labels."""
        name = f"{self.method}/{self.basis} by PySCF {program_version('pyscf')}"
        return _source(name, "Sun et al., J. Chem. Phys. 153, 024109 (2020)", "10.1063/5.0006074")

    def calculation(self) -> Callable[[Frame], Result]:
        """A function that labels one structure.

        Raises
        ------
        DataError
            If there is no such functional.
        """
        program = optional("pyscf", "reference")
        if self.method not in _WAVEFUNCTIONS:
            try:
                optional("pyscf.dft.libxc", "reference").parse_xc(self.method)
            except (KeyError, ValueError) as error:
                wanted = f"one of {_WAVEFUNCTIONS} or a functional of libxc"
                raise DataError(expected("method", wanted, repr(self.method))) from error

        def calculate(frame: Frame) -> Result:
            if frame.pbc.any():
                raise DataError(expected("structures", "molecules", "periodic directions", "use TBLite"))
            atoms = list(zip(frame.numbers.tolist(), convert(frame.positions, "Å", "bohr").tolist(), strict=True))
            spin = self.multiplicity - 1
            molecule = program.M(atom=atoms, unit="Bohr", basis=self.basis, charge=self.charge, spin=spin, verbose=0)
            energy, gradient = self._solved(molecule)
            forces = -convert(np.asarray(gradient()), "Ha/bohr", "eV/Å") if self.forces else None
            return Result(convert(float(energy), "Ha", "eV"), forces)

        return calculate

    def _solved(self, molecule: Any) -> tuple[float, Callable[[], Any]]:
        """Energy in Ha, and a function that gives its gradient in Ha/bohr."""
        closed = self.multiplicity == 1
        if self.method not in _WAVEFUNCTIONS:
            dft = optional("pyscf.dft", "reference")
            field = _converged((dft.RKS if closed else dft.UKS)(molecule, xc=self.method))
        else:
            scf = optional("pyscf.scf", "reference")
            field = _converged((scf.RHF if closed else scf.UHF)(molecule))
        if self.method in ("MP2", "CCSD", "CCSD(T)"):
            solver = (
                optional("pyscf.mp", "reference").MP2
                if self.method == "MP2"
                else optional("pyscf.cc", "reference").CCSD
            )
            field = _converged(solver(field))
        if self.method != "CCSD(T)":
            return field.e_tot, lambda: field.nuc_grad_method().kernel()
        return field.e_tot + field.ccsd_t(), lambda: _triples_gradient(field)


@dataclass(frozen=True)
class OpenMM(Reference):
    """A classical force field: the potential energy of an OpenMM ``System``.

    Attributes
    ----------
    system
        An ``openmm.System``, or its XML; it is kept as XML.
    numbers
        Atomic numbers of its particles in order; from their masses if omitted. Structures of other atoms fail.
    platform
        ``"Reference"`` is in double precision and repeats itself exactly.

    Raises
    ------
    DataError
        If the masses are not those of elements.

    References
    ----------
    Eastman et al., J. Phys. Chem. B 128, 109 (2024).
    """

    system: Any
    numbers: tuple[int, ...] = ()
    platform: str = "Reference"

    library: ClassVar[str] = "openmm"
    together: ClassVar[int] = 256

    def __post_init__(self) -> None:
        program = optional("openmm", "reference")
        system = program.XmlSerializer.deserialize(self.system) if isinstance(self.system, str) else self.system
        object.__setattr__(self, "system", program.XmlSerializer.serialize(system))
        numbers = tuple(int(n) for n in self.numbers) or _numbers(system)
        count = system.getNumParticles()
        _check(self, len(numbers) == count, "numbers", f"{count} atomic numbers, one for each particle")
        object.__setattr__(self, "numbers", numbers)

    @classmethod
    def from_forcefield(cls, topology: Any, *files: str, **options: Any) -> OpenMM:
        """The force field of ``files``, for example ``"amber14-all.xml"``, on an ``openmm.app.Topology``.

        Parameters
        ----------
        options
            Of ``openmm.app.ForceField.createSystem``.
        """
        system = optional("openmm.app", "reference").ForceField(*files).createSystem(topology, **options)
        return cls(system, tuple(atom.element.atomic_number for atom in topology.atoms()))

    @property
    def source(self) -> Source:
        """What to cite for the labels."""
        citation = "Eastman et al., J. Phys. Chem. B 128, 109 (2024)"
        return _source(f"force field by OpenMM {program_version('openmm')}", citation, "10.1021/acs.jpcb.3c06662")

    def calculation(self) -> Callable[[Frame], Result]:
        """A function that labels one structure; all share a context."""
        program = optional("openmm", "reference")
        system = program.XmlSerializer.deserialize(self.system)
        platform = program.Platform.getPlatformByName(self.platform)
        context = program.Context(system, program.VerletIntegrator(0.001), platform)

        def calculate(frame: Frame) -> Result:
            if tuple(frame.numbers.tolist()) != self.numbers:
                raise DataError(expected("species", "the atoms of the system in order", frame.numbers.tolist()))
            if system.usesPeriodicBoundaryConditions():
                context.setPeriodicBoxVectors(*convert(frame.cell, "Å", "nm"))
            context.setPositions(convert(frame.positions, "Å", "nm"))
            state = context.getState(getEnergy=True, getForces=True)
            forces = convert(state.getForces(asNumpy=True)._value, "kJ/mol/nm", "eV/Å")
            return Result(convert(state.getPotentialEnergy()._value, "kJ/mol", "eV"), forces)

        return calculate


def _check(specification: Any, right: bool, name: str, wanted: str) -> None:
    if not right:
        raise DataError(expected(name, wanted, repr(getattr(specification, name))))


def _source(name: str, citation: str, doi: str) -> Source:
    return Source(name, "calculated, not copied", f"{citation}, doi:{doi}", f"https://doi.org/{doi}")


def _converged(solver: Any) -> Any:
    """A solver of PySCF after its run."""
    solver.run()
    if getattr(solver, "converged", True) is False:
        raise ConvergenceError(f"{type(solver).__name__} did not converge in {solver.max_cycle} cycles")
    return solver


def _triples_gradient(solver: Any) -> Any:
    """Gradient of CCSD(T) for closed shells, which a solver of CCSD does not offer itself."""
    integrals = solver.ao2mo(solver.mo_coeff)
    equations = optional("pyscf.cc.ccsd_t_lambda", "reference")
    converged, *multipliers = equations.kernel(solver, integrals, solver.t1, solver.t2, verbose=0)
    if not converged:
        raise ConvergenceError("the multipliers of CCSD(T) did not converge")
    gradient = optional("pyscf.grad.ccsd_t", "reference").Gradients(solver)
    return gradient.kernel(solver.t1, solver.t2, *multipliers, eris=integrals)


def _numbers(system: Any) -> tuple[int, ...]:
    """Atomic numbers of the particles of a system, by their masses."""
    from ase.data import atomic_masses

    masses = np.array([system.getParticleMass(k)._value for k in range(system.getNumParticles())])
    difference = np.abs(masses[:, None] - atomic_masses[None, 1:])
    if (unknown := difference.min(1) > 0.1).any():
        wanted = "atomic numbers where masses are not those of elements"
        raise DataError(expected("numbers", wanted, f"none, and masses {masses[unknown][:5].tolist()}"))
    return tuple((difference.argmin(1) + 1).tolist())
