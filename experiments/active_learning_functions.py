"""Do acquisition functions do what they promise, on problems with known answers?

Optimisation of the Branin function with true and with wrong standard deviations, expected information against its
closed form, hypervolume against draws, what a search for the Pareto front costs elsewhere, and the time of an update.
"""

import math
import time
import warnings

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from bayesmol.acquisition.improvement import log_expected_improvement
from bayesmol.acquisition.information import expected_information_gain, monte_carlo_information
from bayesmol.acquisition.pareto import hypervolume, non_dominated, shell_error
from bayesmol.inference.conjugate import posterior_from_rows
from bayesmol.inference.random import generator
from bayesmol.inference.streaming import Stream
from bayesmol.posterior import Gaussian
from bayesmol.progress import progress
from bayesmol.report import Study

BRANIN_MINIMUM = 0.397887
SCALES = {"": 1.0, "_overconfident": 0.1, "_timid": 10.0}
START = 6  # first points, from a Sobol sequence


def functions(study: Study, *, seed: int, runs: int = 20, calls: int = 30, draws: int = 8000) -> None:
    """All figures of this file."""
    with study.stage("branin", "optimisation of the Branin function"):
        optimisation(study, seed=seed, runs=runs, calls=calls)
    with study.stage("regret", "optimisation of functions drawn from the model"):
        regret(study, seed=seed, runs=10 * runs)
    with study.stage("information", "expected information"):
        information(study, seed=seed, draws=draws)
    with study.stage("pareto", "hypervolume and Pareto shells"):
        hypervolume_check(study, seed=seed)
        fronts(study, seed=seed, runs=runs)
    with study.stage("stream", "updates"):
        stream(study, seed=seed)


def branin(x: Float[Tensor, "points 2"]) -> Float[Tensor, " points"]:
    """The Branin function of points of the unit square, mapped to [−5, 10] × [0, 15]; its minimum is 0.397887."""
    a, b = 15 * x[:, 0] - 5, 15 * x[:, 1]
    curve = b - 5.1 / (4 * math.pi**2) * a.square() + 5 / math.pi * a - 6
    return curve.square() + 10 * (1 - 1 / (8 * math.pi)) * a.cos() + 10


def optimisation(study: Study, *, seed: int, runs: int, calls: int) -> None:
    """Gap to the minimum after ``calls`` evaluations, with standard deviations as they are, a tenth, and tenfold.

    All three start from the same points in a run, so their differences are paired.
    """
    gaps = {name: [] for name in SCALES}
    with progress("optimising Branin", runs * len(SCALES)) as advance:
        for run in range(runs):
            for name, scale in SCALES.items():
                gaps[name].append(search(seed=1000 * seed + run, calls=calls, scale=scale))
                advance()
    tables = {name: torch.stack(parts) for name, parts in gaps.items()}
    for name, table in tables.items():
        study.add(f"branin_gap_median{name}", float(table[:, -1].median()))
        reached = torch.where(table <= 1e-2, torch.arange(1, calls + 1), calls + 1).amin(1)
        study.add(f"branin_calls_median{name}", float(reached.double().median()))
        study.add(f"branin_reached{name}", float((table[:, -1] <= 1e-2).double().mean()))
    for name in list(SCALES)[1:]:
        worse = tables[name][:, -1].log() - tables[""][:, -1].log()
        study.add(f"branin_p_value{name}", float(stats.wilcoxon(worse.numpy(), alternative="greater").pvalue))
    study.notes.append(
        f"branin: target gap ≤ 1e-2 in ≤ 30 calls, median of 20 runs ({START} calls of each are the start; a count of "
        f"{calls + 1} means not reached); p: one-sided Wilcoxon test that a wrong deviation leaves a larger gap"
    )


def search(*, seed: int, calls: int, scale: float) -> Float[Tensor, " calls"]:
    """Gap of the best value to the minimum after each call, by expected improvement on a Gaussian process (sklearn)."""
    sobol = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed)
    points = sobol.draw(START, dtype=torch.float64)
    values, source = branin(points), generator(seed)
    for _ in range(calls - START):
        process = _fitted(points, values)
        new = _best(process, sobol.draw(1024, dtype=torch.float64), float(values.min()), scale, source)
        points, values = torch.cat([points, new]), torch.cat([values, branin(new)])
    return values.cummin(0).values - BRANIN_MINIMUM


def _fitted(points: Tensor, values: Tensor):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern

    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * Matern([0.3, 0.3], (0.03, 10.0), nu=2.5)
    process = GaussianProcessRegressor(kernel, alpha=1e-8, normalize_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound is no failure here
        return process.fit(points.numpy(), values.numpy())


def _best(process, candidates: Tensor, best: float, scale: float, source: torch.Generator) -> Float[Tensor, "1 2"]:
    """Point with the largest improvement: the best of the candidates, refined in boxes that shrink around it."""
    chosen, top = candidates[:1], -math.inf
    for radius in (0.0, 0.05, 0.01, 0.002):
        if radius:
            step = radius * (2 * torch.rand(256, 2, generator=source, dtype=torch.float64) - 1)
            candidates = (chosen + step).clamp(0.0, 1.0)
        mean, deviation = process.predict(candidates.numpy(), return_std=True)
        posterior = Gaussian(torch.from_numpy(mean), torch.from_numpy(scale * deviation).square(), unit="")
        gains = log_expected_improvement(posterior, best, goal="minimise")
        if float(gains.max()) > top:
            chosen, top = candidates[gains.argmax()].unsqueeze(0), float(gains.max())
    return chosen


def regret(study: Study, *, seed: int, runs: int, calls: int = 25, candidates: int = 300) -> None:
    """Gap to the lowest of some candidates, of functions drawn from the model itself: its deviations are then true.

    On Branin all three minima are equally low, so that nobody is punished for staying at the first; here somebody is.
    """
    rows = []
    with progress("functions of the model", runs) as advance:
        for run in range(runs):
            rows.append([_regret(run + 10_000 * seed, scale, calls, candidates) for scale in SCALES.values()])
            advance()
    table = torch.tensor(rows, dtype=torch.float64)
    for column, name in enumerate(SCALES):
        study.add(f"regret{name}", float(table[:, column].mean()), error=_error(table[:, column]))
        if column:
            gap = (table[:, column] - table[:, 0]).numpy()
            p_value = stats.ttest_1samp(gap, 0.0, alternative="greater").pvalue
            study.add(f"regret_p_value{name}", float(p_value))
    study.notes.append(
        f"regret: gap after {calls} of {candidates} candidates in prior deviations, mean of {runs} functions; p: "
        "one-sided paired t-test that a wrong standard deviation leaves a larger one"
    )


def _regret(seed: int, scale: float, calls: int, candidates: int) -> float:
    source = generator(seed)
    places = torch.rand(candidates, 2, generator=source, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (torch.cdist(places, places) / 0.15).square())
    kernel = kernel + 1e-8 * torch.eye(candidates, dtype=torch.float64)
    truth = torch.linalg.cholesky(kernel) @ torch.randn(candidates, generator=source, dtype=torch.float64)
    chosen = torch.randperm(candidates, generator=source)[:5].tolist()
    while len(chosen) < calls:
        gain = torch.linalg.solve(kernel[chosen][:, chosen], kernel[chosen]).T
        variance = scale**2 * (1 - (gain * kernel[:, chosen]).sum(1)).clamp_min(1e-12)
        posterior = Gaussian(gain @ truth[chosen], variance, unit="")
        values = log_expected_improvement(posterior, float(truth[chosen].min()), goal="minimise")
        values[chosen] = -math.inf
        chosen.append(int(values.argmax()))
    return float(truth[chosen].min() - truth.min())


def information(study: Study, *, seed: int, draws: int) -> None:
    """Bounds of the expected information of linear designs by Monte Carlo, as fractions of the closed form."""
    source, noise, errors = generator(seed), 0.5, []
    for _ in range(5):
        design = torch.randn(4, 3, generator=source, dtype=torch.float64)
        weights = torch.randn(draws, 3, generator=source, dtype=torch.float64)

        def simulate(w: Tensor, s: torch.Generator, x: Tensor = design) -> Tensor:
            return w @ x.T + noise * torch.randn(len(w), len(x), generator=s, dtype=torch.float64)

        def log_likelihood(y: Tensor, w: Tensor, x: Tensor = design) -> Tensor:
            return -0.5 * (torch.cdist(y, w @ x.T) / noise).square()

        exact = float(expected_information_gain(design, noise))
        found = monte_carlo_information(weights, simulate, log_likelihood, seed=source)
        errors.append(max(abs(float(bound.value) / exact - 1) for bound in (found.lower, found.upper)))
    study.add("information_relative_error", max(errors))
    study.notes.append("information: the worse bound of the worst of five designs; target ≤ 0.02")


def hypervolume_check(study: Study, *, seed: int, size: int = 2**16) -> None:
    """Expected hypervolume improvement in closed form (BoTorch through the bridge) against draws."""
    from bayesmol.acquisition.botorch import candidate_model, hypervolume_improvement

    source = generator(seed)
    mean, spread = (torch.randn(5, 2, generator=source, dtype=torch.float64) for _ in range(2))
    outputs = [Gaussian(mean[:, k], spread[:, k].square(), unit="") for k in range(2)]
    observed = torch.tensor([[0.8, -0.6], [0.1, 0.2], [-0.7, 0.9]], dtype=torch.float64)
    reference = torch.tensor([-2.0, -2.0], dtype=torch.float64)
    exact = hypervolume_improvement(candidate_model(outputs, goals="maximise"), observed, reference)
    uniform = torch.quasirandom.SobolEngine(2, scramble=True, seed=seed).draw(size, dtype=torch.float64)
    normal = torch.special.ndtri(uniform.clamp(1e-12, 1 - 1e-12))
    drawn = torch.stack(
        [added(m + s.abs() * normal, observed, reference).mean() for m, s in zip(mean, spread, strict=True)]
    )
    study.add("hypervolume_improvement_error", float((drawn / exact - 1).abs().max()))
    study.notes.append("hypervolume improvement: largest relative difference of closed form and draws; target ≤ 1e-3")


def added(
    points: Float[Tensor, "points 2"], observed: Float[Tensor, "front 2"], reference: Float[Tensor, "2"]
) -> Float[Tensor, " points"]:
    """Hypervolume that each point alone adds to the observed ones, both objectives to be maximised."""
    front = (observed - reference).clamp_min(0.0)
    front = front[front[:, 0].argsort()]
    gain = (points - reference).clamp_min(0.0)
    edges = torch.cat([front.new_zeros(1), front[:, 0], front.new_full((1,), math.inf)])
    # Right of an edge, the height that is taken is that of the best point beyond it.
    heights = torch.cat([front[:, 1].flip(0).cummax(0).values.flip(0), front.new_zeros(1)])
    width = (torch.minimum(gain[:, :1], edges[1:]) - edges[:-1]).clamp_min(0.0)
    return (width * (gain[:, 1:] - heights).clamp_min(0.0)).sum(1)


def fronts(study: Study, *, seed: int, runs: int, calls: int = 25, candidates: int = 200) -> None:
    """Labels for the front against labels for everywhere: hypervolume, error on the front, error over all candidates.

    Two functions drawn from a Gaussian process over random points of the unit square, whose kernel the model knows; the
    next label is that of the largest expected hypervolume improvement, or of the largest variance.
    """
    rows = []
    with progress("Pareto fronts", runs) as advance:
        for run in range(runs):
            rows.append([_front(run + 1000 * seed, rule, calls, candidates) for rule in ("front", "variance")])
            advance()
    table = torch.tensor(rows, dtype=torch.float64)  # runs, rules, (hypervolume, shell error, error)
    for column, name in enumerate(("hypervolume_share", "shell_error", "global_error")):
        gap = table[:, 0, column] - table[:, 1, column]
        for rule, kind in enumerate(("front", "variance")):
            study.add(f"{name}_{kind}", float(table[:, rule, column].mean()), error=_error(table[:, rule, column]))
        side = {"hypervolume_share": "greater", "shell_error": "less", "global_error": "greater"}[name]
        study.add(f"{name}_p_value", float(stats.wilcoxon(gap.numpy(), alternative=side).pvalue))
    study.notes.append(
        f"fronts: {calls} labels of {candidates} candidates, {runs} pairs of functions; a search for the front is to "
        "have a larger hypervolume and a larger error over all candidates (target p < 0.01 for both)"
    )


def _front(seed: int, rule: str, calls: int, candidates: int, noise: float = 1e-3) -> list[float]:
    """Share of the hypervolume that is found, error on the true front, error over all candidates."""
    from bayesmol.acquisition.botorch import candidate_model, hypervolume_improvement

    source = generator(seed)
    places = torch.rand(candidates, 2, generator=source, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (torch.cdist(places, places) / 0.2).square()) + 1e-8 * torch.eye(candidates).double()
    root = torch.linalg.cholesky(kernel)
    truth = root @ torch.randn(candidates, 2, generator=source, dtype=torch.float64)
    reference = truth.amin(0) - 0.1
    chosen = torch.randperm(candidates, generator=source)[:5].tolist()
    while True:
        gram = kernel[chosen][:, chosen] + noise**2 * torch.eye(len(chosen)).double()
        gain = torch.linalg.solve(gram, kernel[chosen]).T
        mean, covariance = gain @ truth[chosen], kernel - gain @ kernel[chosen]
        if len(chosen) == calls:
            break
        variance = covariance.diagonal().clamp_min(0.0).clone()
        if rule == "variance":
            values = variance
        else:
            outputs = [Gaussian(mean[:, k], variance, unit="") for k in range(2)]
            values = hypervolume_improvement(candidate_model(outputs, goals="maximise"), truth[chosen], reference)
        values[chosen] = -math.inf
        chosen.append(int(values.argmax()))
    found = hypervolume(truth[chosen], reference, goals="maximise")
    whole = hypervolume(truth[non_dominated(truth, goals="maximise")], reference, goals="maximise")
    shell = float(shell_error(mean, truth, goals="maximise").square().mean().sqrt())
    return [found / whole, shell, float((mean - truth).square().mean().sqrt())]


def stream(study: Study, *, seed: int, features: int = 500, updates: int = 60) -> None:
    """Time of one update of a stream with its new posterior, and its distance from the batch."""
    source = generator(seed)
    truth = torch.randn(features, generator=source, dtype=torch.float64)
    phi = torch.randn(updates, 3, features, generator=source, dtype=torch.float64)
    targets = phi @ truth + 0.1 * torch.randn(updates, 3, generator=source, dtype=torch.float64)
    noise, state, times = torch.full((3,), 0.01, dtype=torch.float64), Stream.empty(features), []
    for rows, labels in zip(phi, targets, strict=True):
        start = time.process_time()
        state = state.updated(rows, labels, noise)
        mean = state.posterior.mean
        times.append(1e3 * (time.process_time() - start))
    batch = posterior_from_rows(phi.flatten(0, 1), targets.flatten(), noise.repeat(updates))
    probe = torch.randn(50, features, generator=source, dtype=torch.float64)
    gaps = [(mean - batch.mean).abs().max(), (state.posterior.covariance(probe) - batch.covariance(probe)).abs().max()]
    study.add("stream_update_ms", float(torch.tensor(times).median()))
    study.add("stream_batch_difference", float(torch.stack(gaps).max()))
    study.notes.append(f"stream: median CPU ms of update and posterior at {features} weights, target ≤ 10; ≤ 1e-8")


def _error(values: Tensor) -> float:
    return float(values.std() / len(values) ** 0.5)
