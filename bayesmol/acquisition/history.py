"""What the ledger of a campaign says: queries, labels, failures, checks, and what is open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.acquisition.stopping import Forecast, forecast
from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError, expected
from bayesmol.posterior import Prediction

__all__ = ["History", "content", "force_errors", "with_content"]

_ROUNDING = 1e-5  # Å; extended xyz has eight decimals
_DECIDED = ("query", "stop")
_LABELS = ("energies", "forces", "stresses", "energy_errors", "force_errors", "stress_errors")


@dataclass(frozen=True, eq=False)
class History:
    """A campaign so far; prints as a summary.

    Attributes
    ----------
    entries
        Of the ledger, oldest first.
    pool
        Candidates.
    initial
        Labels that were there before.
    """

    entries: tuple[dict[str, Any], ...]
    pool: Structures
    initial: Labelled | None

    @property
    def queries(self) -> list[dict[str, Any]]:
        """Queries, oldest first: ``purpose``, ``indices``, and of chosen ones ``gains`` and ``random_indices``."""
        return self._of("query")

    @property
    def answers(self) -> dict[int, dict[str, Any]]:
        """Pool index → entry of its label or failure."""
        return {entry["index"]: entry for entry in self.entries if entry["kind"] in ("label", "failure")}

    @property
    def failures(self) -> dict[int, str]:
        """Pool index → why there is no label."""
        return {entry["index"]: entry["reason"] for entry in self._of("failure")}

    @property
    def checks(self) -> list[dict[str, Any]]:
        """Structures kept aside: ``labels``, ``errors``, ``mean`` (eV/Å), ``look`` and ``bound`` of the stop rule."""
        return [entry["check"] for entry in self.entries if entry.get("check")]

    @property
    def budget(self) -> int:
        """Labels that may be asked for in all."""
        return next(entry["budget"] for entry in reversed(self.entries) if "budget" in entry)

    @property
    def spent(self) -> int:
        """Labels and failures."""
        return len(self.answers)

    @property
    def open(self) -> list[int]:
        """Pool indices that were asked for and have no answer."""
        answers = self.answers
        return [index for query in self.queries for index in query["indices"] if index not in answers]

    @property
    def remaining(self) -> list[int]:
        """Pool indices that were never asked for."""
        asked = {index for query in self.queries for index in query["indices"]}
        return [index for index in range(len(self.pool)) if index not in asked]

    @property
    def finished(self) -> str | None:
        """Why it is over; ``None`` if it is not."""
        return self.entries[-1]["reason"] if self.entries and self.entries[-1]["kind"] == "stop" else None

    @property
    def holdout(self) -> Labelled | None:
        """Labels that no model has learned from."""
        return _joined([self._batch(query) for query in self.queries if query["purpose"] == "holdout"])

    @property
    def batches(self) -> list[Labelled]:
        """Labels to learn from, batch by batch: those that were there, then those of each query."""
        given = [] if self.initial is None else [self.initial]
        found = [self._batch(query) for query in self.queries if query["purpose"] != "holdout"]
        return given + [batch for batch in found if batch is not None]

    def forecast(self, target: float, *, level: float = 0.9) -> Forecast:
        """Labels until the mean error of structures kept aside is ``target`` (eV/Å), by their learning curve."""
        checks = self.checks
        return forecast([c["labels"] for c in checks], [c["mean"] for c in checks], target, level=level)

    @property
    def decisions(self) -> list[dict[str, Any]]:
        """Queries and ends, oldest first: a campaign that was given more budget has ended more than once."""
        return [entry for entry in self.entries if entry["kind"] in _DECIDED]

    def before(self, number: int) -> History:
        """The history when decision ``number`` was about to be made."""
        places = [place for place, entry in enumerate(self.entries) if entry["kind"] in _DECIDED]
        return replace(self, entries=self.entries[: places[number]])

    def recognised(self, labelled: Labelled) -> dict[int, dict[str, Any]]:
        """Contents of label entries by pool index, of labelled structures that are open.

        Raises
        ------
        DataError
            If one is not open.
        """
        found: dict[int, dict[str, Any]] = {}
        for place in range(len(labelled)):
            one = labelled[place]
            index = next((index for index in self.open if _same(self.pool[index], one.structures)), None)
            if index is None or index in found:
                remedy = "label the structures of ask(), each once, with their positions as they are"
                raise DataError(expected(f"structure {place}", "an open one", "another", remedy))
            found[index] = content(one)
        return found

    def __str__(self) -> str:
        labels, chosen = self.spent - len(self.failures), sum(query["purpose"] == "chosen" for query in self.queries)
        lines = [f"{labels} labels and {len(self.failures)} failures of {self.budget}, {chosen} batches chosen"]
        if self.checks:
            bounds = [check["bound"] for check in self.checks if check["bound"] is not None]
            said = f", bound {bounds[-1]:.3g} eV/Å" if bounds else ""
            lines.append(f"force error of structures kept aside: mean {self.checks[-1]['mean']:.3g} eV/Å{said}")
        return "\n".join([*lines, *([f"over: {self.finished}"] if self.finished else [])])

    def _of(self, kind: str) -> list[dict[str, Any]]:
        return [entry for entry in self.entries if entry["kind"] == kind]

    def _batch(self, query: dict[str, Any]) -> Labelled | None:
        answers = self.answers
        labelled = [i for i in query["indices"] if answers.get(i, {}).get("kind") == "label"]
        return _joined([with_content(self.pool[i], answers[i]) for i in labelled])


def content(one: Labelled) -> dict[str, Any]:
    """The labels of one structure as numbers for JSON; ``None`` where there is none."""
    present = {"forces": bool(one.has_forces.all()), "stresses": bool(one.has_stresses.all())}
    found = {}
    for name in _LABELS:
        value = getattr(one, name)
        owner = {"force_errors": "forces", "stress_errors": "stresses"}.get(name, name)
        found[name] = None if value is None or not present.get(owner, True) else value.double().tolist()
    return found


def force_errors(prediction: Prediction, labelled: Labelled) -> Float[Tensor, " structures"]:
    """Mean absolute error of the force components of each structure, in eV/Å.

    Raises
    ------
    DataError
        If a label has no forces.
    """
    if labelled.forces is None or not bool(labelled.has_forces.all()):
        raise DataError(expected("labels", "forces", "energies alone", "use a reference with forces"))
    error = (prediction.forces.mean - labelled.forces).abs().mean(1)
    index, counts = labelled.structures.structure_index, labelled.structures.counts
    return error.new_zeros(len(labelled)).index_add(0, index, error) / counts


def with_content(structure: Structures, entry: dict[str, Any]) -> Labelled:
    """One structure with the labels that :func:`content` has made numbers of."""
    like = structure.positions
    arrays: dict[str, Any] = {name: like.new_tensor(entry[name]) for name in _LABELS if entry[name] is not None}
    return Labelled(structure, **arrays)


def _joined(parts: list[Labelled | None]) -> Labelled | None:
    known = [part for part in parts if part is not None]
    return Labelled.concatenate(known) if known else None


def _same(first: Structures, second: Structures) -> bool:
    """Whether two structures are one, but for the digits that a file drops."""
    if not torch.equal(first.species, second.species):
        return False
    return bool((first.positions - second.positions).abs().max() < _ROUNDING)
