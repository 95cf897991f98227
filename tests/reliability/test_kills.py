"""Long runs that are killed (SIGKILL), while they write or at any time, end as if they had not been."""

from __future__ import annotations

import hashlib
import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bayesmol as bm
from bayesmol.flows import fitted, training
from bayesmol.flows.autoregressive import Autoregressive
from bayesmol.flows.continuous import Continuous
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.discovery import Discovery
from bayesmol.flows.fitted import FittedGenerator
from bayesmol.flows.flow_matching import FlowMatching
from bayesmol.flows.generator import BoltzmannGenerator
from bayesmol.flows.model_densities import double_well
from bayesmol.flows.molecular_coordinates import molecular
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.particle_densities import dw4
from bayesmol.flows.systems import Exploration
from bayesmol.flows.transport import ConstrainedMassTransport
from bayesmol.inference.metropolis import MALA
from bayesmol.persistence import packed

from ..acquisition.conftest import TINY
from ..acquisition.test_campaign import campaign as ethanol_campaign
from ..acquisition.test_on_the_fly import SPEC, water
from ..data.test_label_cache import Counted, batch
from ..test_sampling import water as harmonic_water
from .processes import killed_in_time, killed_writing

EXPLORATION = Exploration(rungs=2, walkers=4, warmup=5, draws=5)


def digest(*parts: Any) -> str:
    """SHA-256 of arrays, bytes and whatever JSON holds."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            part = part.detach().numpy()
        if isinstance(part, np.ndarray):
            part = part.tobytes()
        found.update(part if isinstance(part, bytes) else json.dumps(part, sort_keys=True).encode())
    return found.hexdigest()


def model_digest(model: Any) -> str:
    header, arrays = packed(model)
    return digest(header, *(value.contiguous() for _, value in sorted(arrays.items())))


def always() -> None:
    """Checkpoints of flows and wavefunctions after each step, not each minute."""
    from bayesmol.wavefunctions import training as minimisation

    for module in (training, minimisation):
        module.train.__kwdefaults__["every"] = 0.0


def flow(folder: Path) -> str:
    """Two flows, one after the other, each in its own checkpoint."""
    always()
    transport = ConstrainedMassTransport(Optimisation(steps=8, batch=32, checks=4), rounds=4, draws=100, held_out=16)
    spec = BoltzmannGenerator("cartesian", Couplings(layers=1, width=8, bins=4), transport, EXPLORATION, members=2)
    found = spec.fit(double_well(), seed=0, checkpoint=folder / "flow")
    told = [(one.steps, one.energy_evaluations, one.loss, one.forward_ess) for one in found.trainings]
    return digest(told, *found.weighted(50, seed=1))


def matching(folder: Path) -> str:
    """A continuous flow that learns from chains which the first run alone makes."""
    always()
    flow = Continuous(radial=4, hidden=4, steps=2).build(4, 2, seed=0)
    spec = FlowMatching(Optimisation(steps=6, batch=8), size=16, chains=MALA(warmup=5, draws=4, thin=1))
    found = spec.fit(flow, dw4(), seed=0, checkpoint=folder / "flow")
    return digest([found.steps, found.energy_evaluations, found.loss], *flow.parameters())


def sample(folder: Path) -> str:
    """The command, whose draws are kept after each eight chunks."""
    from bayesmol import cli, sampling

    sampling.CHUNK = 20
    fitted.diagnose = partial(fitted.diagnose, discovery=Discovery(walkers=8, trajectories=2, leapfrogs=2), draws=200)
    source, out = folder / "water.bm", folder / "out.npz"
    if not source.exists():
        density = bm.flows.from_force_field(harmonic_water(), 300.0, name="water")
        system, architecture = molecular(density, seed=0), Autoregressive(width=4, bins=4)
        flow = architecture.build(system.circular, seed=1).double().requires_grad_(False)
        known = (training.Training(0, 0, "not trained"),)
        bm.save(FittedGenerator(density, system, (flow,), known, architecture, (1,)), source)
    cli.app(["sample", str(source), "-n", "490", "-o", str(out), "--seed", "3", "--force"], standalone_mode=False)
    with np.load(out) as found:
        return digest(found["positions"], found["log_weights"], str(found["verdict"]), found["reasons"].tolist())


def potential(folder: Path) -> str:
    """A committee of two networks, each in its own checkpoint."""
    from bayesmol.potentials.network_equivariant import Equivariant
    from bayesmol.potentials.neural import NeuralPotential
    from bayesmol.potentials.neural_sampling import DeepEnsemble
    from bayesmol.potentials.training import Training

    spec = NeuralPotential(
        Equivariant(channels=4, width=4, radial=4), DeepEnsemble(2), Training(epochs=3, batch=4, checks=3)
    )
    data = bm.data.load("rmd17/ethanol")
    return model_digest(spec.fit(data[:12], data[12:16], seed=0, checkpoint=folder / "network"))


def labels(folder: Path) -> str:
    """Labels that are kept one by one."""
    from bayesmol.data.label_cache import Cached

    found = Cached(Counted(), folder / "labels").label(batch(1, 6, 7, 8))
    return digest(found.labelled.fingerprint, found.failures, list(found.hashes))


def campaign(folder: Path) -> str:
    """The ledger of an active-learning campaign, and its model."""
    found = ethanol_campaign(folder / "campaign", budget=12)
    found.run()
    return digest((folder / "campaign" / "ledger.jsonl").read_bytes(), model_digest(found.fitted()))


def on_the_fly(folder: Path) -> str:
    """Ledger, trace and model of a simulation that learns."""
    learned = SPEC.run(folder / "run", water(), 44, seed=1)
    files = [(folder / "run" / name).read_bytes() for name in ("ledger.jsonl", "trace.f64")]
    return digest(*files, model_digest(learned.model), learned.trace.positions)


def wavefunction(folder: Path) -> str:
    """One screened exponent of helium."""
    always()
    from ..wavefunctions.test_training import SETTINGS, trained

    found = trained(bm.wavefunctions.Training(**{**vars(SETTINGS), "steps": 12}), checkpoint=folder / "he.training")
    return digest(found.parameters["screened"].tolist(), found.walkers, found.history.energy, found.snapshots)


def vmc(folder: Path) -> str:
    """The command with so few steps that none of its minutes ends it."""
    always()
    from bayesmol import cli
    from bayesmol import vmc as command
    from bayesmol.wavefunctions.fermi_net import FermiNet

    small = bm.wavefunctions.Training(walkers=16, steps=6, burn_in=20, moves=2)
    command.specification = lambda *_: FermiNet(determinants=1, width=4, layers=1, functions=1, training=small)
    arguments = ["vmc", "H", "--minutes", "600", "--draws", "50", "-o", str(folder / "h.bm"), "--force"]
    cli.app([*arguments, "--json", str(folder / "h.json")], standalone_mode=False)
    figures = json.loads((folder / "h.json").read_text())["figures"]
    return digest(model_weights(folder / "h.bm"), {k: v for k, v in figures.items() if "per_second" not in k})


def model_weights(path: Path) -> str:
    """Weights and walkers of a wavefunction; its history has seconds."""
    _, arrays = packed(bm.load(path))
    return digest(*(value for name, value in sorted(arrays.items()) if "history" not in name))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a run gives that nobody kills; each is made once."""
    known: dict[Any, str] = {}

    def found(run):
        if run not in known:
            known[run] = run(tmp_path_factory.mktemp(run.__name__))
        return known[run]

    return found


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a run changes for its process is as before in the next test."""
    from bayesmol import sampling

    monkeypatch.setattr(sampling, "CHUNK", sampling.CHUNK)
    monkeypatch.setattr(fitted, "diagnose", fitted.diagnose)
    monkeypatch.setitem(training.train.__kwdefaults__, "every", 60.0)


def second_model(folder: Path) -> None:
    bm.save(TINY.fit(bm.data.load("rmd17/ethanol")[:8], seed=0), folder / "model.bm")


@pytest.mark.parametrize("cut", [0, 9])
def test_the_old_model_is_whole_where_the_writer_of_a_new_one_was_killed(cut, tmp_path):
    old = TINY.fit(bm.data.load("rmd17/ethanol")[:6], seed=0)
    bm.save(old, tmp_path / "model.bm")
    killed_writing(second_model, tmp_path, write=1, cut=cut)
    assert model_digest(bm.load(tmp_path / "model.bm")) == model_digest(old)
    assert len(list(tmp_path.iterdir())) == 2, "the new one, half-written"
    second_model(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.bm"]
    assert model_digest(bm.load(tmp_path / "model.bm")) != model_digest(old)


RUNS = [flow, matching, sample, potential, labels, campaign, on_the_fly, wavefunction]
BRIEF = [(flow, 12, 9), (matching, 2, 9), (sample, 3, 9), (potential, 5, 9), (labels, 3, 9), (campaign, 11, 9)]
BRIEF += [(on_the_fly, 9, 9), (wavefunction, 5, 9)]
MORE = [(flow, 3, 0), (sample, 2, 0), (sample, 5, 9), (potential, 2, 0), (labels, 1, 0), (campaign, 12, 9)]
MORE += [(campaign, 29, 0), (on_the_fly, 20, 0), (on_the_fly, 33, 9), (wavefunction, 1, 9), (wavefunction, 13, 0)]
MORE += [(vmc, 1, 9), (vmc, 4, 9), (vmc, 8, 9)]


def named(value):
    return getattr(value, "__name__", value)


@pytest.mark.parametrize(
    ("run", "write", "cut"), [*BRIEF, *(pytest.param(*one, marks=pytest.mark.slow) for one in MORE)], ids=named
)
def test_a_run_that_is_killed_while_it_writes_ends_as_if_it_had_not_been(run, write, cut, undisturbed, tmp_path):
    killed_writing(run, tmp_path, write=write, cut=cut)
    assert run(tmp_path) == undisturbed(run)
    assert not list(tmp_path.rglob(".*.tmp")), "what the killed process left half-written is gone"


@pytest.mark.slow
@pytest.mark.parametrize("run", [*RUNS, vmc], ids=named)
def test_a_run_that_is_killed_at_random_times_ends_as_if_it_had_not_been(run, undisturbed, tmp_path):
    """Each process lives longer than the one before, until one gets to the end."""
    source, seconds = random.Random(20261123), 0.3
    while not killed_in_time(run, tmp_path, seconds=seconds * source.uniform(0.5, 1.5)):
        seconds *= 1.3
    assert run(tmp_path) == undisturbed(run)
