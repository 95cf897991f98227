"""Intervals and alarms when the distribution changes: another temperature, and correlated streams of known answers."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from harness import average
from jaxtyping import Float
from torch import Tensor

from bayesmol.calibration.adaptive import AdaptiveConformal
from bayesmol.calibration.blockwise import BlockConformal
from bayesmol.calibration.conformal import Conformal
from bayesmol.calibration.density_ratio import DensityRatio
from bayesmol.calibration.drift import ConformalMartingale
from bayesmol.calibration.reference import coverage_band
from bayesmol.calibration.rules import needed
from bayesmol.calibration.two_sample import ClassifierTest, KernelTest
from bayesmol.calibration.weighted import WeightedConformal, WeightedRule
from bayesmol.data import Labelled
from bayesmol.inference.random import generator
from bayesmol.posterior import Gaussian, Interval, Posterior, Prediction
from bayesmol.posterior.estimate import effective_sample_size
from bayesmol.potentials import BayesianACE
from bayesmol.progress import progress
from bayesmol.report import Study, proportion

LEVEL = 0.9
FALSE_ALARMS = 0.05
WATCHED = 50  # frames in which a change shall be found


@dataclass(frozen=True)
class Frames:
    """What the study knows of a set of frames: predictions, labels and features."""

    prediction: Prediction
    labelled: Labelled

    @classmethod
    def of(cls, model: Any, labelled: Labelled) -> "Frames":
        """Frames predicted by ``model``."""
        return cls(model.predict(labelled.structures), labelled)

    @property
    def features(self) -> Float[Tensor, "structures 3"]:
        """Logarithms of epistemic standard deviations: of the energy, of all force components, of the worst atom."""
        energy, forces = self.prediction.energy.epistemic, self.prediction.forces.epistemic
        atoms, owner = forces.variance.sum(1), self.labelled.structures.structure_index
        empty = atoms.new_zeros(len(self.labelled))
        mean = empty.index_add(0, owner, atoms) / (3 * self.labelled.structures.counts)
        worst = empty.scatter_reduce(0, owner, atoms, "amax")
        return torch.stack([energy.variance, mean, worst], dim=1).log() / 2

    def part(self, rows: Tensor | slice) -> "Frames":
        """The frames that ``rows`` selects."""
        return Frames(self.prediction[rows], self.labelled[rows])

    def quantity(self, name: str) -> tuple[Posterior, Tensor, Tensor]:
        """Posterior, labels, and the frame of each row."""
        if name == "energy":
            return self.prediction.energy, self.labelled.energies, torch.arange(len(self.labelled))
        return self.prediction.forces, self.labelled.forces, self.labelled.structures.structure_index


def temperature(
    study: Study, train: Labelled, same: Labelled, unlabelled: Labelled, test: Labelled, *, size: int, seed: int
) -> None:
    """Fit to one temperature, predict another: intervals by :func:`shifted`, alarms by :func:`drifted`.

    Parameters
    ----------
    train
        The first ``size`` frames are fitted, the others calibrate.
    same
        More frames like these: the first half calibrates, the second is the exchangeable test.
    unlabelled, test
        Frames of the other temperature; of the first no label is used.
    """
    with study.stage("train"):
        model = BayesianACE().fit(train[:size], seed=seed)
    half = len(same) // 2
    with study.stage("predict"):
        parts = Labelled.concatenate([train[size:], same[:half]]), unlabelled, same[half:], test
        calibration, hints, usual, new = (Frames.of(model, part) for part in parts)
    study.add("shift_calibration_frames", len(calibration.labelled))
    shifted(study, calibration, hints, usual, new, seed=seed)
    drifted(study, torch.cat([calibration.features, usual.features]), new.features, seed=seed)


def shifted(study: Study, calibration: Frames, unlabelled: Frames, same: Frames, test: Frames, *, seed: int) -> None:
    """Coverage and width of plain, weighted and adaptive intervals on frames of another distribution.

    Parameters
    ----------
    calibration, same
        Held-out frames of the distribution of the training frames.
    unlabelled
        Frames of the other distribution; their labels are not used.
    test
        More frames of the other distribution.
    """
    with study.stage("weights"):
        ratio = DensityRatio("boosting").fit(calibration.features, unlabelled.features, seed=seed)
        weights = ratio.weights(test.features)
    beyond = (test.features > calibration.features.amax(0)).any(1)
    study.add("shift_beyond_calibration", proportion(int(beyond.sum()), len(beyond)))
    for name in ("force", "energy"):
        with study.stage("intervals"):
            before = _plain(study, name, calibration, same, test)
            posterior, truth, groups = calibration.quantity(name)
            rule = WeightedConformal().fit(posterior, truth, ratio.calibration, groups=groups)
            _weighted(study, name, rule, weights, beyond, test, before)
            _adapted(study, name, calibration, test, seed)
    _stricter(study)
    study.add("shift_infinite", proportion(int(rule.radii(LEVEL, weights).isinf().sum()), len(weights)))
    study.add("shift_effective_sample_size", rule.effective_sample_size)
    if (worth := int(rule.effective_sample_size)) >= needed(LEVEL):
        band = coverage_band(worth, len(weights), LEVEL, 0.95)
        text = f"95 % band of the coverage of split intervals of {worth} structures on {len(weights)} energies"
        study.notes.append(f"{text}: {band[0]:.3f} to {band[1]:.3f}")


def _plain(study: Study, name: str, calibration: Frames, same: Frames, test: Frames) -> Interval:
    """Figures of split conformal intervals on both distributions; the intervals of the other one."""
    posterior, truth, groups = calibration.quantity(name)
    rule = Conformal(unit="structure").fit(posterior, truth, groups=groups)
    for kind, frames in {"same": same, "plain": test}.items():
        posterior, truth, groups = frames.quantity(name)
        interval = rule.interval(posterior, LEVEL)
        study.add(f"{kind}_{name}_coverage", average(_shares(interval, truth, groups)))
    return interval


def _weighted(
    study: Study, name: str, rule: WeightedRule, weights: Tensor, beyond: Tensor, test: Frames, before: Interval
) -> None:
    """Figures of weighted intervals: of all frames, of those with a finite one, of those stranger than any other."""
    posterior, truth, groups = test.quantity(name)
    interval = rule.interval(posterior, LEVEL, weights, groups=groups)
    shares = _shares(interval, truth, groups)
    study.add(f"shift_{name}_coverage", average(shares))
    study.add(f"shift_{name}_coverage_finite", average(shares[rule.radii(LEVEL, weights).isfinite()]))
    if int(beyond.sum()) > 1:
        study.add(f"shift_{name}_coverage_beyond", average(shares[beyond]))
    study.add(f"shift_{name}_relative_width", float(interval.width.median() / before.width.median()))
    study.notes.append(f"{name}: {interval.guarantee}")


def _stricter(study: Study) -> None:
    """Figures without a quantity in their name: those of the quantity with the lower coverage."""
    strict = min(("force", "energy"), key=lambda name: study.figures[f"shift_{name}_coverage"].value)
    names = {"shift_coverage": f"shift_{strict}_coverage", "plain_coverage": f"plain_{strict}_coverage"}
    names["relative_width"] = f"shift_{strict}_relative_width"
    for name, source in names.items():
        study.add(name, study.figures[source].value, error=study.figures[source].standard_error)
    study.notes.append(f"shift_coverage, plain_coverage and relative_width are those of the {strict}")


def _adapted(study: Study, name: str, calibration: Frames, test: Frames, seed: int) -> None:
    """Figures of adaptive intervals where the label of each frame arrives before the next one is predicted."""
    spec = AdaptiveConformal("aci", LEVEL)
    source = generator(seed)
    start, stream = (part.part(torch.randperm(len(part.labelled), generator=source)) for part in (calibration, test))
    posterior, truth, groups = start.quantity(name)
    state = spec.start(spec.scores(posterior, truth, groups=groups))
    posterior, truth, groups = stream.quantity(name)
    path = state.run(posterior, truth, groups=groups)
    study.add(f"adaptive_{name}_coverage", average(1 - path.missed))
    wider = path.interval.width.median() / state.interval(posterior).width.median()
    study.add(f"adaptive_{name}_relative_width", float(wider))


def _shares(interval: Interval, truth: Tensor, groups: Tensor) -> Float[Tensor, " structures"]:
    """Share of the entries of each structure that are covered."""
    inside = interval.contains(truth).double().reshape(len(truth), -1).mean(1)
    sums = inside.new_zeros(int(groups.max()) + 1).index_add_(0, groups, inside)
    return sums / groups.bincount()


def drifted(study: Study, usual: Tensor, changed: Tensor, *, streams: int = 500, tests: int = 200, seed: int) -> None:
    """False alarms without and power with a change, of the martingale and of two-sample tests, on resampled streams.

    Parameters
    ----------
    usual, changed
        Features of frames before and after the change; the first is the score that the martingale watches.
    """
    source, half = generator(seed), len(usual) // 2
    spec, alarms, delays = ConformalMartingale(false_alarms=FALSE_ALARMS), 0, []
    with study.stage("martingale"), progress("watching streams", streams) as advance:
        for _ in range(streams):
            order = usual[torch.randperm(len(usual), generator=source), 0]
            start = spec.start(order[:half])
            alarms += start.run(order[half:]).alarm is not None
            stream = changed[torch.randperm(len(changed), generator=source)[:WATCHED], 0]
            delays.append(start.run(stream).alarm or math.inf)
            advance()
    study.add("drift_false_alarm_rate", proportion(alarms, streams))
    study.add("drift_power", proportion(sum(delay <= WATCHED for delay in delays), streams))
    study.add("drift_delay", float(torch.tensor(delays).median()), "frames")
    study.notes.append(
        f"drift: {half} calibration frames; false alarms in {len(usual) - half} more like these, "
        f"power in {WATCHED} changed ones"
    )
    for name, test in {
        "kernel_test": KernelTest(199),
        "classifier_test": ClassifierTest("logistic", permutations=199),
    }.items():
        found = {"false_alarm_rate": 0, "power": 0}
        with study.stage(name), progress(name.replace("_", " "), tests) as advance:
            for k in range(tests):
                order = usual[torch.randperm(len(usual), generator=source)]
                first, second = order[:200], order[200 : 200 + WATCHED]
                third = changed[torch.randperm(len(changed), generator=source)[:WATCHED]]
                found["false_alarm_rate"] += test(first, second, seed=k).p_value <= FALSE_ALARMS
                found["power"] += test(first, third, seed=k).p_value <= FALSE_ALARMS
                advance()
        for figure, count in found.items():
            study.add(f"{name}_{figure}", proportion(count, tests))


def correlated(study: Study, *, coefficient: float = 0.95, steps: int = 20_000, streams: int = 4, seed: int) -> None:
    """Long-run coverage, effective sample size and false alarms on autoregressive streams of known correlation."""
    values = autoregressive(streams, 2 * steps, coefficient, seed)
    exact = (1 - coefficient) / (1 + coefficient)
    found = effective_sample_size(values) / values.numel()
    study.add("ar1_effective_fraction", float(found))
    study.add("ar1_effective_fraction_ratio", float(found) / exact)
    for method in ("aci", "dtaci", "pid", "blocks"):
        covered, infinite = [], []
        with study.stage(f"ar1 {method}"), progress(method, streams) as advance:
            for stream in values:
                old, new = _standard(stream[:steps]), _standard(stream[steps:])
                if method == "blocks":
                    interval = BlockConformal().fit(old, stream[:steps]).interval(new, LEVEL)
                else:
                    spec = AdaptiveConformal(method, LEVEL)
                    interval = spec.start(spec.scores(old, stream[:steps])).run(new, stream[steps:]).interval
                covered.append(interval.covered(stream[steps:]))
                infinite.append(float(interval.width.isinf().double().mean()))
                advance()
        study.add(f"ar1_coverage_{method}", average(torch.tensor(covered)))
        study.add(f"ar1_infinite_{method}", average(torch.tensor(infinite)))


def watched(study: Study, *, coefficient: float = 0.95, streams: int = 200, seed: int) -> None:
    """False alarms of the martingale on unchanged autoregressive streams, frame by frame and by long blocks."""
    values = autoregressive(streams, 6000, coefficient, seed)
    for name, block in {"frames": 1, "blocks": 100}.items():
        spec, alarms = ConformalMartingale(false_alarms=FALSE_ALARMS, block=block), 0
        with study.stage(f"martingale by {name}"), progress(f"watching {name}", streams) as advance:
            for stream in values:
                alarms += spec.start(stream[:4000]).run(stream[4000:]).alarm is not None
                advance()
        study.add(f"ar1_false_alarm_rate_{name}", proportion(alarms, streams))


def autoregressive(streams: int, steps: int, coefficient: float, seed: int) -> Float[Tensor, "streams steps"]:
    """Stationary normal streams of unit variance with correlation ``coefficient`` to the power of the lag."""
    values = torch.randn(streams, steps, generator=generator(seed), dtype=torch.float64)
    for t in range(1, steps):
        values[:, t] = coefficient * values[:, t - 1] + math.sqrt(1 - coefficient**2) * values[:, t]
    return values


def _standard(values: Tensor) -> Gaussian:
    return Gaussian(torch.zeros_like(values), torch.ones_like(values), unit="")
