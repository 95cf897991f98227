"""All posteriors of one trained atomic network beside its no-U-turn draws: accuracy, honesty, cost."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bayesmol.calibration import figures
from bayesmol.calibration.reference import resampled_counts
from bayesmol.data import Labelled
from bayesmol.errors import ConvergenceError
from bayesmol.posterior import Estimate, Prediction
from bayesmol.potentials.network_atomic import Atomic
from bayesmol.potentials.neural import POSTERIORS, NeuralPotential
from bayesmol.potentials.neural_member import Member
from bayesmol.potentials.neural_nuts import NoUTurn
from bayesmol.potentials.neural_posterior import NetworkPotential
from bayesmol.potentials.neural_run import Run
from bayesmol.potentials.neural_scales import fitted_scales
from bayesmol.potentials.neural_weights import certain
from bayesmol.potentials.training import Training
from bayesmol.report import Study

SMALL = Atomic(degree=2, correlation=3, channels=4, hidden=(16,), width=16)
SCHEDULE = Training(epochs=200, rate=1e-2)
REFERENCE = NoUTurn(warmup=110, draws=140, chains=2, depth=7, kept=80, limit=None)
WHOLE = ("hamiltonian", "mean-field", "swag")  # sample all weights that are free
NAMES = tuple(sorted(set(POSTERIORS) - {"no-u-turn"}))
MARKS = "os^vDP*X<>"
SHOWN = ("mae", "coverage_90", "miscalibration_area", "nll")


def posteriors(
    study: Study,
    frames: tuple[Labelled, Labelled],
    testing: Labelled,
    *,
    names: Sequence[str] = NAMES,
    given: dict[str, Any] | None = None,
    network: Atomic = SMALL,
    schedule: Training = SCHEDULE,
    reference: NoUTurn = REFERENCE,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures of each posterior from one training, and of its deviations against the draws; returns plots by name.

    Samplers of all weights hold the mixing of the densities as the no-U-turn sampler does: they have one target.

    Parameters
    ----------
    frames
        For training and validation; nothing is chosen on the test frames.
    names, given
        Posteriors, and configurations of those that are not at their default.
    """
    with study.stage("train"):
        run = NeuralPotential(network, training=schedule).run(*frames, seed=seed)
    alone = potential(run, certain([run.energy]))
    with study.stage("predict mean"):
        alone.surface(testing.structures)
    found = {}
    for name in ("nuts", *names):
        spec = reference if name == "nuts" else (given or {}).get(name, POSTERIORS[name]())
        held = fixed_mixing(run) if name in WHOLE else run
        if (one := judged(study, name, spec, held, testing, seed)) is not None:
            found[name] = one
    spreads = {name: prediction.forces.epistemic.variance for name, (_, prediction) in found.items()}
    errors = {name: (testing.forces - prediction.forces.mean).abs() for name, (_, prediction) in found.items()}
    if "nuts" in found:
        spreads |= halves(found["nuts"][0], testing)
    compared(study, spreads, errors, testing, seed)
    study.notes.append("error bars are scaled on the validation frames; no posterior is certified")
    study.notes.append(table(study))
    return {"posteriors": drawn(study)} if "nuts" in found else {}


def fixed_mixing(run: Run) -> Run:
    """The same run with the mixing of the densities not free."""
    energy = copy.deepcopy(run.energy)
    energy.network.mixing.requires_grad_(False)
    return replace(run, energy=energy)


def potential(run: Run, members: tuple[Member, ...]) -> NetworkPotential:
    """Potential of these members, its error bars scaled on the validation frames."""
    return NetworkPotential(members, fitted_scales(members, run.held_out), run.energy.guards(run.labelled.structures))


def judged(
    study: Study, name: str, spec: Any, run: Run, testing: Labelled, seed: int
) -> tuple[NetworkPotential, Prediction] | None:
    """Potential, prediction of the test frames and its figures; ``None`` and a note if the posterior is not found."""
    try:
        with study.stage(f"find {name}"):
            fitted = potential(run, spec.members(run))
        with study.stage(f"predict {name}"):
            prediction = fitted.predict(testing.structures)
    except ConvergenceError as error:
        study.notes.append(f"{name} is not found: {error}")
        return None
    groups = testing.structures.structure_index
    found = figures(prediction.forces, testing.forces, groups=groups, seed=seed)
    for figure in SHOWN:
        study.add(f"{name}_force_{figure}", found[figure])
    study.add(f"{name}_cpu_seconds", study.cpu_seconds[f"find {name}"], "s")
    study.add(f"{name}_relative_cost", study.cpu_seconds[f"predict {name}"] / study.cpu_seconds["predict mean"])
    return fitted, prediction


def halves(fitted: NetworkPotential, testing: Labelled) -> dict[str, Tensor]:
    """Epistemic variances of the forces by the first and the second half of the draws, which are different chains."""
    half = len(fitted.members) // 2
    parts = {"first half": fitted.members[:half], "second half": fitted.members[half : 2 * half]}
    chosen = {name: replace(fitted, members=members) for name, members in parts.items()}
    return {name: one.predict(testing.structures).forces.epistemic.variance for name, one in chosen.items()}


def compared(study: Study, spreads: dict[str, Tensor], errors: dict[str, Tensor], testing: Labelled, seed: int) -> None:
    """Rank correlations of the epistemic deviations of force components with the reference, and with the errors.

    Those within the elements leave out that one element is less certain than another, which needs no posterior. Those
    of the halves of the reference say what another run of it reaches.
    """
    groups, kinds = testing.structures.structure_index, testing.structures.species
    pairs = {f"{name}_rank_error": (spreads[name], error) for name, error in errors.items()}
    if "nuts" in spreads:
        names = [name for name in errors if name != "nuts"]
        pairs |= {f"{name}_rank_nuts": (spreads[name], spreads["nuts"]) for name in names}
        pairs["nuts_halves_rank"] = spreads["first half"], spreads["second half"]
    for name, pair in pairs.items():
        study.add(name, rank_correlation(*pair, groups, seed))
        if "rank_error" not in name:
            study.add(f"{name}_within_elements", rank_correlation(*pair, groups, seed, strata=kinds))


def rank_correlation(
    one: Tensor, other: Tensor, groups: Tensor, seed: int, *, strata: Tensor | None = None, resamples: int = 200
) -> Estimate:
    """Spearman's correlation of the entries of two arrays, with its deviation under resampling of the structures.

    Parameters
    ----------
    strata
        Of each row: entries are ranked among their own stratum, by their share of it.
    """
    owner, own = (
        rows.reshape(-1, *[1] * (one.ndim - 1)).expand(one.shape).flatten()
        for rows in (groups, torch.zeros_like(groups) if strata is None else strata)
    )
    ranks = torch.stack([one, other]).flatten(1).double()
    for stratum in own.unique():
        inside = own == stratum
        ranks[:, inside] = (ranks[:, inside].argsort(1).argsort(1).double() + 0.5) / int(inside.sum())
    columns = torch.stack([torch.ones_like(ranks[0]), *ranks, *ranks.square(), ranks.prod(0)], 1)
    sums = columns.new_zeros(int(owner.max()) + 1, 6).index_add(0, owner, columns)
    counts = resampled_counts(len(sums), resamples, seed=seed, device=owner.device).to(sums)
    value, drawn = _correlation(sums.sum(0)), _correlation(counts @ sums)
    return Estimate(value, drawn.std(), torch.tensor(float(len(sums))), "")


def _correlation(sums: Tensor) -> Tensor:
    """Of two columns from their number, sums, sums of squares and of products."""
    count, first, second, squares, others, products = sums.unbind(-1)
    covariance = products / count - first * second / count**2
    variances = (squares / count - (first / count) ** 2) * (others / count - (second / count) ** 2)
    return covariance / variances.sqrt()


def drawn(study: Study) -> Figure:
    """Agreement with the reference against the cost of finding a posterior and of predicting with it."""
    plot = Figure(figsize=(7.2, 3.6), layout="constrained")
    names = [name.removesuffix("_rank_nuts") for name in study.figures if name.endswith("_rank_nuts")]
    sides = {"cpu_seconds": "CPU time to find it (s)", "relative_cost": "prediction with error bars / mean alone"}
    for axes, (ending, label) in zip(plot.subplots(1, 2, sharey=True), sides.items(), strict=True):
        for name, mark in zip(names, MARKS, strict=False):
            cost, rank = (study.figures[f"{name}_{key}"] for key in (ending, "rank_nuts"))
            axes.errorbar(cost.value, rank.value, 2 * (rank.standard_error or 0.0), fmt=mark, ms=5, lw=0.8, label=name)
        axes.axhline(0.8, color="#222222", lw=0.8, ls=":")
        axes.set(xscale="log", xlabel=label)
    plot.legend(*plot.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=7)
    plot.axes[0].set_ylabel("rank correlation with NUTS")
    return plot


def table(study: Study) -> str:
    """The figures as a table in Markdown, one line a posterior."""
    ranks = ["rank_nuts", "rank_nuts_within_elements", "rank_error"]
    endings = [f"force_{name}" for name in SHOWN] + ranks + ["cpu_seconds", "relative_cost"]
    lines = ["| posterior | " + " | ".join(endings) + " |", "|---" * (len(endings) + 1) + "|"]
    for name in (key.removesuffix("_force_mae") for key in study.figures if key.endswith("_force_mae")):
        cells = [str(study.figures.get(f"{name}_{ending}", "")) for ending in endings]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
