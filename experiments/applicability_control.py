"""Error control on real forces: is "P(|ΔF| > tolerance | accepted) ≤ risk" true as often as it says?"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from bayesmol.applicability.decision import Decision
from bayesmol.applicability.error_control import ErrorControl
from bayesmol.data import Labelled
from bayesmol.inference.random import generator
from bayesmol.posterior import Prediction
from bayesmol.potentials import BayesianACE
from bayesmol.progress import progress
from bayesmol.report import Study, proportion

RISK, CONFIDENCE = 0.05, 0.95
QUANTILES = (0.8, 0.9, 0.97)  # of the errors: tolerances that are hard, middling and easy to keep
COSTS = {"wrong": 10.0, "reference": 1.0}


@dataclass(frozen=True)
class Scored:
    """Predicted standard deviations and errors of force vectors, in eV/Å, of atoms, and of the worst of a frame."""

    score: Float[Tensor, " rows"]
    error: Float[Tensor, " rows"]
    frame: Int[Tensor, " rows"]

    @classmethod
    def of(cls, prediction: Prediction, labelled: Labelled) -> "Scored":
        """One row an atom."""
        deviation = prediction.forces.variance.sum(1).sqrt()
        error = (prediction.forces.mean - labelled.forces).norm(dim=1)
        return cls(deviation, error, labelled.structures.structure_index)

    def worst(self) -> "Scored":
        """One row a frame: its largest score and its largest error."""
        count = int(self.frame.max()) + 1
        empty = self.score.new_zeros(count)
        largest = (empty.scatter_reduce(0, self.frame, part, "amax") for part in (self.score, self.error))
        return Scored(*largest, torch.arange(count))

    def frames(self, chosen: Int[Tensor, " frames"]) -> "Scored":
        """Rows of these frames, each as often as it was chosen, and then as a frame of its own."""
        atoms = len(self.frame) // (int(self.frame.max()) + 1)
        rows = (chosen[:, None] * atoms + torch.arange(atoms)).flatten()
        return Scored(self.score[rows], self.error[rows], torch.arange(len(chosen)).repeat_interleave(atoms))


def control(study: Study, train: Labelled, rest: Labelled, *, size: int, resplits: int = 200, seed: int) -> None:
    """Fit ``train`` once, then split ``rest`` again and again into ``size`` calibration frames and a test.

    All frames of ``rest`` have the same atoms. Tolerances are quantiles of the errors of all of them, so that the
    study speaks of thresholds that are neither trivial nor hopeless; a user has his own.
    """
    with study.stage("train"):
        model = BayesianACE().fit(train, seed=seed)
    with study.stage("predict"):
        atoms = Scored.of(model.predict(rest.structures), rest)
    study.add("force_error_mean", float(atoms.error.mean()), "eV/Å")
    kinds = {"structure": atoms.worst(), "atom": atoms}
    with study.stage("resplits"):
        found = [held(study, name, kind, size, resplits, seed) for name, kind in kinds.items()]
    study.add("guarantee_held_fraction", proportion(min(found), resplits))
    for name, kind in kinds.items():
        rejection(study, name, kind)
    decisions(study, kinds["structure"], size, seed)
    study.notes.append(
        "held: calibration frames are drawn from all labelled frames with replacement, so that the rate among all of "
        "them is the exact truth; resplit: the rate among the frames that are not drawn, which has a noise of its own; "
        "guarantee_held_fraction is the least of all kinds and tolerances; nothing accepted counts as held"
    )


def held(study: Study, name: str, rows: Scored, size: int, resplits: int, seed: int) -> int:
    """How often the certificate was true, by exact draws and by disjoint resplits; the least of all tolerances."""
    least = resplits
    for quantile in QUANTILES:
        tolerance, source = float(rows.error.quantile(quantile)), generator(seed)
        label = f"{name}_{100 * quantile:.0f}"
        outcomes = []
        with progress(label, resplits) as advance:
            for _ in range(resplits):
                outcomes.append(outcome(rows, tolerance, size, source))
                advance()
        exact, resplit, noise, share = (torch.tensor(part, dtype=torch.float64) for part in zip(*outcomes, strict=True))
        study.add(f"tolerance_{label}", tolerance, "eV/Å")
        study.add(f"held_{label}", proportion(int(exact.sum()), resplits))
        study.add(f"resplit_held_{label}", proportion(int(resplit.sum()), resplits))
        study.add(f"resplit_held_within_noise_{label}", proportion(int(noise.sum()), resplits))
        study.add(f"accepted_fraction_{label}", float(share.mean()))
        study.add(f"certified_fraction_{label}", proportion(int((share > 0).sum()), resplits))
        least = min(least, int(exact.sum()))
    return least


def outcome(rows: Scored, tolerance: float, size: int, source: torch.Generator) -> tuple[bool, bool, bool, float]:
    """Whether the certificate held exactly, on disjoint frames, and on these but for the noise of the test."""
    count = int(rows.frame.max()) + 1
    spec = ErrorControl(tolerance, RISK, CONFIDENCE)
    drawn = rows.frames(torch.randint(count, (size,), generator=source))
    domain = spec.fit(drawn.score, drawn.error, groups=drawn.frame)
    accepted = domain.accept(rows.score)
    exact = rate(rows, accepted, tolerance) <= RISK
    order = torch.randperm(count, generator=source)
    drawn, test = rows.frames(order[:size]), rows.frames(order[size:])
    accepted = spec.fit(drawn.score, drawn.error, groups=drawn.frame).accept(test.score)
    found = rate(test, accepted, tolerance)
    return exact, found <= RISK, found <= RISK + margin(test, accepted), float(accepted.double().mean())


def rate(rows: Scored, accepted: Tensor, tolerance: float) -> float:
    """Fraction of the accepted rows with a larger error; 0 where none is accepted."""
    return float((rows.error[accepted] > tolerance).double().mean()) if bool(accepted.any()) else 0.0


def margin(rows: Scored, accepted: Tensor) -> float:
    """By how much a rate at the risk exceeds it with 5 % probability on so many frames of test."""
    count = len(rows.frame[accepted].unique())
    return float(stats.binom.ppf(0.95, count, RISK)) / count - RISK if count else 0.0


def rejection(study: Study, name: str, rows: Scored) -> None:
    """Area under the mean error of the accepted against their fraction, by how much it is below random abstention."""
    for label, order in {"": rows.score, "_oracle": rows.error}.items():
        errors = rows.error[order.argsort()]
        area = (errors.cumsum(0) / torch.arange(1, len(errors) + 1)).mean()
        study.add(f"risk_coverage_gain_{name}{label}", float(1 - area / errors.mean()))
    exceeds = (rows.error > rows.error.quantile(QUANTILES[1])).double()[rows.score.argsort()]
    area = (exceeds.cumsum(0) / torch.arange(1, len(exceeds) + 1)).mean()
    study.add(f"risk_coverage_gain_{name}_exceedance", float(1 - area / exceeds.mean()))


def decisions(study: Study, rows: Scored, size: int, seed: int) -> None:
    """Cost per structure of decisions, beside that of computing all references and of accepting everything."""
    tolerance = float(rows.error.quantile(QUANTILES[-1]))
    order = torch.randperm(len(rows.score), generator=generator(seed))
    old, new = order[:size], order[size:]
    spec = Decision(COSTS["wrong"], COSTS["reference"], control=ErrorControl(tolerance, RISK, CONFIDENCE))
    chosen = spec.fit(rows.score[old], rows.error[old]).decide(rows.score[new])
    wrong = (rows.error[new] > tolerance).double()
    cost = (COSTS["wrong"] * wrong * chosen.accept + COSTS["reference"] * chosen.compute).mean()
    study.add("decision_cost", float(cost))
    study.add("decision_cost_bound", float(chosen.cost.mean()))
    study.add("decision_cost_all_computed", COSTS["reference"])
    study.add("decision_cost_all_accepted", COSTS["wrong"] * float(wrong.mean()))
    study.add("decision_accepted_fraction", float(chosen.accept.double().mean()))
