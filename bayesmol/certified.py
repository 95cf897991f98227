"""Certification: a potential together with intervals that hold and a domain in which they do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayesmol.applicability import CalibratedDomain, Domain
from bayesmol.calibration import Conformal, ConformalRule
from bayesmol.calibration.rules import Source
from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.posterior import Prediction

_CHANGED = "; since the calibration the potential has learned "


@dataclass(frozen=True)
class CertifiedModel:
    """A fitted potential whose intervals are conformal and whose predictions carry a verdict.

    Attributes
    ----------
    model
        The potential.
    energy_rule, force_rule
        Rules that make the intervals; ``None`` where there were no labels to calibrate with.
    domain
        Calibrated domain of applicability over the potential's strangeness.
    level
        Level of the guarantees in :attr:`guarantees`.
    learned
        Number of structures that the potential has learned since the calibration; the guarantees were earned before.
    """

    model: Any
    energy_rule: ConformalRule | None
    force_rule: ConformalRule | None
    domain: CalibratedDomain
    level: float = 0.9
    learned: int = 0

    @property
    def guarantees(self) -> dict[str, str]:
        """What holds, in words: of the energy intervals, the force intervals and the domain."""
        rules = {"energy": self.energy_rule, "forces": self.force_rule}
        said = {name: rule.guarantee(self.level) for name, rule in rules.items() if rule is not None}
        remark = _remark(self.learned) if self.learned else ""
        return said | {"domain": self.domain.guarantee + remark}

    @property
    def noise_force(self) -> float:
        """Standard deviation of a force label about the model, in eV/Å."""
        return self.model.noise_force

    def predict(self, structures: Any, **options: Any) -> Prediction:
        """Prediction of the potential with conformal intervals, p-values and verdicts; options as for the potential."""
        batch = Structures.coerce(structures)
        prediction = self.model.predict(batch, **options)
        verdict = self.domain.assess(self.model.strangeness(batch, prediction))
        return replace(
            prediction,
            energy=prediction.energy.with_rule(self.energy_rule),
            forces=prediction.forces.with_rule(self.force_rule),
            inside=verdict.inside,
            p_value=verdict.p_value,
            provenance={**prediction.provenance, "guarantees": self.guarantees},
        )

    def update(self, labelled: Labelled, calibration: Labelled | None = None) -> CertifiedModel:
        """This model after more labels, learned with the same hyper-parameters.

        Parameters
        ----------
        calibration
            Labelled structures that the potential has not seen, exchangeable with those to be predicted: the intervals
            and the domain are calibrated anew. Without them the old ones stay, and every guarantee says that it was
            earned before: the scores were those of a potential that is no more.

        Raises
        ------
        DataError
            If the potential cannot be updated, or calibration structures are training structures.
        """
        if not hasattr(self.model, "update"):
            raise DataError(expected("model", "a potential with update", type(self.model).__name__, "fit it anew"))
        model = self.model.update(labelled)
        if calibration is not None:
            domain = Domain(level=self.domain.level, confidence=self.domain.confidence)
            return certify(model, calibration, level=self.level, domain=domain)
        learned = self.learned + len(labelled)
        energy, force = _stale(self.energy_rule, learned), _stale(self.force_rule, learned)
        return replace(self, model=model, learned=learned, energy_rule=energy, force_rule=force)

    def calculator(self, **options: Any) -> Any:
        """ASE calculator of this model; options as for :class:`~bayesmol.potentials.Calculator`."""
        calculator = self.model.calculator(**options)
        calculator.model = self
        return calculator

    def deviation_gradient(self, structures: Any) -> tuple[Tensor, Tensor]:
        """Epistemic standard deviation of each energy (eV) and its gradient (eV/Å), as of the potential."""
        return self.model.deviation_gradient(structures)

    def features(self, structures: Any) -> Tensor:
        """Features of structures, as of the potential."""
        return self.model.features(structures)

    def strangeness(self, structures: Any, prediction: Prediction | None = None) -> Tensor:
        """Strangeness of structures to the potential: higher is stranger."""
        return self.model.strangeness(structures, prediction)

    def force_factor(self, structures: Any, rank: int = 512, seed: int | torch.Generator = 0) -> list[Tensor]:
        """Factors of the joint covariance of forces, as of the potential."""
        return self.model.force_factor(structures, rank, seed)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header (JSON) and arrays that :meth:`from_state` reads back."""
        from bayesmol.persistence import packed

        parts: dict[str, Any] = {"energy_rule": self.energy_rule, "force_rule": self.force_rule, "domain": self.domain}
        header: dict[str, Any] = {"level": self.level, "guarantees": self.guarantees, "learned": self.learned}
        header["model"], arrays = packed(self.model)
        arrays = {f"model.{name}": value for name, value in arrays.items()}
        for name, part in parts.items():
            header[name], own = (None, {}) if part is None else part.state()
            arrays |= {f"{name}.{key}": value for key, value in own.items()}
        return header, arrays

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> CertifiedModel:
        """Certified model from :meth:`state`."""
        from bayesmol.persistence import unpacked

        def under(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(f"{name}."): v for key, v in arrays.items() if key.startswith(f"{name}.")}

        def rule(name: str) -> ConformalRule | None:
            return None if header[name] is None else ConformalRule.from_state(header[name], under(name))

        domain = CalibratedDomain.from_state(header["domain"], under("domain"))
        model = unpacked(header["model"], under("model"))
        rules = rule("energy_rule"), rule("force_rule")
        return cls(model, *rules, domain, header["level"], header.get("learned", 0))


def certify(
    model: Any, calibration: Labelled | None = None, *, level: float = 0.9, domain: Domain | None = None
) -> CertifiedModel:
    """Certify a fitted potential on structures that it has not seen, or on its left-out training structures.

    Parameters
    ----------
    calibration
        Labelled structures, exchangeable with those to be predicted. ``None`` uses the leave-one-structure-out
        predictions of the training set, which costs no data; the guarantees then say that they are approximate.
    level
        Level that :attr:`CertifiedModel.guarantees` speaks about; intervals can be asked for at any level.
    domain
        Specification of the domain; by default at most 2 % of in-domain structures are flagged, with 95 % confidence.

    Raises
    ------
    DataError
        If calibration structures are training structures.
    ApplicabilityError
        If there are too few calibration structures for the domain's level; the message says how many it takes.
    """
    domain = domain or Domain()
    if calibration is None:
        return _from_left_out(model, level, domain)
    _refuse_training_frames(model, calibration)
    prediction = model.predict(calibration.structures)
    rules = _rules(prediction, calibration, "calibration")
    scores = model.strangeness(calibration.structures, prediction)
    return CertifiedModel(model, *rules, domain.calibrate(scores), level)


def _from_left_out(model: Any, level: float, domain: Domain) -> CertifiedModel:
    rules = _rules(model.leave_one_out(), model.training, "leave-one-out")
    left_out = getattr(model, "left_out_strangeness", None)
    scores = model.strangeness(model.training.structures) if left_out is None else left_out()
    return CertifiedModel(model, *rules, domain.calibrate(scores), level)


def _remark(learned: int) -> str:
    """What a guarantee adds when the potential has changed since it was earned."""
    return f"{_CHANGED}{learned} more structures, so this is not guaranteed now"


def _stale(rule: ConformalRule | None, learned: int) -> ConformalRule | None:
    if rule is None:
        return None
    return replace(rule, remark=rule.remark.partition(_CHANGED)[0] + _remark(learned))


def _rules(
    prediction: Prediction, truth: Labelled, source: Source
) -> tuple[ConformalRule | None, ConformalRule | None]:
    energy: Any = None
    force: Any = None
    if truth.energies is not None:
        energy = Conformal(source=source).fit(prediction.energy, truth)
    if truth.forces is not None and bool(truth.has_forces.any()):
        force = Conformal(unit="structure", source=source).fit(prediction.forces, truth)
    return energy, force


def _refuse_training_frames(model: Any, calibration: Labelled) -> None:
    """Frames that the model was fitted to would make the intervals too narrow."""

    if hasattr(model, "trained"):
        shared = int(model.trained(calibration.structures).sum())
    else:
        shared = len(_keys(model.training.structures) & _keys(calibration.structures))
    if shared:
        remedy = "leave them out, or pass None to use left-out predictions"
        raise DataError(expected("calibration", "structures not used for training", f"{shared} shared", remedy))


def _keys(structures: Structures) -> set[bytes]:
    parts = structures.positions.double().cpu().split(structures.counts.tolist())
    return {part.numpy().tobytes() for part in parts}
