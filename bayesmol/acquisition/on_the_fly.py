"""Learning on the fly: molecular dynamics on a potential that asks a reference where it may not be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bayesmol.acquisition.audits import Audits
from bayesmol.acquisition.gate import Gate
from bayesmol.acquisition.ledger import Ledger
from bayesmol.acquisition.trace import REFERENCE, Trace
from bayesmol.data import Labelled, Structures
from bayesmol.errors import ApplicabilityError, DataError, expected
from bayesmol.inference.random import generator, numpy_generator

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["Langevin", "Learned", "OnTheFly", "Verlet"]


@dataclass(frozen=True)
class Langevin:
    """Langevin dynamics at a temperature (K) with a friction (1/fs) and a time step (fs)."""

    temperature: float = 300.0
    timestep: float = 0.5
    friction: float = 0.01

    def start(self, atoms: Atoms, source: Any) -> Any:
        """ASE integrator of ``atoms`` that draws from ``source``."""
        from ase import units
        from ase.md.langevin import Langevin as Integrator

        options: dict[str, Any] = {
            "temperature_K": self.temperature,
            "friction": self.friction / units.fs,
            "fixcm": False,
        }
        return Integrator(atoms, self.timestep * units.fs, rng=source, **options)


@dataclass(frozen=True)
class Verlet:
    """Dynamics at constant energy with a time step (fs)."""

    timestep: float = 0.5

    def start(self, atoms: Atoms, source: Any) -> Any:
        """ASE integrator of ``atoms``; ``source`` is not used."""
        from ase import units
        from ase.md.verlet import VelocityVerlet

        return VelocityVerlet(atoms, self.timestep * units.fs)


@dataclass(frozen=True)
class OnTheFly:
    r"""Dynamics that learns: ``OnTheFly(BayesianACE(), TBLite()).run(folder, atoms, 10_000)``.

    At each step the potential is trusted if

    .. math:: c \max_i \sqrt{\mathrm{tr}\, \Sigma_i} \le \mathrm{tolerance}

    with the predicted covariance :math:`\Sigma_i` of the force on atom i, and if the structure is no stranger than any
    that was labelled. Where it is not, the reference is asked: its forces move the atoms, and the potential learns
    them. Accepted steps are checked at random. These checks adapt c (adaptive conformal inference at ``level``), and
    because each has a known probability they say how often accepted steps are wrong, in spite of the feedback
    (:class:`~bayesmol.acquisition.Audits`). A check that finds an error above the tolerance takes the last ``rewind``
    steps back. A failed calculation is recorded and not learned from; the run goes back and takes another way.

    Attributes
    ----------
    model
        Specification of a potential that can be saved; ``fit(labelled, seed=…)``.
    reference
        Labels structures: ``reference.label(structures)``, as :class:`bayesmol.data.reference.TBLite`.
    tolerance
        Of the largest force error of an atom, in eV/Å.
    level
        Share of accepted steps whose error shall be below the bound.
    audit
        Probability that an accepted step is checked.
    dynamics
        :class:`Langevin`, :class:`Verlet`, or anything with ``start(atoms, source) -> ASE integrator`` whose state is
        the positions and momenta.
    bias
        Strength τ of a bias :math:`F + \tau \nabla \sigma_E` towards structures whose energy is uncertain; see
        :mod:`bayesmol.acquisition.biased`.
    initial, displacement
        Where no labels are given: number of random displacements of the atoms to start from, and their size in Å.
    refit
        The hyper-parameters are learned anew when there are so many times the labels of the last time.
    rewind
        Steps taken back; never beyond the last checkpoint.
    checkpoint
        Steps between checkpoints.
    window
        Number of newest scores that give c.

    References
    ----------
    Jinnouchi, Karsai, Kresse, Phys. Rev. B 100, 014105 (2019); Vandermause et al., npj Comput. Mater. 6, 20 (2020),
    for learning on the fly; the calibrated bound and the audits are ours.
    """

    model: Any
    reference: Any
    tolerance: float = 0.2
    level: float = 0.95
    audit: float = 0.02
    dynamics: Any = field(default_factory=Langevin)
    bias: float = 0.0
    initial: int = 20
    displacement: float = 0.05
    refit: float = 2.0
    rewind: int = 10
    checkpoint: int = 500
    window: int = 300

    def __post_init__(self) -> None:
        for name in ("level", "audit"):
            if not 0 < getattr(self, name) < 1:
                raise DataError(expected(name, "a probability strictly between 0 and 1", getattr(self, name)))
        least: dict[str, float] = {"initial": 2, "rewind": 0, "checkpoint": 1, "window": 20, "bias": 0}
        least |= {"tolerance": 1e-12, "displacement": 1e-12, "refit": 1 + 1e-12}
        for name, low in least.items():
            if not low <= getattr(self, name) < float("inf"):
                raise DataError(expected(name, f"a finite number of at least {low:g}", getattr(self, name)))

    def run(
        self,
        folder: str | Path,
        atoms: Atoms,
        steps: int,
        *,
        initial: Labelled | None = None,
        budget: int | None = None,
        seed: int = 0,
    ) -> Learned:
        """Dynamics from ``atoms``, which keep their momenta, or on from where a run in ``folder`` was left.

        A run that was killed goes on from its last checkpoint and ends with the same trajectory and model.

        Parameters
        ----------
        folder
            Ledger, trace, model and checkpoint.
        steps
            Of the whole trajectory.
        initial
            Labels to start from.
        budget
            Calls of the reference after which the run ends early.

        Raises
        ------
        DataError
            If the folder holds a run with other settings.
        ApplicabilityError
            If the reference fails again and again.
        """
        from bayesmol.acquisition.on_the_fly_run import Run

        with Ledger(Path(folder) / "ledger.jsonl") as ledger:
            run = Run(self, Path(folder), atoms, ledger, initial, seed)
            return run.until(steps, budget)

    def displaced(self, atoms: Atoms, seed: int) -> Structures:
        """Random displacements of the atoms to start from."""
        frames = []
        source = numpy_generator(generator(seed))
        for _ in range(self.initial):
            frame = atoms.copy()
            frame.positions += self.displacement * source.standard_normal(frame.positions.shape)
            frames.append(frame)
        return Structures.from_ase(frames)

    def labelled(self, structures: Structures) -> Labelled | str:
        """Label of one structure, or why there is none."""
        found = self.reference.label(structures)
        return "; ".join(found.failures.values()) or "no label" if found.labelled is None else found.labelled


@dataclass(frozen=True, eq=False)
class Learned:
    """A run on the fly so far; prints as a summary.

    Attributes
    ----------
    model
        Potential that has learned all labels.
    labels
        The initial ones and those of the run.
    trace
        Its steps.
    audits
        What the random checks say.
    calls
        How often the reference was asked: ``initial``, ``triggered`` by the bound or the domain, at ``checks``; and
        how many of them ``failed``.
    gate
        When the model may be trusted, as at the end.
    atoms
        At the end, with momenta.
    reason
        Why it ended.
    """

    model: Any
    labels: Labelled
    trace: Trace
    audits: Audits
    calls: dict[str, int]
    gate: Gate
    atoms: Atoms
    reason: str

    @property
    def call_fraction(self) -> float:
        """Calls of the reference, the initial ones included, for each step of the trajectory."""
        return sum(self.calls[name] for name in ("initial", "triggered", "checks")) / max(len(self.trace), 1)

    @property
    def guarantee(self) -> str:
        """What holds of the accepted steps."""
        return self.audits.guarantee

    @property
    def accepted(self) -> torch.Tensor:
        """Numbers of the steps of the trajectory that were moved by the potential."""
        return (self.trace.kind != REFERENCE).nonzero()[:, 0]

    def __str__(self) -> str:
        calls = ", ".join(f"{count} {name}" for name, count in self.calls.items())
        lines = [f"{len(self.trace)} steps, {len(self.labels)} labels; reference: {calls} ({self.call_fraction:.1%})"]
        return "\n".join([*lines, self.guarantee, f"ended: {self.reason}"])


def refused(reason: str) -> ApplicabilityError:
    """Error of a run whose reference fails again and again."""
    remedy = "look at the structure in the ledger, choose other starting atoms or another reference"
    return ApplicabilityError(expected("reference", "labels", f"failure upon failure, the last: {reason}", remedy))
