"""VAMPnets on the double well: is the slow rate right, and does its band hold it?"""

from __future__ import annotations

import torch

from bayesmol.data.exact import double_well
from bayesmol.data.exact_spectra import euler_chain
from bayesmol.dynamics.vampnet import VAMPNet
from bayesmol.progress import progress
from bayesmol.report import Study, proportion

__all__ = ["vampnet"]

LEVEL = 0.95
RATE = 0.05552  # of V = 5 (x² − 1)² at kT = 1, of the continuous diffusion


def vampnet(study: Study, *, repeats: int, trajectories: int, frames: int = 161, seed: int = 0) -> None:
    """Fill in coverage of the rate of the simulated chain, and how far the mean rate is from that of the diffusion."""
    spec = VAMPNet(lag=1, states=2, members=3, widths=(16, 16), epochs=12, learning_rate=0.01, draws=400)
    truth = 1 / euler_chain(double_well(), step=1e-3, steps=1000).timescales(1)[0]
    found = []
    with study.stage("vampnet"), progress("VAMPnets", repeats) as advance:
        for k in range(repeats):
            data = double_well().simulate(frames, trajectories=trajectories, step=1e-3, steps=1000, seed=seed + k)
            rates = spec.fit(data, seed=seed + k).timescales().apply(lambda times: 1 / times, "")
            interval = rates.interval(LEVEL)
            found.append([float(rates.mean), float(interval.lower), float(interval.upper)])
            advance()
    mean, lower, upper = torch.tensor(found).unbind(1)
    held = (lower <= truth) & (truth <= upper)
    study.add("vampnet_coverage_95", proportion(int(held.sum()), repeats))
    study.add("vampnet_relative_width", float((upper - lower).mean() / (3.92 * mean.std())))
    study.add("vampnet_rate", float(mean.mean()), error=float(mean.std()) / repeats**0.5)
    study.add("vampnet_rate_error", float(mean.mean()) / RATE - 1)
    study.notes.append(f"the simulated chain has {float(truth):.5f}, the diffusion {RATE}")
