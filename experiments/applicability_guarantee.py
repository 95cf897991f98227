"""How often the threshold of a domain keeps its promise, with rates of false alarms that are known exactly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy import stats
from torch import Tensor

from bayesmol.applicability import Domain
from bayesmol.applicability.tolerance import rows_needed, tolerance_confidence, tolerance_rank
from bayesmol.data import Labelled
from bayesmol.inference.random import generator
from bayesmol.progress import progress
from bayesmol.report import Study, proportion
from bayesmol.representation.atomic import atomic_features

SIZES = (60, 100, 250, 1000)
LEVELS = (0.05, 0.1)
CONFIDENCE = 0.95
DECLARED = (250, 0.05)  # size and level of the headline, fixed before any run
SCORES = ("leverage", "knn", "maxvol")

Rate = Callable[[float], float]


def held(study: Study, frames: Labelled, *, draws: int = 1000, training: int = 200, seed: int = 0) -> None:
    """Fill in the fraction of calibration draws after which the rate of false alarms is at most its level.

    Two kinds of populations whose rate beyond any threshold is known exactly: squared distances of normal features,
    also rounded, so that they tie; and frames of a trajectory with the scores of their atoms, drawn with replacement,
    so that the population is the set of frames itself.

    Parameters
    ----------
    frames
        The first ``training`` fit the scores; the others are the population.
    """
    source = generator(seed)
    kept = {}
    with study.stage("synthetic"):
        for name, digits in (("normal", None), ("ties", 0)):
            kept |= _population(study, name, *_normal(digits), draws, source)
    for score in SCORES:
        with study.stage(score):
            scores = frame_scores(frames, score, training)
            kept |= _population(study, score, *_resampled(scores), draws, source)
    headline = [count for (_, *case), count in kept.items() if tuple(case) == DECLARED]
    study.add("guarantee_held_fraction", proportion(sum(headline), draws * len(headline)))
    study.add("guarantee_held_all", proportion(sum(kept.values()), draws * len(kept)))
    study.add("guarantee_held_least", proportion(min(kept.values()), draws))
    study.notes.append(
        f"{len(kept)} cases of population, n and level, {draws} calibration draws each; the headline takes those of "
        f"n = {DECLARED[0]}, level {DECLARED[1]}, declared before; the least of many is below the mean by chance"
    )


def frame_scores(frames: Labelled, score: str, training: int) -> Tensor:
    """Scores of the structures after the first ``training``, by a domain of atoms fitted to those."""
    features = atomic_features(frames.structures)
    return Domain(score).fit(features[:training]).score(features[training:])


def held_count(sample: Callable[[int], Tensor], rate: Rate, size: int, level: float, draws: int) -> int:
    """Number of calibration draws after which the rate beyond the threshold is at most the level."""
    domain, kept = Domain(level=level, confidence=CONFIDENCE), 0
    for _ in range(draws):
        kept += rate(domain.calibrate(sample(size)).threshold) <= level
    return kept


def _population(
    study: Study, name: str, sample: Callable[..., Tensor], rate: Rate, draws: int, source: torch.Generator
) -> dict[tuple[str, int, float], int]:
    kept = {}
    cases = [(n, level) for n in SIZES for level in LEVELS if n >= rows_needed(level, CONFIDENCE)]
    with progress(f"calibrating on {name}", len(cases)) as advance:
        for size, level in cases:
            count = held_count(lambda n: sample(n, source), rate, size, level, draws)
            kept[name, size, level] = count
            figure = f"held_{name}_{size}_{100 * level:g}"
            exact = tolerance_confidence(size, tolerance_rank(size, level, CONFIDENCE), level)
            low, high = stats.binom.ppf([0.005, 0.995], draws, exact) / draws
            band = {"lower": float(low), "reference": f"exact {exact:.4g} without ties"}
            if name == "normal":  # ties make the rate smaller, and draws from a finite population tie
                band["upper"] = float(high)
            study.expectations = {**study.expectations, figure: band}
            study.add(figure, proportion(count, draws))
            advance()
    return kept


def _normal(digits: int | None) -> tuple[Callable[..., Tensor], Rate]:
    """Squared distances from the mean of eight normal features, rounded to ``digits``, and their exact rate."""

    def sample(size: int, source: torch.Generator) -> Tensor:
        scores = torch.randn(size, 8, generator=source, dtype=torch.float64).square().sum(1)
        return scores if digits is None else scores.round(decimals=digits)

    def rate(threshold: float) -> float:
        return float(stats.chi2(8).sf(threshold if digits is None else threshold + 0.5 * 10**-digits))

    return sample, rate


def _resampled(scores: Tensor) -> tuple[Callable[..., Tensor], Rate]:
    """Draws with replacement from a finite population, and its rate beyond a threshold."""

    def sample(size: int, source: torch.Generator) -> Tensor:
        return scores[torch.randint(len(scores), (size,), generator=source)]

    return sample, lambda threshold: float((scores > threshold).double().mean())
