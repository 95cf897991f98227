"""The alarm in molecular dynamics: how often it is false at 300 K, and how soon it finds a jump to 1200 K."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from harness import average
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from bayesmol.applicability import Domain
from bayesmol.applicability.monitor import Monitor
from bayesmol.data import Labelled, Structures
from bayesmol.inference.random import generator
from bayesmol.posterior.estimate import autocorrelation
from bayesmol.potentials import BayesianACE
from bayesmol.potentials.ace_learning import MixingSchedule
from bayesmol.progress import progress
from bayesmol.report import Study, proportion

FALSE_ALARM = 0.01
STEP, FRICTION, INTERVAL = 1.0, 0.02, 10  # fs, 1/fs, steps between watched frames
COLD, HOT = 300.0, 1200.0  # K
SMALL = BayesianACE(cutoffs=(5.0,), channels=(8, 8, 4), degrees=(3, 3, 2), mixing=MixingSchedule(steps=24))


@dataclass(frozen=True)
class Streams:
    """Scores of watched frames, (chains, frames): for calibration, in the domain, and after the jump."""

    calibration: Float[Tensor, "chains frames"]
    usual: Float[Tensor, "chains usual"]
    hot: Float[Tensor, "chains hot"]


def monitor(
    study: Study,
    train: Labelled,
    starts: Structures,
    *,
    calibration: int = 1000,
    steps: int = 100_000,
    jump: int = 1000,
    surrogates: int = 200,
    seed: int,
) -> dict[str, Any]:
    """Simulate, watch, and watch made-up streams of the same memory; plots by name.

    Parameters
    ----------
    starts
        First frame of each chain; the chains are simulated side by side.
    calibration, jump
        Steps of each chain that calibrate the monitor, and steps after the jump.
    steps
        Steps in the domain of all chains together.
    """
    with study.stage("train"):
        model = SMALL.fit(train, seed=seed)
    with study.stage("dynamics"):
        streams = simulated(model, starts, calibration, steps // len(starts), jump, seed)
    evaluations = len(starts) * (300 + calibration + steps // len(starts) + jump)
    study.add("milliseconds_per_step", 1e3 * study.cpu_seconds["dynamics"] / evaluations, "ms")
    return watched(study, streams, steps // INTERVAL, surrogates, seed)


def simulated(
    model: Any, starts: Structures, calibration: int, usual: int, jump: int, seed: int, forget: int = 300
) -> Streams:
    """Langevin dynamics of all chains: 300 K to forget the start, to calibrate and to watch, then 1200 K."""
    source, mass = generator(seed), masses(starts)
    velocities = torch.randn(starts.positions.shape, generator=source, dtype=torch.float64) * (_kt(COLD) / mass).sqrt()
    state, found = (starts, velocities), []
    for temperature, length in ((COLD, forget), (COLD, calibration), (COLD, usual), (HOT, jump)):
        state, scores = langevin(model, *state, temperature, length, source)
        found.append(scores[:, INTERVAL - 1 :: INTERVAL])
    return Streams(*found[1:])


def langevin(
    model: Any, structures: Structures, velocities: Tensor, temperature: float, steps: int, source: torch.Generator
) -> tuple[tuple[Structures, Tensor], Float[Tensor, "chains steps"]]:
    """BAOAB steps of all structures side by side; the scores after each step."""
    from ase import units

    mass, half, keep = masses(structures), STEP * units.fs / 2, math.exp(-FRICTION * STEP)
    kick = math.sqrt(1 - keep**2) * (_kt(temperature) / mass).sqrt()
    scores = structures.positions.new_empty(len(structures), steps)
    forces, _ = forces_and_score(model, structures)
    with progress(f"{temperature:g} K", steps) as advance:
        for step in range(steps):
            velocities = velocities + half * forces / mass
            middle = structures.positions + half * velocities
            noise = torch.randn(velocities.shape, generator=source, dtype=torch.float64)
            velocities = keep * velocities + kick * noise
            structures = replace(structures, positions=middle + half * velocities)
            forces, scores[:, step] = forces_and_score(model, structures)
            velocities = velocities + half * forces / mass
            advance()
    return (structures, velocities), scores


def forces_and_score(model: Any, structures: Structures) -> tuple[Tensor, Float[Tensor, " structures"]]:
    """Forces by one backward pass, in eV/Å, and the strangeness: both from the energy rows alone.

    The same numbers as ``predict`` and ``strangeness`` (but for the inflation, a constant factor) at a third of the
    cost, because no variance of a force is needed.
    """
    positions = structures.positions.detach().requires_grad_(True)
    moved, form = replace(structures, positions=positions), model.model
    design = form.representation.design(form.representation.environments(moved), forces=False)
    white = form.whitened(design.energy, form.representation.composition(moved))
    energy = white @ model.posterior.mean + form.baseline(moved)[0]
    (gradient,) = torch.autograd.grad(energy.sum(), positions)
    return -gradient, (model.posterior.variance(white.detach()) / structures.counts).sqrt()


def watched(study: Study, streams: Streams, frames: int, surrogates: int, seed: int) -> dict[str, Any]:
    """Figures of the alarm on simulated and on made-up streams."""
    made = made_monitor(streams.calibration, frames)
    study.add("alarm_spacing", made.spacing, "frames")
    alarms = [run(made, stream) for stream in streams.usual]
    false = sum(alarm is not None for alarm in alarms)
    study.add("alarm_false_rate_chains", proportion(false, len(alarms)))
    study.add("alarm_false_all_chains", float(run(made, streams.usual.flatten()) is not None))
    start = time.process_time()
    run(made, streams.usual.flatten())
    study.add("alarm_microseconds", 1e6 * (time.process_time() - start) / max(made.frames, 1), "µs")
    delays, reasons = [], []
    for usual, hot in zip(streams.usual, streams.hot, strict=True):
        if run(made, usual) is None:
            alarm = run(made, hot, restart=False)
            delays.append(math.inf if alarm is None else alarm.frame - len(usual))
            reasons.append(None if alarm is None else alarm.reason)
    study.add("alarm_delay_frames", float(torch.tensor(delays).median()), "frames")
    study.add("alarm_found", proportion(sum(map(math.isfinite, delays)), len(delays)))
    study.add("alarm_far_fraction", average(torch.tensor([float(reason == "far") for reason in reasons])))
    with study.stage("surrogates"):
        false = surrogate_alarms(streams.calibration, frames, surrogates, seed)
    study.add("alarm_false_rate", proportion(false, surrogates))
    upper = stats.beta.ppf(0.95, false + 1, surrogates - false)
    study.notes.append(
        f"a frame is every {INTERVAL} steps of {STEP:g} fs; alarm_false_rate: probability of an alarm in {frames} "
        f"frames of made-up streams with the measured autocorrelation and tail, each with a calibration of its own "
        f"(at most {upper:.3f} with 95 % confidence); alarm_false_all_chains: the simulated chains one after the other"
    )
    return {"monitor": drawn(made, streams)}


def made_monitor(calibration: Tensor, frames: int) -> Monitor:
    """Monitor of the simulated frames; a horizon is the whole of what is watched."""
    return Monitor(Domain().calibrate(calibration.flatten()), FALSE_ALARM, trajectory=calibration, horizon=frames)


def run(made: Monitor, scores: Tensor, *, restart: bool = True) -> Any:
    """The alarm of a stream, or none."""
    if restart:
        made.restart()
    for score in scores.tolist():
        if made.update(score) is not None:
            break
    return made.alarm


def surrogate_alarms(calibration: Tensor, frames: int, streams: int, seed: int) -> int:
    """Number of made-up streams, each with a monitor calibrated on a trajectory made in the same way, with an alarm."""
    source, false = generator(seed), 0
    ordered, spectrum = calibration.log().flatten().sort().values, measured_spectrum(calibration.log(), frames)
    tail = _tail_slope(ordered)
    with progress("made-up streams", streams) as advance:
        for _ in range(streams):
            chains, length = calibration.shape
            own = gaussian(spectrum, math.ceil(chains * length / frames) + 1, frames, source)
            old, new = own[:-1].flatten()[: chains * length].reshape(chains, length), own[-1]
            made = made_monitor(marginal(old, ordered, tail).exp(), frames)
            false += run(made, marginal(new, ordered, tail).exp()) is not None
            advance()
    return false


def measured_spectrum(values: Tensor, frames: int) -> Float[Tensor, " frequencies"]:
    """Power spectrum of the measured autocorrelation, up to the lag where it is first below 0.02."""
    rho = autocorrelation(values)
    end = int((rho < 0.02).nonzero()[0]) if bool((rho < 0.02).any()) else len(rho)
    circle = rho.new_zeros(2 * frames)
    circle[:end] = rho[:end]
    circle[-end + 1 :] = rho[1:end].flip(0)
    return torch.fft.rfft(circle).real.clamp_min(0.0)


def gaussian(spectrum: Tensor, chains: int, frames: int, source: torch.Generator) -> Float[Tensor, "chains frames"]:
    """Stationary normal streams of unit variance with this spectrum."""
    white = torch.randn(chains, 2 * frames, generator=source, dtype=torch.float64)
    values = torch.fft.irfft(torch.fft.rfft(white) * spectrum.sqrt(), n=2 * frames)[:, :frames]
    return values / spectrum_scale(spectrum, frames)


def spectrum_scale(spectrum: Tensor, frames: int) -> float:
    """Standard deviation of what :func:`gaussian` makes."""
    return math.sqrt(float(2 * spectrum.sum() - spectrum[0] - spectrum[-1]) / (2 * frames))


def marginal(normal: Tensor, ordered: Tensor, slope: float) -> Tensor:
    """The measured distribution, with an exponential tail (of logarithms) beyond its highest hundredth."""
    upper = torch.special.ndtr(-normal)
    rank = ((1 - upper) * (len(ordered) - 1)).clamp(0, len(ordered) - 1)
    low = rank.floor().long()
    high = (low + 1).clamp_max(len(ordered) - 1)
    body = ordered[low] + (rank - low) * (ordered[high] - ordered[low])
    start = ordered[int(0.99 * len(ordered))]
    return torch.where(upper < 0.01, start + slope * (0.01 / upper).log(), body)


def _tail_slope(ordered: Tensor) -> float:
    top = ordered[int(0.99 * len(ordered)) :]
    return float((top - top[0]).mean())


def masses(structures: Structures) -> Float[Tensor, "atoms 1"]:
    """In atomic units of mass."""
    from ase.data import atomic_masses

    return torch.tensor(atomic_masses[structures.species.numpy()])[:, None]


def _kt(temperature: float) -> float:
    from ase import units

    return units.kB * temperature


def drawn(made: Monitor, streams: Streams, chain: int = 0) -> Any:
    """Score and martingale of one chain against time, with the jump and the alarm."""
    from matplotlib.figure import Figure

    usual = streams.usual[chain][-200:]
    scores = torch.cat([usual, streams.hot[chain]])
    place = (torch.arange(len(scores)) - len(usual)) * INTERVAL * STEP / 1e3
    made.restart()
    wealth = []
    for score in scores.tolist():
        made.update(score)
        wealth.append(made.log_martingale)
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True)
    top.semilogy(place, scores, color="#2f6fb3", lw=0.8)
    for bound, style, window in zip(made._bounds, ("--", ":"), made.windows, strict=False):
        top.axhline(bound, color="#222222", ls=style, lw=0.8, label=f"bound of the mean of {window} frame(s)")
    top.set_ylabel("strangeness / eV")
    below.plot(place, wealth, color="#2f6fb3", lw=1.0)
    below.axhline(math.log(2 / FALSE_ALARM), color="#222222", ls="--", lw=0.8, label="alarm")
    below.set_ylabel("log martingale")
    below.set_xlabel("time after the jump / ps")
    for axes in (top, below):
        axes.axvline(0.0, color="#e09f3e", lw=1.0)
        if made.alarm is not None:
            axes.axvline(
                float(place[made.alarm.frame - 1]), color="#d1495b", lw=1.0, label=f"alarm ({made.alarm.reason})"
            )
        axes.legend(fontsize=7, loc="upper left")
    return figure
