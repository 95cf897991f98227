"""Dynamic mode decomposition: do the intervals of frequencies cover, and what is in sea-surface temperatures."""

from __future__ import annotations

import importlib.util
import math
import time
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from harness import relative_width
from torch import Tensor

from bayesmol.dynamics.dmd_posterior import DMD, FittedDMD
from bayesmol.errors import ConvergenceError
from bayesmol.inference.random import generator
from bayesmol.progress import progress
from bayesmol.report import Study, proportion

__all__ = ["dmd", "sea_surface", "toy"]

LEVEL = 0.95
FREQUENCIES = (2.3, 2.8)
RANKS = {"real": 4, "complex": 2}
PEER_REPEATS = 30
BAND = (2.0, 7.0)


def toy(field: str = "real") -> tuple[Tensor, Tensor]:
    """Times and the two oscillating modes of PyDMD's tutorial 14, 129 times at 65 places, or their real part."""
    places = torch.linspace(-5, 5, 65, dtype=torch.float64)
    times = torch.linspace(0, 4 * math.pi, 129, dtype=torch.float64)
    first = torch.exp(1j * FREQUENCIES[0] * times)[:, None] / torch.cosh(places + 3)
    second = 2 * torch.exp(1j * FREQUENCIES[1] * times)[:, None] * torch.tanh(places) / torch.cosh(places)
    return times, (first + second).real if field == "real" else first + second


def dmd(study: Study, repeats: int = 1000, sigmas: Sequence[float] = (0.1, 0.5), seed: int = 0) -> None:
    """Fill in coverage, width and CPU seconds of 95 % intervals of the two frequencies, and the same of PyDMD.

    Widths are over 3.92 times the standard deviation of the estimates over the repeats. The headline is the real
    field; the complex one has noise of standard deviation sigma in each part. PyDMD sees the first 30 of the same data
    sets, with 100 bags of 80 % and intervals of ±1.96 of the standard deviation that it reports.
    """
    source = generator(seed)
    peer = importlib.util.find_spec("pydmd") is not None
    found: dict[tuple[str, str, float], list[Tensor]] = {}
    clocks: dict[str, list[float]] = {}
    failed = 0
    with progress("DMD", len(RANKS) * len(sigmas) * repeats) as advance:
        for field in RANKS:
            for sigma in sigmas:
                for k in range(repeats):
                    times, data = _noisy(field, sigma, source)
                    methods = {"ours": _ours} | ({"pydmd": _bopdmd} if peer and k < PEER_REPEATS else {})
                    for name, method in methods.items():
                        clock = time.process_time()
                        try:
                            result = method(times, data, RANKS[field], k)
                        except np.linalg.LinAlgError:
                            failed += 1
                            continue
                        clocks.setdefault(name, []).append(time.process_time() - clock)
                        found.setdefault((name, field, sigma), []).append(result)
                    advance()
    _summarise(study, {key: torch.stack(rows) for key, rows in found.items()}, clocks)
    if failed:
        study.notes.append(f"PyDMD gave no result for {failed} data sets, which are not counted")
    if not peer:
        study.notes.append("PyDMD is not installed: no comparison")


def _noisy(field: str, sigma: float, source: torch.Generator) -> tuple[Tensor, Tensor]:
    times, clean = toy(field)
    sides = math.sqrt(2) if field == "complex" else 1.0
    return times, clean + sides * sigma * torch.randn(clean.shape, generator=source, dtype=clean.dtype)


def _ours(times: Tensor, data: Tensor, rank: int, seed: int) -> Tensor:
    """Estimate, lower and upper end of both angular frequencies, (3, 2)."""
    fit = DMD(rank=rank).fit(data, times=times, seed=seed)
    interval = fit.exponents.interval(LEVEL)
    rows = torch.stack([fit.estimate.imag, interval.lower[:, 1], interval.upper[:, 1]])
    return rows[:, rows[0].argsort()]


def _bopdmd(times: Tensor, data: Tensor, rank: int, seed: int) -> Tensor:
    from pydmd import BOPDMD

    constraints = {} if data.is_complex() else {"eig_constraints": {"conjugate_pairs"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.random.seed(seed)  # PyDMD draws its bags from numpy's global state
        peer = BOPDMD(svd_rank=rank, num_trials=100, trial_size=0.8, **constraints)
        peer.fit(data.mT.numpy(), times.numpy())
    value, spread = torch.as_tensor(peer.eigs.imag.copy()), torch.as_tensor(peer.eigenvalues_std.real.copy())
    keep = value > 0
    rows = torch.stack([value, value - 1.96 * spread, value + 1.96 * spread])[:, keep]
    return rows[:, rows[0].argsort()][:, :2]


def _summarise(study: Study, found: dict[tuple[str, str, float], Tensor], clocks: dict[str, list[float]]) -> None:
    truth = torch.tensor(FREQUENCIES, dtype=torch.float64)
    for name in clocks:
        end = "" if name == "ours" else f"_{name}"
        for field in RANKS:
            keys = [key for key in found if key[:2] == (name, field)]
            hits = torch.cat([((rows[:, 1] <= truth) & (truth <= rows[:, 2])) for rows in (found[k] for k in keys)])
            middle = "" if field == "real" else f"_{field}"
            study.add(f"dmd_coverage_95{middle}{end}", proportion(int(hits.sum()), hits.numel()))
            widths = [relative_width(*found[key].unbind(1), level=LEVEL) for key in keys]
            study.add(f"dmd_relative_width{middle}{end}", sum(widths) / len(widths))
            for key in keys:
                inside = (found[key][:, 1] <= truth) & (truth <= found[key][:, 2])
                study.add(f"dmd_coverage_95{middle}_{key[2]:g}{end}", proportion(int(inside.sum()), inside.numel()))
        study.add(f"dmd_cpu_seconds{end}", sum(clocks[name]) / len(clocks[name]), "s")
    if "pydmd" in clocks:
        ratio = study.figures["dmd_cpu_seconds_pydmd"].value / study.figures["dmd_cpu_seconds"].value
        study.add("dmd_ratio_to_pydmd", ratio)


def sea_surface(study: Study, seed: int = 0, *, surrogates: int = 99, rank: int = 9, delays: int = 120) -> None:
    """Modes of the monthly sea-surface temperature off Peru, 1950 to 2010, beside red noise with the same seasons.

    Delay coordinates of ``delays`` months give the start; the likelihood is that of the series itself, with a
    covariance from blocks of three years: the interval ``line`` of a mode, which holds if it is one. The strongest mode
    of 2 to 7 years is judged by its mean square against that of AR(1) noise added to the mean of each month, and its
    interval is that of the strongest mode found in the fitted series with AR(1) noise like its residual: that sees
    that another peak may win. A surrogate that cannot be fitted counts as stronger, and as beyond both ends.
    """
    source = generator(seed)
    spec = DMD(rank=rank, delays=delays, block=36)
    with study.stage("sea_surface"), progress("surrogates", surrogates) as advance:
        series, climate = _series()
        fit = spec.fit(series, time_step=1 / 12, unit="yr", seed=source)
        periods = 2 * math.pi / fit.estimate.imag.clamp_min(1e-9)
        _report(study, "annual", fit, int((periods - 1).abs().argmin()))
        strongest = _strongest(fit)
        if strongest is None:
            study.notes.append("no mode between 2 and 7 years was found in the sea-surface temperature")
            return
        _report(study, "interannual_line", fit, strongest[1])
        null, again = [], []
        for _ in range(surrogates):
            null.append(_refitted(spec, climate + _red(series - climate, source), source)[0])
            again.append(_refitted(spec, series - fit.residual + _red(fit.residual, source), source)[1])
            advance()
    for name, end in zip(("lower", "upper"), _ends(again), strict=True):
        study.add(f"sea_surface_interannual_{name}", end, "yr")
    p_value = (1 + sum(size >= strongest[0] for size in null)) / (1 + surrogates)
    study.add("sea_surface_interannual_p_value", p_value)
    study.add("sea_surface_residual_correlation", fit.residual_correlation)
    verdict = "stands above" if p_value <= 1 - LEVEL else "does not stand above"
    study.notes.append(f"the interannual mode {verdict} red noise with the same seasons (p = {p_value:.2f})")


def _series() -> tuple[Tensor, Tensor]:
    """Temperature in °C, one value a month, and the mean of each month."""
    import numpy as np
    from statsmodels.datasets import elnino

    table = np.asarray(elnino.load_pandas().data)[:, 1:].astype(float)
    values = torch.as_tensor(table)
    return values.reshape(-1, 1), values.mean(0).repeat(len(values))[:, None]


def _report(study: Study, name: str, fit: FittedDMD, index: int) -> None:
    """Period with its standard error by the delta method, and its interval; infinite if the frequency may be zero."""
    frequencies = fit.frequencies[index : index + 1]
    lower, upper = (float(end) for end in (frequencies.interval(LEVEL).lower, frequencies.interval(LEVEL).upper))
    period = 2 * math.pi / float(fit.estimate[index].imag)
    study.add(
        f"sea_surface_{name.removesuffix('_line')}_period", period, "yr", error=period**2 * float(frequencies.stddev)
    )
    study.add(f"sea_surface_{name}_lower", 1 / upper, "yr")
    study.add(f"sea_surface_{name}_upper", 1 / lower if lower > 0 else math.inf, "yr")


def _strongest(fit: FittedDMD) -> tuple[float, int] | None:
    """Mean square of the strongest mode in the band, in °C², and its place; modes come by their energy."""
    periods = 2 * math.pi / fit.estimate.imag.clamp_min(1e-9)
    inside = ((periods >= BAND[0]) & (periods <= BAND[1])).nonzero().flatten()
    return (float(fit.mean_squares[inside[0]]), int(inside[0])) if len(inside) else None


def _refitted(spec: DMD, series: Tensor, source: torch.Generator) -> tuple[float, float]:
    """Mean square and period of the strongest mode in the band of a surrogate; no period where there is none."""
    try:
        fit = spec.fit(series, time_step=1 / 12, unit="yr", seed=source)
    except ConvergenceError:
        return math.inf, math.nan
    found = _strongest(fit)
    return (0.0, math.nan) if found is None else (found[0], 2 * math.pi / float(fit.estimate[found[1]].imag))


def _ends(periods: list[float]) -> tuple[float, float]:
    """Order statistics at the level, a missing period being beyond both ends; the whole line where they are too few."""
    rank = math.floor((1 - LEVEL) / 2 * (len(periods) + 1))
    if rank < 1:
        return 0.0, math.inf
    lower = sorted(0.0 if math.isnan(period) else period for period in periods)
    upper = sorted(math.inf if math.isnan(period) else period for period in periods)
    return lower[rank - 1], upper[-rank]


def _red(anomaly: Tensor, source: torch.Generator) -> Tensor:
    """AR(1) noise of the variance and the correlation at one month of the anomaly."""
    centred = anomaly - anomaly.mean()
    memory = float((centred[1:] * centred[:-1]).sum() / centred.square().sum())
    kicks = torch.randn(len(anomaly), generator=source, dtype=torch.float64)
    values, level = [], float(kicks[0])
    for kick in kicks[1:].tolist():
        values.append(level)
        level = memory * level + math.sqrt(1 - memory**2) * kick
    return torch.tensor([*values, level], dtype=torch.float64)[:, None] * centred.std()
