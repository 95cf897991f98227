"""Lines of a scorecard that labels decide: accurate, transferable, honest."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.calibration import figures
from bayesmol.calibration.observed import predictive_of_labels
from bayesmol.data.labelled import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.posterior import Interval, Posterior, Prediction
from bayesmol.scorecard_lines import Line, Score, Thresholds, Verdict, over_structures, verdict, worst
from bayesmol.units import convert

__all__ = ["accurate", "force_error", "honest", "transferable"]


def accurate(prediction: Prediction, truth: Labelled, wanted: Thresholds) -> Line:
    """Mean absolute errors; the verdict is that of the energy, of an atom if the structures are crystals."""
    crystal = bool(truth.structures.pbc.any())
    scores, absent = {}, {}
    if truth.energies is not None:
        error = (prediction.energy.mean - truth.energies).abs()
        scores["energy_mae"] = over_structures(error, torch.ones_like(error), "eV")
        each = truth.structures.counts.to(error)
        scores["energy_mae_per_atom"] = over_structures(error / each, torch.ones_like(error), "eV/atom")
    if _forces(truth):
        scores["force_mae"] = force_error(prediction, truth)
    if truth.stresses is not None and bool(truth.has_stresses.any()):
        if prediction.stress is None:
            absent["stress_mae"] = "the potential predicts no stress"
        else:
            rows = truth.has_stresses
            off = (prediction.stress.mean - truth.stresses)[rows].abs().flatten(1)
            scores["stress_mae"] = over_structures(off.mean(1), torch.ones_like(off[:, 0]), "eV/Å³")
    said = [f"forces by {scores['force_mae']}"] if "force_mae" in scores else []
    if truth.energies is None:
        reason = "the test frames have no energies to judge it by"
        absent["energy_mae"] = reason
        return Line("accurate", "cannot tell", f"{_opened(', '.join(said))}; {reason}.", scores, absent)
    name, limit = ("energy_mae_per_atom", wanted.energy_per_atom) if crystal else ("energy_mae", wanted.energy)
    asked = f"{1000 * limit:.3g} meV/atom" if crystal else f"{1000 * limit:.3g} meV (0.25 kcal/mol)"
    if not crystal:
        asked = f"{convert(limit, 'eV', 'kcal/mol'):.3g} kcal/mol"
        said = [f"that is {_kcal(scores['energy_mae'])} kcal/mol", *said]
    text = (
        f"Energies are off by {', '.join([str(scores[name]), *said])}, on {len(truth)} structures; {asked} is wanted."
    )
    return Line("accurate", verdict(scores[name], upper=limit), text, scores, absent)


def transferable(
    there: Prediction, truth: Labelled, here: Score, wanted: Thresholds, *, name: str, level: float
) -> Line:
    """Errors on other structures against those on the test frames, and whether the domain flags them.

    Parameters
    ----------
    here
        Force error on the test frames.
    """
    error = force_error(there, truth)
    hits, sizes = _hits(there.forces.interval(level), truth)
    scores = {
        "transfer_force_mae": error,
        "transfer_gap": _difference(error, here),
        "transfer_ratio": _ratio(error, here),
        "transfer_force_coverage": over_structures(hits, sizes, share=True),
    }
    absent, flagged = {}, "it has no domain that could flag them"
    decided = [verdict(scores["transfer_ratio"], upper=wanted.error_ratio)]
    if truth.energies is not None:
        off = there.energy.mean - truth.energies
        relative = (off - off.mean()).abs()  # references of elements cannot be told apart by one composition
        scores["transfer_relative_energy_mae"] = over_structures(relative, torch.ones_like(relative), "eV")
        decided.append(_near(scores["transfer_relative_energy_mae"], truth, wanted))
    if there.inside is None:
        absent["transfer_flagged"] = "the model has no domain; certify it"
    else:
        out = (~there.inside).double()
        scores["transfer_flagged"] = over_structures(out, torch.ones_like(out), share=True)
        flagged = f"its domain flags {scores['transfer_flagged'].percent} of these frames"
    ratio, gap = scores["transfer_ratio"], scores["transfer_gap"]
    energy = scores.get("transfer_relative_energy_mae")
    energies = "" if energy is None else f"; energies by {energy} about their mean error"
    text = (
        f"On {name} forces are off by {error}, {gap} more than here, {ratio} times as much{energies}; {flagged}; "
        f"at most {wanted.error_ratio:g} times, and the energy error that is wanted here, are wanted."
    )
    return Line("transferable", worst(decided), text, scores, absent)


def _near(energy: Score, truth: Labelled, wanted: Thresholds) -> Verdict:
    """Verdict of an energy error against the threshold for molecules, or for crystals of their mean size."""
    crystal = bool(truth.structures.pbc.any())
    atoms = float(truth.structures.counts.double().mean())
    return verdict(energy, upper=wanted.energy_per_atom * atoms if crystal else wanted.energy)


def honest(
    prediction: Prediction, truth: Labelled, wanted: Thresholds, *, level: float, seed: int | torch.Generator
) -> Line:
    """Coverage, miscalibration and width; the verdict is that of the coverage of force components."""
    parts: dict[str, tuple[Posterior, Tensor, Tensor | None, Tensor]] = {}
    if truth.energies is not None:
        index = torch.arange(len(truth), device=truth.energies.device)
        parts["energy"] = prediction.energy, truth.energies, truth.energy_errors, index
    if _forces(truth):
        rows = _labelled_atoms(truth)
        errors = None if truth.force_errors is None else truth.force_errors[rows]
        owner = truth.structures.structure_index[rows]
        parts["force"] = prediction.forces[rows], truth.given("forces")[rows], errors, owner
    scores: dict[str, Score] = {}
    for name, part in parts.items():
        scores |= {f"{name}_{key}": score for key, score in _calibration(*part, level, seed).items()}
    name = "force" if "force" in parts else "energy"
    share = scores.get(f"{name}_epistemic_share")
    reduced = "" if share is None else f"; {share.percent} of the {name} variance is for lack of data, the rest noise"
    coverage = scores[f"{name}_coverage"]
    ends = tuple(level + end - 0.9 for end in wanted.coverage)
    said = "; ".join(
        f"{key} intervals at {100 * level:g} % hold {scores[f'{key}_coverage'].percent} and are "
        f"{scores[f'{key}_width']} wide, miscalibration of the distribution {scores[f'{key}_miscalibration_area']}"
        for key in parts
    )
    asked = f"{100 * ends[0]:.3g} to {100 * ends[1]:.3g} % of {name} labels inside is wanted"
    return Line(
        "honest", verdict(coverage, lower=ends[0], upper=ends[1]), f"{_opened(said)}{reduced}; {asked}.", scores
    )


def force_error(prediction: Prediction, truth: Labelled) -> Score:
    """Mean absolute error of force components, in eV/Å.

    Raises
    ------
    DataError
        If there are no forces.
    """
    if not _forces(truth):
        raise DataError(expected("truth", "frames with forces", "none"))
    rows = _labelled_atoms(truth)
    error = (prediction.forces.mean - truth.given("forces")).abs()[rows].sum(1)
    return over_structures(*_summed(error, 3, truth, rows), "eV/Å")


def _calibration(
    posterior: Posterior, truth: Tensor, errors: Tensor | None, owner: Tensor, level: float, seed: int | torch.Generator
) -> Mapping[str, Score]:
    """Coverage and width of the intervals that the model states, the miscalibration of its distribution, and the share
    of the variance that more training data would reduce."""
    stated = posterior if posterior.rule is not None else predictive_of_labels(posterior, errors)
    interval, owner = stated.interval(level), owner.unique(return_inverse=True)[1]
    area = figures(posterior, truth, errors, groups=owner, resamples=100, seed=seed)["miscalibration_area"]
    sizes = torch.bincount(owner).to(truth) * truth[0].numel()
    found = {}
    for name, values, unit in (("coverage", interval.contains(truth), ""), ("width", interval.width, posterior.unit)):
        sums = torch.zeros_like(sizes).index_add(0, owner, values.to(truth).reshape(len(owner), -1).sum(1))
        found[name] = over_structures(sums, sizes, unit, share=name == "coverage")
    found["miscalibration_area"] = Score.of(area, least=0.0)
    if posterior.epistemic is not None:
        parts = [part.variance.to(truth).reshape(len(owner), -1).sum(1) for part in (posterior.epistemic, posterior)]
        own, whole = (torch.zeros_like(sizes).index_add(0, owner, part) for part in parts)
        found["epistemic_share"] = over_structures(own, whole, share=True)
    return found


def _hits(interval: Interval, truth: Labelled) -> tuple[Tensor, Tensor]:
    rows = _labelled_atoms(truth)
    return _summed(interval.contains(truth.given("forces"))[rows].double().sum(1), 3, truth, rows)


def _summed(values: Float[Tensor, " rows"], entries: int, truth: Labelled, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over each structure that has forces, and the number of its entries."""
    owner = truth.structures.structure_index[rows].unique(return_inverse=True)[1]
    sizes = entries * torch.bincount(owner).to(values)
    return torch.zeros_like(sizes).index_add(0, owner, values), sizes


def _forces(truth: Labelled) -> bool:
    return truth.forces is not None and bool(truth.has_forces.any())


def _labelled_atoms(truth: Labelled) -> Tensor:
    return truth.has_forces[truth.structures.structure_index].nonzero()[:, 0]


def _difference(first: Score, second: Score) -> Score:
    """Of two independent numbers."""
    value, error = first.value - second.value, math.hypot(first.upper - first.value, second.upper - second.value)
    return Score(value, value - error, value + error, first.unit)


def _ratio(first: Score, second: Score) -> Score:
    """Of two independent positive numbers, on the logarithm (delta method)."""
    if min(first.value, second.value) <= 0:
        return Score(math.nan)
    value = first.value / second.value
    error = math.hypot((first.upper - first.value) / first.value, (second.upper - second.value) / second.value)
    return Score(value, value * math.exp(-error), value * math.exp(min(error, 700.0)) if error < math.inf else math.inf)


def _opened(text: str) -> str:
    """The text with a capital first letter, units as they are."""
    return text[:1].upper() + text[1:]


def _kcal(score: Score) -> str:
    value, lower, upper = (convert(x, "eV", "kcal/mol") for x in (score.value, score.lower, score.upper))
    return str(Score(value, lower, upper))
