"""ASE calculator of a learner: each new structure gets forces that may be trusted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from bayesmol.acquisition.learner import Answer, Learner
from bayesmol.data import Structures
from bayesmol.errors import DataError, expected

__all__ = ["LearningCalculator"]


class LearningCalculator(Calculator):
    """Energy and forces by :meth:`Learner.answer`; the last answer is in :attr:`answer`.

    An integrator sees the forces of the reference wherever the potential may not be trusted, so it never has to stop.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012  # as ASE declares it
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.learner = learner
        self.answer: Answer | None = None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """All results for ``atoms``; called by ASE."""
        super().calculate(atoms, list(properties), list(system_changes))
        if self.atoms is None:
            raise DataError(expected("atoms", "an ase.Atoms", "none"))
        self.answer = self.learner.answer(Structures.from_ase(self.atoms))
        self.results = _results(self.answer.energy, self.answer.forces.cpu().numpy())

    def resume(self, atoms: Atoms, energy: float, forces: Any) -> None:
        """Take up the results of ``atoms`` where a run was left, without asking anybody."""
        self.atoms, self.results = atoms.copy(), _results(energy, np.array(forces))


def _results(energy: float, forces: np.ndarray) -> dict[str, Any]:
    return {"energy": energy, "free_energy": energy, "forces": forces}
