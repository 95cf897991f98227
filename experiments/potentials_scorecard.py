"""Scorecards of all potentials, and the front of cost, accuracy and honesty."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potentials_models import NETWORKS, named_fit

import bayesmol as bm
from bayesmol.data import Labelled
from bayesmol.errors import BayesmolError, DataError, expected
from bayesmol.report import Study
from bayesmol.scorecard_lines import Score
from bayesmol.scorecard_plots import front, growth_plot
from bayesmol.scorecards import Budget, Scorecard, scorecard

TARGETS = {  # of the requirements; each model has them under its own name
    "energy_mae": {"upper": 0.010841, "reference": "0.25 kcal/mol"},
    "exponent": {"upper": 1.1},
    "force_coverage": {"lower": 0.86, "upper": 0.94},
}


def defaults(frames: Labelled) -> list[str]:
    """Models that are tried where none is named: all for this kind of frames."""
    if bool(frames.structures.pbc.all()):
        return ["ace", *NETWORKS, "chgnet"]
    return ["ace", "gradient-gp", *NETWORKS, "GFN2-xTB"]


def scorecards(
    study: Study,
    models: Sequence[str],
    frames: tuple[Labelled, Labelled, Labelled],
    test: Labelled,
    transfer: Labelled | None,
    *,
    budget: Budget,
    seed: int,
    epochs: int | None = None,
    joined: Sequence[Path] = (),
) -> dict[str, Any]:
    """Fit, certify and score each model; what cannot be had is a note with the reason. Returns plots by name.

    Parameters
    ----------
    frames
        For training, validation and calibration.
    joined
        JSON files of earlier runs whose models are drawn into the front beside these.
    """
    cards: dict[str, Scorecard] = {}
    for name in models:
        study.expectations = dict(study.expectations) | {f"{name}_{key}": ends for key, ends in TARGETS.items()}
        try:
            with study.stage(f"train {name}"):
                fitted = named_fit(name, *frames[:2], seed=seed, epochs=epochs)
            with study.stage(f"score {name}"):
                certified = bm.certify(fitted, frames[2])
                card = scorecard(certified, test, transfer=transfer, budget=budget, name=name, seed=seed)
        except BayesmolError as error:
            study.notes.append(f"{name} is not scored: {error}")
            continue
        cards[name] = card
        card.report(study, prefix=f"{name}_")
        study.add(f"{name}_train_cpu_seconds", study.cpu_seconds[f"train {name}"], "s")
        study.notes.append(str(card))
    return drawn(cards, joined)


def drawn(cards: dict[str, Scorecard], joined: Sequence[Path] = ()) -> dict[str, Any]:
    """The front of all cards, and the growth of time of those that have it."""
    scores = {name: card.scores for name, card in cards.items()}
    for path in joined:
        scores = earlier(path) | scores
    grown = {name: card.growth for name, card in cards.items() if card.growth is not None and card.growth.timings}
    found = {"front": front(scores)} if any("microseconds" in entry for entry in scores.values()) else {}
    return found | ({"growth": growth_plot(grown)} if grown else {})


def earlier(path: Path) -> dict[str, dict[str, Score]]:
    """Scores of the cards in the JSON file of an earlier run.

    Raises
    ------
    DataError
        If there are none.
    """
    cards = json.loads(path.read_text(encoding="utf-8")).get("settings", {}).get("scorecards")
    if not cards:
        raise DataError(expected("--join", "a JSON file of potentials.py scorecard", path))
    found: dict[str, dict[str, Score]] = {}
    for name, card in cards.items():
        lines = [line for line in card.values() if isinstance(line, dict) and "scores" in line]
        found[name] = {key: _score(entry) for line in lines for key, entry in line["scores"].items()}
    return found


def _score(entry: dict[str, Any]) -> Score:
    value = math.nan if entry["value"] is None else entry["value"]
    lower = -math.inf if entry["lower"] is None else entry["lower"]
    return Score(value, lower, math.inf if entry["upper"] is None else entry["upper"], entry["unit"])
