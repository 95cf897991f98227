"""Potentials by name, fitted the same way by every study."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from peers import LENGTH_SCALE

import bayesmol as bm
from bayesmol.data import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.report import write_text

NETWORKS = ("atomic", "schnet", "equivariant")
WRAPPED = ("chgnet", "GFN")  # how the names of foundations begin
RANK = 12  # directions of the features of a last layer
Model = Literal["ace", "gradient-gp", "atomic", "schnet", "equivariant"]


def specification(
    model: str, length_scale: str = str(LENGTH_SCALE), posterior: str | None = None, epochs: int | None = None
) -> Any:
    """The specification that a command names, at its default setting but for what is given."""
    if model in NETWORKS:
        given = {} if posterior is None else {"posterior": posterior}
        network = bm.potentials.NeuralPotential(architecture=model, **given)
        return network if epochs is None else replace(network, training=replace(network.training, epochs=epochs))
    if posterior is not None or epochs is not None:
        got = f"--model {model}"
        raise DataError(expected("--posterior, --epochs", f"a network: {', '.join(NETWORKS)}", got))
    if model == "ace":
        return bm.potentials.BayesianACE()
    if model != "gradient-gp":
        raise DataError(expected("--model", "ace, gradient-gp, atomic, schnet or equivariant", repr(model)))
    try:
        scale = "learned" if length_scale == "learned" else float(length_scale)
    except ValueError as error:
        raise DataError(expected("--length-scale", "a number in 1/Å or 'learned'", repr(length_scale))) from error
    return bm.potentials.GradientGP(length_scale=scale)


def fit(
    model: Any,
    training: Labelled,
    validation: Labelled | None = None,
    *,
    seed: int,
    minutes: float | None = None,
    checkpoint: Path | None = None,
) -> Any:
    """A fitted potential; a network stops by the validation frames and resumes from the checkpoint.

    Parameters
    ----------
    minutes
        Time for all of it: the epochs of a network are as many as fit, by the time of the first few.
    """
    if not isinstance(model, bm.potentials.BayesianACE | bm.potentials.GradientGP):
        if minutes is not None:
            model = within(model, training, validation, seed=seed, minutes=minutes, checkpoint=checkpoint)
        return model.fit(training, validation, seed=seed, checkpoint=checkpoint)
    if validation is not None:
        training = Labelled.concatenate([training, validation])
    if checkpoint is not None or minutes is not None:
        got = type(model).__name__
        raise DataError(expected("--checkpoint, --minutes", "a network", got, "this fit cannot be stopped and resumed"))
    return model.fit(training, seed=seed)


def within(
    model: Any,
    training: Labelled,
    validation: Labelled | None,
    *,
    seed: int,
    minutes: float,
    checkpoint: Path | None = None,
) -> Any:
    """The network with as many epochs as fit into the minutes, by fits of one and of three epochs.

    The number is kept beside the checkpoint, because a training that goes on must have the same.
    """
    kept = None if checkpoint is None else checkpoint.with_name(f"{checkpoint.name}.epochs")
    if kept is not None and kept.exists():
        epochs = int(kept.read_text(encoding="utf-8"))
    else:
        one, three = (_seconds(_with_epochs(model, count), training, validation, seed) for count in (1, 3))
        each = max((three - one) / 2, 1e-3)
        epochs = max(1, int((60 * minutes - 2 * one - three) / each))
        if kept is not None:
            write_text(kept, str(epochs))
    return _with_epochs(model, epochs)


def _with_epochs(model: Any, epochs: int) -> Any:
    return replace(model, training=replace(model.training, epochs=epochs))


def _seconds(model: Any, training: Labelled, validation: Labelled | None, seed: int) -> float:
    start = time.perf_counter()
    model.fit(training, validation, seed=seed)
    return time.perf_counter() - start


def named_fit(name: str, training: Labelled, validation: Labelled, *, seed: int, epochs: int | None = None) -> Any:
    """Fitted potential of ``MODEL``, ``NETWORK:POSTERIOR``, ``chgnet`` or a tight-binding method.

    All see the same labels: who has no use for validation frames is fitted to them as well.

    Raises
    ------
    DataError
        If there is no such model.
    """
    if name.startswith(WRAPPED):
        from potentials_foundation import corrected, origins

        origin = origins(name)
        way = "last-layer" if hasattr(origin, "with_last_layer") else "residual"
        return corrected(origin, Labelled.concatenate([training, validation]), way, RANK, seed)
    model, _, posterior = name.partition(":")
    given = {"posterior": posterior or None, "epochs": epochs if model in NETWORKS else None}
    return fit(specification(model, **given), training, validation, seed=seed)
