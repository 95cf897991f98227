"""Campaigns that are killed, and campaigns that stop by themselves: do they keep their word?

As a script with a folder it runs the campaign that is killed: ``python active_learning_campaigns.py FOLDER``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

import bayesmol as bm
from bayesmol.acquisition import Campaign, StopRule
from bayesmol.acquisition.history import force_errors
from bayesmol.data import Labelled, Source
from bayesmol.data.labelling import Frame, Reference, Result
from bayesmol.data.reference import TBLite
from bayesmol.inference.random import numpy_generator
from bayesmol.potentials import BayesianACE
from bayesmol.potentials.ace_learning import MixingSchedule
from bayesmol.progress import progress
from bayesmol.report import Study, proportion

SMALL = BayesianACE(cutoffs=(5.0,), channels=(4, 4, 2), mixing=MixingSchedule(steps=0))


@dataclass(frozen=True)
class Known(Reference):
    """Labels that were published, of a set that ships."""

    name: str = "rmd17/ethanol"
    library = "torch"

    @property
    def source(self) -> Source:
        """That of the set."""
        return bm.data.load(self.name).source

    def calculation(self) -> Callable[[Frame], Result]:
        """Look the structure up by its positions."""
        known = bm.data.load(self.name)
        forces = known.forces.split(known.structures.counts.tolist())
        positions = known.structures.positions.split(known.structures.counts.tolist())
        places = {part.numpy().tobytes(): place for place, part in enumerate(positions)}

        def calculate(frame: Frame) -> Result:
            place = places[frame.positions.tobytes()]
            return Result(float(known.energies[place]), forces[place].numpy())

        return calculate


def killed_campaign(folder: Path) -> Campaign:
    """Ethanol with labels by GFN2-xTB: a third of a minute of fits, updates, choices and labels."""
    pool = bm.data.load("rmd17/ethanol")[:80].structures
    return Campaign(folder, SMALL, pool, TBLite("GFN2-xTB"), budget=40, size=4, holdout=8, refit=1.5, seed=1)


def kill(study: Study, folder: Path, *, kills: int, seed: int) -> None:
    """Kill the campaign at random moments; resumed, it must end with the ledger and the model of one left alone."""
    whole, source = folder / "whole", numpy_generator(seed)
    with study.stage("left alone"):
        process = _child(whole)
        start = time.perf_counter()
        process.wait()
    duration = time.perf_counter() - start
    same, on_the_way = 0, 0
    with progress("killing", kills) as advance, study.stage("killed and resumed"):
        for number in range(kills):
            own = folder / f"kill-{number}"
            process = _child(own)
            time.sleep(float(source.uniform(0, duration)))
            process.kill()
            on_the_way += process.wait() != 0
            _child(own).wait()
            same += _result(own) == _result(whole)
            advance()
    study.add("resumed_identically", proportion(same, kills))
    study.add("killed_on_the_way", on_the_way)
    study.add("campaign_wall_seconds", duration, "s")
    study.add("replayed_decisions", killed_campaign(whole).replay())


def stop(study: Study, folder: Path, *, campaigns: int, target: float, share: float, seed: int) -> None:
    """Campaigns on published labels that stop by themselves: how often is the error then what the rule says?"""
    known = bm.data.load("rmd17/ethanol")
    held = stopped = saved = 0
    forecasts: list[bool] = []
    with progress("campaigns", campaigns) as advance, study.stage("campaigns"):
        for number in range(campaigns):
            order = torch.from_numpy(numpy_generator(seed + number).permutation(len(known)))
            campaign = _stopping(folder / f"stop-{number}", known[order[:200]], target, share, seed + number)
            history = campaign.run()
            done = history.finished == "target"
            stopped += done
            held += not done or _share(campaign, known[order[200:700]], target) >= share
            saved += history.budget - history.spent
            if len(history.checks) >= 4:
                forecasts.append(_foreseen(history.checks))
            advance()
    study.add("stop_rule_held_fraction", proportion(held, campaigns))
    study.add("stopped_fraction", proportion(stopped, campaigns))
    study.add("labels_not_needed", saved / campaigns)
    if forecasts:
        study.add("forecast_coverage_90", proportion(sum(forecasts), len(forecasts)))


def _stopping(folder: Path, frames: Labelled, target: float, share: float, seed: int) -> Campaign:
    rule = StopRule(target, share=share)
    options = {"rank": 64}
    return Campaign(
        folder,
        SMALL,
        frames.structures,
        Known(),
        budget=180,
        size=20,
        holdout=60,
        stop=rule,
        options=options,
        refit=100,
        seed=seed,
    )


def _share(campaign: Campaign, test: Labelled, target: float) -> float:
    """Share of structures that nobody has seen with an error within the target."""
    errors = force_errors(campaign.fitted().predict(test.structures), test)
    return float((errors <= target).double().mean())


def _foreseen(checks: list[dict]) -> bool:
    """Whether the learning curve without its last point foresees the labels at which its last error is reached."""
    labels, means = ([check[name] for check in checks] for name in ("labels", "mean"))
    found = bm.acquisition.forecast(labels[:-1], means[:-1], means[-1], level=0.9)
    return bool(found.lower <= labels[-1] <= found.upper)


def _child(folder: Path) -> subprocess.Popen:
    """The campaign in a process of its own, once it has imported everything."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, __file__, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    with process.stdout as said:
        said.readline()
    return process


def _result(folder: Path) -> tuple[bytes, bytes]:
    """Ledger and last model of a campaign, byte by byte."""
    models = sorted((folder / "models").iterdir(), key=lambda path: int(path.name.split("-")[0]))
    return (folder / "ledger.jsonl").read_bytes(), models[-1].read_bytes()


if __name__ == "__main__":
    print("ready", flush=True)
    killed_campaign(Path(sys.argv[1])).run()
