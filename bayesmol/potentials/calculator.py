"""ASE calculator: energy, forces and stress of a fitted potential, with their uncertainty beside them."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor

from bayesmol.data import Structures
from bayesmol.errors import ApplicabilityError, DataError, expected
from bayesmol.posterior import Posterior, Prediction
from bayesmol.posterior.interval import checked_level

__all__ = ["Calculator"]

_ANSWERS = (None, "warn", "raise")


class Calculator(AseCalculator):
    """Calculator of a fitted potential or a certified model: ``atoms.calc = Calculator(model)``.

    ``results`` holds what ASE knows: ``energy`` and ``free_energy`` in eV, ``forces`` in eV/Å and, if the model gives
    it, ``stress`` in eV/Å³ (Voigt order). The rest is in :attr:`uncertainty`, because ASE refuses unknown results in
    ``SinglePointCalculator(atoms, **calc.results)`` and in ``calc.get_properties``.

    Parameters
    ----------
    model
        Has ``predict(structures) -> Prediction``.
    level
        Probability of the intervals.
    on_leave
        What to do with a structure outside the domain of the model: nothing, ``"warn"`` or ``"raise"``.
    device
        Where the model is.

    Raises
    ------
    DataError
        If an argument has no such value.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012  # as ASE declares it
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self,
        model: Any,
        level: float = 0.9,
        on_leave: str | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        if not callable(getattr(model, "predict", None)):
            raise DataError(expected("model", "a fitted model", type(model).__name__, "fit it, or bayesmol.load it"))
        if on_leave not in _ANSWERS:
            raise DataError(expected("on_leave", "None, 'warn' or 'raise'", repr(on_leave)))
        super().__init__()
        self.model, self.level, self.on_leave, self.device = model, checked_level(level), on_leave, device
        self._uncertainty: dict[str, Any] = {}

    @property
    def uncertainty(self) -> dict[str, Any]:
        """Uncertainty of the present results, empty before there are any.

        ``energy_stddev`` in eV and ``forces_stddev`` (atoms, 3) in eV/Å; ``energy_interval`` (2,) and
        ``forces_interval`` (2, atoms, 3), lower end first; with stress also ``stress_stddev`` (6,) and
        ``stress_interval`` (2, 6) in eV/Å³; with a domain ``inside`` and ``p_value``.
        """
        return dict(self._uncertainty) if self.results else {}

    def get_property_uncertainty(self, name: str, atoms: Atoms | None = None) -> Any:
        """Entry ``name`` of :attr:`uncertainty` for ``atoms``, computed if need be.

        Raises
        ------
        DataError
            If the model does not give it.
        """
        self.get_property("energy", atoms)
        if name not in self._uncertainty:
            raise DataError(expected("name", f"one of {sorted(self._uncertainty)}", repr(name)))
        return self._uncertainty[name]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """All results for ``atoms``; called by ASE.

        Raises
        ------
        ApplicabilityError
            If the structure is outside the domain and ``on_leave="raise"``.
        DataError
            If there are no atoms, or ``on_leave`` is set and the model has no domain.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        if self.atoms is None:
            raise DataError(expected("atoms", "an ase.Atoms", "none"))
        with torch.no_grad():
            prediction = self.model.predict(Structures.from_ase(self.atoms).to(self.device))
            self._answer(prediction)
            uncertainty = _part(prediction.energy, "energy", self.level)
            uncertainty |= _part(prediction.forces, "forces", self.level)
            results: dict[str, Any] = {"forces": _array(prediction.forces.mean)}
            if prediction.stress is not None:
                results["stress"] = _voigt(prediction.stress.mean)
                uncertainty |= _part(prediction.stress, "stress", self.level)
        results["energy"] = results["free_energy"] = float(prediction.energy.mean)
        if prediction.inside is not None:
            uncertainty["inside"] = bool(prediction.inside)
        if prediction.p_value is not None:
            uncertainty["p_value"] = float(prediction.p_value)
        self.results, self._uncertainty = results, uncertainty

    def _answer(self, prediction: Prediction) -> None:
        """Warn or raise, as ``on_leave`` says, if the structure is outside the domain."""
        if self.on_leave is None:
            return
        if prediction.inside is None:
            remedy = "certify the model first, or leave out on_leave"
            raise DataError(expected("on_leave", "a model with a domain", type(self.model).__name__, remedy))
        if bool(prediction.inside):
            return
        got = "one outside" if prediction.p_value is None else f"one outside (p = {float(prediction.p_value):.2g})"
        remedy = "the error bars do not hold here; stop, or label this structure and refit"
        message = expected("atoms", "a structure in the domain of the model", got, remedy)
        if self.on_leave == "raise":
            raise ApplicabilityError(message)
        warnings.warn(message, UserWarning, stacklevel=2)


def _part(posterior: Posterior, name: str, level: float) -> dict[str, Any]:
    """Standard deviation and interval of the posterior of one structure."""
    interval = posterior.interval(level)
    ends = (interval.lower, interval.upper)
    if name == "energy":
        return {"energy_stddev": float(posterior.stddev), "energy_interval": np.array([float(end) for end in ends])}
    turned = _voigt if name == "stress" else _array
    return {f"{name}_stddev": turned(posterior.stddev), f"{name}_interval": np.stack([turned(end) for end in ends])}


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().double().numpy()


def _voigt(tensor: Tensor) -> np.ndarray:
    return full_3x3_to_voigt_6_stress(_array(tensor)[0])
