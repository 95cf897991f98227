"""The ``campaign`` command: a campaign from a file, one step or all of them, and what it says of itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import bayesmol as bm
from bayesmol.acquisition import Campaign
from bayesmol.acquisition.history import History
from bayesmol.configuration import campaign_from_toml
from bayesmol.data.named import named
from bayesmol.errors import DataError, expected
from bayesmol.report import Study

__all__ = ["advance"]

QUERY, MODEL = "query.extxyz", "model.bm"
LARGEST = 0.1  # rate of false alarms of a domain that is worth having


def advance(study: Study, path: Path, *, tell: str | None = None, replay: bool = False) -> Study:
    """Run the campaign of a file, or its next step where there is no reference; fill in what has happened.

    Raises
    ------
    DataError
        If labels are told to a campaign that has a reference, or the file is wrong.
    """
    campaign = campaign_from_toml(path, seed=study.settings["seed"])
    if replay:
        with study.stage("replay"):
            study.add("decisions_replayed", campaign.replay())
        study.notes.append("all decisions came out the same, to the last bit")
        return study
    with study.stage("campaign"):
        history = _history(campaign, tell)
    _tell(study, history, campaign)
    if history.finished is not None:
        with study.stage("certify"):
            study.notes += _finished(campaign, history)
    return study


def _history(campaign: Campaign, tell: str | None) -> History:
    """The campaign after all that can be done now."""
    if campaign.reference is not None:
        if tell is not None:
            raise DataError(expected("--tell", 'a campaign with reference.kind = "none"', type(campaign.reference)))
        return campaign.run()
    if tell is not None:
        campaign.tell(named(tell))
    query, place = campaign.ask(), Path(campaign.folder) / QUERY
    if query is None:
        place.unlink(missing_ok=True)
    else:
        bm.data.write(place, bm.data.Labelled(query.structures))
    return campaign.history()


def _tell(study: Study, history: History, campaign: Campaign) -> None:
    """Figures and sentences about a history."""
    study.add("labels", history.spent - len(history.failures))
    study.add("failures", len(history.failures))
    study.add("batches_chosen", sum(query["purpose"] == "chosen" for query in history.queries))
    if history.checks:
        study.add("kept_aside_force_mae", history.checks[-1]["mean"], "eV/Å")
    if looks := [check for check in history.checks if check["bound"] is not None]:
        study.add("force_mae_bound", looks[-1]["bound"], "eV/Å")
        study.notes.append(f"bound at {looks[-1]['labels']} labels: {looks[-1]['guarantee']}")
    if campaign.stop is not None and len(history.checks) >= 3:
        foreseen = history.forecast(campaign.stop.target)
        study.notes.append(f"a mean error of {campaign.stop.target:g} eV/Å is expected at {foreseen}, by extrapolation")
    if history.open:
        study.notes.append(f"label the structures of {Path(campaign.folder) / QUERY}, then give them by --tell")
    study.notes += [f"structure {index} of the pool failed: {why}" for index, why in history.failures.items()]


def _finished(campaign: Campaign, history: History) -> list[str]:
    """Write the model, certified if enough structures were kept aside; say what holds of it."""
    model: Any = campaign.fitted()
    said = [f"over: {history.finished}"]
    if history.holdout is not None:
        # The least level that so few structures can promise with 95 % confidence, see applicability.rows_needed.
        level = max(0.02, math.ceil(1e3 * (1 - 0.05 ** (1 / len(history.holdout)))) / 1e3)
        if level <= LARGEST:
            model = bm.certify(model, history.holdout, domain=bm.applicability.Domain(level=level))
            said += [f"{name}: {sentence}" for name, sentence in model.guarantees.items()]
            if history.finished == "target":
                said.append("it was over because of these structures, so what they certify is slightly optimistic")
        else:
            said.append(f"not certified: {len(history.holdout)} structures kept aside are too few, 30 would do")
    place = Path(campaign.folder) / MODEL
    bm.save(model, place)
    return [*said, f"written: {place}"]
