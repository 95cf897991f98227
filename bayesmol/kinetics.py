"""The ``kinetics`` command: timescales, metastable states and passage times from trajectories, with intervals."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import torch
import typer

import bayesmol as bm
from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.options import check_output
from bayesmol.report import Study, page, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bayesmol.dynamics import FittedMarkovStateModel
    from bayesmol.posterior import Posterior

__all__ = ["kinetics"]

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "mdtraj")
LEVEL = 0.95
MULTIPLES = (2, 4, 8)
LAGS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the lag, for the timescales at several lags

Files = Annotated[
    list[str],
    typer.Argument(help="Trajectories: what MDTraj or ASE reads, npy, npz, text; or one pattern.", show_default=False),
]
Lag = Annotated[int, typer.Option(help="In frames.", min=1)]
States = Annotated[int, typer.Option(help="Clusters of the features; trajectories of states need none.", min=2)]
Topology = Annotated[
    Path | None, typer.Option(help="pdb, gro or prmtop for formats without atoms.", show_default=False)
]
Features = Annotated[
    Literal["none", "torsions", "distances"],
    typer.Option(help="What is made of positions; none: the files hold features or states."),
]
Macrostates = Annotated[int, typer.Option(help="Metastable states.", min=2)]
Processes = Annotated[int, typer.Option("--timescales", help="Number of slow processes that are reported.", min=1)]
Page = Annotated[Path | None, typer.Option("--report", help="Write a page with plots (HTML).", show_default=False)]


def kinetics(
    study: Study,
    files: Files,
    lag: Lag = 10,
    states: States = 100,
    topology: Topology = None,
    features: Features = "none",
    macrostates: Macrostates = 2,
    timescales: Processes = 3,
    report: Page = None,
) -> Study:
    """Timescales, metastable states and the times between them from trajectories, each with its interval.

    Intervals are 95 % and hold for correlated frames; the Chapman–Kolmogorov test says whether the model predicts the
    data at longer lags. A small p-value: raise the lag, or take more states or other features.

    Examples:

    \b
    bayesmol kinetics "run*.xtc" --topology protein.pdb --features torsions --lag 50 --report kinetics.html
    bayesmol kinetics features.npy --lag 10 --states 200 --json kinetics.json
    bayesmol kinetics states.npy --lag 5 --macrostates 3
    """
    study.packages, seed = PACKAGES, study.settings["seed"]
    if report is not None:
        check_output("--report", report, force=report.exists() and b"bayesmol" in report.read_bytes()[:300])
    with study.stage("read"):
        data = bm.data.read_trajectories(
            files[0] if len(files) == 1 else files, topology=topology, features=_features(features)
        )
    with study.stage("estimate"):
        spec = bm.dynamics.MarkovStateModel(lag=lag, states=states)
        model = spec.fit(data, seed=seed)
    with study.stage("quantities"):
        sets = _tell(study, model, macrostates, min(timescales, len(model.states) - 1))
    with study.stage("validate"):
        test = bm.dynamics.chapman_kolmogorov(model, data, MULTIPLES, sets=sets)
    study.add("chapman_kolmogorov_p", test.p_value)
    if test.p_value < 0.05:
        study.notes.append("the model does not predict longer lags (Chapman–Kolmogorov): raise --lag or --states")
    if report is not None:
        with study.stage("report"):
            write_text(report, _page(study, model, data, test, min(timescales, len(model.states) - 1), seed))
        study.notes.append(f"written: {report}")
    return study


def _features(name: str) -> Any:
    if name == "none":
        return None
    return {"torsions": bm.representation.torsions, "distances": bm.representation.heavy_distances}[name]


def _tell(study: Study, model: "FittedMarkovStateModel", macrostates: int, count: int) -> list[list[int]]:
    """Fill in timescales, and populations and passage times of the metastable states, which are returned."""
    from bayesmol.dynamics.passage import mean_first_passage_times
    from bayesmol.dynamics.pcca import pcca

    if macrostates >= len(model.states):
        raise DataError(expected("--macrostates", f"fewer than the {len(model.states)} connected states", macrostates))
    study.title = f"kinetics of {len(model.states)} states at a lag of {model.spec.lag} frames"
    times = model.timescales(count)
    for k in range(count):
        _add(study, f"timescale_{k + 1}", times[k], model)
    places = pcca(model.transition_matrix, macrostates).sets()
    populations = model.posterior(lambda batch: torch.stack([batch.stationary[:, one].sum(1) for one in places], 1))
    step, lag = model.time_step, model.spec.lag
    between = model.posterior(
        lambda batch: step * mean_first_passage_times(batch.transition, places, lag=lag), model.unit
    )
    for a in range(macrostates):
        _add(study, f"population_{a + 1}", populations[a], model)
    for a in range(macrostates):
        for b in range(macrostates):
            if a != b:
                _add(study, f"passage_time_{a + 1}_{b + 1}", between[a][b], model)
    study.add("left_out_fraction", model.left_out)
    study.notes.append(f"variances of {model.weights.freedom:.0f} degrees of freedom")
    return [model.states[one].tolist() for one in places]


def _add(study: Study, name: str, found: "Posterior", model: "FittedMarkovStateModel") -> None:
    from bayesmol.dynamics.weights import FEWEST_EVENTS

    interval = found.interval(LEVEL)
    study.add(name, float(found.mean), found.unit, error=float(found.stddev))
    ends = f"{float(interval.lower):.4g} to {float(interval.upper):.4g} {found.unit}".rstrip()
    events = float(model.support(cast(Any, found)))
    doubt = "" if events >= FEWEST_EVENTS else f"; it rests on about {events:.1f} independent events: do not trust it"
    study.notes.append(f"{name}: {ends} ({100 * LEVEL:.0f} %){doubt}")


def _page(study: Study, model: "FittedMarkovStateModel", data: Any, test: Any, count: int, seed: int) -> str:
    plots = _plots(study, model, data, test, count, seed)
    facts = {
        "trajectories": f"{len(data)} of {data.frames} frames, {data.time_step:g} {data.unit} apart",
        "model": repr(model.spec),
    }
    guarantees = {
        "intervals": "sampling error of this model at this lag, for correlated frames: asymptotic in the number of "
        "transitions, with the tails of Student's t; not the error of states that are too coarse or of a lag too short"
    }
    lead = f"Markov state model of {len(model.states)} states; Chapman–Kolmogorov test p = {test.p_value:.2g}."
    return page(study, "Kinetics", lead, plots, facts=facts, guarantees=guarantees)


def _plots(
    study: Study, model: "FittedMarkovStateModel", data: Any, test: Any, count: int, seed: int
) -> list[tuple[str, "Figure"]]:
    from bayesmol.dynamics.plots import free_energy_surface

    lags = sorted({max(1, round(share * model.spec.lag)) for share in LAGS})
    plots = []
    try:
        found = bm.dynamics.implied_timescales(model.spec, data, lags, count, seed=seed)
        caption = "Timescales at several lags with 95 % bands; in the grey a process is over within the lag"
        plots.append((caption, found.plot()))
        study.notes += [f"lag {lag:g} {found.unit}: {reason}" for lag, reason in found.refused.items()]
    except (ConvergenceError, DataError) as reason:
        study.notes.append(f"no timescales at several lags: {reason}")
    plots.append(("Chapman–Kolmogorov test: probability to be in the same set again, predicted and seen", test.plot()))
    if model.partition is not None:
        caption = "Free energy of the states along the first two features, and its standard deviation"
        plots.append((caption, free_energy_surface(model, data)))
    return plots
