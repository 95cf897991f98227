"""Campaign: ask, label, learn, again, within a budget; killed at any point, it goes on as if it had not been."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Int
from numpy.random import SeedSequence
from torch import Tensor

from bayesmol.acquisition.history import History, content, force_errors
from bayesmol.acquisition.ledger import Ledger
from bayesmol.acquisition.models import grown
from bayesmol.acquisition.pool import select
from bayesmol.acquisition.stopping import StopRule
from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.progress import progress

__all__ = ["Campaign", "Query"]


@dataclass(frozen=True, eq=False)
class Query:
    """Structures that want a label.

    Attributes
    ----------
    indices
        Their places in the pool.
    structures
        The structures.
    purpose
        ``"holdout"``, kept aside to judge the model; ``"first"``, drawn at random to begin with; ``"chosen"``.
    """

    indices: Int[Tensor, " size"]
    structures: Structures
    purpose: str


@dataclass(frozen=True, eq=False)
class Campaign:
    """Labels for a model, from a pool, within a budget: ``Campaign("run", model=spec, pool=pool, …).run()``.

    All that happens is in ``folder/ledger.jsonl``: settings, queries, labels, failures, checks. The state *is* the
    ledger: a campaign that was killed, made again with the same arguments and run, goes on where it was and ends with
    the same queries and the same model to the last bit, on the same machine with the same number of threads
    (``MKL_DYNAMIC=FALSE`` keeps that number on a busy one). :meth:`replay` makes all decisions again and compares.

    Without a reference a person or a laboratory is asked: :meth:`ask` gives structures, :meth:`tell` takes labels.

    Attributes
    ----------
    folder
        Of ledger, labels and models.
    model
        Specification with ``fit(labelled, seed=)``; the fitted model has ``predict``, and ``update`` where it can.
    pool
        Candidates.
    reference
        Where labels come from, such as :class:`bayesmol.data.reference.TBLite`; ``None``: from :meth:`tell`.
    initial
        Labels that are there already; without them the first ``size`` structures are drawn at random.
    budget
        Labels asked for in all, those kept aside and failures among them; a campaign that is over goes on with more.
    size
        Labels between two decisions.
    holdout
        Structures drawn at random from the pool and never learned from: they judge the model for the stop rule and
        the learning curve, and can certify it in the end.
    stop
        When to stop before the budget is spent.
    options
        Further keywords of :func:`~bayesmol.acquisition.select`: ``function``, ``batch``, …
    refit
        Hyper-parameters are learned again when there are so many times the labels of the last time; in between,
        labels update the posterior.

    Raises
    ------
    DataError
        If the numbers do not fit together.
    """

    folder: Path | str
    model: Any
    pool: Structures
    reference: Any = None
    initial: Labelled | None = None
    budget: int = 100
    size: int = 10
    holdout: int = 0
    stop: StopRule | None = None
    options: dict[str, Any] = field(default_factory=dict)
    refit: float = 1.3
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.budget:
            raise DataError(expected("size", f"1 to {self.budget} (budget)", self.size))
        limit = min(self.budget, len(self.pool))
        if not 0 <= self.holdout <= limit:
            raise DataError(expected("holdout", f"0 to {limit} (budget and pool)", self.holdout))
        if self.refit < 1:
            raise DataError(expected("refit", "a factor of at least 1", self.refit))
        if self.stop is not None and self.holdout < (needed := self.stop.needed):
            remedy = "keep more aside, or ask for a smaller share"
            raise DataError(expected("holdout", f"at least {needed} for the stop rule", self.holdout, remedy))

    def run(self) -> History:
        """Go on until the stop rule is met, or budget or pool are used up.

        Raises
        ------
        DataError
            If there is no reference, or the folder holds a campaign with other settings.
        """
        if self.reference is None:
            raise DataError(expected("reference", "a source of labels", None, "use ask() and tell()"))
        from bayesmol.data.label_cache import Cached

        reference = Cached(self.reference, Path(self.folder) / "labels")
        with self._opened() as ledger, progress("labelling", self.budget) as advance:
            advance(self._history(ledger).spent)
            while (query := self._asked(ledger)) is not None:
                found = reference.label(query.structures)
                for place, index in enumerate(query.indices.tolist()):
                    _answer(ledger, index, found, place)
                    advance()
            return self._history(ledger)

    def ask(self) -> Query | None:
        """Structures that want a label: what is open of the last query, or a new one; ``None`` when it is over."""
        with self._opened() as ledger:
            return self._asked(ledger)

    def tell(self, labelled: Labelled | None = None, failures: dict[int, str] | None = None) -> History:
        """Labels of open structures, known by their positions, and by pool index reasons why others have none.

        Raises
        ------
        DataError
            If a structure is not open; then nothing is kept.
        """
        with self._opened() as ledger:
            history = self._history(ledger)
            told = {} if labelled is None else history.recognised(labelled)
            if strange := set(failures or {}) - set(history.open):
                raise DataError(expected("failures", f"open structures {history.open}", sorted(strange)))
            for index, labels in told.items():
                ledger.append("label", index=index, **labels)
            for index, reason in (failures or {}).items():
                ledger.append("failure", index=int(index), reason=str(reason))
            return self._history(ledger)

    def history(self) -> History:
        """What has happened so far."""
        with self._opened() as ledger:
            return self._history(ledger)

    def fitted(self) -> Any:
        """Model of all labels so far but those kept aside.

        Raises
        ------
        DataError
            If there are no labels yet.
        """
        with self._opened() as ledger:
            return self._model(self._history(ledger))

    def replay(self) -> int:
        """Make every decision again from the labels in the ledger, the last included: how many, all as they were.

        The models are made again as well, in a folder that goes away: those that are kept on disk prove nothing.

        Raises
        ------
        DataError
            If a decision comes out otherwise, to the last bit; it says which.
        """
        with self._opened() as ledger, TemporaryDirectory() as models:
            history = self._history(ledger)
            for number, recorded in enumerate(history.decisions):
                again = self._decided(history.before(number), Path(models))
                if again != {key: value for key, value in recorded.items() if key != "sha256"}:
                    got = f"indices {again['indices']}" if "indices" in again else f"the end: {again['reason']}"
                    raise DataError(expected(f"decision {number}", "as recorded", got))
            return len(history.decisions)

    @contextmanager
    def _opened(self) -> Iterator[Ledger]:
        """The ledger, started with the settings or checked against them."""
        settings = self._settings()
        with Ledger(Path(self.folder) / "ledger.jsonl") as ledger:
            if not ledger.entries:
                ledger.append("start", settings=settings, budget=self.budget)
            known = ledger.entries[0]["settings"]
            if changed := sorted(name for name in settings if settings[name] != known.get(name)):
                remedy = "use the same, or another folder"
                raise DataError(expected(", ".join(changed), f"as in {self.folder}", "other settings", remedy))
            yield ledger

    def _settings(self) -> dict[str, Any]:
        model = {
            "kind": type(self.model).__name__,
            **(asdict(self.model) if is_dataclass(self.model) and not isinstance(self.model, type) else {}),
        }
        found = {
            "model": repr(model),
            "pool": Labelled(self.pool).fingerprint,
            "initial": None if self.initial is None else self.initial.fingerprint,
            "reference": None if self.reference is None else self.reference.fingerprint,
            "stop": repr(self.stop),
            "options": repr(self.options),
        }
        return found | {name: getattr(self, name) for name in ("size", "holdout", "refit", "seed")}

    def _history(self, ledger: Ledger) -> History:
        return History(tuple(ledger.entries), self.pool, self.initial)

    def _model(self, history: History, models: Path | None = None) -> Any:
        folder = models or Path(self.folder) / "models"
        return grown(self.model, history.batches, folder, refit=self.refit, seed=self.seed)

    def _asked(self, ledger: Ledger) -> Query | None:
        if self._history(ledger).budget != self.budget:
            ledger.append("budget", budget=self.budget)
        history = self._history(ledger)
        if history.finished is None and not history.open:
            ledger.append(**self._decided(history))
            history = self._history(ledger)
        if history.finished is not None:
            return None
        indices = torch.tensor(history.open)
        return Query(indices, self.pool[indices], history.queries[-1]["purpose"])

    def _decided(self, history: History, models: Path | None = None) -> dict[str, Any]:
        """Entry that follows from a history in which nothing is open: a query or the end, and the check before it."""
        number = len(history.queries)
        seed = int(SeedSequence([self.seed, number]).generate_state(1)[0])
        purposes = {query["purpose"] for query in history.queries}
        for purpose, size in (("holdout", self.holdout), ("first", self.size if self.initial is None else 0)):
            if size and purpose not in purposes:
                order = torch.randperm(len(history.remaining), generator=generator(seed))[:size].tolist()
                return {"kind": "query", "purpose": purpose, "indices": [history.remaining[i] for i in order]}
        model = self._model(history, models)
        check, met = self._checked(model, history)
        size = min(self.size, history.budget - history.spent, len(history.remaining))
        if met or size < 1:
            reason = "target" if met else "budget" if history.spent >= history.budget else "pool"
            return {"kind": "stop", "reason": reason, "check": check}
        places = torch.tensor(history.remaining)
        known = Structures.concatenate([batch.structures for batch in history.batches])
        chosen = select(model, self.pool[places], size, training=known, seed=seed, **self.options)
        return {"kind": "query", "purpose": "chosen", "check": check, **_record(chosen, places)}

    def _checked(self, model: Any, history: History) -> tuple[dict[str, Any] | None, bool]:
        """A look at the structures kept aside, and whether the stop rule is met."""
        aside = history.holdout
        if aside is None:
            return None, False
        errors = force_errors(model.predict(aside.structures), aside)
        labels, checks = sum(map(len, history.batches)), history.checks
        entry = {"labels": labels, "errors": errors.tolist(), "mean": float(errors.mean()), "look": None, "bound": None}
        look = 1 + sum(check["look"] is not None for check in checks)
        first = checks[0]["labels"] if checks else labels
        last = labels + history.entries[0]["budget"] - history.spent
        if self.stop is None or not self.stop.due(look, labels, first, last):
            return entry, False
        check = self.stop.check(errors)
        bound = check.bound if check.bound < float("inf") else None
        return entry | {"look": look, "bound": bound, "guarantee": check.guarantee}, check.met


def _record(chosen: Any, places: Tensor) -> dict[str, Any]:
    """What is kept of a selection, with indices of the whole pool."""
    pooled = {name: places[getattr(chosen, name)].tolist() for name in ("indices", "random_indices", "skipped")}
    return pooled | {
        name: getattr(chosen, name).tolist() for name in ("gains", "probabilities") if hasattr(chosen, name)
    }


def _answer(ledger: Ledger, index: int, found: Any, place: int) -> None:
    """Keep the label of a structure, or why it has none."""
    if place in found.failures:
        ledger.append("failure", index=index, reason=found.failures[place])
    else:
        row = int(found.succeeded[:place].sum())
        ledger.append("label", index=index, **content(found.labelled[row]))
